"""Remote: the backend over any filesystem of fsspec, by its URL: sftp, ftp, abfs, hf, webdav, and http for reading.

What the others promise is kept as far as the filesystem goes. What it lacks, `remote_traits` knows, and a warning says
once to who writes.
"""

from __future__ import annotations

import contextlib
import functools
import sys
import tempfile
import time
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from msgspec.structs import replace

from ..errors import (
    ConfigError,
    KeepbestError,
    NotARunError,
    ObjectExistsError,
    ObjectNotFoundError,
    StorageError,
)
from . import progress
from .backend import Capabilities, Chunk, Entry, bytes_of
from .layout import CHECKPOINTS, COMMITS, checkpoint_of
from .remote_connections import Connections
from .remote_errors import Secrets, says_absent, without_password
from .remote_info import is_folder, is_link, modified
from .remote_schemes import filesystem_class, scheme_of, schemes, take_apart, tidy
from .remote_traits import describe, temporary_beside, traits_of, within
from .segments import SegmentAppender
from .spans import coalesce, view
from .transfer import TransferSettings

T = TypeVar("T")

_PIECE = 4 << 20
"""Bytes that are handed to a filesystem at a time."""
_STAY = {CHECKPOINTS, COMMITS}
"""Folders that stay when they are empty: a writer may be about to use them."""
_WARNED: set[str] = set()
"""URLs of the runs whose lack was told of."""


def open_backend(url: str, storage_options: Mapping[str, Any]) -> RemoteBackend:
    """Return the backend for a URL of any scheme that fsspec knows; nothing is contacted yet.

    Args:
        url: may hold a user and a password, as fsspec takes them; the password is never shown.
        storage_options: what the filesystem's class takes, and the fields of `TransferSettings`.

    Raises:
        ConfigError: fsspec does not know the scheme, its package is not installed, or it is no place by itself.
    """
    settings, options = TransferSettings.split(storage_options)
    return RemoteBackend(url, filesystem_class(url), options, settings)


