"""Local files: what the local backend does to single files, each step named after what is owed when it fails."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import threading
import uuid
from collections.abc import Iterator
from typing import BinaryIO

from ..errors import (
    NotARunError,
    ObjectExistsError,
    ObjectNotFoundError,
    StorageError,
    StorageFullError,
    StoragePermissionError,
)
from . import progress
from .direct import MakeRoom, write_all
from .layout import TEMPORARY_PREFIX

NO_LINKS = frozenset((errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EXDEV))
"""What a file system says that cannot link."""

NOT_FOLLOWED = (
    "is a symbolic link, and none inside of a run is followed, as it could lead out of it. Put what it leads to in its "
    "place, or give the URL of another run; the run's own folder may be a link."
)
_COPY_CHUNK = 1 << 20
_NO_FOLDER_SYNC = {errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS}
"""Some network and FUSE file systems have no fsync of a folder; they make names durable by themselves or not at all."""


class LocalAppender:
    """A file that grows; each write reaches the kernel at once, so it survives the death of the process."""

    def __init__(self, path: str, make_room: MakeRoom) -> None:
        self._path = path
        self._make_room = make_room
        self._fd = _open_file(path, os.O_CREAT | os.O_WRONLY | os.O_APPEND)
        self._grown = False
        self._rows: list[bytes] = []
        """What is not known to be durable."""
        self._lost = False
        """The last sync failed."""
        self._lock = threading.Lock()
        """`settle` syncs it in the thread that saves, while the one that logs may close it."""

    def write(self, data: bytes) -> None:
        """Append in one system call, unless the space ends in its middle: then the next one says so."""
        try:
            write_all(self._fd, data, self._make_room)
        except OSError as error:
            raise translate(error, self._path, "write") from error
        finally:
            self._rows.append(data)
            self._grown = True  # afterwards: a sync in between must not take this row for one that it made durable

    def sync(self) -> None:
        """Fsync the file if it grew since the last time.

        After one that failed everything since the last one that did not is written again: the kernel may have dropped
        it, and would report success this time (https://lwn.net/Articles/752063/). Whoever reads sees rows twice.
        """
        with self._lock:
            self._sync()

    def close(self) -> None:
        """Fsync and close the file."""
        with self._lock:
            try:
                self._sync()
            finally:
                fd, self._fd = self._fd, -1
                if fd >= 0:
                    self._close(fd)

    def _sync(self) -> None:
        if self._grown and self._fd >= 0:
            self._grown = False
            count = len(self._rows)
            try:
                if self._lost:
                    write_all(self._fd, b"\n" + b"".join(self._rows[:count]), self._make_room)
                os.fsync(self._fd)
            except OSError as error:
                self._grown = self._lost = True
                raise translate(error, self._path, "write") from error
            self._lost = False
            del self._rows[:count]

    def _close(self, fd: int) -> None:
        try:
            os.close(fd)
        except OSError as error:
            raise translate(error, self._path, "write") from error


def open_inside(path: str) -> BinaryIO:
    """Open a file of a run to be read.

    Raises:
        ObjectNotFoundError: it is no file: a pipe would have us wait for ever.
        OSError: it is a link, or cannot be opened.
    """
    return os.fdopen(_open_file(path, os.O_RDONLY), "rb")


def _open_file(path: str, flags: int) -> int:
    """Open a file itself, never what a link leads to: the run may be a stranger's."""
    fd = os.open(path, flags | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666)
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise ObjectNotFoundError(path)
    return fd


def translate(error: OSError, path: str, action: str) -> StorageError | NotARunError:
    """Return the error of ours for one of the operating system's."""
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
        case errno.ELOOP:
            return StorageError(path, NOT_FOLLOWED)
        case errno.EROFS:
            return StorageError(path, "the file system is read-only. Give another URL.")
        case errno.ENOTDIR | errno.EEXIST:
            return NotARunError(path, "cannot be used: a part of this path is a file, not a folder")
        case _:
            return StorageError(path, f"cannot {action}: {error.strerror or error}.")


def temporary_beside(path: str) -> str:
    """Return a fresh temporary name in the folder of `path`."""
    return os.path.join(os.path.dirname(path), TEMPORARY_PREFIX + uuid.uuid4().hex)


def remove(path: str) -> None:
    """Delete a file, if it is there."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)


def rename(temporary: str, path: str) -> None:
    """Rename over `path`; the temporary name is gone whatever happens."""
    try:
        os.replace(temporary, path)
    finally:
        # rename() does nothing, and says it succeeded, if both names are links to one file: published twice.
        remove(temporary)


@contextlib.contextmanager
def new_file(path: str, *, made: bool = False) -> Iterator[int]:
    """Create `path` (or open it, if it was just `made`) and yield its descriptor.

    Whatever goes wrong inside, no half-written file stays.
    """
    ours = made
    try:
        create = 0 if made else os.O_CREAT | os.O_EXCL
        fd = os.open(path, create | os.O_WRONLY | os.O_CLOEXEC, 0o666)
        ours = True
        try:
            yield fd
        finally:
            os.close(fd)  # some file systems say only now that there is no space
    except BaseException:
        if ours:
            with contextlib.suppress(OSError):
                os.unlink(path)
        raise


def link_or_copy(source: str, target: str, make_room: MakeRoom) -> None:
    """Hard-link, or copy where the file system cannot link."""
    try:
        os.link(source, target)
    except OSError as error:
        if isinstance(error, FileNotFoundError) and not os.path.lexists(source):
            raise ObjectNotFoundError(source) from error
        if error.errno not in NO_LINKS:
            raise
        with new_file(target) as fd, open(source, "rb") as file:
            while chunk := file.read(_COPY_CHUNK):
                write_all(fd, chunk, make_room)
                progress.current().process(len(chunk))
            os.fsync(fd)


def writable_above(folder: str) -> Iterator[str]:
    """Yield the folders above this one, up to the first in which we can make no name, or whose file system it is."""
    while not os.path.ismount(folder):
        folder = os.path.dirname(folder)
        if not os.access(folder, os.R_OK | os.W_OK):
            return
        yield folder


def sync_folder(folder: str) -> None:
    """Make the names in a folder durable."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    except OSError as error:
        if error.errno not in _NO_FOLDER_SYNC:
            raise
    finally:
        os.close(fd)
