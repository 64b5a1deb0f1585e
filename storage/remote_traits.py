"""Remote traits: what a kind of filesystem can do beyond the interface of fsspec, and how it is asked to.

fsspec does not say whether a file can be created only if it is absent, whether `mv` is one step, or how a server that
hangs is given up. The table says it of the classes whose source was read for it; a protocol may be served by
another class than usual. Of all others the least is believed.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import stat
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, TypeVar
from urllib.parse import quote, unquote

from .layout import TEMPORARY_PREFIX
from .remote_errors import says_absent
from .transfer import TransferSettings

T = TypeVar("T")

Pieces = Sequence[tuple[int, memoryview]]
"""Where each begins in the object, and the memory for it."""

_SFTP_BLOCK = 256 << 10
_SFTP_BLOCKS = 32
"""Blocks that are asked for at once, in requests of 32 KiB. Paramiko's own limit makes it wait between them."""


class Traits:
    """A filesystem of which nothing is known."""

    creates = False
    """`create` leaves it to the store: of two writers exactly one wins."""
    renames = False
    """`rename` is one step and takes the place of what is there; so a file is written beside its place first."""
    whole = False
    """An object appears when its upload ends, or not at all."""
    folders = True
    """A file is written into a folder that exists."""
    prunes = False
    """`rmdir` refuses a folder that holds something."""

    def options(self, asked: Mapping[str, Any], settings: TransferSettings) -> dict[str, Any]:  # noqa: ARG002
        """Return the storage options, and what makes a server that hangs an error in time."""
        return dict(asked)

    def opened(self, fs: Any, settings: TransferSettings) -> None:
        """Set up a new connection."""

    def close(self, fs: Any) -> None:
        """Let go of a connection."""

    def path(self, root: str, key: str) -> str:
        """Return the path of a key."""
        return f"{root}/{key}"

    def name(self, path: str) -> str:
        """Return the last part of a path, as it is in keys."""
        return path.rstrip("/").rpartition("/")[2]

    def write(self, fs: Any, path: str, pieces: Iterable[bytes]) -> int:
        """Write a stream. If it breaks off, as little as possible of it is to be seen; returns its bytes."""
        size = 0
        file = fs.open(path, "wb")
        try:
            for piece in pieces:
                file.write(piece)
                size += len(piece)
            file.close()
        except BaseException:
            _abandon(file)
            raise
        return size

    def set(self, fs: Any, path: str, data: bytes, deadline: float) -> None:
        """Set an object to `data`, in one step where the filesystem can."""
        if not self.renames:
            within(deadline, fs.pipe_file)(path, data)
            return
        beside = temporary_beside(path)
        try:
            self.write(fs, beside, [data])
            self.rename(fs, beside, path)
        except BaseException:
            with contextlib.suppress(Exception):
                fs.rm_file(beside)
            raise

    def create(self, fs: Any, path: str, data: bytes, deadline: float) -> None:
        """Create an object, if the store says that it is absent; else raise FileExistsError."""
        raise NotImplementedError

    def keeps_its_word(self, fs: Any, folder: str) -> bool:  # noqa: ARG002 - by default it is believed
        """Try whether `create` refuses what exists, with files in `folder` that are gone afterwards."""
        return True

    def rename(self, fs: Any, source: str, target: str) -> None:
        """Give a file another name."""
        fs.mv(source, target)

    def ls(self, fs: Any, path: str, deadline: float) -> Sequence[Mapping[str, Any]]:
        """Return what is said of each object and folder in a folder."""
        fs.invalidate_cache()
        found: Sequence[Mapping[str, Any]] = within(deadline, fs.ls)(path, detail=True)
        return found

    def read(self, fs: Any, path: str) -> bytes:
        """Read a small object."""
        data: bytes = fs.cat_file(path)
        return data

    def fetch(self, fs: Any, path: str, pieces: Pieces, size: int, settings: TransferSettings) -> None:
        """Read pieces of an object of `size` bytes, several at a time where the filesystem is asynchronous."""
        several = settings.connections if fs.async_impl else 1
        pending = iter(pieces)
        window = list(islice(pending, 1))  # alone: if the answer is the whole object, there is nothing more to ask
        while window:
            begins = [begin for begin, _ in window]
            ends = [begin + len(target) for begin, target in window]
            answers = fs.cat_ranges([path] * len(window), begins, ends, on_error="raise")
            for (begin, target), data in zip(window, answers, strict=True):
                if len(data) == size != len(target):  # a server that does not know ranges
                    for at, whole in pieces:
                        whole[:] = data[at : at + len(whole)]
                    return
                _fill(target, data, f"{path} at {begin:,}")
            window = list(islice(pending, several))


class Whole(Traits):
    """An object store: what is written appears when it is complete."""

    whole = True
    folders = False


class Renaming(Traits):
    """A file system whose `mv` renames."""

    renames = True
    prunes = True


