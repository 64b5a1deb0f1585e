"""Event loop: fsspec's, where requests run. A thread waits for one here, and calls it off when it waits no more.

What belongs to the loop is closed here, behind whoever lets go of it.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextvars import ContextVar
from typing import Any, TypeVar

from ..errors import UsageError

T = TypeVar("T")

_LIMIT: ContextVar[float | None] = ContextVar("keepbest_request_limit", default=None)

_closing: set[asyncio.Task[None]] = set()
"""Held here, as a loop holds its tasks only weakly."""


def run(loop: asyncio.AbstractEventLoop, work: Coroutine[Any, Any, T]) -> T:
    """Run `work` in the loop and return what it returns. On an interrupt it is called off: nothing happens behind us.

    Raises:
        TimeoutError: it took longer than `limited` allows, and is called off.
        UsageError: this is the loop's own thread, which would wait for itself for ever.
    """
    if _is_ours(loop):
        work.close()
        raise UsageError(
            "keepbest was called from within the event loop of fsspec, whose thread would wait for itself. Call it "
            "from another thread: await asyncio.to_thread(…)."
        )
    future = asyncio.run_coroutine_threadsafe(work, loop)
    try:
        return future.result(_LIMIT.get())
    except BaseException:
        future.cancel()
        raise


def _is_ours(loop: asyncio.AbstractEventLoop) -> bool:
    """Say whether this thread runs the loop."""
    try:
        return asyncio.get_running_loop() is loop
    except RuntimeError:  # it runs none
        return False


@contextlib.contextmanager
def limited(seconds: float | None) -> Iterator[None]:
    """Give each request of this thread in the block so long altogether (None: as long as bytes move)."""
    token = _LIMIT.set(seconds)
    try:
        yield
    finally:
        _LIMIT.reset(token)


def close_behind(loop: asyncio.AbstractEventLoop, close: Callable[[], Coroutine[Any, Any, Any]]) -> bool:
    """Have the loop close something that is being collected, perhaps in a thread that the loop waits for: no waiting.

    Returns False where nothing would come of it: the loop does not run, or the program ends. Then the caller closes.
    """
    if not loop.is_running() or not threading.main_thread().is_alive():
        return False
    try:
        loop.call_soon_threadsafe(_begin_to_close, close)
    except RuntimeError:  # the loop was closed just now
        return False
    return True


def _begin_to_close(close: Callable[[], Coroutine[Any, Any, Any]]) -> None:
    task = asyncio.get_running_loop().create_task(_close(close))
    _closing.add(task)
    task.add_done_callback(_closing.discard)


async def _close(close: Callable[[], Coroutine[Any, Any, Any]]) -> None:
    with contextlib.suppress(Exception):  # nobody is there to be told
        await close()