class RemoteBackend:
    """A folder of a filesystem of fsspec."""

    def __init__(self, url: str, kind: Any, options: Mapping[str, Any], settings: TransferSettings) -> None:
        """Take the place `url`; nothing is contacted before the first call.

        Args:
            url: `scheme://…`.
            kind: the filesystem's class.
            options: what it is made with; what the URL says is added.
            settings: the deadline, and how much is read at a time.
        """
        self.url = tidy(url)
        self._kind = kind
        self._settings = settings
        self._traits = traits_of(kind)
        named, self._root = take_apart(kind, url)
        self._options = {**named, **options}
        self._connections = Connections(kind, self._options, self._traits, settings, Secrets(url, options))
        self.capabilities = Capabilities(
            put_if_absent=self._traits.creates and settings.conditional_writes, links=False, appends=False
        )
        self._tried = not self.capabilities.put_if_absent
        """There is nothing to find out about `create` any more."""
        self._appenders: list[SegmentAppender] = []

    # ── create ────────────────────────────────────────────────────────────────────────────────────────────────────

    def put(self, key: str, chunks: Iterable[Chunk], *, base: str | None = None, spare: str | None = None) -> int:  # noqa: ARG002 - nothing is saved by either
        """Stream to a file beside its place and rename it, or where renaming is more than one step, to its place."""
        source = _Source(chunks)
        self._put(key, source)
        return source.size

    def put_file(self, key: str, path: str) -> None:
        """Stream the file, and delete it."""
        try:
            file = open(path, "rb")  # noqa: PTH123, SIM115 - as everywhere; closed below
        except FileNotFoundError as error:
            raise ObjectNotFoundError(path) from error
        with file:
            self._put(key, _Source(iter(lambda: file.read(_PIECE), b"")))
        Path(path).unlink()

    def scratch(self) -> str:
        """Make a folder where the system keeps temporary ones."""
        return tempfile.mkdtemp(prefix="keepbest-")

    def put_if_absent(self, key: str, data: bytes) -> None:
        """Leave it to the store whether it is absent; where none can be asked to, look and then write."""
        path = self._make_room(key)
        if not self._tried:
            self._try_out(path)
        if self.capabilities.put_if_absent:
            wait = self._settings.deadline / 2  # as it may be sent twice
            self._connections.call(self._where(key), "write", lambda fs: self._traits.create(fs, path, data, wait))
            return
        if self._describe(path, self._where(key)) is not None:
            raise ObjectExistsError(self._where(key))
        self._set(path, data, self._where(key))

    def replace(self, key: str, data: bytes) -> None:
        """Write beside and rename, or where renaming is more than one step, write over it."""
        self._set(self._make_room(key), data, self._where(key))

    def append(self, key: str) -> SegmentAppender:
        """Append by writing segments; `read_appended` reads them."""
        appender = SegmentAppender(self, key)
        self._appenders.append(appender)
        return appender

    # ── read ──────────────────────────────────────────────────────────────────────────────────────────────────────

    def read(self, key: str) -> bytes:
        """Read the whole object."""
        path = self._path(key)

        def read(fs: Any) -> bytes:
            try:
                return self._traits.read(fs, path)
            except Exception as error:
                found = None if isinstance(error, FileNotFoundError) else describe(fs, path, self._settings.idle)
                if found is not None and is_folder(found):
                    raise ObjectNotFoundError(self._where(key)) from error
                raise

        data = self._connections.call(self._where(key), "read", read)
        progress.current().advance(len(data))
        return data

    def read_ranges(self, key: str, ranges: Sequence[tuple[int, int]]) -> list[memoryview]:
        """Ask for the size, then read neighbours together, in pieces."""
        if not ranges:
            return []
        path, step = self._path(key), self._settings.part_size
        size = self.head(key).size
        spans = coalesce([(begin, min(end, size)) for begin, end in ranges])
        held = [np.empty(end - begin, np.uint8).data for begin, end in spans]
        pieces = [
            (begin + offset, target[offset : offset + step])
            for (begin, _), target in zip(spans, held, strict=True)
            for offset in range(0, len(target), step)
        ]
        if pieces:
            self._connections.call(
                self._where(key), "read", lambda fs: self._traits.fetch(fs, path, pieces, size, self._settings)
            )
        progress.current().advance(sum(end - begin for begin, end in spans))
        return [view(spans, held, begin, end, size) for begin, end in ranges]

    def head(self, key: str) -> Entry:
        """Ask for size and time."""
        location = self._where(key)
        found = self._describe(self._path(key), location)
        if found is None or is_folder(found):
            raise ObjectNotFoundError(location)
        if found.get("size") is None:
            raise StorageError(location, "the server does not say how large it is.")
        return Entry(key=key, size=int(found["size"]), modified=modified(found, time.time()))

    def unfinished(self, prefix: str) -> list[Entry]:  # noqa: ARG002 - as the contract has it
        """Return none: what is being written has a temporary name, which listings show."""
        return []

    def list(self, prefix: str, *, limit: int | None = None) -> list[Entry]:
        """List anew, folder by folder."""
        found = self._connections.call(
            self._where(prefix), "list", lambda fs: list(islice(self._walk(fs, prefix), limit))
        )
        return sorted(found, key=lambda entry: entry.key)

    # ── change ────────────────────────────────────────────────────────────────────────────────────────────────────

    def delete(self, keys: Iterable[str]) -> None:
        """Delete one after the other, and the folders of checkpoints that this leaves empty."""
        folders = set()
        for key in keys:
            self._remove(self._path(key), self._where(key))
            folder = key.rpartition("/")[0]
            while folder and f"{folder}/" not in _STAY:
                folders.add(folder)
                folder = folder.rpartition("/")[0]
        if self._traits.prunes:
            for folder in sorted(folders, reverse=True):
                self._prune(self._path(folder))

    def recycle(self, key: str) -> None:
        """Only delete: `capabilities.recycles` is False."""
        self.delete([key])

    def copy(self, source: str, target: str) -> None:
        """Copy within the store, or through here where it cannot."""
        if self._describe(self._path(target), self._where(target)) is not None:
            raise ObjectExistsError(self._where(target))
        self._copy(source, self._make_room(target), self._where(target))

    def publish(self, source: str, url: str) -> None:
        """Copy beside the exact path and rename, or where renaming is more than one step, copy over it."""
        shown = without_password(url)
        if "://" not in url or scheme_of(url) not in schemes(self._kind, self.url):
            raise ConfigError(
                f"{shown} does not begin with {scheme_of(self.url)}://, and a run there can place files only there."
            )
        named, path = take_apart(self._kind, url)
        if any(self._options.get(name) != value for name, value in named.items()):
            raise ConfigError(f"{shown} is on another server than the run, which can place files only on its own.")
        there = self._describe(path, shown)
        if (there is not None and is_folder(there)) or url.endswith("/"):
            raise StorageError(
                shown, "is a folder, so no file can be placed there. Give a URL that ends in a file name."
            )
        self._make_folder(path.rpartition("/")[0], shown)
        self._copy(source, path, shown)

    def link(self, source: str, target: str) -> None:
        """Not offered: `capabilities.links` is False."""
        raise NotImplementedError(f"{self.url} has no links (asked for {target} -> {source})")

    def read_link(self, target: str) -> None:
        """Find none."""

    # ── the rest ──────────────────────────────────────────────────────────────────────────────────────────────────

    def settle(self) -> None:
        """Send what was appended; everything else is as durable as the server makes it when it answers."""
        self._appenders = [appender for appender in self._appenders if not appender.closed]
        for appender in self._appenders:
            appender.flush()

    def abort_stale(self, prefix: str, older_than: float) -> int:
        """Remove empty folders of checkpoints."""
        if not self._traits.prunes:
            return 0
        below = prefix + CHECKPOINTS
        found = self._connections.call(self._where(below), "list", lambda fs: self._names(fs, below))
        stale = [
            name
            for name, info in found
            if is_folder(info)
            and checkpoint_of(f"{CHECKPOINTS}{name}/") is not None
            and modified(info, time.time()) <= older_than
        ]
        return sum(self._prune(self._path(below + name)) for name in stale)

    def free_bytes(self) -> int | None:
        """Unknown."""
        return None

    # ── paths ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def _path(self, key: str) -> str:
        return self._traits.path(self._root, key).rstrip("/")

    def _where(self, key: str) -> str:
        return f"{self.url}/{key}"

    def _make_room(self, key: str) -> str:
        """Return the path of `key`, with its folder made."""
        self._say_what_is_lost()
        path = self._path(key)
        self._make_folder(path.rpartition("/")[0], self._where(key))
        return path

    def _make_folder(self, folder: str, location: str) -> None:
        if not self._traits.folders or not folder:
            return

        def make(fs: Any) -> None:
            failure: Exception | None = None
            for _ in range(3):  # another thread may make a part of it at the same time, which is an error here
                found = describe(fs, folder, self._settings.idle)
                if found is not None and is_folder(found):
                    return
                if found is not None:
                    raise NotARunError(location, "cannot be used: a part of it is a file, not a folder")
                try:
                    within(self._settings.idle, fs.makedirs)(folder, exist_ok=True)
                except Exception as error:  # noqa: BLE001 - each filesystem has its own; raised again below
                    failure = error
                else:
                    return
            assert failure is not None
            raise failure

        self._connections.call(location, "create", make)

    # ── objects ───────────────────────────────────────────────────────────────────────────────────────────────────

    def _put(self, key: str, source: _Source) -> None:
        location, path = self._where(key), self._make_room(key)
        if self._describe(path, location) is not None:  # and a connection that was lost meanwhile is made anew
            raise ObjectExistsError(location)
        target = temporary_beside(path) if self._traits.renames else path
        try:
            with self._connections.lent(location, "write") as fs:
                self._traits.write(fs, target, source)
                self._expect(fs, target, source.size)
                if target != path:
                    self._traits.rename(fs, target, path)
        except BaseException:
            with contextlib.suppress(KeepbestError):
                self._remove(target, location)
            if source.failure is not None:
                raise source.failure from None
            raise

    def _set(self, path: str, data: bytes, location: str) -> None:
        wait = self._settings.deadline / 2
        self._connections.call(location, "write", lambda fs: self._traits.set(fs, path, data, wait))

    def _copy(self, source: str, path: str, location: str) -> None:
        size = self.head(source).size
        origin = self._path(source)
        target = temporary_beside(path) if self._traits.renames else path

        def copy(fs: Any) -> None:
            try:
                fs.cp_file(origin, target)
            except Exception:  # noqa: BLE001 - it cannot, or may not, as where SFTP is all that an account may do
                self._traits.write(fs, target, self._pieces(source, size))
            self._expect(fs, target, size)
            if target != path:
                self._traits.rename(fs, target, path)

        try:
            self._connections.call(location, "write", copy)
        except BaseException:
            if target != path:
                with contextlib.suppress(KeepbestError):
                    self._remove(target, location)
            raise

    def _pieces(self, key: str, size: int) -> Iterator[bytes]:
        """Read an object piece by piece, by another connection than the one that writes meanwhile."""
        path, settings = self._path(key), self._settings

        def fetch(fs: Any, begin: int, piece: bytearray) -> None:
            self._traits.fetch(fs, path, [(begin, memoryview(piece))], size, settings)

        for begin in range(0, size, _PIECE):
            piece = bytearray(min(_PIECE, size - begin))
            self._connections.call(self._where(key), "read", functools.partial(fetch, begin=begin, piece=piece))
            yield bytes(piece)

    def _expect(self, fs: Any, path: str, size: int) -> None:
        """Make sure that all bytes have arrived: not every server says so when they have not."""
        found = describe(fs, path, self._settings.idle)
        arrived = found.get("size") if found is not None else 0
        if arrived != size:
            raise ConnectionError(f"{arrived:,} of {size:,} bytes arrived")

    def _remove(self, path: str, location: str) -> None:
        def remove(fs: Any) -> None:
            try:
                within(self._settings.idle, fs.rm_file)(path)
            except Exception:
                if describe(fs, path, self._settings.idle) is not None:
                    raise

        self._connections.call(location, "delete", remove)

    def _prune(self, path: str) -> bool:
        """Remove a folder if it is empty; say whether it was."""

        def prune(fs: Any) -> bool:
            try:
                within(self._settings.idle, fs.rmdir)(path)
            except Exception:  # noqa: BLE001 - not empty or gone already: both are fine
                return False
            return True

        return self._connections.call(self.url, "delete", prune)

    def _describe(self, path: str, location: str) -> Mapping[str, Any] | None:
        return self._connections.call(location, "read", lambda fs: describe(fs, path, self._settings.idle))

    def _walk(self, fs: Any, prefix: str) -> Iterator[Entry]:
        now = time.time()
        unsized = []
        for name, info in self._names(fs, prefix):
            key = prefix + name
            if is_link(info):
                continue
            if is_folder(info):
                yield from self._walk(fs, f"{key}/")
            elif info.get("size") is None:
                unsized.append((key, modified(info, now)))
            else:
                yield Entry(key=key, size=int(info["size"]), modified=modified(info, now))
        sizes = fs.sizes([self._path(key) for key, _ in unsized]) if unsized else []
        for (key, changed), size in zip(unsized, sizes, strict=True):
            if size is not None:
                yield Entry(key=key, size=int(size), modified=changed)

    def _names(self, fs: Any, prefix: str) -> Sequence[tuple[str, Mapping[str, Any]]]:
        """Return what lies directly in a folder: names and what is said of them."""
        folder = self._path(prefix)
        try:
            found = self._traits.ls(fs, folder, self._settings.idle)
        except FileNotFoundError as error:
            if not says_absent(error):
                raise
            return []
        inside = [info for info in found if _folder(info["name"]) == folder.strip("/")]
        return [(name, info) for info in inside if (name := self._traits.name(info["name"]))]

    # ── what is lost ──────────────────────────────────────────────────────────────────────────────────────────────

    def _try_out(self, path: str) -> None:
        folder = path.rpartition("/")[0]
        if not self._connections.call(self.url, "write", lambda fs: self._traits.keeps_its_word(fs, folder)):
            self.capabilities = replace(self.capabilities, put_if_absent=False)
            self._say_what_is_lost()
        self._tried = True

    def _say_what_is_lost(self) -> None:
        if self.capabilities.put_if_absent or not self._settings.conditional_writes or self.url in _WARNED:
            return
        _WARNED.add(self.url)
        torn = (
            ""
            if self._traits.renames or self._traits.whole
            else " Who is killed while a manifest is written may leave a damaged one, and so lose that checkpoint."
        )
        warnings.warn(
            f"{self.url}: this store does not create objects only if they are absent ({self._kind.__name__}), so two "
            f"trainings on this run would overwrite each other's commits unnoticed.{torn} If only one ever writes, all "
            "is well: storage_options={'conditional_writes': False} says so, and silences this.",
            stacklevel=_outside(),
        )


