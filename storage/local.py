"""Local: the backend for folders, on the operating system's own calls.

Content is made durable by fsync of the file, names by fsync of the folder that holds them. POSIX promises neither
without its own call (Pillai et al., "All File Systems Are Not Created Equal", OSDI 2014).
"""

from __future__ import annotations

import contextlib
import errno
import mmap
import os
import shutil
import stat
import threading
import uuid
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from msgspec.structs import replace

from ..errors import ConfigError, KeepbestError, NotARunError, ObjectNotFoundError, StorageError
from . import progress
from .backend import Capabilities, Chunk, Entry, Link, bytes_of
from .direct import LARGE, write_all, write_large
from .layout import CHECKPOINTS, COMMITS, TEMPORARY_PREFIX, checkpoint_of, temporary_of
from .local_files import (
    NO_LINKS,
    NOT_FOLLOWED,
    LocalAppender,
    link_or_copy,
    new_file,
    open_inside,
    remove,
    rename,
    sync_folder,
    temporary_beside,
    translate,
    writable_above,
)
from .printable import without_password
from .reflinks import shares_blocks
from .spare_files import SpareFiles, knows_all_users
from .unsynced import UnsyncedFiles

_ELSEWHERE = frozenset((errno.EACCES, errno.EPERM, errno.EROFS, errno.EXDEV))
"""What is said where the run may only be read, or lies on another file system than what is published."""
_LARGEST_READ = 4 << 30
"""Bytes that `read` reads. Tensors are mapped, and all else is short, but a file of a stranger need not be."""
_WITHOUT_LINKS = threading.Lock()
"""Where the file system cannot decide between two writers, at least the threads of this process take turns."""


def open_backend(url: str, storage_options: Mapping[str, Any]) -> LocalBackend:
    """Return the backend for a path or a `file://` URL."""
    if storage_options:
        raise ConfigError(
            f"a local folder takes no storage_options (got {', '.join(storage_options)} for {url}). Leave them out."
        )
    return LocalBackend(local_path(url))


def local_path(url: str) -> Path:
    """Return the absolute path that a path or `file://` URL means.

    Raises:
        ConfigError: it is a URL of another kind, or begins with the home of a user who has none.
    """
    scheme, found, rest = url.partition("://")
    if found and scheme not in {"file", "local"}:
        raise ConfigError(
            f"{without_password(url)} is no local path, and a run in a local folder can place files only there."
        )
    path = unquote(rest) if found else url
    if "\0" in path:
        raise ConfigError(f"{url} is no path: it holds a zero byte.")
    try:
        return Path(path).expanduser().absolute()
    except RuntimeError as error:
        raise ConfigError(f"{url}: whose home that is, is not known. Write the path out.") from error


