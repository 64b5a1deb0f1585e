"""Behind: hands entries to a thread beside training, many at a time, so that no row waits for a server."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Sequence
from typing import TypeVar

from ...storage.history import Row
from ...storage.notes import Note

_T = TypeVar("_T")
_LIMIT = 1000
"""Entries handed over at a time, at most."""
PATIENCE = 60.0
"""Seconds for which the end of training waits until everything was sent."""


class Behind:
    """Calls `send` with the entries that were put, in their order, in one thread.

    Cost of `put`: less than 10 µs.
    """

    def __init__(
        self,
        name: str,
        send: Callable[[Sequence[Row | Note]], None],
        *,
        every: float,
        last: Callable[[bool], None] | None = None,
    ) -> None:
        """Start nothing yet.

        Args:
            name: the thread's.
            send: takes what has come together.
            every: seconds for which an entry waits for others, at most.
            last: called in the same thread when this is closed, with whether everything was sent.
        """
        self._name = name
        self._send = send
        self._every = every
        self._last = last
        self._queue: queue.SimpleQueue[Row | Note | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._error: Exception | None = None
        self._surfaced = False
        self._given_up = False

    def put(self, entry: Row | Note) -> None:
        """Have an entry sent soon.

        Raises:
            Exception: what `send` raised at an earlier one; nothing is sent any more.
        """
        self._surface()
        self._start()
        self._queue.put(entry)

    def close(self) -> None:
        """Return when everything was sent, and `last` has returned.

        Raises:
            TimeoutError: it takes too long, as with a server that does not answer; training has ended, and goes home.
                What was not being sent by then never is.
            Exception: as `put`, if that has not raised it yet; or what `last` raised.
        """
        if self._last is not None:
            self._start()
        thread, self._thread = self._thread, None
        if thread is not None:
            self._queue.put(None)
            thread.join(PATIENCE)
            if thread.is_alive():
                self._given_up = True
                raise TimeoutError(f"not everything was sent within {PATIENCE:.0f} s; the rest is not waited for")
        if not self._surfaced:
            self._surface()

    def _start(self) -> None:
        if self._thread is None:
            # A daemon, so that a training that never closes its Checkpointer can still end.
            self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
            self._thread.start()

    def _surface(self) -> None:
        if self._error is not None:
            self._surfaced = True
            raise self._error

    def _run(self) -> None:
        ended = False
        while not ended and not self._given_up:
            entries, ended = self._gather()
            if entries and self._error is None:
                self._try(self._send, entries)
        if self._last is not None and not self._given_up:
            self._try(self._last, self._error is None)

    def _try(self, call: Callable[[_T], None], argument: _T) -> None:
        """Keep what is raised for the thread that trains, which is told at its next entry."""
        try:
            call(argument)
        except Exception as error:  # noqa: BLE001 - as above
            self._error = self._error or error

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
