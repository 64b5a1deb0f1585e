"""Client: the requests that a bucket answers, one attempt each.

`bucket.py` makes a backend of them, `transfer.py` moves many bytes with them. Keys are those of the bucket, from its
root. A request that may succeed if it is sent again raises `TransientError`; all other failures are `StorageError`s
that name what is wrong.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from typing import Any, Protocol

from msgspec import Struct

from ..errors import StorageError, UnexpectedAnswerError
from .backend import Buffer, Entry

DELETE_BATCH = 1000
"""Keys that one `delete` takes."""


class TransientError(Exception):
    """An attempt failed in a way that may pass. Never leaves storage: `error` is raised when retries are over."""

    def __init__(self, error: StorageError, *, tried: float = 0.0) -> None:
        super().__init__(str(error))
        self.error = error
        self.tried = tried
        """Seconds for which it was sent again already, at most, to no avail."""


class Upload(Struct, frozen=True, kw_only=True):
    """A multipart upload that was begun and neither finished nor aborted."""

    key: str
    id: str
    started: float
    """Seconds since 1970, by the store's clock."""


class Source(Struct, frozen=True):
    """An object to copy from."""

    client: Client
    """Of its bucket."""
    key: str
    size: int | None = None
    """Bytes, if they were asked for."""
    tag: str | None = None
    """Of the content that it must still have; None: whatever it has."""


class Client(Protocol):
    """One bucket. May be called from several threads."""

    url: str
    """`scheme://bucket`."""
    bucket: str
    copy_limit: int | None
    """Bytes that one `copy` takes; None: any number."""
    part_limit: int
    """Parts that one upload takes."""

    @property
    def put_stream(self) -> Callable[[str, Iterator[Buffer]], None] | None:
        """What sends the parts of an object by itself, if the client has such: with a window, and some retries.

        It raises `TransientError` where `put_part` may come through: that tries longer. It may leave an upload behind.
        """

    def put(self, key: str, data: Buffer, *, if_absent: bool) -> None:
        """Create or replace an object in one request; the server checks what arrives against a checksum.

        Raises:
            ObjectExistsError: `if_absent`, and it exists.
        """

    def start_upload(self, key: str, *, copied: bool = False) -> str:
        """Begin a multipart upload, of parts that are sent too, or of parts that are `copied` alone; returns its id."""

    def put_part(self, key: str, upload: str, number: int, data: Buffer) -> Any:
        """Send one part, numbered from 1, with a checksum; returns what `finish_upload` wants to know of it."""

    def finish_upload(self, key: str, upload: str, parts: Sequence[Any]) -> None:
        """Make the object of its parts, in their order.

        Raises:
            ObjectNotFoundError: there is no such upload (any more).
        """

    def abort_upload(self, key: str, upload: str) -> None:
        """Drop the parts; an upload that is gone already is no error."""

    def uploads(self, prefix: str) -> list[Upload]:
        """Return the uploads under way, or left by a crash, whose keys start with `prefix`."""

    def get(self, key: str) -> bytes:
        """Return a whole, small object."""

    def get_into(self, key: str, begin: int, target: memoryview) -> int:
        """Read into `target` from the byte `begin` on; returns how many bytes there were."""

    def head(self, key: str) -> Entry:
        """Return size and time."""

    def source(self, key: str) -> Source:
        """Return an object to copy from, as it is now: nothing is copied of one that takes its place.

        Raises:
            ObjectNotFoundError: there is none.
        """

    def list(self, prefix: str, start: str | None) -> tuple[Sequence[Entry], str | None]:
        """Return a page of the objects whose key starts with `prefix`, and where the next begins (None: nowhere).

        Args:
            prefix: empty for all.
            start: where the page begins; None: the first one.
        """

    def has_any(self, prefix: str) -> bool:
        """Say whether any object's key starts with `prefix`."""

    def delete(self, keys: Sequence[str]) -> None:
        """Delete at most `DELETE_BATCH` objects; one that does not exist is no error."""

    def copy(self, source: Source, key: str) -> None:
        """Copy within the store, at most `copy_limit` bytes.

        Raises:
            ObjectNotFoundError, ObjectExistsError: the source is gone, or another one by now.
        """

    def copy_part(self, source: Source, span: tuple[int, int], key: str, upload: str, number: int) -> Any:
        """Make a part of the bytes `span` (begin, end) of another object; returns the same as `put_part`.

        Raises:
            ObjectNotFoundError, ObjectExistsError: as `copy`.
        """


async def receive(chunks: AsyncIterator[bytes], target: memoryview, location: str) -> int:
    """Put what arrives of a range into `target`; returns its bytes.

    Raises:
        UnexpectedAnswerError: it is more than was asked for.
    """
    position = 0
    async for chunk in chunks:
        if position + len(chunk) > len(target):
            raise UnexpectedAnswerError(location, "longer than the range that was asked for")
        target[position : position + len(chunk)] = chunk
        position += len(chunk)
    return position
