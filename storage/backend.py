"""Backend: the small contract a place to store must meet, and `open_backend(url)`, which finds the right one.

Keys are relative to the backend's URL, with "/" between parts and no leading one. Every method raises only
`StorageError`s (translated once, there), or `NotARunError` where a part of the path is a file, and may be called from
several threads.
"""

from __future__ import annotations

import importlib
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

from msgspec import Struct

from ..errors import ConfigError
from .printable import without_password

Buffer = bytes | bytearray | memoryview


class Capabilities(Struct, frozen=True, kw_only=True):
    """What a backend can guarantee."""

    put_if_absent: bool
    """Two writers that create one key: exactly one succeeds."""
    links: bool
    """`link` makes a name that people can follow; elsewhere a small object says the same."""
    appends: bool = True
    """`append` grows the object itself; elsewhere it writes segments (`segments.py`)."""
    parallel: int = 1
    """How many `put`s at once are faster than one after the other."""
    delta: bool = False
    """`put` takes `Held` bytes from an older object, so that they need not be sent again."""
    recycles: bool = False
    """`recycle` keeps the blocks of a file for the next `put`."""


class Held(Struct, frozen=True, kw_only=True):
    """Bytes of a stream that an older object has as well, so that they need not be sent."""

    data: memoryview
    """The bytes themselves, for whoever must send them after all."""
    begin: int
    """Where the older object has them."""
    in_place: bool = False
    """The older object is the spare file of `put`, which has them where the new one is to have them; else `base`."""


Chunk = Buffer | Held


def bytes_of(chunk: Chunk) -> Buffer:
    """Return the bytes of a chunk, for whoever sends them all."""
    return chunk.data if isinstance(chunk, Held) else chunk


class Entry(Struct, frozen=True, kw_only=True):
    """One object in a listing."""

    key: str
    size: int
    """Bytes."""
    modified: float
    """Seconds since 1970, by the store's clock."""


class Link(Struct, frozen=True, kw_only=True):
    """A name that `Backend.link` made, or somebody else."""

    source: str
    """What it leads to, as a key; one that begins with "../" is outside of the run. Nothing need be there."""
    modified: float
    """Seconds since 1970, by the store's clock: when it was set."""


@runtime_checkable
class Appender(Protocol):
    """An object that grows at its end."""

    def write(self, data: bytes) -> None:
        """Append `data`: durable after `settle`; with `capabilities.appends` it survives the process at once."""

    def close(self) -> None:
        """Make it durable and let go of it."""


