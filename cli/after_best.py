"""After best: what became of validation and training since validation was best. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct

from ..core.direction import Mode
from ..core.overfitting import overfits
from ..core.recorded import RecordedPolicy

WINDOW = 5
"""Checks within which overfitting is looked for where no note says; the monitor's own default."""


class AfterBest(Struct, frozen=True, kw_only=True):
    """What became of both metrics since validation was best."""

    epoch: int
    """The best one, from 0."""
    checks: int
    """After it."""
    validation: tuple[float, float]
    """Then, and at the last check."""
    training: tuple[float, float]
    overfits: bool
    """Over all those checks validation worsened while training improved, and they are a window's or more."""


def after_best(pairs: Sequence[tuple[int, float, float]], mode: Mode, window: int) -> AfterBest | None:
    """Judge all checks since the best one, which show a trend that noise hides from a window.

    `pairs` are epoch (from 0), validation and training, both finite; None: there are none.
    """
    if not pairs:
        return None
    sign = 1.0 if mode == "min" else -1.0
    at = min(range(len(pairs)), key=lambda place: sign * pairs[place][1])
    (epoch, *then), (_, *now), after = pairs[at], pairs[-1], pairs[at + 1 :]
    validation, training = [pair[1] for pair in after], [pair[2] for pair in after]
    return AfterBest(
        epoch=epoch,
        checks=len(after),
        validation=(then[0], now[0]),
        training=(then[1], now[1]),
        overfits=len(after) >= window and overfits(validation, training, mode),
    )


def window_of(policy: RecordedPolicy | None, monitor: str) -> int:
    """Return how many checks a monitor looks at for overfitting; where no policy says, its default."""
    specs = [] if policy is None else policy.monitors()
    return next((spec.overfit_window for spec in specs if spec.key == monitor), WINDOW)