class Azure(Whole):
    """Azure Blob Storage by adlfs, which sends `If-None-Match: *` when it shall not overwrite."""

    creates = True

    def options(self, asked: Mapping[str, Any], settings: TransferSettings) -> dict[str, Any]:
        """Give up on a server that hangs; cache no listings."""
        waits = {"connection_timeout": int(settings.idle) or 1, "read_timeout": int(settings.idle) or 1}
        return {"use_listings_cache": False, **waits, **asked}

    def create(self, fs: Any, path: str, data: bytes, deadline: float) -> None:
        """Put Blob with the condition."""
        within(deadline, fs.pipe_file)(path, data, overwrite=False)


class Http(Traits):
    """A web server that lists its folders: for reading."""

    def options(self, asked: Mapping[str, Any], settings: TransferSettings) -> dict[str, Any]:
        """Give up on a server that hangs, but not on a long download, as aiohttp does after five minutes."""
        import aiohttp  # noqa: PLC0415 - is there if the filesystem is

        timeout = aiohttp.ClientTimeout(total=None, sock_connect=min(5.0, settings.idle), sock_read=settings.idle)
        return {**asked, "client_kwargs": {"timeout": timeout, **(asked.get("client_kwargs") or {})}}

    def path(self, root: str, key: str) -> str:
        """Return a URL."""
        return f"{root}/{quote(key)}"

    def name(self, path: str) -> str:
        """Return the last part of a URL, or nothing for a link that only sorts the listing anew."""
        name = super().name(path)
        return "" if "?" in name or "#" in name else unquote(name)


class Ftp(Renaming):
    """FTP; its `mv` is RNFR and RNTO, which most servers make one step of."""

    def options(self, asked: Mapping[str, Any], settings: TransferSettings) -> dict[str, Any]:
        """Give up on a server that hangs."""
        return {"timeout": settings.idle, **asked}

    def close(self, fs: Any) -> None:
        """Close the control connection."""
        fs.ftp.close()


class Sshfs(Renaming):
    """SFTP by asyncssh. Its `cat_file` knows no ranges, its `rmdir` does nothing."""

    prunes = False

    def options(self, asked: Mapping[str, Any], settings: TransferSettings) -> dict[str, Any]:
        """Give up on a server that hangs."""
        waits = ("connect_timeout", "login_timeout", "keepalive_interval")
        return {**dict.fromkeys(waits, settings.idle), "keepalive_count_max": 1, **asked}


class Sftp(Renaming):
    """SFTP by paramiko.

    RENAME of the protocol refuses a name that is taken, and OpenSSH does so without a race (it links, then unlinks):
    https://datatracker.ietf.org/doc/html/draft-ietf-secsh-filexfer-02#section-6.5. Some servers overwrite all the same;
    so it is tried. The extension `posix-rename@openssh.com`, which fsspec's `mv` uses, overwrites.
    """

    creates = True

    def options(self, asked: Mapping[str, Any], settings: TransferSettings) -> dict[str, Any]:
        """Give up on a server that hangs while it is connected to."""
        waits = ("timeout", "banner_timeout", "auth_timeout", "channel_timeout")
        return {**dict.fromkeys(waits, settings.idle), **asked}

    def opened(self, fs: Any, settings: TransferSettings) -> None:
        """Give up on a server that hangs later."""
        fs.ftp.get_channel().settimeout(settings.idle)

    def close(self, fs: Any) -> None:
        """Close the connection."""
        fs.client.close()

    def write(self, fs: Any, path: str, pieces: Iterable[bytes]) -> int:
        """Write without waiting for each answer; for that to the last byte, and so for all."""
        size = 0
        with fs.open(path, "wb") as file:
            file.set_pipelined(True)
            for piece, last in _with_last(pieces):
                size += len(piece)
                file.write(piece[:-1] if last else piece)
                if last:
                    file.set_pipelined(False)
                    file.write(piece[-1:])
        return size

    def create(self, fs: Any, path: str, data: bytes, deadline: float) -> None:  # noqa: ARG002 - its channel has one
        """Write a file beside its place, and rename it as the protocol has it."""
        beside = temporary_beside(path)
        try:
            self.write(fs, beside, [data])
            try:
                fs.ftp.rename(beside, path)
            except OSError as error:
                if describe(fs, path) is not None:
                    raise FileExistsError(path) from error
                raise
        except BaseException:
            with contextlib.suppress(Exception):
                fs.ftp.remove(beside)
            raise

    def keeps_its_word(self, fs: Any, folder: str) -> bool:
        """Rename one file to the name of another: that must be refused."""
        taken = temporary_beside(f"{folder}/")
        self.write(fs, taken, [b"taken"])
        try:
            self.create(fs, taken, b"taken again", 0.0)
        except FileExistsError:
            return True
        else:
            return False
        finally:
            with contextlib.suppress(Exception):
                fs.ftp.remove(taken)

    def rename(self, fs: Any, source: str, target: str) -> None:
        """Rename in one step; on the few servers without the extension, delete what is there first."""
        try:
            fs.mv(source, target)
        except OSError as error:
            if "unsupported" not in str(error).lower() and "not supported" not in str(error).lower():
                raise
            if describe(fs, target) is not None:
                fs.ftp.remove(target)
            fs.ftp.rename(source, target)

    def ls(self, fs: Any, path: str, deadline: float) -> Sequence[Mapping[str, Any]]:  # noqa: ARG002
        """List with four requests; `fs.ls` sends 53, whatever there is."""
        return [
            {
                "name": f"{path}/{found.filename}",
                "type": {stat.S_IFDIR: "directory", stat.S_IFLNK: "link"}.get(stat.S_IFMT(found.st_mode), "file"),
                "size": found.st_size,
                "mtime": found.st_mtime,
            }
            for found in fs.ftp.listdir_attr(path or "/")
        ]

    def read(self, fs: Any, path: str) -> bytes:
        """Read with all requests at once: paramiko waits for each 8 KiB otherwise."""
        with fs.open(path, "rb") as file:
            size = file.stat().st_size
            data = bytearray(size)
            self._read_into(file, [(0, memoryview(data))])
        return bytes(data)

    def fetch(self, fs: Any, path: str, pieces: Pieces, size: int, settings: TransferSettings) -> None:
        """Read with many requests at once."""
        del size, settings
        with fs.open(path, "rb") as file:
            self._read_into(file, pieces)

    @staticmethod
    def _read_into(file: Any, pieces: Pieces) -> None:
        blocks = [
            (begin + offset, target[offset : offset + _SFTP_BLOCK])
            for begin, target in pieces
            for offset in range(0, len(target), _SFTP_BLOCK)
        ]
        for first in range(0, len(blocks), _SFTP_BLOCKS):
            batch = blocks[first : first + _SFTP_BLOCKS]
            answers = file.readv([(begin, len(target)) for begin, target in batch])
            for (begin, target), data in zip(batch, answers, strict=True):
                _fill(target, data, f"the block at {begin:,}")


