"""Writer: runs one save at a time behind training, and holds its error until somebody can be told."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent import futures
from concurrent.futures import Future, ThreadPoolExecutor

from ..errors import SaveFailedError
from ..storage import progress


class SaveHandle:
    """A save under way, or done."""

    def __init__(self, checkpoint: str, future: Future[None]) -> None:
        self.checkpoint = checkpoint
        """The checkpoint's name."""
        self._future = future
        self._told = threading.Event()

    def done(self) -> bool:
        """Say whether it has ended, well or not."""
        return self._future.done()

    def cancel(self) -> bool:
        """Call it off if writing has not begun; returns whether that came in time."""
        return self._future.cancel()

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
        if error is not None:
            self._told.set()
            raise SaveFailedError(self.checkpoint, error) from error

    def wait(self) -> None:
        """Wait until it has ended, well or not; the error stays for whoever asks next."""
        self._wait(None)

    def _wait(self, timeout: float | None) -> None:
        if not self._future.done():
            with progress.waiting():
                futures.wait([self._future], timeout)

    @property
    def succeeded(self) -> bool:
        """It has ended, and the checkpoint is committed."""
        return self._future.done() and not self._future.cancelled() and self._future.exception() is None

    def untold_error(self) -> SaveFailedError | None:
        """Return the failure, once: None if there is none, none yet, or `result` told it already."""
        if not self._future.done() or self._future.cancelled() or self._told.is_set():
            return None
        error = self._future.exception()
        self._told.set()
        return None if error is None else SaveFailedError(self.checkpoint, error)


class Writer:
    """One background thread with one save in flight.

    The interpreter waits for the save in flight before it exits (that is what `ThreadPoolExecutor` does), so nothing
    is lost when a program ends without `close`.
    """

    def __init__(self) -> None:
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="keepbest-writer")
        self._last: SaveHandle | None = None

    def submit(self, checkpoint: str, job: Callable[[], None]) -> SaveHandle:
        """Start `job` in the background. The save before it must have ended: call `wait` first."""
        assert self._last is None or self._last.done()
        self._last = SaveHandle(checkpoint, self._executor.submit(job))
        return self._last

    def wait(self) -> None:
        """Wait until the save in flight has ended, well or not; `take_ended` has it."""
        if self._last is not None:
            self._last.wait()

    def take_ended(self) -> SaveHandle | None:
        """Return the save that ended last, once; None while one is in flight."""
        if self._last is None or not self._last.done():
            return None
        ended, self._last = self._last, None
        return ended

    def close(self) -> None:
        """Wait for the save in flight and end the thread."""
        self._executor.shutdown(wait=True)
