"""Step rows: metrics of single steps wait here until they can be read without waiting for the device."""

from __future__ import annotations

from collections.abc import Mapping

from ..storage.history import Row
from .metric import scalar
from .registry import adapter_of


class StepRows:
    """Rows of `log_step` in order. A scalar on a device stays there, safe from in-place changes, until `drain`."""

    def __init__(self) -> None:
        self._waiting: list[tuple[int, int, float, dict[str, object]]] = []

    def add(self, metrics: Mapping[str, object], *, epoch: int, step: int, time: float) -> None:
        """Note one row; a step without metrics is counted and leaves none. Never synchronises a device."""
        if not metrics:
            return
        self._waiting.append((epoch, step, time, {name: _deferred(name, value) for name, value in metrics.items()}))

    def drain(self) -> list[Row]:
        """Return the rows as numbers and forget them. Waits for the device where scalars are still there."""
        waiting, self._waiting = self._waiting, []
        return [
            Row(
                kind="step",
                epoch=epoch,
                step=step,
                time=time,
                metrics={name: scalar(name, value) for name, value in metrics.items()},
            )
            for epoch, step, time, metrics in waiting
        ]


def _deferred(name: str, value: object) -> object:
    if type(value) is float:
        return value
    adapter = adapter_of(value)
    return scalar(name, value) if adapter is None else adapter.defer(value)
