"""Overfit: where in training validation worsened while training improved, as spans that a chart can shade. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from msgspec import Struct

from ...core.direction import Mode
from ...core.overfitting import OverfittingWatch
from ...core.recorded import read_policy
from ...storage.history import Row
from ...storage.notes import Began, Decided, Note
from ..after_best import WINDOW, after_best, window_of
from .curves import Curve, joined

Span = tuple[float, float]
"""From, to: epochs from 1."""

_MOST = 300
"""Spans that are shaded; closer ones become one."""


class Overfit(Struct, frozen=True, kw_only=True):
    """What became of one validation metric beside its training metric."""

    first: float | None
    """The epoch (from 1) at which it was first seen, over a window of checks; None: over no window."""
    best: float | None
    """The epoch of the best, where it overfits over all checks since; None: it does not."""
    spans: tuple[Span, ...]
    """In which it lasted: since the best; before that, from the check before it was seen to the last that saw it."""
    noted: bool
    """The monitor saw it during training; False: found here, over the last `WINDOW` checks."""


def overfit(entries: Sequence[Row | Note], validation: Curve, training: Curve, mode: Mode) -> Overfit | None:
    """Say where a run overfitted by one metric; None: nowhere. Curves are by epoch."""
    noted, pairs = _noted(entries, validation.name), joined(validation, training)
    checks = noted or _found(pairs, mode)
    window = _window(entries, validation.name) if noted else WINDOW
    after = after_best(pairs, mode, window)
    best = float(after.epoch) if after is not None and after.overfits else None
    first = next((x for x, seen in checks if seen), None)
    if first is None and best is None:
        return None
    spans = _spans(checks)
    if best is not None:
        spans = (*((begin, min(end, best)) for begin, end in spans if begin < best), (best, float(pairs[-1][0])))
    return Overfit(first=first, best=best, spans=spans, noted=bool(noted))


def _window(entries: Sequence[Row | Note], monitor: str) -> int:
    began = next((entry for entry in reversed(entries) if isinstance(entry, Began)), None)
    return window_of(None if began is None else read_policy(began.policy or {}), monitor)


def _noted(entries: Iterable[Row | Note], monitor: str) -> list[tuple[float, bool]]:
    seen = {
        float(entry.epoch + 1): check.overfitting
        for entry in entries
        if isinstance(entry, Decided) and entry.epoch is not None
        for check in entry.checks
        if check.monitor == monitor
    }
    return sorted(seen.items())


def _found(pairs: Iterable[tuple[int, float, float]], mode: Mode) -> list[tuple[float, bool]]:
    watch = OverfittingWatch(mode, WINDOW)
    return [(x, watch.see(mine, other)) for x, mine, other in pairs]


def _spans(checks: Sequence[tuple[float, bool]]) -> tuple[Span, ...]:
    closest = (checks[-1][0] - checks[0][0]) / _MOST
    spans: list[Span] = []
    before = checks[0][0] - 0.5
    for x, seen in checks:
        if seen and spans and before - spans[-1][1] <= closest:
            spans[-1] = (spans[-1][0], x)
        elif seen:
            spans.append((before, x))
        before = x
    return tuple(spans)