class _Source:
    """A stream, cut into pieces of which a filesystem can hold one."""

    def __init__(self, chunks: Iterable[Chunk]) -> None:
        self.size = 0
        """Bytes that were taken from it."""
        self.failure: BaseException | None = None
        """What the stream itself raised."""
        self._chunks = iter(chunks)

    def __iter__(self) -> Iterator[bytes]:
        task = progress.current()
        while True:
            try:
                chunk = next(self._chunks)
            except StopIteration:
                return
            except BaseException as error:
                self.failure = error
                raise
            rest = memoryview(bytes_of(chunk)).cast("B")
            for begin in range(0, len(rest), _PIECE):
                piece = bytes(rest[begin : begin + _PIECE])
                self.size += len(piece)
                task.advance(len(piece))
                yield piece


def _folder(path: str) -> str:
    return path.rstrip("/").rpartition("/")[0].strip("/")


def _outside() -> int:
    """Return the stacklevel at which a warning of our caller names the nearest line outside of keepbest."""
    level, package = 2, __name__.partition(".")[0]
    frame = sys._getframe(2)  # noqa: SLF001 - the documented way to walk the stack; warnings itself does so
    while frame.f_back is not None and frame.f_globals.get("__name__", "").partition(".")[0] == package:
        frame, level = frame.f_back, level + 1
    return level
