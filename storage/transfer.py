"""Transfer: many bytes between memory and a bucket — parts in a sliding window, ranges in parallel, retries of each.

Memory: at most `connections + 1` parts beside what the caller holds, however large the object is and however many are
moved at once.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import wait as wait_for
from typing import Any, TypeVar

import numpy as np
from msgspec import Struct

from ..errors import ConfigError, KeepbestError, ObjectExistsError, ObjectNotFoundError, StorageError
from . import progress, retry
from .backend import Buffer, Chunk, Held
from .client import Client, Source, TransientError
from .older import NotCopiedError, Older
from .operation import one_operation, submit
from .parts import LEAST, Part, PartSizes, parts
from .retry import RETRIED, Retry
from .spans import coalesce, view

T = TypeVar("T")


class TransferSettings(Struct, frozen=True, kw_only=True):
    """How a bucket is spoken to. Given among the `storage_options`, under the names of the fields."""

    connections: int = 8
    """Requests that move data at the same time."""
    part_size: int = 8 << 20
    """Bytes of a part or a range. Grows for objects that would have too many parts."""
    deadline: float = 30.0
    """Seconds after which a request that goes on failing or stalling is an error."""
    client: str | None = None
    """What carries the bulk of the bytes to S3: "obstore" or "s3fs"; None: obstore where it is installed."""
    conditional_writes: bool = True
    """False: go on without them where the store has none; two writers then overwrite each other unnoticed."""

    def __post_init__(self) -> None:
        whole = {"connections": (self.connections, 1, 256), "part_size": (self.part_size, 5 << 20, 5 << 30)}
        for name, (value, least, most) in whole.items():
            if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
                limits = f"a whole number from {least} to {most}"
                raise ConfigError(f"storage_options['{name}'] is {limits} (got {value!r}).")
        number = isinstance(self.deadline, (int, float)) and not isinstance(self.deadline, bool)
        if not number or not 1 <= self.deadline <= 86400:  # noqa: PLR2004 - a second, a day
            raise ConfigError(f"storage_options['deadline'] is seconds from 1 to 86400 (got {self.deadline!r}).")
        if self.client not in {None, "s3fs", "obstore"}:
            raise ConfigError(f"storage_options['client'] is 's3fs' or 'obstore' (got {self.client!r}).")
        if not isinstance(self.conditional_writes, bool):
            raise ConfigError(
                f"storage_options['conditional_writes'] is True or False (got {self.conditional_writes!r})."
            )

    @property
    def idle(self) -> float:
        """Seconds without an answer after which one attempt is given up."""
        return retry.stall(self.deadline)

    @staticmethod
    def split(options: Mapping[str, Any]) -> tuple[TransferSettings, dict[str, Any]]:
        """Return the settings among storage options, and the options that remain for fsspec."""
        mine = {name: options[name] for name in TransferSettings.__struct_fields__ if name in options}
        return TransferSettings(**mine), {name: value for name, value in options.items() if name not in mine}


class Transfer:
    """Moves bytes through one client. Safe to use from several threads, which share its connections."""

    def __init__(self, client: Client, settings: TransferSettings) -> None:
        self.client = client
        self.copies_ranges = True
        """The store has not refused to copy parts of another object."""
        self._holding: dict[str, bool] = {}
        """By the name of a file: whether the last stream with a base held enough for a copy."""
        self._settings = settings
        self._workers = ThreadPoolExecutor(settings.connections, thread_name_prefix="keepbest-transfer")
        self._window = threading.BoundedSemaphore(settings.connections + 1)
        self._retry = Retry(settings.deadline)

    @property
    def refused(self) -> bool:
        """The store did not accept the credentials. A new client looks for others."""
        return self._retry.refused

    # ── one request ───────────────────────────────────────────────────────────────────────────────────────────────

    def call(self, request: Callable[[], T], *, small: bool = False, failing: float = 0.0) -> T:
        """Send a request until it is answered, as `Retry.attempt` does, and return its answer."""
        return self._retry.attempt(request, small=small, failing=failing)[0]

    def each(self, requests: Iterable[Callable[[], T]]) -> list[T]:
        """Send requests in parallel, each as `call` does; returns the answers in order, or raises one's error."""
        futures = [submit(self._workers, self.call, request) for request in requests]
        try:
            return [future.result() for future in futures]
        finally:
            for future in futures:
                future.cancel()
            wait_for(futures)

    # ── up ────────────────────────────────────────────────────────────────────────────────────────────────────────

    @one_operation()
    def upload(self, key: str, chunks: Iterable[Chunk], *, if_absent: bool, base: str | None = None) -> int:
        """Create an object from a stream of unknown length; returns its bytes. No part of it is ever visible.

        What goes wrong, in the source of the stream too, aborts the upload.

        Args:
            key: of the object.
            chunks: the stream. One that can be gone through again is, if what was to be copied has to be sent after
                all; of another one the bytes of copies under way are held.
            if_absent: an object that is there is not replaced.
            base: the object that `Held` bytes are copied from; None: they are sent.

        Raises:
            ObjectExistsError: `if_absent`, and the key is taken.
        """
        copied = None if base is None else self._copied_size(key)
        watched = chunks if base is None else self._watched(key, chunks)
        found = self._parts(key, watched, copied, keep=not _again(chunks))
        first = next(found, Part())
        second = next(found, None)
        if second is None and first.begin is None:
            self._put_whole(key, first, if_absent=if_absent)
            return first.nbytes
        if if_absent and self.exists(key):
            raise ObjectExistsError(f"{self.client.url}/{key}")
        long = itertools.chain((first,) if second is None else (first, second), found)
        if base is not None and copied is not None:
            return self._put_delta(key, base, long, chunks, whole=first if second is None else None)
        streaming = self.client.put_stream
        return self._put_parts(key, long) if streaming is None else self._put_stream(streaming, key, long, chunks)

    def _copied_size(self, key: str) -> int | None:
        """Return the bytes of the largest copy; None: all is sent, by `put_stream` if the client has it."""
        limit = min(self.client.copy_limit or _LARGEST_COPY, _LARGEST_COPY)
        streamed = self.client.put_stream is not None and not self._holding.get(_file(key), True)
        return limit if self.copies_ranges and limit >= 2 * LEAST and not streamed else None

    def _watched(self, key: str, chunks: Iterable[Chunk]) -> Iterator[Chunk]:
        """Notice how much a stream holds. What trains as a whole holds nothing, and nothing of it is to be copied."""
        held = 0
        for chunk in chunks:
            held += len(chunk.data) if isinstance(chunk, Held) else 0
            yield chunk
        self._holding[_file(key)] = held >= LEAST

    def _parts(
        self, key: str, chunks: Iterable[Chunk], copied: int | None = None, *, keep: bool = True
    ) -> Iterator[Part]:
        limit = self.client.part_limit
        sizes = PartSizes(sent=self._settings.part_size, copied=copied)
        for number, part in enumerate(parts(chunks, sizes, keep=keep)):
            if number == limit:
                more = f"storage_options={{'part_size': …}} of more than {self._settings.part_size:,} bytes"
                raise StorageError(f"{self.client.url}/{key}", f"it is larger than {limit:,} parts. Give {more}.")
            yield part

    def _put_whole(self, key: str, part: Part, *, if_absent: bool) -> None:
        data = part.joined()
        conditional = if_absent and self._settings.conditional_writes
        if if_absent and not conditional and self.exists(key):
            raise ObjectExistsError(f"{self.client.url}/{key}")
        try:
            self.call(lambda: self.client.put(key, data, if_absent=conditional))
        except ObjectExistsError:
            # It may be ours: the reply to an earlier try was lost. aiohttp, too, sends a PUT again, and does not tell.
            if not self._is(key, data):
                raise
        progress.current().advance(len(data))

    def _is(self, key: str, data: Buffer) -> bool:
        size = self.call(lambda: self.client.head(key), small=True).size
        return size == len(data) and self.call(lambda: self.client.get(key)) == data

    def exists(self, key: str) -> bool:
        """Say whether an object is there."""
        try:
            self.call(lambda: self.client.head(key), small=True)
        except ObjectNotFoundError:
            return False
        return True

    def _put_stream(
        self,
        streaming: Callable[[str, Iterator[Buffer]], None],
        key: str,
        parts: Iterable[Part],
        chunks: Iterable[Chunk],
    ) -> int:
        task, size, told = progress.current(), 0, 0

        def sent() -> Iterator[Buffer]:
            nonlocal size, told
            for part in parts:
                for buffer in part.buffers:
                    size += len(buffer)
                    yield buffer
                    task.advance(len(buffer))
                    told += len(buffer)

        try:
            streaming(key, sent())
        except TransientError as passing:
            try:
                if not _again(chunks):
                    if passing.tried:
                        self._retry.give_up()
                    raise passing.error from passing.__cause__
                task.advance(-told)
                return self._put_parts(key, self._parts(key, chunks), failing=passing.tried)
            finally:
                self._drop(key)
        except ObjectNotFoundError:  # the upload is gone: as in `_finish`
            if self._size(key) != size:
                raise
        except BaseException:
            self._drop(key)
            raise
        return size

    def _drop(self, key: str) -> None:
        """Abort what uploads there are of an object that only we create; what stays is left to `abort_stale`."""
        with contextlib.suppress(KeepbestError):
            for upload in self.call(lambda: self.client.uploads(key), small=True):
                if upload.key == key:
                    self.call(functools.partial(self.client.abort_upload, key, upload.id), small=True)

    def _put_delta(
        self, key: str, base: str, parts: Iterable[Part], chunks: Iterable[Chunk], *, whole: Part | None
    ) -> int:
        """Create an object of parts some of which the store copies, or, if it does not, of parts that are all sent."""
        older = Older(self.client, base, self.call)
        try:
            if whole is not None and older.copy_whole(whole, key):
                progress.current().advance(whole.nbytes)
                return whole.nbytes
            return self._put_parts(key, parts, older)
        except NotCopiedError as failed:
            if not _again(chunks):
                raise failed.error from failed.error.__cause__
            return self.upload(key, chunks, if_absent=False)
        finally:
            self.copies_ranges &= not older.refused

    def _put_parts(self, key: str, parts: Iterable[Part], older: Older | None = None, *, failing: float = 0.0) -> int:
        upload = self.call(lambda: self.client.start_upload(key), failing=failing)

        def put(number: int, part: Part) -> Any:
            tag = None if older is None or part.begin is None else older.copy(part, key, upload, number)
            if tag is not None:
                return tag
            if older is not None and older.failure is not None and not part.buffers:  # let go of, to be copied
                raise NotCopiedError(older.failure)
            data = part.joined()
            return self.call(lambda: self.client.put_part(key, upload, number, data))

        sending = _Sending(put, self._workers, self._window)
        try:
            size = sending.send(parts)
            tags = sending.tags()
            try:
                self._finish(key, upload, tags, size)
            except KeepbestError as error:
                if older is None or not older.spoils(error):
                    raise
                raise NotCopiedError(error) from error
        except BaseException as error:
            sending.stop()
            if isinstance(error, NotCopiedError):
                sending.retract()
            with contextlib.suppress(KeepbestError):  # what stays is left to `abort_stale`
                self.call(lambda: self.client.abort_upload(key, upload), small=True)
            raise
        return size

    def _finish(self, key: str, upload: str, tags: Sequence[Any], size: int) -> None:
        try:
            self.call(lambda: self.client.finish_upload(key, upload, tags))
        except ObjectNotFoundError as error:
            # The upload is gone: an earlier request finished it and its reply was lost, or someone aborted it.
            if RETRIED not in getattr(error, "__notes__", ()) or self._size(key) != size:
                raise

    def _size(self, key: str) -> int | None:
        try:
            return self.call(lambda: self.client.head(key), small=True).size
        except ObjectNotFoundError:
            return None

    # ── down ──────────────────────────────────────────────────────────────────────────────────────────────────────

    @one_operation()
    def download(self, key: str, ranges: Sequence[tuple[int, int]]) -> list[memoryview]:
        """Read ranges, neighbours together and large ones in pieces, straight into the memory that is returned.

        Views are shorter than asked where the object ends early, writable, and private but for ranges that overlap.
        """
        spans = coalesce(ranges)
        held = [np.empty(end - begin, np.uint8).data for begin, end in spans]
        task = progress.current()
        ends: list[int] = []

        def fetch(begin: int, target: memoryview) -> None:
            count = self.call(lambda: self.client.get_into(key, begin, target))
            task.advance(count)
            if count < len(target):
                ends.append(begin + count)

        pieces = [
            (begin + offset, target[offset : offset + self._settings.part_size])
            for (begin, _), target in zip(spans, held, strict=True)
            for offset in range(0, len(target), self._settings.part_size)
        ]
        if len(pieces) == 1:
            fetch(*pieces[0])
        else:
            _all([submit(self._workers, fetch, *piece) for piece in pieces])
        if not pieces:
            self.call(lambda: self.client.head(key))  # nothing is asked for, but of an object that exists
        last = min(ends, default=None)
        return [view(spans, held, begin, end, last) for begin, end in ranges]

    # ── across ────────────────────────────────────────────────────────────────────────────────────────────────────

    @one_operation()
    def copy(self, source: Source, key: str) -> None:
        """Copy within the store, in parts where it is larger than one request takes."""
        client = self.client
        size = self.call(lambda: source.client.head(source.key)).size
        if client.copy_limit is None or size <= client.copy_limit:
            self.call(lambda: client.copy(source, key))
            return
        upload = self.call(lambda: client.start_upload(key, copied=True))
        step = max(client.copy_limit, -(-size // client.part_limit))
        spans = [(begin, min(begin + step, size)) for begin in range(0, size, step)]
        try:
            tags = self.each(
                functools.partial(client.copy_part, source, span, key, upload, number)
                for number, span in enumerate(spans, start=1)
            )
            self._finish(key, upload, tags, size)
        except BaseException:
            with contextlib.suppress(KeepbestError):
                self.call(lambda: client.abort_upload(key, upload), small=True)
            raise


class _Sending:
    """The parts of one upload on their way, as many at once as the window lets through."""

    def __init__(
        self, put: Callable[[int, Part], Any], workers: ThreadPoolExecutor, window: threading.BoundedSemaphore
    ) -> None:
        self._put = put
        self._workers = workers
        self._window = window
        self._task = progress.current()
        self._futures: list[Future[Any]] = []
        self._broken = threading.Event()
        self._told: list[int] = []
        """Bytes of each part that was sent."""

    def send(self, parts: Iterable[Part]) -> int:
        """Send parts as they come, until one fails; returns their bytes."""
        size = 0
        for number, part in enumerate(parts, start=1):
            size += part.nbytes
            self._window.acquire()
            if self._broken.is_set():
                self._window.release()
                break
            try:
                self._futures.append(submit(self._workers, self._send, number, part))
            except BaseException:
                self._window.release()
                raise
        return size

    def tags(self) -> list[Any]:
        """Wait for all parts; returns what the store said of each, or raises what went wrong."""
        return [future.result() for future in self._futures]

    def stop(self) -> None:
        """Call off what has not begun, and wait for the rest."""
        for future in self._futures:
            if future.cancel():
                self._window.release()
        wait_for(self._futures)

    def retract(self) -> None:
        """Take back what was told of the progress: all begins anew."""
        self._task.advance(-sum(self._told))

    def _send(self, number: int, part: Part) -> Any:
        try:
            if self._broken.is_set():
                return None  # nobody asks for it any more
            tag = self._put(number, part)
        except BaseException:
            self._broken.set()
            raise
        else:
            self._task.advance(part.nbytes)
            self._told.append(part.nbytes)
            return tag
        finally:
            self._window.release()


_LARGEST_COPY = 64 << 20  # as nothing is heard until it is copied, and a stall is an error


def _file(key: str) -> str:
    return key.rpartition("/")[2]


def _again(chunks: Iterable[Chunk]) -> bool:
    """Say whether a stream can be gone through again: what was taken out of an iterator is gone."""
    return iter(chunks) is not chunks


def _all(futures: Sequence[Future[Any]]) -> None:
    try:
        for future in futures:
            future.result()
    finally:
        for future in futures:
            future.cancel()
        wait_for(futures)  # nobody writes into the memory once we are gone
