"""Helper: a thread that does for another what must not wait until that one gets a core.

On Linux a thread passes its niceness on to those that it starts, and may not take it back. The writer of a save is
nice; who waits for the disk in its name takes next to nothing from training, and would, being as nice, leave the disk
idle until a core is.
"""

from __future__ import annotations

import _thread
import contextlib
import queue
import threading
from collections.abc import Callable

_own = threading.local()


def keep_priority() -> None:
    """Let all that the calling thread has `run` do have the priority that it has now. It ends with the thread."""
    with contextlib.suppress(RuntimeError, MemoryError):  # no thread can be had: then each has the priority of then
        _own.helper = _Helper()


def run(task: Callable[[], object], *, own_priority: bool = True) -> None:
    """Have a task done beside the calling thread, without waiting until it has begun.

    Args:
        task: raises nothing. Where one that came before has not ended, it waits for that.
        own_priority: of the time of `keep_priority`; False: of now.

    Raises:
        RuntimeError: the system allows no more threads; MemoryError: there is no memory for one. One that has no memory
            to begin with may also just never begin, and nobody says so.
    """
    helper = getattr(_own, "helper", None) if own_priority else None
    if helper is not None and helper.begun.is_set():
        helper.tasks.put(task)
    else:
        _thread.start_new_thread(task, ())  # `Thread.start` waits until it has begun, if need be for ever


class _Helper:
    """Owns the thread, which ends when this is collected."""

    def __init__(self) -> None:
        self.begun = threading.Event()
        self.tasks: queue.SimpleQueue[Callable[[], object] | None] = queue.SimpleQueue()
        _thread.start_new_thread(_serve, (self.begun, self.tasks))

    def __del__(self) -> None:
        self.tasks.put(None)


def _serve(begun: threading.Event, tasks: queue.SimpleQueue[Callable[[], object] | None]) -> None:
    begun.set()
    while (task := tasks.get()) is not None:
        task()
        del task  # else what it holds would live until the next one
