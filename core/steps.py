"""Step rows: metrics of single steps wait here until they can be read without waiting for the device."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator, Mapping

from ..storage.history import Row
from .metric import check_names, scalar
from .registry import adapter_of


class StepRows:
    """Rows of `log_step` in order. A scalar on a device stays there, safe from in-place changes, until `drain`."""

    def __init__(self) -> None:
        self._waiting: deque[tuple[int, int, float, dict[str, object]]] = deque()

    def add(self, metrics: Mapping[str, object], *, epoch: int, step: int, time: float) -> None:
        """Note one row; a step without metrics is counted and leaves none. Never synchronises a device."""
        if not metrics:
            return
        check_names(metrics)
        self._waiting.append((epoch, step, time, {name: _deferred(name, value) for name, value in metrics.items()}))

    def drain(self) -> Iterator[Row]:
        """Yield the rows as numbers, each forgotten when its turn comes. Waits for scalars still on a device."""
        while self._waiting:
            epoch, step, time, metrics = self._waiting.popleft()
            yield Row(
                kind="step",
                epoch=epoch,
                step=step,
                time=time,
                metrics={name: scalar(name, value) for name, value in metrics.items()},
            )


def _deferred(name: str, value: object) -> object:
    if type(value) is float:
        return value
    adapter = adapter_of(value)
    if adapter is None or math.prod(getattr(value, "shape", ())) != 1:
        return scalar(name, value)  # of what is no scalar it says so now, at the call that is wrong
    return adapter.defer(value)
