"""Choice: whether a ModelCheckpoint saves at this moment, and what it says of it. Pure: it does and keeps nothing."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from msgspec import Struct

from .logs import number


class Choice(Struct, frozen=True, kw_only=True):
    """What to do."""

    save: bool
    value: float | None = None
    """The new best, once the file is safe; None where nothing was judged."""
    message: str | None = None
    """For the console."""
    warning: str | None = None


def always(*, epoch: int, path: str) -> Choice:
    """Save, whatever the metrics."""
    return Choice(save=True, message=f"\nEpoch {epoch + 1}: saving model to {path}")


def if_better(  # noqa: PLR0913 - one choice has these facts
    *,
    epoch: int,
    path: str,
    monitor: str,
    current: Any,
    best: float | None,
    better: Callable[[float, float], bool],
    held: Callable[[], float | None],
) -> Choice:
    """Save if the monitored value is better than the best; NaN and infinity never are.

    Where there is no value to judge, save as Keras does, but not over a file that is known to be better.

    Args:
        epoch: from 0.
        path: of the file.
        monitor: the metric's name.
        current: its value; None where it was not logged.
        best: None before the first.
        better: says whether the first value is better than the second.
        held: returns the value of the file that is at `path`, which a model that cannot be judged must not replace;
            None where there is no such file, or nothing is known of it. Called only then: it may ask a bucket.
    """
    value = None if current is None else number(monitor, current)
    if value is None:
        problem, known = _unjudgeable(monitor, current), held()
        if known is None:
            return Choice(save=True, warning=problem)
        kept = f"{path} holds a model of which {monitor} is known ({known:.5f}), so it was left as it is."
        return Choice(save=False, warning=f"{problem} {kept}")
    before, finite = _shown(best), math.isfinite(value)
    if finite and (best is None or better(value, best)):
        text = f"\nEpoch {epoch + 1}: {monitor} improved from {before} to {value:.5f}, saving model to {path}"
        return Choice(save=True, value=value, message=text)
    why = "" if finite else f" ({monitor} is {value}, which is never the best)"
    return Choice(save=False, message=f"\nEpoch {epoch + 1}: {monitor} did not improve from {before}{why}")


def _unjudgeable(monitor: str, current: Any) -> str:
    if current is None:
        return f"Can save best model only with {monitor} available."
    return (
        f"Can save best model only when `monitor` is a scalar value. Received: {current}. "
        "Falling back to `save_best_only=False`."
    )


def _shown(best: float | None) -> str:
    return "None" if best is None else f"{best:.5f}"
