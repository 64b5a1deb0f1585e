"""Curves: one metric of one run as points in the order of training, thinned for a page so that no extreme is lost."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from ...storage.history import Row
from ...storage.notes import Note

Axis = Literal["epoch", "step"]
Points = npt.NDArray[np.float64]

FARTHEST = 2**53
"""Epochs and steps that a browser can still count."""
LARGEST = 1e30
"""Of values that are drawn: an axis that holds larger ones shows nothing else."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Curve:
    """The points of one metric. Places strictly increase."""

    name: str
    """The metric's, as it was logged."""
    xs: Points
    """Epochs from 1, or steps."""
    ys: Points
    """As they were logged, NaN and infinity included."""

    def at(self, x: float) -> float | None:
        """Return the value at a place, if it was logged there and can be drawn."""
        index = int(np.searchsorted(self.xs, x))
        found = index < len(self.xs) and self.xs[index] == x and drawable(self.ys)[index]
        return float(self.ys[index]) if found else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """What a curve shows, in figures. All are of values that can be drawn."""

    points: int
    """All, also those that cannot be drawn."""
    missing: int
    """Values that are not finite, or too large to be drawn."""
    first: tuple[float, float] | None
    """Place and value; None: there is none to be drawn."""
    last: tuple[float, float] | None
    lowest: tuple[float, float] | None
    """Of equals the first."""
    highest: tuple[float, float] | None


def collect(entries: Iterable[Row | Note]) -> dict[Axis, dict[str, Curve]]:
    """Return the curves of a journal by axis and metric, in the order in which they were first logged."""
    points: dict[Axis, dict[str, tuple[list[int], list[float]]]] = {"epoch": {}, "step": {}}
    for entry in entries:
        if not isinstance(entry, Row):
            continue
        x = entry.epoch + 1 if entry.kind == "epoch" else entry.step
        if not 0 <= x <= FARTHEST:  # a stranger's journal may hold any number
            continue
        of = points[entry.kind]
        for name, value in entry.metrics.items():
            if name not in of:
                of[name] = ([], [])
            xs, ys = of[name]
            xs.append(x)
            ys.append(value)
    return {axis: {name: _curve(name, *of[name]) for name in of} for axis, of in points.items()}


def drawable(ys: Points) -> npt.NDArray[np.bool_]:
    """Say which values can be drawn."""
    with np.errstate(invalid="ignore"):
        return np.isfinite(ys) & (np.abs(ys) <= LARGEST)


def thin(curve: Curve, limit: int) -> tuple[Points, Points]:
    """Return at most about `limit` points of a curve: the first, the last, and each bucket's lowest and highest.

    Buckets hold equally many points. A bucket in which nothing can be drawn keeps one point, so that the gap is seen.
    """
    count = len(curve.xs)
    if count <= limit:
        return curve.xs, curve.ys
    seen = drawable(curve.ys)
    low, high = np.where(seen, curve.ys, np.inf), np.where(seen, curve.ys, -np.inf)
    edges = np.linspace(0, count, max(limit // 2, 1) + 1).astype(np.int64)
    kept = {0, count - 1}
    for begin, end in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True):
        if begin < end:
            kept.update((begin + int(np.argmin(low[begin:end])), begin + int(np.argmax(high[begin:end]))))
    index = np.array(sorted(kept))
    return curve.xs[index], curve.ys[index]


def summary(curve: Curve) -> Summary:
    """Return what a curve shows, in figures."""
    seen = drawable(curve.ys)
    xs, ys = curve.xs[seen], curve.ys[seen]

    def point(index: Any) -> tuple[float, float] | None:
        return (float(xs[index]), float(ys[index])) if len(xs) else None

    return Summary(
        points=len(curve.xs),
        missing=len(curve.xs) - len(xs),
        first=point(0),
        last=point(-1),
        lowest=point(np.argmin(ys)) if len(ys) else None,
        highest=point(np.argmax(ys)) if len(ys) else None,
    )


def joined(one: Curve, other: Curve) -> tuple[Points, Points, Points]:
    """Return the places at which both have a value that can be drawn, and the values of each there."""
    one_seen, other_seen = drawable(one.ys), drawable(other.ys)
    xs, mine, others = np.intersect1d(one.xs[one_seen], other.xs[other_seen], assume_unique=True, return_indices=True)
    return xs, one.ys[one_seen][mine], other.ys[other_seen][others]


def _curve(name: str, places: list[int], values: list[float]) -> Curve:
    xs, ys = np.array(places, np.float64), np.array(values, np.float64)
    if len(xs) > 1 and not np.all(np.diff(xs) > 0):
        order = np.argsort(xs, kind="stable")
        xs, ys = xs[order], ys[order]
        last = np.append(np.diff(xs) > 0, True)  # of several values at one place the one logged last
        xs, ys = xs[last], ys[last]
    return Curve(name=name, xs=xs, ys=ys)