class LocalBackend:
    """A folder of a local file system."""

    def __init__(self, root: Path) -> None:
        self.url = str(root)
        self.capabilities = Capabilities(put_if_absent=True, links=True)
        """What else the file system can do is found out when the first large file is put."""
        self._asked = False
        self._spares = SpareFiles()
        self._unsynced = UnsyncedFiles()
        self._appenders: list[LocalAppender] = []
        self._unsettled: set[str] = set()
        self._known: set[str] = set()
        """Folders that we made, or found and whose names, and those of the folders above, we made durable once more."""
        self._lock = threading.Lock()
        self._settling = threading.Lock()
        self._told_of_links = False
        with self._translated(self.url, "read"), contextlib.suppress(FileNotFoundError):
            if not stat.S_ISDIR(os.stat(root).st_mode):
                raise NotARunError(self.url, "is a file, not a folder")

    def put(self, key: str, chunks: Iterable[Chunk], *, base: str | None = None, spare: str | None = None) -> int:
        """Write a new file and have the kernel begin to store it; `settle` waits until it has."""
        path = self._make_room(key)
        with self._translated(path, "write"):
            recycled = spare is not None and self._spares.hand_out(self._path(spare), path)
            with new_file(path, made=recycled) as fd:
                written = self._fill(fd, chunks, base, recycled=recycled)
                self._unsynced.add(path, fd)
        self._changed(path)
        return written

    def _fill(self, fd: int, chunks: Iterable[Chunk], base: str | None, *, recycled: bool) -> int:
        nbytes: int | None = getattr(chunks, "nbytes", None)
        if recycled or (nbytes is not None and nbytes >= LARGE):
            self._ask_file_system()
            with self._opened(base) as older:
                return write_large(fd, chunks, nbytes, self._spares.give_up, base=older, recycled=recycled)
        total = 0
        for chunk in chunks:
            written = write_all(fd, bytes_of(chunk), self._spares.give_up)
            progress.current().process(written)
            total += written
        return total

    def _ask_file_system(self) -> None:
        if not self._asked:
            self._asked = True
            self.capabilities = replace(
                self.capabilities, delta=shares_blocks(self.url), recycles=knows_all_users(self.url)
            )

    @contextlib.contextmanager
    def _opened(self, key: str | None) -> Iterator[int | None]:
        """Open the file that `Held` bytes are in; None if it cannot be had: then they are written."""
        fd = None
        with contextlib.suppress(OSError):
            fd = os.open(self._path(key), os.O_RDONLY | os.O_CLOEXEC) if key is not None else None
        try:
            yield fd
        finally:
            if fd is not None:
                os.close(fd)

    def put_file(self, key: str, path: str) -> None:
        """Fsync the file and move it in; copy it if it lies on another file system."""
        with self._translated(path, "read"), open(path, "rb") as file:
            os.fsync(file.fileno())
        target = self._make_room(key)
        with self._translated(target, "write"):
            link_or_copy(path, target, self._spares.give_up)
            self._changed(target)
            os.unlink(path)

    def scratch(self) -> str:
        """Make a temporary folder inside the run."""
        path = self._make_room(TEMPORARY_PREFIX + uuid.uuid4().hex)
        with self._translated(path, "create"):
            os.mkdir(path)
        return path

    def put_if_absent(self, key: str, data: bytes) -> None:
        """Write a temporary file, fsync it, link it to its name (which fails if that is taken), fsync the folder."""
        path = self._make_room(key)
        temporary = temporary_beside(path)
        with self._translated(path, "write"):
            with new_file(temporary) as fd:
                write_all(fd, data, self._spares.give_up)
                os.fsync(fd)
            try:
                self._link_exclusively(temporary, path)
            finally:
                remove(temporary)
            self._changed(path)
            self.settle()

    def replace(self, key: str, data: bytes) -> None:
        """Write a temporary file and rename it over the old one."""
        path = self._make_room(key)
        temporary = temporary_beside(path)
        with self._translated(path, "write"):
            with new_file(temporary) as fd:
                write_all(fd, data, self._spares.give_up)
                os.fsync(fd)  # without it a crash may leave an empty file under the new name
            rename(temporary, path)
        self._changed(path)

    def read(self, key: str) -> bytes:
        """Read a whole file."""
        path = self._path(key)
        with self._translated(path, "read"), open_inside(path) as file:
            size = os.fstat(file.fileno()).st_size
            try:
                if size <= _LARGEST_READ:
                    return file.read()
            except MemoryError:
                pass
        raise StorageError(path, f"has {size:,} bytes, which is too much to be read at once.")

    def read_ranges(self, key: str, ranges: Sequence[tuple[int, int]]) -> list[memoryview]:
        """Map the file privately and slice the mapping: no copy, and writing to a view touches no file."""
        path = self._path(key)
        with self._translated(path, "read"), open_inside(path) as file:
            if os.fstat(file.fileno()).st_size == 0:
                return [memoryview(bytearray())] * len(ranges)
            view = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY))
        return [view[begin:end] for begin, end in ranges]

    def head(self, key: str) -> Entry:
        """Stat one file."""
        path = self._path(key)
        with self._translated(path, "read"):
            found = os.stat(path, follow_symlinks=False)
        if not stat.S_ISREG(found.st_mode):
            raise ObjectNotFoundError(path)
        return _entry(key, found)

    def unfinished(self, prefix: str) -> list[Entry]:  # noqa: ARG002 - there is nothing such
        """Return none: what is half-written here has a temporary name, and is listed."""
        return []

    def list(self, prefix: str, *, limit: int | None = None) -> list[Entry]:
        """Walk the folder; links are not followed."""
        path = self._path(prefix)
        with self._translated(path, "list"):
            return sorted(islice(_walk(path, prefix), limit), key=lambda entry: entry.key)

    def delete(self, keys: Iterable[str]) -> None:
        """Unlink files, and the checkpoint folders that this leaves empty."""
        going = list(keys)
        for key in going:
            path = self._path(key)
            self._unsynced.forget(path)
            self._spares.forget(path)
            with self._translated(path, "delete"):
                remove(path)
            self._changed(path)
        self._prune(going)

    def recycle(self, key: str) -> str | None:
        """Rename the file to a temporary name, and keep it if nobody else can see it."""
        if not self.capabilities.recycles:
            self.delete([key])
            return None
        spare = TEMPORARY_PREFIX + uuid.uuid4().hex
        path, kept = self._path(key), self._path(spare)
        self._unsynced.forget(path)
        with self._translated(path, "delete"), contextlib.suppress(FileNotFoundError):
            os.rename(path, kept)
            self._changed(path)
            self._prune([key])
            if self._spares.take_in(kept):
                return spare
            remove(kept)
        return None

    def _prune(self, keys: Iterable[str]) -> None:
        """Remove the folders of these keys that are empty."""
        folders = set()
        for key in keys:
            folder = os.path.dirname(key)
            while folder and f"{folder}/" not in {
                CHECKPOINTS,
                COMMITS,
            }:  # these stay: a writer may be about to use them
                folders.add(self._path(folder))
                folder = os.path.dirname(folder)
        for folder in sorted(folders, reverse=True):
            with contextlib.suppress(OSError):  # not empty, or gone already
                os.rmdir(folder)
                self._changed(folder)
                with self._lock:
                    self._known.discard(folder)

    def copy(self, source: str, target: str) -> None:
        """Hard-link, or copy where the file system cannot link."""
        origin, path = self._file(source), self._make_room(target)
        with self._translated(path, "write"):
            link_or_copy(origin, path, self._spares.give_up)
        self._changed(path)

    def publish(self, source: str, url: str) -> None:
        """Hard-link under a temporary name, rename it over the target, fsync the folder."""
        path = str(local_path(url))
        if os.path.isdir(path):
            raise StorageError(
                path, "is a folder, so no file can be placed there. Give a path that ends in a file name."
            )
        self.settle()  # the content, before the name: what is replaced may be the only good file
        self._make_folder(os.path.dirname(path))
        with self._translated(path, "write"):
            self._place(self._file(source), path)
        self._changed(path)
        self.settle()

    def _place(self, source: str, path: str) -> None:
        """Replace `path` by a link to `source`, or a copy. The temporary name is one of the run's: `gc` looks there."""
        temporary = self._path(TEMPORARY_PREFIX + uuid.uuid4().hex)
        try:
            link_or_copy(source, temporary, self._spares.give_up)
            rename(temporary, path)
        except OSError as error:
            if error.errno not in _ELSEWHERE:
                raise
            beside = temporary_beside(path)
            link_or_copy(source, beside, self._spares.give_up)
            rename(beside, path)

    def link(self, source: str, target: str) -> None:
        """Make a relative symbolic link, so that a moved run keeps it."""
        path = self._make_room(target)
        temporary = temporary_beside(path)
        with self._translated(path, "write"):
            os.symlink(source, temporary)
            rename(temporary, path)
        self._changed(path)

    def read_link(self, target: str) -> Link | None:
        """Follow the names to their end, as whoever made the link may have written another path to the same folder."""
        path = self._path(target)
        if not os.path.islink(path):
            return None
        with self._translated(path, "read"):
            set_at = os.stat(path, follow_symlinks=False).st_ctime
        return Link(source=os.path.relpath(os.path.realpath(path), os.path.realpath(self.url)), modified=set_at)

    def append(self, key: str) -> LocalAppender:
        """Open with O_APPEND: rows of two writers may alternate but never mix."""
        path = self._make_room(key)
        with self._translated(path, "write"), contextlib.suppress(FileNotFoundError):
            if os.stat(path, follow_symlinks=False).st_nlink > 1:  # another run may have it too, or a backup
                self.replace(key, self.read(key))
        with self._translated(path, "write"):
            appender = LocalAppender(path, self._spares.give_up)
        self._appenders.append(appender)
        self._changed(path)
        return appender

    def settle(self) -> None:
        """Fsync every file that was put or has grown, then every folder in which a name came or went."""
        with self._settling:  # a thread that finds nothing left to do must not return before the other's fsync has
            for appender in self._appenders:
                appender.sync()
            with self._translated(self.url, "write"):
                self._unsynced.sync()
            with self._lock:
                folders, self._unsettled = self._unsettled, set()
            try:
                for folder in sorted(folders, reverse=True):
                    with self._translated(folder, "write"), contextlib.suppress(FileNotFoundError):
                        sync_folder(folder)
                    folders.discard(folder)
            finally:
                with self._lock:
                    self._unsettled |= folders  # those that failed are not durable, and a later call must not say so

    def abort_stale(self, prefix: str, older_than: float) -> int:
        """Remove what a crash left and no listing shows: our folders with nothing in them, links never renamed."""
        removed = 0
        for below in (prefix, prefix + CHECKPOINTS):
            folder = self._path(below)
            with self._translated(folder, "list"), contextlib.suppress(FileNotFoundError), os.scandir(folder) as found:
                removed += sum(_remove_stale(item, below + item.name, older_than) for item in found)
        return removed

    def free_bytes(self) -> int | None:
        """Ask the file system of the nearest folder that exists; spare files are free space."""
        folder = self.url
        while not os.path.exists(folder):
            folder = os.path.dirname(folder)
        with self._translated(folder, "read"):
            return shutil.disk_usage(folder).free + self._spares.nbytes

    def _path(self, key: str) -> str:
        """Return where `key` is.

        Raises:
            StorageError: a folder on the way is a link. The run may be a stranger's, and lead out of itself.
        """
        path = self.url
        for folder in key.split("/")[:-1]:
            path = os.path.join(path, folder)
            if os.path.islink(path):
                raise StorageError(path, NOT_FOLLOWED)
        return os.path.join(self.url, key)

    def _file(self, key: str) -> str:
        """Return where `key` is, which must not be a link either: a link to a link is one as well."""
        path = self._path(key)
        if os.path.islink(path):
            raise StorageError(path, NOT_FOLLOWED)
        return path

    def _make_room(self, key: str) -> str:
        """Return the path of `key` with its folder made."""
        path = self._path(key)
        self._make_folder(os.path.dirname(path))
        return path

    def _make_folder(self, folder: str) -> None:
        with self._lock:  # a thread that finds the folder made must find it in the list to be settled, too
            missing = folder
            parents, made = set(), set()
            while not os.path.isdir(missing):
                made.add(missing)
                missing = os.path.dirname(missing)
                parents.add(missing)
            with self._translated(folder, "create"):
                os.makedirs(folder, exist_ok=True)
            if missing not in self._known:  # who made it may have been killed before its name was durable
                parents.update(writable_above(missing))
            self._known |= {missing, *made}
            self._unsettled |= parents

    def _changed(self, path: str) -> None:
        """Note, after it did, that the name `path` came or went: noted before, `settle` could come in between."""
        with self._lock:
            self._unsettled.add(os.path.dirname(path))

    def _link_exclusively(self, temporary: str, path: str) -> None:
        try:
            os.link(temporary, path)
        except OSError as error:
            if error.errno not in NO_LINKS:
                raise
            if not self._told_of_links:
                self._told_of_links = True
                warnings.warn(
                    f"the file system of {self.url} has no hard links, so two trainings that commit to this run at the "
                    "same moment could overwrite each other's manifest. One training at a time is safe; "
                    "give each its own URL.",
                    stacklevel=2,
                )
            with _WITHOUT_LINKS:
                if os.path.lexists(path):
                    raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), path) from error
                os.replace(temporary, path)

    @contextlib.contextmanager
    def _translated(self, path: str, action: str) -> Iterator[None]:
        try:
            yield
        except KeepbestError:
            raise
        except OSError as error:
            raise translate(error, path, action) from error


