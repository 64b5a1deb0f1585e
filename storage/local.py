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
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from ..errors import (
    ConfigError,
    KeepbestError,
    NotARunError,
    ObjectExistsError,
    ObjectNotFoundError,
    StorageError,
    StorageFullError,
    StoragePermissionError,
)
from . import progress
from .backend import Buffer, Capabilities, Entry
from .layout import CHECKPOINTS, COMMITS, TEMPORARY_PREFIX, checkpoint_of, temporary_of
from .unsynced import UnsyncedFiles

_COPY_CHUNK = 1 << 20
_NO_LINKS = {errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EXDEV}
_NO_FOLDER_SYNC = {errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS}
"""Some network and FUSE file systems have no fsync of a folder; they make names durable by themselves or not at all."""

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
        raise ConfigError(f"{url} is no local path, and a run in a local folder can place files only there.")
    try:
        return Path(unquote(rest) if found else url).expanduser().absolute()
    except RuntimeError as error:
        raise ConfigError(f"{url}: whose home that is, is not known. Write the path out.") from error


class LocalBackend:
    """A folder of a local file system."""

    def __init__(self, root: Path) -> None:
        self.url = str(root)
        self.capabilities = Capabilities(put_if_absent=True, links=True)
        self._root = root
        self._unsynced = UnsyncedFiles()
        self._appenders: list[LocalAppender] = []
        self._unsettled: set[str] = set()
        self._lock = threading.Lock()
        self._settling = threading.Lock()
        self._told_of_links = False
        with self._translated(self.url, "read"), contextlib.suppress(FileNotFoundError):
            if not stat.S_ISDIR(os.stat(root).st_mode):
                raise NotARunError(self.url, "is a file, not a folder")

    def put(self, key: str, chunks: Iterable[Buffer]) -> int:
        """Write a new file and have the kernel begin to store it; `settle` waits until it has."""
        path = self._make_room(key)
        with self._translated(path, "write"), _new_file(path) as fd:
            written = _write_all(fd, chunks)
            self._unsynced.add(path, fd)
        self._changed(path)
        return written

    def put_file(self, key: str, path: str) -> None:
        """Fsync the file and move it in; copy it if it lies on another file system."""
        with self._translated(path, "read"), open(path, "rb") as file:
            os.fsync(file.fileno())
        target = self._make_room(key)
        with self._translated(target, "write"):
            _link_or_copy(path, target)
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
        temporary = _temporary_beside(path)
        with self._translated(path, "write"):
            with _new_file(temporary) as fd:
                _write_all(fd, [data])
                os.fsync(fd)
            try:
                self._link_exclusively(temporary, path)
            finally:
                _remove(temporary)
            self._changed(path)
            self.settle()

    def replace(self, key: str, data: bytes) -> None:
        """Write a temporary file and rename it over the old one."""
        path = self._make_room(key)
        temporary = _temporary_beside(path)
        with self._translated(path, "write"):
            with _new_file(temporary) as fd:
                _write_all(fd, [data])
                os.fsync(fd)  # without it a crash may leave an empty file under the new name
            _rename(temporary, path)
        self._changed(path)

    def read(self, key: str) -> bytes:
        """Read a whole file."""
        path = self._path(key)
        with self._translated(path, "read"), open(path, "rb") as file:
            return file.read()

    def read_ranges(self, key: str, ranges: Sequence[tuple[int, int]]) -> list[memoryview]:
        """Map the file privately and slice the mapping: no copy, and writing to a view touches no file."""
        path = self._path(key)
        with self._translated(path, "read"), open(path, "rb") as file:
            if os.fstat(file.fileno()).st_size == 0:
                return [memoryview(bytearray())] * len(ranges)
            view = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY))
        return [view[begin:end] for begin, end in ranges]

    def head(self, key: str) -> Entry:
        """Stat one file."""
        path = self._path(key)
        with self._translated(path, "read"):
            found = os.stat(path)
        if not stat.S_ISREG(found.st_mode):
            raise ObjectNotFoundError(path)
        return _entry(key, found)

    def unfinished(self, prefix: str) -> list[Entry]:  # noqa: ARG002 - there is nothing such
        """Return none: what is half-written here has a temporary name, and is listed."""
        return []

    def list(self, prefix: str) -> list[Entry]:
        """Walk the folder; links are not followed."""
        path = self._path(prefix)
        with self._translated(path, "list"):
            return sorted(_walk(path, prefix), key=lambda entry: entry.key)

    def delete(self, keys: Iterable[str]) -> None:
        """Unlink files, and the checkpoint folders that this leaves empty."""
        folders = set()
        for key in keys:
            path = self._path(key)
            self._unsynced.forget(path)
            with self._translated(path, "delete"):
                _remove(path)
            self._changed(path)
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

    def copy(self, source: str, target: str) -> None:
        """Hard-link, or copy where the file system cannot link."""
        origin, path = self._path(source), self._make_room(target)
        with self._translated(path, "write"):
            _link_or_copy(origin, path)
        self._changed(path)

    def publish(self, source: str, url: str) -> None:
        """Hard-link under a temporary name beside the target, rename it over the target, fsync the folder."""
        path = str(local_path(url))
        if os.path.isdir(path):
            raise StorageError(
                path, "is a folder, so no file can be placed there. Give a path that ends in a file name."
            )
        self.settle()  # the content, before the name: what is replaced may be the only good file
        self._make_folder(os.path.dirname(path))
        temporary = _temporary_beside(path)
        with self._translated(path, "write"):
            _link_or_copy(self._path(source), temporary)
            _rename(temporary, path)
        self._changed(path)
        self.settle()

    def link(self, source: str, target: str) -> None:
        """Make a relative symbolic link, so that a moved run keeps it."""
        path = self._make_room(target)
        temporary = _temporary_beside(path)
        with self._translated(path, "write"):
            os.symlink(source, temporary)
            _rename(temporary, path)
        self._changed(path)

    def append(self, key: str) -> LocalAppender:
        """Open with O_APPEND: rows of two writers may alternate but never mix."""
        path = self._make_room(key)
        with self._translated(path, "write"):
            appender = LocalAppender(path)
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
                        _sync_folder(folder)
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
        """Ask the file system of the nearest folder that exists."""
        folder = self.url
        while not os.path.exists(folder):
            folder = os.path.dirname(folder)
        with self._translated(folder, "read"):
            return shutil.disk_usage(folder).free

    def _path(self, key: str) -> str:
        return os.path.join(self.url, key)

    def _make_room(self, key: str) -> str:
        """Return the path of `key` with its folder made."""
        path = self._path(key)
        self._make_folder(os.path.dirname(path))
        return path

    def _make_folder(self, folder: str) -> None:
        with self._lock:  # a thread that finds the folder made must find it in the list to be settled, too
            missing = folder
            parents = set()
            while not os.path.isdir(missing):
                missing = os.path.dirname(missing)
                parents.add(missing)
            with self._translated(folder, "create"):
                os.makedirs(folder, exist_ok=True)
            self._unsettled |= parents

    def _changed(self, path: str) -> None:
        """Note, after it did, that the name `path` came or went: noted before, `settle` could come in between."""
        with self._lock:
            self._unsettled.add(os.path.dirname(path))

    def _link_exclusively(self, temporary: str, path: str) -> None:
        try:
            os.link(temporary, path)
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            if not self._told_of_links:
                self._told_of_links = True
                warnings.warn(
                    f"the file system of {self.url} has no hard links, so two trainings that commit to this run at the "
                    "same moment could overwrite each other's manifest. One training at a time is safe.",
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
            raise _translate(error, path, action) from error


class LocalAppender:
    """A file that grows; each write reaches the kernel at once, so it survives the death of the process."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._fd = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC, 0o666)
        self._grown = False
        self._lock = threading.Lock()
        """`settle` syncs it in the thread that saves, while the one that logs may close it."""

    def write(self, data: bytes) -> None:
        """Append in one system call, unless the space ends in its middle: then the next one says so."""
        try:
            while data:
                data = data[os.write(self._fd, data) :]
        except OSError as error:
            raise _translate(error, self._path, "write") from error
        finally:
            self._grown = True  # afterwards: a sync in between must not take this row for one that it made durable

    def sync(self) -> None:
        """Fsync the file if it grew since the last time."""
        with self._lock:
            self._sync()

    def close(self) -> None:
        """Fsync and close the file."""
        with self._lock:
            try:
                self._sync()
            finally:
                if self._fd >= 0:
                    os.close(self._fd)
                    self._fd = -1

    def _sync(self) -> None:
        if self._grown and self._fd >= 0:
            self._grown = False
            try:
                os.fsync(self._fd)
            except OSError as error:
                self._grown = True
                raise _translate(error, self._path, "write") from error


def _translate(error: OSError, path: str, action: str) -> StorageError | NotARunError:
    match error.errno:
        case errno.ENOENT:
            return ObjectNotFoundError(path)
        case errno.EISDIR if action == "read":  # a folder is no object
            return ObjectNotFoundError(path)
        case errno.EEXIST if action != "create":
            return ObjectExistsError(path)
        case errno.ENOSPC | errno.EDQUOT:
            return StorageFullError(path)
        case errno.EACCES | errno.EPERM:
            return StoragePermissionError(path, action)
        case errno.EROFS:
            return StorageError(path, "the file system is read-only. Give another URL.")
        case errno.ENOTDIR | errno.EEXIST:
            return NotARunError(path, "cannot be used: a part of this path is a file, not a folder")
        case _:
            return StorageError(path, f"cannot {action}: {error.strerror or error}.")


def _temporary_beside(path: str) -> str:
    return os.path.join(os.path.dirname(path), TEMPORARY_PREFIX + uuid.uuid4().hex)


def _remove(path: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)


def _rename(temporary: str, path: str) -> None:
    """Rename over `path`; the temporary name is gone whatever happens."""
    try:
        os.replace(temporary, path)
    finally:
        # rename() does nothing, and says it succeeded, if both names are links to one file: published twice.
        _remove(temporary)


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


@contextlib.contextmanager
def _new_file(path: str) -> Iterator[int]:
    """Create `path` and yield its descriptor; whatever goes wrong inside, no half-written file stays."""
    fd = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o666)
    try:
        yield fd
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(path)
        raise
    finally:
        os.close(fd)


def _write_all(fd: int, chunks: Iterable[Buffer]) -> int:
    total = 0
    for chunk in chunks:
        rest = memoryview(chunk).cast("B")
        total += len(rest)
        while rest:
            rest = rest[os.write(fd, rest) :]
        progress.current().process(memoryview(chunk).nbytes)
    return total


def _link_or_copy(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError as error:
        if isinstance(error, FileNotFoundError) and not os.path.lexists(source):
            raise ObjectNotFoundError(source) from error
        if error.errno not in _NO_LINKS:
            raise
        with _new_file(target) as fd, open(source, "rb") as file:
            _write_all(fd, iter(lambda: file.read(_COPY_CHUNK), b""))
            os.fsync(fd)


def _sync_folder(folder: str) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    except OSError as error:
        if error.errno not in _NO_FOLDER_SYNC:
            raise
    finally:
        os.close(fd)


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
