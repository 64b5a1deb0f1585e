"""Progress task: one long operation and how far it is. It only counts; who is told is `progress_board`'s."""

from __future__ import annotations

import itertools
import threading
from contextvars import ContextVar
from typing import Literal

from msgspec import Struct

Action = Literal["diff", "export", "gc", "load", "mirror", "save", "sign", "verify"]
Unit = Literal["bytes", "objects"]


class Progress(Struct, frozen=True, kw_only=True):
    """How far one operation is."""

    id: int
    """Tells operations apart: several may be under way."""
    action: Action
    subject: str
    """What it is done to: a checkpoint, a file of one, or a run's URL. As it was written: for a terminal, escape it."""
    unit: Unit
    """What is counted. "objects": what `gc` deletes; all else counts bytes."""
    done: int
    """Never more than `total`, and equal to it when the operation has come through."""
    total: int | None
    """None: not known yet. It may grow."""
    seconds: float
    """Since it began."""
    finished: bool
    """True once, in the last call: the operation came through, or it was broken off."""


class Task:
    """One operation under way. Its methods may be called from any thread.

    A byte is often handled twice: it comes over the network, then it is hashed or written to a disk. Whoever does the
    one calls `advance`, whoever does the other calls `process`, and the larger count is what is done. So neither needs
    to know of the other, and a store that maps its files into memory has progress too.
    """

    def __init__(self, action: Action, subject: str, total: int | None, unit: Unit, started: float) -> None:
        self.id = next(_IDS)
        self._action: Action = action
        self._subject = subject
        self._unit: Unit = unit
        self._total = total
        self._started = started
        self._moved = self._processed = 0
        self._complete = False
        self._lock = threading.Lock()

    def advance(self, count: int) -> None:
        """Say that so many more bytes have come over the network, either way, or so many objects are dealt with."""
        with self._lock:
            self._moved += count

    def process(self, count: int) -> None:
        """Say that so many more bytes were hashed, or written to a local disk."""
        with self._lock:
            self._processed += count

    def expect(self, count: int) -> None:
        """Add to the total, which may have been unknown."""
        with self._lock:
            self._total = (self._total or 0) + count

    def complete(self) -> None:
        """Say that all is done, whatever was counted: what went away meanwhile has not to be done any more."""
        self._complete = True

    def progress(self, now: float, *, finished: bool = False) -> Progress:
        """Return how far it is at `now`, by the clock that `started` was of."""
        with self._lock:
            done, total = max(self._moved, self._processed), self._total
        if total is not None:
            done = total if self._complete else min(done, total)
        return Progress(
            id=self.id,
            action=self._action,
            subject=self._subject,
            unit=self._unit,
            done=done,
            total=total,
            seconds=now - self._started,
            finished=finished,
        )


class _Nothing(Task):
    def advance(self, count: int) -> None:
        pass

    def process(self, count: int) -> None:
        pass

    def expect(self, count: int) -> None:
        pass


_IDS = itertools.count(1)

NOTHING: Task = _Nothing("load", "", None, "bytes", 0.0)
"""Takes every call and is seen by nobody."""

CURRENT: ContextVar[Task] = ContextVar("keepbest_progress", default=NOTHING)


def current() -> Task:
    """Return the innermost task of this thread, to be advanced from any; `NOTHING` if there is none."""
    return CURRENT.get()