def _remove_stale(item: os.DirEntry[str], key: str, older_than: float) -> bool:
    """Remove a temporary link, or an empty folder of ours; say whether it was one."""
    ours = temporary_of(key) is not None or checkpoint_of(f"{key}/") is not None
    with contextlib.suppress(OSError):  # not empty, not ours to delete, or gone already: all are fine
        if ours and item.stat(follow_symlinks=False).st_mtime <= older_than:
            if item.is_symlink():
                os.unlink(item.path)
                return True
            if item.is_dir():
                os.rmdir(item.path)
                return True
    return False


def _entry(key: str, found: os.stat_result) -> Entry:
    # The time of the last change of the name or the content: a file that was moved or linked in keeps its old mtime,
    # and would look to `gc` like something that a crash left long ago.
    return Entry(key=key, size=found.st_size, modified=found.st_ctime)


def _walk(folder: str, prefix: str) -> Iterator[Entry]:
    try:
        found = os.scandir(folder)
    except FileNotFoundError:  # nothing was ever written there, or it was deleted while we looked
        return
    with found:
        for item in found:
            if item.is_dir(follow_symlinks=False):
                yield from _walk(item.path, f"{prefix}{item.name}/")
            elif item.is_file(follow_symlinks=False):
                with contextlib.suppress(FileNotFoundError):
                    yield _entry(prefix + item.name, item.stat(follow_symlinks=False))
