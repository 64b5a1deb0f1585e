"""Curves: one metric of one run as points in the order of training, thinned for a page so that no extreme is lost."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from operator import itemgetter
from typing import Literal

from msgspec import Struct

from ...storage.history import Row
from ...storage.notes import Note

# Plain lists: to import NumPy takes longer than to draw a run of some thousand rows without it.

Axis = Literal["epoch", "step"]

FARTHEST = 2**53
"""Epochs and steps that a browser can still count."""
LARGEST = 1e30
"""Of values that are drawn: an axis that holds larger ones shows nothing else."""


class Curve(Struct, frozen=True, kw_only=True):
    """The points of one metric. Places strictly increase."""

    name: str
    """The metric's, as it was logged."""
    xs: Sequence[int]
    """Epochs from 1, or steps."""
    ys: Sequence[float]
    """As they were logged, NaN and infinity included."""

    def drawn(self) -> list[tuple[int, float]]:
        """Return the points that can be drawn."""
        return [(x, y) for x, y in zip(self.xs, self.ys, strict=True) if drawable(y)]


class Summary(Struct, frozen=True, kw_only=True):
    """What a curve shows, in figures. All are of values that can be drawn."""

    points: int
    """All, also those that cannot be drawn."""
    missing: int
    """Values that are not finite, or too large to be drawn."""
    first: tuple[int, float] | None
    """Place and value; None: there is none to be drawn."""
    last: tuple[int, float] | None
    lowest: tuple[int, float] | None
    """Of equals the first."""
    highest: tuple[int, float] | None


def collect(entries: Iterable[Row | Note]) -> dict[Axis, dict[str, Curve]]:
    """Return the curves of a journal by axis and metric, in the order in which they were first logged."""
    points: dict[Axis, dict[str, dict[int, float]]] = {"epoch": {}, "step": {}}
    for entry in entries:
        if not isinstance(entry, Row):
            continue
        x = entry.epoch + 1 if entry.kind == "epoch" else entry.step
        if not 0 <= x <= FARTHEST:  # a stranger's journal may hold any number
            continue
        of = points[entry.kind]
        for name, value in entry.metrics.items():
            of.setdefault(name, {})[x] = value  # of several values at one place the one logged last
    return {axis: {name: _curve(name, found) for name, found in of.items()} for axis, of in points.items()}


def drawable(y: float) -> bool:
    """Say whether a value can be drawn."""
    return abs(y) <= LARGEST  # no comparison with NaN holds


def thin(curve: Curve, limit: int) -> Curve:
    """Return at most about `limit` points of a curve: the first, the last, and each bucket's lowest and highest.

    Buckets hold equally many points. A bucket in which nothing can be drawn keeps one point, so that the gap is seen.
    """
    xs, ys = curve.xs, curve.ys
    count, buckets = len(xs), max(limit // 2, 1)
    if count <= limit:
        return curve
    kept = {0, count - 1}
    for begin, end in itertools.pairwise(count * edge // buckets for edge in range(buckets + 1)):
        seen = [place for place in range(begin, end) if drawable(ys[place])] or [begin]
        kept.update((min(seen, key=ys.__getitem__), max(seen, key=ys.__getitem__)))
    places = sorted(kept)
    return Curve(name=curve.name, xs=[xs[place] for place in places], ys=[ys[place] for place in places])


def summary(curve: Curve) -> Summary:
    """Return what a curve shows, in figures."""
    drawn = curve.drawn()
    return Summary(
        points=len(curve.xs),
        missing=len(curve.xs) - len(drawn),
        first=drawn[0] if drawn else None,
        last=drawn[-1] if drawn else None,
        lowest=min(drawn, key=itemgetter(1), default=None),
        highest=max(drawn, key=itemgetter(1), default=None),
    )


def joined(one: Curve, other: Curve) -> list[tuple[int, float, float]]:
    """Return the places at which both have a value that can be drawn, each with the values of both."""
    others = dict(other.drawn())
    return [(x, y, others[x]) for x, y in one.drawn() if x in others]


def _curve(name: str, values: dict[int, float]) -> Curve:
    xs = sorted(values)
    return Curve(name=name, xs=xs, ys=[values[x] for x in xs])
