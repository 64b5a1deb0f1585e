"""Event loop: fsspec's, where requests run. A thread waits for one here, and calls it off when it waits no more."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Coroutine, Iterator
from contextvars import ContextVar
from typing import Any, TypeVar

from ..errors import UsageError

T = TypeVar("T")

_LIMIT: ContextVar[float | None] = ContextVar("keepbest_request_limit", default=None)


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
