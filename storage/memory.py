"""Memory: the backend for `memory://`, over fsspec's memory filesystem. For tests, ours and yours.

What is stored lives as long as the process and is seen by every Checkpointer and fsspec user in it.
"""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import fsspec

from ..errors import ConfigError, NotARunError, ObjectExistsError, ObjectNotFoundError, StorageError
from .backend import Capabilities, Chunk, Entry, bytes_of
from .printable import without_password

_SCHEME = "memory://"
_LOCK = threading.RLock()
"""One for all: fsspec keeps one store for the process."""


def open_backend(url: str, storage_options: Mapping[str, Any]) -> MemoryBackend:
    """Return the backend for a `memory://` URL."""
    root = url.removeprefix(_SCHEME).strip("/")
    return MemoryBackend(_SCHEME + root, fsspec.filesystem("memory", **storage_options))


class MemoryBackend:
    """A prefix of fsspec's memory filesystem."""

    def __init__(self, url: str, filesystem: Any) -> None:
        self.url = url
        self.capabilities = Capabilities(put_if_absent=True, links=False)
        self._fs = filesystem
        self._root = filesystem._strip_protocol(url)  # noqa: SLF001 - fsspec's own way to split a URL
        if filesystem.isfile(self._root):
            raise NotARunError(url, "is a file, not a folder")
        if any(filesystem.isfile(above) for above in _above(self._root)):
            raise NotARunError(url, "cannot be used: a part of it is a file, not a folder")

    def put(self, key: str, chunks: Iterable[Chunk], *, base: str | None = None, spare: str | None = None) -> int:  # noqa: ARG002 - nothing is saved by either
        """Collect the stream, then create the object."""
        data = b"".join(bytes_of(chunk) for chunk in chunks)
        self.put_if_absent(key, data)
        return len(data)

    def put_file(self, key: str, path: str) -> None:
        """Read the file in and delete it."""
        try:
            self.put_if_absent(key, Path(path).read_bytes())
            Path(path).unlink()
        except FileNotFoundError as error:
            raise ObjectNotFoundError(path) from error

    def scratch(self) -> str:
        """Make a folder where the system keeps temporary ones."""
        return tempfile.mkdtemp(prefix="keepbest-")

    def put_if_absent(self, key: str, data: bytes) -> None:
        """Create under the lock."""
        with _LOCK:
            if self._fs.isfile(self._path(key)):
                raise ObjectExistsError(self._where(key))
            self._set(self._path(key), data, self._where(key))

    def replace(self, key: str, data: bytes) -> None:
        """Set under the lock."""
        with _LOCK:
            self._set(self._path(key), data, self._where(key))

    def read(self, key: str) -> bytes:
        """Return the whole object."""
        with _LOCK:
            try:
                data: bytes = self._fs.cat_file(self._path(key))
            except FileNotFoundError as error:
                raise ObjectNotFoundError(self._where(key)) from error
        return data

    def read_ranges(self, key: str, ranges: Sequence[tuple[int, int]]) -> list[memoryview]:
        """Copy the object once and slice the copy."""
        view = memoryview(bytearray(self.read(key)))
        return [view[begin:end] for begin, end in ranges]

    def head(self, key: str) -> Entry:
        """Return size and time."""
        with _LOCK:
            if not self._fs.isfile(self._path(key)):
                raise ObjectNotFoundError(self._where(key))
            return self._entry(key, self._fs.ls(self._path(key))[0])  # info() looks at every object there is

    def unfinished(self, prefix: str) -> list[Entry]:  # noqa: ARG002 - there is nothing such
        """Return none: an object comes into being whole."""
        return []

    def list(self, prefix: str, *, limit: int | None = None) -> list[Entry]:
        """List under the lock."""
        with _LOCK:
            try:
                found = self._fs.find(self._path(prefix), detail=True)
            except FileNotFoundError:
                return []
            cut = len(self._root) + 1
            entries = [self._entry(path[cut:], item) for path, item in found.items()]
        return sorted(entries, key=lambda entry: entry.key)[:limit]

    def delete(self, keys: Iterable[str]) -> None:
        """Delete under the lock."""
        with _LOCK:
            for key in keys:
                if self._fs.isfile(self._path(key)):
                    self._fs.rm_file(self._path(key))

    def recycle(self, key: str) -> None:
        """Only delete: `capabilities.recycles` is False."""
        self.delete([key])

    def copy(self, source: str, target: str) -> None:
        """Copy the bytes."""
        self.put_if_absent(target, self.read(source))

    def publish(self, source: str, url: str) -> None:
        """Copy the bytes to another `memory://` URL."""
        if not url.startswith(_SCHEME):
            shown = without_password(url)
            raise ConfigError(f"{shown} does not begin with {_SCHEME}, and a run in memory can place files only there.")
        path = self._fs._strip_protocol(url)  # noqa: SLF001 - as above
        with _LOCK:
            if self._fs.isdir(path):
                raise StorageError(
                    url, "is a folder, so no file can be placed there. Give a URL that ends in a file name."
                )
            self._set(path, self.read(source), url)

    def link(self, source: str, target: str) -> None:
        """Not offered: `capabilities.links` is False."""
        raise NotImplementedError(f"{self.url} has no links (asked for {target} -> {source})")

    def read_link(self, target: str) -> None:
        """Find none."""

    def append(self, key: str) -> MemoryAppender:
        """Append under the lock."""
        return MemoryAppender(self, key)

    def settle(self) -> None:
        """Nothing to do: memory is as durable as it gets."""

    def abort_stale(self, prefix: str, older_than: float) -> int:  # noqa: ARG002 - nothing can be stale here
        """Nothing to do: an object comes into being whole."""
        return 0

    def free_bytes(self) -> int | None:
        """Unknown."""
        return None

    def append_to(self, key: str, data: bytes) -> None:
        """Add `data` at the end of an object. Cost: that of `data`, however long the object is."""
        with _LOCK:
            path = self._path(key)
            if not self._fs.isfile(path):
                self._set(path, data, self._where(key))
                return
            with self._fs.open(path, "ab") as file:
                file.write(data)

    def _set(self, path: str, data: bytes, where: str) -> None:
        if any(self._fs.isfile(above) for above in _above(path)):
            raise NotARunError(where, "cannot be used: a part of it is a file, not a folder")
        self._fs.pipe_file(path, data)

    def _path(self, key: str) -> str:
        return f"{self._root}/{key}".rstrip("/")

    def _where(self, key: str) -> str:
        return f"{self.url}/{key}"

    def _entry(self, key: str, found: Mapping[str, Any]) -> Entry:
        created = found["created"]  # a float, or a datetime in older fsspec
        return Entry(key=key, size=found["size"], modified=getattr(created, "timestamp", lambda: created)())


def _above(path: str) -> Iterator[str]:
    while path := path.rpartition("/")[0]:
        yield path


class MemoryAppender:
    """An object in memory that grows."""

    def __init__(self, backend: MemoryBackend, key: str) -> None:
        self._backend, self._key = backend, key

    def write(self, data: bytes) -> None:
        """Append `data`."""
        self._backend.append_to(self._key, data)

    def close(self) -> None:
        """Nothing to do."""
