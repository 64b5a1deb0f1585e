"""Segments: how an object grows where none can be appended to, as in a bucket.

What is appended to `metrics.jsonl` lies in objects below `metrics/`, which one after the other are what the file would
be. Each writer has segments of its own. It sets its newest one anew, longer each time, and begins another when that has
become long: so neither the requests nor the bytes grow with the length of the whole.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
import uuid

from ..errors import ObjectNotFoundError, StorageError
from .backend import Backend
from .layout import segment_key, segments_prefix

_log = logging.getLogger(__name__)

SLOW = 1.0
"""Seconds from which a request may have been tried more than once, and an earlier try may still be on its way."""
LONGEST = 256 << 10
"""Bytes from which a segment is left as it is, and the next one begins."""
DELAY = 2.0
"""Seconds that rows wait for others before they are sent. Those of a process that is killed within are lost."""


class SegmentAppender:
    """Appends to a key by writing segments. `write` costs microseconds; sending is done behind it.

    Survives the death of the process after `DELAY` seconds, or at once after `flush`.
    """

    def __init__(self, backend: Backend, key: str) -> None:
        self.closed = False
        self._backend = backend
        self._key = key
        self._id = f"{time.time_ns():019d}-{uuid.uuid4().hex[:8]}"
        self._number = 0
        self._lines = bytearray()
        self._sent = 0
        """How much of `_lines` stands in the newest segment."""
        self._state = threading.Lock()
        self._sending = threading.Lock()
        self._timer: threading.Timer | None = None

    def write(self, data: bytes) -> None:
        """Append `data`, which is sent soon."""
        with self._state:
            self._lines += data
            if data and self._timer is None:
                self._timer = threading.Timer(DELAY, self._flush_behind)
                self._timer.daemon = True
                self._timer.start()

    def flush(self) -> None:
        """Make everything durable that was written.

        Raises:
            StorageError: it is not; nothing is forgotten, the next call tries again.
        """
        with self._sending:
            with self._state:
                self._stop_timer()
                lines, pending = bytes(self._lines), len(self._lines) - self._sent
            if not pending:
                return
            begin = time.monotonic()
            try:
                self._backend.replace(segment_key(self._key, self._id, self._number), lines)
            except StorageError:
                self._begin_segment(self._sent)  # what failed may arrive yet, over what would be sent next
                raise
            with self._state:
                self._sent = len(lines)
            if len(lines) >= LONGEST or time.monotonic() - begin >= SLOW:
                self._begin_segment(len(lines))

    def close(self) -> None:
        """Flush, and send nothing more."""
        try:
            self.flush()
        finally:
            self.closed = True
            with self._state:
                self._stop_timer()

    def _begin_segment(self, stored: int) -> None:
        """Leave the newest segment as it is, with so many bytes; what is not in it goes to the next one."""
        with self._state:
            self._number += 1
            self._sent = 0
            del self._lines[:stored]

    def _flush_behind(self) -> None:
        try:
            self.flush()
        except StorageError as error:  # the next commit flushes too, and tells the user
            _log.warning("journal.unsent url=%s error=%s", self._backend.url, error)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def read_appended(backend: Backend, key: str) -> bytes:
    """Return all that was ever appended to `key`: the object itself where it grew, then every segment.

    Both, since a run may have been copied from a disk to a bucket, or back. Segments of one writer stand in their
    order, and whoever wrote last, by the store's clock, stands last.
    """
    pieces = []
    with contextlib.suppress(ObjectNotFoundError):
        pieces.append(backend.read(key))
    segments = list(backend.list(segments_prefix(key)))
    written: dict[str, float] = {}
    for entry in segments:
        writer = _writer(entry.key)
        written[writer] = max(entry.modified, written.get(writer, 0.0))
    for entry in sorted(segments, key=lambda entry: (written[_writer(entry.key)], entry.key)):
        with contextlib.suppress(ObjectNotFoundError):
            pieces.append(backend.read(entry.key))
    return b"".join(piece if piece.endswith(b"\n") or not piece else piece + b"\n" for piece in pieces)


def _writer(key: str) -> str:
    """Return what all segments of one writer begin with."""
    return key.rpartition("-")[0]
