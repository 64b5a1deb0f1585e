"""Writer: runs one save at a time behind training, and holds its error until somebody can be told."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent import futures
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial

from ..errors import SaveFailedError
from ..storage import helper, progress
from .overlap import Overlap
from .pace import Pace
from .saver import Committed


class SaveHandle:
    """A save under way, or done."""

    def __init__(self, checkpoint: str, future: Future[Committed], overlap: Overlap) -> None:
        self.checkpoint = checkpoint
        """The checkpoint's name."""
        self._future = future
        self._overlap = overlap
        self._told = threading.Event()

    def done(self) -> bool:
        """Say whether it has ended, well or not."""
        self._overlap.settle(0)
        return self._future.done()

    def cancel(self) -> bool:
        """Call it off; returns whether that came in time: before the commit, and before a second copy is written."""
        if self._future.cancel():
            self._overlap.abandon()
            return True
        return not self._future.done() and self._overlap.cancel()

    def result(self, timeout: float | None = None) -> None:
        """Wait until the checkpoint is committed and durable.

        Args:
            timeout: seconds; None waits for ever.

        Raises:
            SaveFailedError: it was not saved; `__cause__` says why. Older checkpoints are unharmed.
            TimeoutError: it is still being written.
            CancelledError: it was cancelled.
        """
        self._wait(timeout)
        error = self._future.exception(0)
        if isinstance(error, futures.CancelledError):
            raise error
        if error is not None:
            self._told.set()
            raise SaveFailedError(self.checkpoint, error) from error

    def wait(self) -> None:
        """Wait until it has ended, well or not; the error stays for whoever asks next."""
        self._wait(None)

    def _wait(self, timeout: float | None) -> None:
        if not self._future.done():
            begin = time.monotonic()
            self._overlap.settle(timeout)  # the writer may be waiting for that
            with progress.waiting():
                futures.wait([self._future], timeout and max(0.0, timeout - (time.monotonic() - begin)))

    @property
    def succeeded(self) -> bool:
        """It has ended, and the checkpoint is committed."""
        return self._future.done() and not self._future.cancelled() and self._future.exception() is None

    @property
    def committed(self) -> Committed | None:
        """What was committed; None while it is under way, or if it failed or was called off."""
        return self._future.result() if self.succeeded else None

    @property
    def error(self) -> BaseException | None:
        """Why it failed; None while it is under way, or if it succeeded or was called off."""
        if not self._future.done() or self._future.cancelled():
            return None
        error = self._future.exception()
        return None if isinstance(error, futures.CancelledError) else error

    def untold_error(self) -> SaveFailedError | None:
        """Return the failure, once: None if there is none, none yet, or `result` told it already."""
        error = self.error
        if error is None or self._told.is_set():
            return None
        self._told.set()
        return SaveFailedError(self.checkpoint, error)


class Writer:
    """Two background threads with one save in flight: one copies, the other writes, and leaves the cores to training.

    The interpreter waits for the save in flight before it exits (that is what `ThreadPoolExecutor` does), so nothing
    is lost when a program ends without `close`.
    """

    def __init__(self, pace: Pace) -> None:
        # A thread that has slowed down may not speed up again, and training may come to wait for the copy.
        self._copier = ThreadPoolExecutor(max_workers=1, thread_name_prefix="keepbest-copier")
        self._executor = ThreadPoolExecutor(
            max_workers=1,
            thread_name_prefix="keepbest-writer",
            initializer=None if pace.mode == "sync" else partial(_give_way, pace),
        )
        self._last: SaveHandle | None = None
        self._copying: Future[None] | None = None

    def submit(self, checkpoint: str, overlap: Overlap, write: Callable[[Overlap], Committed]) -> SaveHandle:
        """Start copying, then writing. The save before it must have ended: call `wait` first."""
        assert not self.busy
        if not overlap.settled:
            self._copying = self._copier.submit(overlap.copy)
        future = self._executor.submit(write, overlap)
        self._last = SaveHandle(checkpoint, future, overlap)
        return self._last

    @property
    def busy(self) -> bool:
        """A save is in flight."""
        return self._last is not None and not self._last.done()

    def wait(self) -> None:
        """Wait until the save in flight has ended, well or not; `take_ended` has it. Staging is free then."""
        if self._last is not None:
            self._last.wait()
        if self._copying is not None:  # a save that was cancelled may still be copied
            futures.wait([self._copying])

    def take_ended(self) -> SaveHandle | None:
        """Return the save that ended last, once; None while one is in flight."""
        if self._last is None or not self._last.done():
            return None
        ended, self._last = self._last, None
        return ended

    def close(self) -> None:
        """Wait for the save in flight and end the threads."""
        self.wait()
        self._copier.shutdown(wait=True)
        self._executor.shutdown(wait=True)


def _give_way(pace: Pace) -> None:
    """Leave the cores to training, all but what only waits for the disk."""
    helper.keep_priority()
    pace.slow_down()
