"""Bucket: the backend of an object store, over a client that knows its requests.

Objects come into being whole, so nothing needs to be made durable later; what a crash leaves are parts of uploads.
Every listing goes to the store: none is cached.
"""

from __future__ import annotations

import contextlib
import functools
import mmap
import os
import tempfile
import threading
import uuid
from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from pathlib import Path

from msgspec.structs import replace

from ..errors import (
    ConditionalWriteError,
    ConfigError,
    KeepbestError,
    ObjectExistsError,
    ObjectNotFoundError,
    StorageError,
)
from .backend import Capabilities, Chunk, Entry
from .client import DELETE_BATCH, Client, Source, Upload
from .layout import COMMITS, TEMPORARY_PREFIX, checkpoint_of
from .printable import without_password
from .segments import SegmentAppender
from .transfer import Transfer, TransferSettings

_FILE_CHUNK = 8 << 20


class BucketBackend:
    """A prefix of a bucket."""

    def __init__(
        self,
        url: str,
        connect: Callable[[str], Client],
        settings: TransferSettings,
        schemes: Sequence[str],
        *,
        delta: bool = False,
    ) -> None:
        """Take the place `url`; nothing is contacted before the first request.

        Args:
            url: `scheme://bucket` or `scheme://bucket/prefix`.
            connect: returns a client for a bucket. Called anew in a process that was forked: connections do not survive
                that.
            settings: how the store is spoken to.
            schemes: what URLs that `publish` takes may begin with.
            delta: the store may be able to make a part of a range of another object.
        """
        self.url = url
        self.capabilities = Capabilities(
            put_if_absent=settings.conditional_writes,
            links=False,
            appends=False,
            parallel=settings.connections,
            delta=delta,
        )
        self._connect = connect
        self._settings = settings
        self._schemes = schemes
        self._bucket = url.partition("://")[2].partition("/")[0]
        self._connected: dict[tuple[int, str], Transfer] = {}
        """By process and bucket."""
        self._connecting: dict[int, threading.Lock] = {}
        self._prefix = _prefix(url)
        self._probed = not settings.conditional_writes
        self._appenders: list[SegmentAppender] = []

    # ── create ────────────────────────────────────────────────────────────────────────────────────────────────────

    def put(self, key: str, chunks: Iterable[Chunk], *, base: str | None = None, spare: str | None = None) -> int:
        """Stream to the bucket: one request if it is short, else parts in a window; nothing goes through a disk.

        What `base` holds is copied by the store, unless it turns out that it cannot: then `capabilities` says so.
        """
        assert spare is None, "nothing is recycled here"
        transfer = self._transfer
        older = self._key(base) if base is not None and self.capabilities.delta else None
        try:
            return transfer.upload(self._key(key), chunks, if_absent=True, base=older)
        finally:
            if self.capabilities.delta and not transfer.copies_ranges:
                self.capabilities = replace(self.capabilities, delta=False)

    def put_file(self, key: str, path: str) -> None:
        """Upload the file, mapped rather than read, and delete it."""
        try:
            pieces = _pieces(path)
        except FileNotFoundError as error:
            raise ObjectNotFoundError(path) from error
        self.put(key, pieces)
        Path(path).unlink()

    def scratch(self) -> str:
        """Make a folder where the system keeps temporary ones."""
        return tempfile.mkdtemp(prefix="keepbest-")

    def put_if_absent(self, key: str, data: bytes) -> None:
        """Create in one conditional request. The first time, make sure that the store honours conditions."""
        if not self._probed:
            self._probe()
            self._probed = True
        conditional = self.capabilities.put_if_absent
        if not conditional and self._exists(key):
            raise ObjectExistsError(self._where(key))
        self._transfer.call(lambda: self._client.put(self._key(key), data, if_absent=conditional))

    def replace(self, key: str, data: bytes) -> None:
        """Set in one request."""
        self._transfer.call(lambda: self._client.put(self._key(key), data, if_absent=False))

    def append(self, key: str) -> SegmentAppender:
        """Append by writing segments; `read_appended` reads them."""
        appender = SegmentAppender(self, key)
        self._appenders.append(appender)
        return appender

    # ── read ──────────────────────────────────────────────────────────────────────────────────────────────────────

    def read(self, key: str) -> bytes:
        """Read a small object in one request."""
        return self._transfer.call(lambda: self._client.get(self._key(key)), small=True)

    def read_ranges(self, key: str, ranges: Sequence[tuple[int, int]]) -> list[memoryview]:
        """Read in parallel, straight into the memory that is returned."""
        return self._transfer.download(self._key(key), ranges) if ranges else []

    def head(self, key: str) -> Entry:
        """Ask for size and time."""
        found = self._transfer.call(lambda: self._client.head(self._key(key)), small=True)
        return Entry(key=key, size=found.size, modified=found.modified)

    def unfinished(self, prefix: str) -> list[Entry]:
        """Ask for multipart uploads."""
        return [
            Entry(key=upload.key[len(self._prefix) :], size=0, modified=upload.started)
            for upload in self._uploads(prefix)
        ]

    def _uploads(self, prefix: str) -> list[Upload]:
        """Return those of checkpoints' files: others than keepbest may upload to the same prefix."""
        found = self._transfer.call(lambda: self._client.uploads(self._key(prefix)))
        return [upload for upload in found if checkpoint_of(upload.key[len(self._prefix) :]) is not None]

    def list(self, prefix: str, *, limit: int | None = None) -> list[Entry]:
        """List anew; one request for each 1,000 objects."""
        found: list[Entry] = []
        start: str | None = None
        while True:
            page, start = self._transfer.call(
                functools.partial(self._client.list, self._key(prefix), start), small=True
            )
            found.extend(self._shown(entry) for entry in page if not entry.key.endswith("/"))
            if start is None or (limit is not None and len(found) >= limit):
                return sorted(found, key=lambda entry: entry.key)[:limit]

    def _shown(self, entry: Entry) -> Entry:
        return Entry(key=entry.key[len(self._prefix) :], size=entry.size, modified=entry.modified)

    # ── change ────────────────────────────────────────────────────────────────────────────────────────────────────

    def delete(self, keys: Iterable[str]) -> None:
        """Delete in batches."""
        pending = iter([self._key(key) for key in keys])
        while batch := list(islice(pending, DELETE_BATCH)):
            self._transfer.call(functools.partial(self._client.delete, batch), small=True)

    def recycle(self, key: str) -> None:
        """Only delete: `capabilities.recycles` is False."""
        self.delete([key])

    def copy(self, source: str, target: str) -> None:
        """Copy within the store; no bytes pass through here."""
        if self._exists(target):
            raise ObjectExistsError(self._where(target))
        self._transfer.copy(Source(self._client, self._key(source)), self._key(target))

    def publish(self, source: str, url: str) -> None:
        """Copy within the store to an exact path, of this bucket or another one."""
        scheme, found, path = url.partition("://")
        if not found or scheme not in self._schemes:
            raise ConfigError(
                f"{without_password(url)} does not begin with {self._schemes[0]}://, and a run in such a bucket can "
                "place files only in one."
            )
        bucket, _, key = path.partition("/")
        no_secrets_in(bucket, scheme)
        if not key:
            raise ConfigError(f"{url} names a bucket, not an object in it. Give a URL that ends in a file name.")
        target = self._transfer_to(bucket)
        if target.call(lambda: target.client.has_any(key.rstrip("/") + "/")):
            raise StorageError(url, "is a folder, so no file can be placed there. Give a URL that ends in a file name.")
        target.copy(Source(self._client, self._key(source)), key)

    def link(self, source: str, target: str) -> None:
        """Not offered: `capabilities.links` is False."""
        raise NotImplementedError(f"{self.url} has no links (asked for {target} -> {source})")

    def read_link(self, target: str) -> None:
        """Find none."""

    # ── the rest ──────────────────────────────────────────────────────────────────────────────────────────────────

    def settle(self) -> None:
        """Send what was appended; everything else is durable since its request was answered."""
        self._appenders = [appender for appender in self._appenders if not appender.closed]
        for appender in self._appenders:
            appender.flush()

    def abort_stale(self, prefix: str, older_than: float) -> int:
        """Abort the multipart uploads that were begun before."""
        stale = [upload for upload in self._uploads(prefix) if upload.started <= older_than]
        for upload in stale:
            self._transfer.call(functools.partial(self._client.abort_upload, upload.key, upload.id))
        return len(stale)

    def free_bytes(self) -> int | None:
        """Unknown: a bucket has no end."""
        return None

    @property
    def _transfer(self) -> Transfer:
        return self._transfer_to(self._bucket)

    def _transfer_to(self, bucket: str) -> Transfer:
        """Return the connection to a bucket, made anew in a forked process, and when credentials were refused."""
        process = os.getpid()
        with self._connecting.setdefault(process, threading.Lock()):  # the parent's may be held by a thread of its own
            held = self._connected.get((process, bucket))
            if held is None or held.refused:
                held = self._connected[process, bucket] = Transfer(self._connect(bucket), self._settings)
            return held

    @property
    def _client(self) -> Client:
        return self._transfer.client

    def _exists(self, key: str) -> bool:
        return self._transfer.exists(self._key(key))

    def _probe(self) -> None:
        """Create an object twice, only if absent: the second must be refused.

        Some stores do not know the condition and say so, others overwrite without a word.
        """
        key = self._key(f"{COMMITS}{TEMPORARY_PREFIX}{uuid.uuid4().hex}")
        put = functools.partial(self._client.put, key, b"probe", if_absent=True)
        try:
            for _ in range(2):
                self._transfer.call(put)
        except ObjectExistsError:  # at the first already, if its reply was lost and it was sent again
            return
        finally:
            with contextlib.suppress(KeepbestError):  # what cannot be deleted is left to `gc`
                self._transfer.call(lambda: self._client.delete([key]), small=True)
        raise ConditionalWriteError(self.url, "'conditional_writes': False")

    def _key(self, key: str) -> str:
        return self._prefix + key

    def _where(self, key: str) -> str:
        return f"{self.url}/{key}"


