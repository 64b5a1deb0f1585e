"""Panels: which curves of a run are drawn together, and where its checkpoints stand on them. Pure."""

from __future__ import annotations

import bisect
import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from msgspec import Struct

from ..core.overfitting import training_partners
from ..storage.history import History, Row
from .marks import smoothed

if TYPE_CHECKING:
    from ..storage.manifest import CheckpointInfo
    from ..storage.notes import Note
    from .marks import Marks


class Curve(Struct, frozen=True, kw_only=True):
    """The values of one metric, in the order they were logged."""

    metric: str
    x: Sequence[int]
    """Epochs from 0, or training steps."""
    y: Sequence[float]


class Mark(Struct, frozen=True, kw_only=True):
    """A checkpoint on a curve."""

    checkpoint: CheckpointInfo
    x: int
    y: float


class Panel(Struct, frozen=True, kw_only=True):
    """One drawing."""

    curve: Curve
    """The one that the marks stand on: the validation metric, where there are both."""
    training: Curve | None
    """The training values beside it."""
    best: Mark | None
    """The best checkpoint by `best_by`."""
    best_by: str
    """This metric, or the primary monitor where none is ranked by this one; empty: nothing is monitored."""
    smoothed: float | None
    """The smoothed value that made it the best; None: the one on the curve did, or another metric."""
    saved: tuple[Mark, ...]
    """The other checkpoints, oldest first."""


def rows_of(entries: Iterable[Row | Note]) -> History:
    """Return what was logged, without the notes between."""
    return History(entry for entry in entries if isinstance(entry, Row))


def curves(history: History, *, over_steps: bool) -> dict[str, Curve]:
    """Return the curve of each metric.

    Over epochs: what was logged at their ends. Over steps: what single steps logged, and for the other metrics what was
    logged at the ends of epochs.
    """
    if not over_steps:
        return {name: Curve(metric=name, x=history.epochs[name], y=values) for name, values in history.items()}
    logged: dict[str, tuple[list[int], list[float]]] = {}
    for row in history.steps_log:
        for name, value in row.metrics.items():
            x, y = logged.setdefault(name, ([], []))
            x.append(row.step)
            y.append(value)
    at_ends = {name: (history.steps[name], values) for name, values in history.items() if name not in logged}
    return {name: Curve(metric=name, x=x, y=y) for name, (x, y) in {**at_ends, **logged}.items()}


def grouped(names: Iterable[str], logged: Iterable[str]) -> list[tuple[str, str | None]]:
    """Return pairs of a metric and the training metric beside it, so that each of `names` is in one of them."""
    partner = {name: next((found for found in training_partners(name) if found in logged), None) for name in logged}
    validation = {training: name for name, training in reversed(partner.items()) if training is not None}
    pairs = dict.fromkeys((validation.get(name, name), partner[validation.get(name, name)]) for name in names)
    return list(pairs)


def panel(  # noqa: PLR0913 - what a drawing depends on
    pair: tuple[str, str | None],
    found: Mapping[str, Curve],
    checkpoints: Sequence[CheckpointInfo],
    marks: Marks,
    left: Collection[int],
    *,
    over_steps: bool,
) -> Panel:
    """Return the drawing of one pair of `grouped`; `found` is what `curves` gave, `left` what `marks.left` gave."""
    name, training = pair
    curve = found[name]
    best_by = name if name in marks.best else marks.monitors[0].monitor if marks.monitors else ""
    best = marks.best.get(best_by)
    here = [checkpoint for checkpoint in checkpoints if checkpoint.sequence not in left]
    placed = _placed_at_steps(here, curve) if over_steps else _placed_at_epochs(here, curve)
    gone = [checkpoint for checkpoint in checkpoints if checkpoint.sequence in left]
    placed += _placed_beside(gone, curve, over_steps=over_steps)
    placed.sort(key=lambda mark: mark.checkpoint.sequence)
    top = next((mark for mark in placed if mark.checkpoint.sequence == best), None)
    return Panel(
        curve=curve,
        training=None if training is None else found[training],
        best=top,
        best_by=best_by,
        smoothed=None if top is None or best_by != name else smoothed(top.checkpoint, name),
        saved=tuple(mark for mark in placed if mark.checkpoint.sequence != best),
    )


def _placed_at_epochs(checkpoints: Sequence[CheckpointInfo], curve: Curve) -> list[Mark]:
    """Place each checkpoint at its epoch, where that has a value."""
    values = dict(zip(curve.x, curve.y, strict=True))
    return [
        Mark(checkpoint=checkpoint, x=checkpoint.epoch, y=values[checkpoint.epoch])
        for checkpoint in checkpoints
        if checkpoint.epoch is not None and math.isfinite(values.get(checkpoint.epoch, math.nan))
    ]


def _placed_at_steps(checkpoints: Sequence[CheckpointInfo], curve: Curve) -> list[Mark]:
    """Place each checkpoint at the value that was logged last before it."""
    places = [(checkpoint, bisect.bisect_right(curve.x, checkpoint.step) - 1) for checkpoint in checkpoints]
    return [
        Mark(checkpoint=checkpoint, x=curve.x[at], y=curve.y[at])
        for checkpoint, at in places
        if at >= 0 and math.isfinite(curve.y[at])
    ]


def _placed_beside(checkpoints: Sequence[CheckpointInfo], curve: Curve, *, over_steps: bool) -> list[Mark]:
    """Place each checkpoint at the value that was logged with it, where there is one: the curve is another way."""
    places = [(checkpoint, checkpoint.step if over_steps else checkpoint.epoch) for checkpoint in checkpoints]
    return [
        Mark(checkpoint=checkpoint, x=at, y=checkpoint.metrics[curve.metric])
        for checkpoint, at in places
        if at is not None and math.isfinite(checkpoint.metrics.get(curve.metric, math.nan))
    ]
