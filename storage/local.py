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
from .backend import Buffer, Capabilities, Entry
from .layout import TEMPORARY_PREFIX

_COPY_CHUNK = 1 << 20
_NO_LINKS = {errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EXDEV}


def open_backend(url: str, storage_options: Mapping[str, Any]) -> LocalBackend:
    """Return the backend for a path or a `file://` URL."""
    if storage_options:
        raise ConfigError(
            f"a local folder takes no storage_options (got {', '.join(storage_options)} for {url}). Leave them out."
        )
    return LocalBackend(local_path(url))


def local_path(url: str) -> Path:
    """Return the absolute path that a path or `file://` URL means."""
    scheme, found, rest = url.partition("://")
    return Path(unquote(rest) if found and scheme in {"file", "local"} else url).expanduser().absolute()


class LocalBackend:
    """A folder of a local file system."""

    def __init__(self, root: Path) -> None:
        self.url = str(root)
        self.capabilities = Capabilities(put_if_absent=True, links=True)
        self._root = root
        self._unsettled: set[str] = set()
        self._lock = threading.Lock()
        if root.exists() and not root.is_dir():
            raise NotARunError(self.url, "is a file, not a folder")

    def put(self, key: str, chunks: Iterable[Buffer]) -> int:
        """Write a new file and fsync it."""
        path = self._make_room(key)
        with self._translated(path, "write"), _new_file(path) as fd:
            written = _write_all(fd, chunks)
            os.fsync(fd)
        return written

    def put_file(self, key: str, path: str) -> None:
        """Fsync the file and move it in; copy it if it lies on another file system."""
        target = self._make_room(key)
        with self._translated(target, "write"):
            with open(path, "rb") as file:
                os.fsync(file.fileno())
            _link_or_copy(path, target)
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
                with contextlib.suppress(FileNotFoundError):  # renamed, where there are no links
                    os.unlink(temporary)
            self.settle()

    def replace(self, key: str, data: bytes) -> None:
        """Write a temporary file and rename it over the old one."""
        path = self._make_room(key)
        temporary = _temporary_beside(path)
        with self._translated(path, "write"):
            with _new_file(temporary) as fd:
                _write_all(fd, [data])
                os.fsync(fd)  # without it a crash may leave an empty file under the new name
            os.replace(temporary, path)

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
            stat = os.stat(path)
        return Entry(key=key, size=stat.st_size, modified=stat.st_mtime)

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
            with self._translated(path, "delete"), contextlib.suppress(FileNotFoundError):
                os.unlink(path)
            self._changed(os.path.dirname(path))
            if key.count("/") > 1:  # commits/ and checkpoints/ themselves stay: a writer may be about to use them
                folders.add(os.path.dirname(path))
        for folder in sorted(folders, reverse=True):
            with contextlib.suppress(OSError):  # not empty, or gone already
                os.rmdir(folder)
                self._changed(os.path.dirname(folder))

    def copy(self, source: str, target: str) -> None:
        """Hard-link, or copy where the file system cannot link."""
        origin, path = self._path(source), self._make_room(target)
        with self._translated(path, "write"):
            _link_or_copy(origin, path)

    def publish(self, source: str, url: str) -> None:
        """Hard-link under a temporary name beside the target, rename it over the target, fsync the folder."""
        path = str(local_path(url))
        if os.path.isdir(path):
            raise StorageError(
                path, "is a folder, so no file can be placed there. Give a path that ends in a file name."
            )
        folder = os.path.dirname(path)
        with self._translated(path, "write"):
            os.makedirs(folder, exist_ok=True)
            temporary = _temporary_beside(path)
            _link_or_copy(self._path(source), temporary)
            os.replace(temporary, path)
            _sync_folder(folder)

    def link(self, source: str, target: str) -> None:
        """Make a relative symbolic link, so that a moved run keeps it."""
        path = self._make_room(target)
        temporary = _temporary_beside(path)
        with self._translated(path, "write"):
            os.symlink(source, temporary)
            os.replace(temporary, path)

    def append(self, key: str) -> LocalAppender:
        """Open with O_APPEND: rows of two writers may alternate but never mix."""
        path = self._make_room(key)
        with self._translated(path, "write"):
            return LocalAppender(path)

    def settle(self) -> None:
        """Fsync every folder in which a name came or went."""
        with self._lock:
            folders, self._unsettled = self._unsettled, set()
        for folder in sorted(folders, reverse=True):
            with self._translated(folder, "write"), contextlib.suppress(FileNotFoundError):
                _sync_folder(folder)

    def abort_stale(self, prefix: str, older_than: float) -> int:  # noqa: ARG002 - a local upload leaves only files
        """Nothing to do: what a crash leaves are files, which `gc` finds in the listing."""
        return 0

    def free_bytes(self) -> int | None:
        """Ask the file system of the nearest folder that exists."""
        folder = self._root
        while not folder.exists():
            folder = folder.parent
        return shutil.disk_usage(folder).free

    def _path(self, key: str) -> str:
        return os.path.join(self.url, key)

    def _make_room(self, key: str) -> str:
        """Return the path of `key` with its folder made; the names that come into being are settled later."""
        path = self._path(key)
        folder = os.path.dirname(path)
        self._changed(folder)
        missing = folder
        while not os.path.isdir(missing):
            parent = os.path.dirname(missing)
            self._changed(parent)
            missing = parent
        with self._translated(folder, "create"):
            os.makedirs(folder, exist_ok=True)
        return path

    def _changed(self, folder: str) -> None:
        with self._lock:
            self._unsettled.add(folder)

    def _link_exclusively(self, temporary: str, path: str) -> None:
        try:
            os.link(temporary, path)
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            if os.path.lexists(path):
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), path) from error
            warnings.warn(
                f"the file system of {self.url} has no hard links, so two trainings that commit to this run at the "
                "same moment could overwrite each other's manifest. One training at a time is safe.",
                stacklevel=2,
            )
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

    def write(self, data: bytes) -> None:
        """Append in one system call."""
        try:
            os.write(self._fd, data)
        except OSError as error:
            raise _translate(error, self._path, "write") from error

    def sync(self) -> None:
        """Fsync the file."""
        try:
            os.fsync(self._fd)
        except OSError as error:
            raise _translate(error, self._path, "write") from error

    def close(self) -> None:
        """Close the file."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def _translate(error: OSError, path: str, action: str) -> StorageError | NotARunError:
    match error.errno:
        case errno.ENOENT:
            return ObjectNotFoundError(path)
        case errno.EEXIST:
            return ObjectExistsError(path)
        case errno.ENOSPC | errno.EDQUOT:
            return StorageFullError(path)
        case errno.EACCES | errno.EPERM:
            return StoragePermissionError(path, action)
        case errno.EROFS:
            return StorageError(path, "the file system is read-only. Give another URL.")
        case errno.ENOTDIR:
            return NotARunError(path, "cannot be used: a part of this path is a file, not a folder")
        case _:
            return StorageError(path, f"cannot {action}: {error.strerror or error}.")


def _temporary_beside(path: str) -> str:
    return os.path.join(os.path.dirname(path), TEMPORARY_PREFIX + uuid.uuid4().hex)


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
    return total


def _link_or_copy(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        with _new_file(target) as fd, open(source, "rb") as file:
            _write_all(fd, iter(lambda: file.read(_COPY_CHUNK), b""))
            os.fsync(fd)


def _sync_folder(folder: str) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


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
                try:
                    stat = item.stat(follow_symlinks=False)
                except FileNotFoundError:
                    continue
                yield Entry(key=prefix + item.name, size=stat.st_size, modified=stat.st_mtime)