def no_secrets_in(bucket: str, scheme: str) -> None:
    """Refuse `scheme://key:secret@bucket`: URLs are shown, in errors and elsewhere.

    Raises:
        ConfigError: it is such a URL, which the error does not show.
    """
    if "@" in bucket:
        raise ConfigError(
            f"the URL {scheme}://…@{bucket.rpartition('@')[2]} holds credentials, and URLs are shown. Give them in "
            "storage_options or the environment."
        )
    if ":" in bucket and not bucket.startswith("arn:"):  # a secret may hold a slash, and end there what looks like one
        raise ConfigError(
            f"what stands behind {scheme}:// is no name of a bucket: it has a colon. If it is a key and a secret, give "
            "them in storage_options or the environment: URLs are shown."
        )


def _prefix(url: str) -> str:
    """Return what all keys below a URL start with: empty, or ending in "/"."""
    path = url.partition("://")[2].partition("/")[2].strip("/")
    return f"{path}/" if path else ""


def _pieces(path: str) -> list[memoryview]:
    """Map a file and return its bytes in pieces; the mapping goes when nobody holds one any more."""
    with open(path, "rb") as file:  # noqa: PTH123 - as everywhere
        if not file.seek(0, os.SEEK_END):
            return []
        view = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    return [view[begin : begin + _FILE_CHUNK] for begin in range(0, len(view), _FILE_CHUNK)]
