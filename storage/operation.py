"""Operation: several requests for one purpose. A store that was given up in one of them is not waited for in the rest.

So a save and what tidies up behind it end within one deadline, and the next save has all its patience again.
"""

from __future__ import annotations

import contextlib
import contextvars
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import ContextVar
from typing import Any, TypeVar

T = TypeVar("T")

_BEGAN: ContextVar[float | None] = ContextVar("keepbest_operation", default=None)


@contextlib.contextmanager
def one_operation() -> Iterator[None]:
    """Make the requests of a block, or of the function that this decorates, one operation; or a part of the outer one.

    Other threads belong to it only for what `submit` gives them.
    """
    token = _BEGAN.set(began())
    try:
        yield
    finally:
        _BEGAN.reset(token)


def submit(workers: ThreadPoolExecutor, call: Callable[..., T], *args: Any) -> Future[T]:
    """Have a worker do something as a part of the operation under way, and of whatever else the context says."""
    return workers.submit(contextvars.copy_context().run, call, *args)


def began() -> float:
    """Return when the operation under way began, now if there is none; seconds, monotonic."""
    found = _BEGAN.get()
    return time.monotonic() if found is None else found
