"""Overfit: where in training validation worsened while training improved, as spans that a chart can shade. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from msgspec import Struct

from ...core.direction import Mode
from ...core.overfitting import OverfittingWatch
from ...storage.history import Row
from ...storage.notes import Decided, Note
from .curves import Curve, joined

WINDOW = 5
"""Checks that are looked at where no note says what the monitor saw; the monitor's own default."""

_MOST = 300
"""Spans that are shaded; closer ones become one."""


class Overfit(Struct, frozen=True, kw_only=True):
    """What became of one validation metric beside its training metric."""

    first: float
    """The epoch (from 1) at which it was first seen."""
    spans: tuple[tuple[float, float], ...]
    """In which it lasted, each from the check before it was seen to the last at which it was."""
    noted: bool
    """The monitor said so during training; False: found here, over the last `WINDOW` checks."""


def overfit(entries: Sequence[Row | Note], validation: Curve, training: Curve, mode: Mode) -> Overfit | None:
    """Say where a run overfitted by one metric; None: nowhere. Curves are by epoch."""
    noted = _noted(entries, validation.name)
    checks = noted or _found(validation, training, mode)
    first = next((x for x, seen in checks if seen), None)
    if first is None:
        return None
    return Overfit(first=first, spans=_spans(checks), noted=bool(noted))


def _noted(entries: Iterable[Row | Note], monitor: str) -> list[tuple[float, bool]]:
    seen = {
        float(entry.epoch + 1): check.overfitting
        for entry in entries
        if isinstance(entry, Decided) and entry.epoch is not None
        for check in entry.checks
        if check.monitor == monitor
    }
    return sorted(seen.items())


def _found(validation: Curve, training: Curve, mode: Mode) -> list[tuple[float, bool]]:
    watch = OverfittingWatch(mode, WINDOW)
    return [(x, watch.see(mine, other)) for x, mine, other in joined(validation, training)]


def _spans(checks: Sequence[tuple[float, bool]]) -> tuple[tuple[float, float], ...]:
    closest = (checks[-1][0] - checks[0][0]) / _MOST
    spans: list[tuple[float, float]] = []
    before = checks[0][0] - 0.5
    for x, seen in checks:
        if seen and spans and before - spans[-1][1] <= closest:
            spans[-1] = (spans[-1][0], x)
        elif seen:
            spans.append((before, x))
        before = x
    return tuple(spans)
