"""Overlap: a snapshot that is copied while training goes on, and the fence that keeps a step from overtaking it.

Forward and backward change no parameters, only an optimizer's step does. So the copy runs beside them, and whatever is
about to change a tensor that is being copied calls `settle_all` first (the adapter of PyTorch does, before each step).

The second net: tensors count their changes. If one was changed while it was copied, by other means than a step, the
snapshot is taken again, by the thread that trains, before it does anything else here.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable
from concurrent.futures import CancelledError
from functools import partial

from .arriving import Arriving
from .snapshot import Snapshot

_UNDER_WAY: set[Overlap] = set()


class Overlap:
    """One snapshot being copied. `settle` belongs to those who train, `result` to who writes."""

    def __init__(self, snapshot: Snapshot, again: Callable[[], Snapshot], *, hashed: bool = True) -> None:
        """Begin.

        Args:
            snapshot: what is to be copied.
            again: takes the snapshot anew, all of it at once.
            hashed: what is copied is hashed in the same pass; that takes less of the processor in all, but the copy
                takes longer.
        """
        self._snapshot: Snapshot | None = snapshot
        self._again: Callable[[], Snapshot] | None = again
        self._copied = threading.Event()
        self._settled = threading.Event()
        self._lock = threading.Lock()
        self._torn = False
        self._hashed = hashed
        self.waited_for = False
        """A step waits, or did, until all was copied: from then on bytes are copied, and not hashed as well."""
        self._error: BaseException | None = None
        self.retaken = False
        """Something was changed, by other means than a step, while it was being copied."""
        lanes = {copy.source.remote.lane for copy in snapshot.copies if copy.source.remote is not None}
        self._moments = [lane.mark() for lane in lanes]
        if snapshot.copies:
            _UNDER_WAY.add(self)
        else:
            self._end()

    @property
    def settled(self) -> bool:
        """All is copied, and right."""
        return self._settled.is_set()

    def copy(self) -> None:
        """Copy what is to be copied; runs beside training."""
        snapshot = self._snapshot
        if snapshot is None:
            return
        copies = snapshot.copies
        try:
            with contextlib.ExitStack() as stack:
                for moment in self._moments:
                    stack.enter_context(moment.copying())
                for copy in copies:
                    copy.make(partial(self._came, snapshot.arriving[id(copy.region)]))
            self._torn = any(copy.is_torn() for copy in copies)
        except BaseException as error:  # noqa: BLE001 - raised where the result is asked for
            self._error = error
        self._copied.set()  # from here on a step may be queued behind the copies
        if not self._torn:
            self._finish()
        for arriving in snapshot.arriving.values():
            arriving.finish(failed=self._error is not None)

    def _came(self, arriving: Arriving, begin: int, end: int) -> None:
        if not self._moments:  # what is on its way from an accelerator is only queued
            arriving.arrived(begin, end, hashed=self._hashed and not self.waited_for)

    def settle(self, timeout: float | None = None) -> None:
        """Return when training may change the tensors, or after so many seconds; with 0 do only what cannot wait."""
        if self._settled.is_set() or not self._copied.wait(timeout):
            return
        for moment in self._moments:
            moment.hold_up()
        if self._torn:
            self._retake()

    def settle_fenced(self) -> None:
        """Do so as fast as can be: a step waits."""
        self.waited_for |= not self._copied.is_set()
        self.settle()

    def begun(self) -> Snapshot:
        """Return the snapshot as soon as writing may begin; what is written counts only if `result` is the same."""
        snapshot = self._snapshot
        if snapshot is None or not snapshot.can_be_written:
            self._settled.wait()
            self._raise()
            snapshot = self._snapshot
        assert snapshot is not None
        return snapshot

    def result(self) -> Snapshot:
        """Wait until all is copied, and return it, once: nobody else is to keep it alive.

        Raises:
            CancelledError: `cancel` came before.
        """
        self._settled.wait()
        with self._lock:
            found, self._snapshot = self._snapshot, None
            self._raise()
        assert found is not None
        return found

    def cancel(self) -> bool:
        """Let `result` raise, if it has not returned yet; returns whether that came in time."""
        with self._lock:
            if self._snapshot is None:
                return isinstance(self._error, CancelledError)
            self._error = CancelledError()
            self._end()
        return True

    def abandon(self) -> None:
        """Hold nothing up: nobody copies it, and nobody waits for the result."""
        self._snapshot = None
        self._copied.set()
        self._end()

    def _raise(self) -> None:
        if self._error is not None:
            raise self._error

    def _finish(self) -> None:
        try:
            for moment in self._moments:
                moment.finish()
        except Exception as error:  # noqa: BLE001 - as above
            self._error = error
        self._end()

    def _retake(self) -> None:
        with self._lock:
            if self._settled.is_set():
                return
            assert self._again is not None
            try:
                self._snapshot = self._again()
                self.retaken = True
            except Exception as error:  # noqa: BLE001 - as above
                self._error = error
            self._end()

    def _end(self) -> None:
        self._again = None  # it holds all that is trained, and whoever keeps a handle keeps this
        _UNDER_WAY.discard(self)
        self._settled.set()


def settle_all() -> None:
    """Return when nothing is being copied: what calls this is about to change tensors."""
    if _UNDER_WAY:
        for overlap in tuple(_UNDER_WAY):
            overlap.settle_fenced()


os.register_at_fork(after_in_child=_UNDER_WAY.clear)  # a child has no thread that copies