@runtime_checkable
class Backend(Protocol):
    """Durable bytes under keys.

    The order that `commit` relies on: `put` → `settle` (content and names durable) → `put_if_absent` (durable at once).
    """

    url: str
    """For messages; carries no credentials."""
    capabilities: Capabilities

    def put(self, key: str, chunks: Iterable[Chunk], *, base: str | None = None, spare: str | None = None) -> int:
        """Create `key` from a stream of unknown length; returns its bytes. Durable after `settle`.

        A buffer of the stream must stay as it is until `put` returns.

        Args:
            key: a fresh one.
            chunks: the content; `Held` only where `capabilities.delta` says so, or in the spare file. An attribute
                `nbytes`, if it has one, says beforehand how many bytes they are.
            base: the key of the object that `Held` bytes are in; it is committed, and stays until `put` returns.
            spare: what `recycle` returned: a file whose blocks are written over. It is gone afterwards.

        Raises:
            ObjectExistsError: the key is taken; keys of data are never written twice.
            StorageFullError, StoragePermissionError: nothing is left behind.
        """

    def put_file(self, key: str, path: str) -> None:
        """Create `key` from a local file, which is moved, or else copied and deleted. Durable after `settle`.

        Raises:
            ObjectExistsError: the key is taken.
        """

    def scratch(self) -> str:
        """Return a new local folder for files that `put_file` will take; on the run's own file system if it has one."""

    def put_if_absent(self, key: str, data: bytes) -> None:
        """Create `key` with all of `data` or not at all, durable on return.

        Raises:
            ObjectExistsError: the key exists; it was not touched.
        """

    def replace(self, key: str, data: bytes) -> None:
        """Set `key` to `data`; readers see the old content or the new. Not durable before `settle`."""

    def read(self, key: str) -> bytes:
        """Return the whole object.

        Raises:
            ObjectNotFoundError: there is none.
        """

    def read_ranges(self, key: str, ranges: Sequence[tuple[int, int]]) -> list[memoryview]:
        """Return a writable view for each `(begin, end)` in bytes; shorter than asked where the object ends early.

        Writing to a view changes no object.
        """

    def head(self, key: str) -> Entry:
        """Return size and time of one object.

        Raises:
            ObjectNotFoundError: there is none, or it is a folder.
        """

    def unfinished(self, prefix: str) -> list[Entry]:
        """Return uploads below `prefix` that were begun and not ended, of files of checkpoints; no listing shows them.

        Each with the key that it is to have, the time when it was begun, and the size 0. Empty where there are none
        such.
        """

    def list(self, prefix: str, *, limit: int | None = None) -> list[Entry]:
        """Return all objects whose key starts with `prefix` (empty, or ending in "/"), sorted by key; never cached.

        With `limit` at most so many, those that are found first, and without looking for the others.
        """

    def delete(self, keys: Iterable[str]) -> None:
        """Delete these; one that does not exist is no error. Durable after `settle`."""

    def recycle(self, key: str) -> str | None:
        """Take away a file that no commit names any more, and keep its blocks; only with `capabilities.recycles`.

        Returns:
            What to give as `spare`, a key: `delete` gives it up. None: somebody else may still see the file, and it is
            only deleted.
        """

    def copy(self, source: str, target: str) -> None:
        """Create `target` with the content of `source`, moving no bytes where the store can. Durable after `settle`."""

    def publish(self, source: str, url: str) -> None:
        """Place the content of `source` at an exact path outside the run, atomically replacing what is there; durable.

        Args:
            source: a key.
            url: a path or URL of the same kind of store.

        Raises:
            StorageError: a folder is there; ConfigError: it is another kind of store.
        """

    def link(self, source: str, target: str) -> None:
        """Point the name `target` at the folder `source`, atomically replacing what it pointed at."""

    def read_link(self, target: str) -> Link | None:
        """Return where the name `target` leads; None if it is no link, as everywhere where there are none."""

    def append(self, key: str) -> Appender:
        """Open `key` for appending; it is created when absent."""

    def settle(self) -> None:
        """Make durable everything that this object created, appended or deleted."""

    def abort_stale(self, prefix: str, older_than: float) -> int:
        """Remove what a crash left below `prefix` before `older_than` and no listing shows; return how many there were.

        In a bucket these are parts of uploads, in a file system empty folders.

        Args:
            prefix: as in `list`.
            older_than: seconds since 1970.
        """

    def free_bytes(self) -> int | None:
        """Return the space left, or None where the store does not say."""


_BACKENDS = {
    "": "local",
    "file": "local",
    "local": "local",
    "memory": "memory",
    "s3": "s3",
    "s3a": "s3",
    "gs": "gcs",
    "gcs": "gcs",
}


_RESERVED = frozenset(("cls", "self"))
"""Names that Python itself gives to what makes a filesystem."""
_TORN_SCHEME = re.compile(r"(s3a?|gcs|gs|abfss?|az|sftp):/?(?!/)", re.IGNORECASE)


def open_backend(url: str | os.PathLike[str], storage_options: Mapping[str, Any] | None = None) -> Backend:
    """Return the backend for `url`; nothing is created or contacted yet.

    Args:
        url: a path, or `scheme://…`. A path may start with "~".
        storage_options: what fsspec takes for the scheme; never logged.

    Raises:
        ConfigError: no backend serves the scheme, or has such an option.
        NotARunError: the URL is a file, not a folder.
    """
    if isinstance(url, os.PathLike):
        url = os.fspath(url)
    if not isinstance(url, str) or not url.strip() or "\0" in url:
        got = repr(without_password(url)) if isinstance(url, str) else f"a {type(url).__name__}"
        raise ConfigError(f"the URL of a run must be a non-empty text (got {got}). Give a folder or scheme://… first.")
    torn = _TORN_SCHEME.match(url)
    if torn:
        meant = re.sub(r"://.*@", "://…@", f"{torn[1].lower()}://{url[torn.end() :]}")  # it may hold a password
        raise ConfigError(f"{torn[0]}… is no URL, and hardly a folder. Did you mean {meant}?")
    scheme, found, _ = url.partition("://")
    if found and any("\ud800" <= character <= "\udfff" for character in url):  # local names may be any bytes
        shown = without_password(url).encode("ascii", "backslashreplace").decode()
        raise ConfigError(f"{shown} is no URL: it holds bytes that are no text.")
    reserved = _RESERVED.intersection(storage_options or {})
    if reserved:
        raise ConfigError(f"there is no storage option '{min(reserved)}'. Leave it out.")
    name = _BACKENDS.get(scheme if found else "", "remote")
    module = importlib.import_module(f".{name}", __package__)
    opened: Backend = module.open_backend(url, dict(storage_options or {}))
    return opened