_TABLE = {
    "adlfs.spec.AzureBlobFileSystem": Azure(),
    "fsspec.implementations.ftp.FTPFileSystem": Ftp(),
    "fsspec.implementations.http.HTTPFileSystem": Http(),
    "fsspec.implementations.local.LocalFileSystem": Renaming(),
    "fsspec.implementations.memory.MemoryFileSystem": Whole(),
    "fsspec.implementations.sftp.SFTPFileSystem": Sftp(),
    "huggingface_hub.hf_file_system.HfFileSystem": Whole(),
    "sshfs.spec.SSHFileSystem": Sshfs(),
}


def traits_of(kind: type) -> Traits:
    """Return the traits of a class of filesystems, or of the class that it was made of."""
    for ancestor in kind.__mro__:
        found = _TABLE.get(f"{ancestor.__module__}.{ancestor.__qualname__}")
        if found is not None:
            return found
    return Traits()


def temporary_beside(path: str) -> str:
    """Return a new name in the folder of `path`, of a kind that nobody reads and `gc` knows."""
    folder, slash, _ = path.rpartition("/")
    return f"{folder}{slash}{TEMPORARY_PREFIX}{uuid.uuid4().hex}"


def describe(fs: Any, path: str, deadline: float | None = None) -> Mapping[str, Any] | None:
    """Return what a filesystem says of an object or a folder; None if there is none."""
    fs.invalidate_cache()
    try:
        found: Mapping[str, Any] = within(deadline, fs.info)(path)
    except FileNotFoundError as error:
        if not says_absent(error):
            raise
        return None
    return found


def within(seconds: float | None, method: Callable[..., T]) -> Callable[..., T]:
    """Return a filesystem's method with a timeout, if it is one that fsspec runs in its event loop."""
    inner = getattr(method, "__wrapped__", None)
    if seconds is None or not inspect.iscoroutinefunction(inner):
        return method
    return functools.partial(method, timeout=seconds)


def _fill(target: memoryview, data: bytes, what: str) -> None:
    if len(data) != len(target):
        raise ConnectionError(f"{what}: {len(data):,} bytes arrived instead of {len(target):,}")
    target[:] = data


def _with_last(pieces: Iterable[bytes]) -> Iterator[tuple[bytes, bool]]:
    """Yield each piece that is not empty, and whether it is the last one."""
    pending = iter(pieces)
    held = next(pending, None)
    while held is not None:
        following = next(pending, None)
        yield held, following is None
        held = following


def _abandon(file: Any) -> None:
    """Let go of a file that was not written to its end, without making it one."""
    from fsspec.spec import AbstractBufferedFile  # noqa: PLC0415 - fsspec is imported with the filesystem

    with contextlib.suppress(Exception):
        if isinstance(file, AbstractBufferedFile):
            file.closed = True  # or it would be uploaded when it is closed, or collected
            file.discard()
        else:
            file.close()
