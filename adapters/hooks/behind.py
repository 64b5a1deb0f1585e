"""Behind: hands entries to a thread beside training, many at a time, so that no row waits for a server."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Sequence

from ...storage.history import Row
from ...storage.notes import Note

_LIMIT = 1000
"""Entries handed over at a time, at most."""
PATIENCE = 60.0
"""Seconds for which the end of training waits until everything was sent."""


class Behind:
    """Calls `send` with the entries that were put, in their order, in one thread.

    Cost of `put`: less than 10 µs.
    """

    def __init__(self, name: str, send: Callable[[Sequence[Row | Note]], None], *, every: float) -> None:
        """Start nothing yet.

        Args:
            name: the thread's.
            send: takes what has come together.
            every: seconds for which an entry waits for others, at most.
        """
        self._name = name
        self._send = send
        self._every = every
        self._queue: queue.SimpleQueue[Row | Note | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._error: Exception | None = None
        self._surfaced = False

    def put(self, entry: Row | Note) -> None:
        """Have an entry sent soon.

        Raises:
            Exception: what `send` raised at an earlier one; nothing is sent any more.
        """
        if self._error is not None:
            self._surfaced = True
            raise self._error
        if self._thread is None:
            # A daemon, so that a training that never closes its Checkpointer can still end.
            self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
            self._thread.start()
        self._queue.put(entry)

    def close(self) -> bool:
        """Return when everything was sent; False if an error that `put` has raised already kept it from that.

        Raises:
            TimeoutError: it takes too long, as with a server that does not answer; training has ended, and goes home.
            Exception: as `put`.
        """
        thread, self._thread = self._thread, None
        if thread is not None:
            self._queue.put(None)
            thread.join(PATIENCE)
            if thread.is_alive():
                raise TimeoutError(f"not everything was sent within {PATIENCE:.0f} s; the rest is not waited for")
        if self._error is not None and not self._surfaced:
            self._surfaced = True
            raise self._error
        return self._error is None

    def _run(self) -> None:
        ended = False
        while not ended:
            entries, ended = self._gather()
            try:
                if entries:
                    self._send(entries)
            except Exception as error:  # noqa: BLE001 - the thread that trains is told at its next entry
                self._error = error
                return

    def _gather(self) -> tuple[list[Row | Note], bool]:
        """Wait for entries; also say whether they are the last."""
        entries: list[Row | Note] = []
        until: float | None = None
        while len(entries) < _LIMIT:
            try:
                entry = self._queue.get(timeout=None if until is None else max(0.0, until - time.monotonic()))
            except queue.Empty:
                break
            if entry is None:
                return entries, True
            entries.append(entry)
            until = until or time.monotonic() + self._every
        return entries, False
