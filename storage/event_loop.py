"""Event loop: fsspec's, where requests run. A thread waits for one here, and calls it off when it waits no more."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Coroutine, Iterator
from contextvars import ContextVar
from typing import Any, TypeVar

T = TypeVar("T")

_LIMIT: ContextVar[float | None] = ContextVar("keepbest_request_limit", default=None)


def run(loop: asyncio.AbstractEventLoop, work: Coroutine[Any, Any, T]) -> T:
    """Run `work` in the loop and return what it returns. On an interrupt it is called off: nothing happens behind us.

    Raises:
        TimeoutError: it took longer than `limited` allows, and is called off.
    """
    future = asyncio.run_coroutine_threadsafe(work, loop)
    try:
        return future.result(_LIMIT.get())
    except BaseException:
        future.cancel()
        raise


@contextlib.contextmanager
def limited(seconds: float | None) -> Iterator[None]:
    """Give each request of this thread in the block so long altogether (None: as long as bytes move)."""
    token = _LIMIT.set(seconds)
    try:
        yield
    finally:
        _LIMIT.reset(token)
