"""Charts: which curves share a chart, what is marked in them, and all of it as plain data. Pure."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import TypedDict

from msgspec import Struct

from ...core.direction import Mode
from ...core.overfitting import generalisation_gap, training_partners
from ...storage.notes import Decided
from .. import words
from ..after_best import WINDOW
from .curves import FARTHEST, Axis, Curve, Summary, collect, drawable, summary, thin
from .curves import joined as both
from .overfit import Overfit, overfit
from .source import Source
from .tables import Cell, Column, Line, Table
from .text import shown

MOST_CHARTS = 60
"""Charts that a page shows; those of monitored metrics come first."""
MOST_POINTS = 40_000
"""Of all curves together, so that the page stays small."""
_SHARPEST, _COARSEST = 2000, 20
"""Points of one curve: more than a screen can show apart, and fewer than make a curve."""

_COLOURS = 8


class SeriesJson(TypedDict):
    """One curve in a chart."""

    run: int
    name: str
    colour: int
    dash: int
    """0: solid, for validation and what stands alone; 1: dashed, for training; 2: dotted, for a second validation."""
    x: list[int]
    y: list[float | None]
    """null: a gap."""


class ChartJson(TypedDict):
    """One chart."""

    axis: Axis
    gap: bool
    """Values are differences: zero is of interest."""
    series: list[SeriesJson]
    best: list[tuple[int, float, float]]
    """Run, place and value of the best checkpoint."""
    shade: list[tuple[int, float, float]]
    """Run, and where it overfitted: from, to."""


class Legend(Struct, frozen=True, kw_only=True):
    """What a curve looks like, in words."""

    name: str
    colour: int
    dash: int


class Chart(Struct, frozen=True, kw_only=True):
    """One chart and what says the same without it."""

    title: str
    sentences: tuple[str, ...]
    """What the curves show, one for each."""
    overfitting: tuple[str, ...]
    """Where it was seen; empty: nowhere."""
    thinned: str
    """"Drawn from 2,000 of 100,000 points, …"; empty: all are drawn."""
    legend: tuple[Legend, ...]
    summary: Table
    json: ChartJson


class Charts(Struct, frozen=True, kw_only=True):
    """All charts of a page."""

    charts: tuple[Chart, ...]
    omitted: int
    """Charts that would be too many."""


class _Member:
    """A curve on its way into a chart."""

    def __init__(self, run: int, curve: Curve, place: int, *, trains: bool, alone: bool) -> None:
        self.run = run
        self.curve = curve
        self.colour = (place if alone else run) % _COLOURS
        self.dash = 1 if trains else 2 * min(place, 1)


class _Group:
    """Metrics that share a chart."""

    def __init__(self, axis: Axis, names: list[str], keys: Sequence[str]) -> None:
        self.axis = axis
        self.names = sorted(names, key=keys.__contains__)
        """Validation metrics first."""
        self.keys = keys
        """The training metrics among them, by the names that different runs have for the same; or the only one."""

    @property
    def validation(self) -> list[str]:
        """The metrics that have a training metric beside them."""
        return [name for name in self.names if name not in self.keys]

    def trains(self, name: str) -> bool:
        """Say whether a metric is the training one beside another."""
        return name in self.keys and bool(self.validation)


def charts(sources: Sequence[Source], names: Sequence[str]) -> Charts:
    """Return the charts of some runs, whose short names are `names`."""
    curves = [collect(source.entries) for source in sources]
    groups = _groups(sources, curves)
    drawn = groups[:MOST_CHARTS]
    count = sum(len(group.names) for group in drawn) * len(sources)
    limit = min(_SHARPEST, max(_COARSEST, MOST_POINTS // max(count, 1)))
    build = _Builder(sources, names, curves, limit)
    found = itertools.chain.from_iterable(build.charts(group) for group in drawn)
    return Charts(charts=tuple(found), omitted=len(groups) - len(drawn))


class _Builder:
    def __init__(
        self,
        sources: Sequence[Source],
        names: Sequence[str],
        curves: Sequence[Mapping[Axis, Mapping[str, Curve]]],
        limit: int,
    ) -> None:
        self._sources = sources
        self._names = names
        self._curves = curves
        self._limit = limit
        self._alone = len(sources) == 1

    def charts(self, group: _Group) -> Iterable[Chart]:
        """Yield the chart of a group, then those of its generalisation gaps."""
        members = [
            _Member(
                run,
                of[group.axis][name],
                place,
                trains=group.trains(name),
                alone=self._alone,
            )
            for run, of in enumerate(self._curves)
            for place, name in enumerate(group.names)
            if name in of[group.axis]
        ]
        by = "" if group.axis == "epoch" else ", by step"
        partnered = group.validation
        seen = {name: self._overfits(name, group) for name in partnered} if group.axis == "epoch" else {}
        yield self._chart(
            f"{words.listed([*map(shown, group.names)])}{by}",
            group,
            members,
            best=[mark for run in range(len(self._sources)) for mark in self._best(run, group)],
            overfits=[found for of in seen.values() for found in of],
            overfitting=tuple(self._say_overfit(name, seen[name]) for name in seen),
        )
        for name in partnered if group.axis == "epoch" else ():
            gaps = self._gaps(name, group.keys)
            if gaps:
                yield self._chart(
                    f"Generalisation gap: how much worse {shown(name)} is than {' or '.join(map(shown, group.keys))}",
                    group,
                    gaps,
                    gap=True,
                    overfits=seen[name],
                )

    def _chart(  # noqa: PLR0913 - a chart has these facts
        self,
        title: str,
        group: _Group,
        members: Sequence[_Member],
        *,
        gap: bool = False,
        best: Sequence[tuple[int, float, float]] = (),
        overfits: Sequence[tuple[int, Overfit]] = (),
        overfitting: Sequence[str] = (),
    ) -> Chart:
        thinned = [thin(member.curve, self._limit) for member in members]
        summaries = [summary(member.curve) for member in members]
        labels = [self._label(member) for member in members]
        return Chart(
            title=title,
            sentences=tuple(_say(label, found, group.axis) for label, found in zip(labels, summaries, strict=True)),
            overfitting=tuple(filter(None, overfitting)),
            thinned=_say_thinned(sum(len(curve.xs) for curve in thinned), sum(found.points for found in summaries)),
            legend=tuple(
                Legend(name=label, colour=member.colour, dash=member.dash)
                for label, member in zip(labels, members, strict=True)
            ),
            summary=_summary_table(group.axis, labels, summaries),
            json=ChartJson(
                axis=group.axis,
                gap=gap,
                series=[
                    SeriesJson(
                        run=member.run,
                        name=label,
                        colour=member.colour,
                        dash=member.dash,
                        x=[*curve.xs],
                        y=_short(curve.ys),
                    )
                    for member, label, curve in zip(members, labels, thinned, strict=True)
                ],
                best=list(best),
                shade=[(run, *span) for run, found in overfits for span in found.spans],
            ),
        )

    def _label(self, member: _Member) -> str:
        name = shown(member.curve.name)
        return name if self._alone else f"{self._names[member.run]}: {name}"

    def _overfits(self, name: str, group: _Group) -> list[tuple[int, Overfit]]:
        found = []
        for run, validation, training, mode in self._pairs(name, group.keys):
            seen = overfit(self._sources[run].entries, validation, training, mode)
            if seen is not None:
                found.append((run, seen))
        return found

    def _gaps(self, name: str, keys: Sequence[str]) -> list[_Member]:
        found = []
        for run, validation, training, mode in self._pairs(name, keys):
            points = both(validation, training)
            if points:
                gaps = [generalisation_gap(mine, other, mode) for _, mine, other in points]
                gap = Curve(name=name, xs=[x for x, _, _ in points], ys=gaps)
                found.append(_Member(run, gap, 0, trains=False, alone=self._alone))
        return found

    def _pairs(self, name: str, keys: Sequence[str]) -> Iterable[tuple[int, Curve, Curve, Mode]]:
        for run, (source, of) in enumerate(zip(self._sources, self._curves, strict=True)):
            mode, curves = source.mode(name), of["epoch"]
            key = next((key for key in keys if key in curves), None)
            if mode is not None and name in curves and key is not None:
                yield run, curves[name], curves[key], mode

    def _best(self, run: int, group: _Group) -> list[tuple[int, float, float]]:
        """Return where the best checkpoint lies on a curve: the best by a metric of the group, else by the primary."""
        source, of = self._sources[run], self._curves[run][group.axis]
        metric = next((name for name in group.names if name in source.modes), next(iter(source.modes), None))
        curve = next((of[name] for name in (metric, *group.names) if name in group.names and name in of), None)
        x = None if metric is None else best_place(source, metric, group.axis)
        if curve is None or x is None or source.marks.best.get(metric or "") in source.left:
            return []
        y = _near(curve, x)
        return [] if y is None else [(run, x, y)]

    def _say_overfit(self, name: str, found: Sequence[tuple[int, Overfit]]) -> str:
        parts = [_seen(seen) + ("" if self._alone else f" in {self._names[run]}") for run, seen in found]
        if not parts:
            return ""
        marked = "shaded" if self._alone else "the bar at the top"
        return f"Overfitting by {shown(name)}, {marked}: {'; '.join(parts)}."


def _seen(seen: Overfit) -> str:
    """Say when it was first seen, over a window of checks, and since when it lasts, over all after the best."""
    how = "" if seen.noted else f" (found by this report, over {words.count(WINDOW, 'check')})"
    parts = [f"first seen at epoch {seen.first:,.0f}{how}"] if seen.first is not None else []
    if seen.best is not None:
        parts.append(f"since its best, at epoch {seen.best:,.0f}")
    return ", and lasting ".join(parts)


def best_place(source: Source, metric: str, axis: Axis) -> float | None:
    """Return where the best checkpoint by a metric was taken, or where its best was last seen; None: nobody says."""
    sequence = source.marks.best.get(metric)
    for info in source.listing.checkpoints:
        if info.sequence == sequence:
            return _place(info.epoch, info.step, axis)
    if axis == "epoch":
        for entry in reversed(source.entries):
            for check in entry.checks if isinstance(entry, Decided) else ():
                if check.monitor == metric and check.best_epoch is not None:
                    return float(check.best_epoch + 1)
    return None


def _place(epoch: int | None, step: int, axis: Axis) -> float | None:
    x = step if axis == "step" else None if epoch is None else epoch + 1
    return None if x is None or x > FARTHEST else float(x)


def _near(curve: Curve, x: float) -> float | None:
    """Return the value at the place nearest to `x`."""
    nearest = min(curve.drawn(), key=lambda point: abs(point[0] - x), default=None)
    return None if nearest is None else nearest[1]


def _groups(sources: Sequence[Source], curves: Sequence[Mapping[Axis, Mapping[str, Curve]]]) -> list[_Group]:
    monitored = list(dict.fromkeys(name for source in sources for name in source.modes))
    found = []
    axes: tuple[Axis, ...] = ("epoch", "step")
    for axis in axes:
        logged = dict.fromkeys(name for of in curves for name in of[axis])
        names = [*(name for name in monitored if name in logged), *(name for name in logged if name not in monitored)]
        found.extend(_grouped(axis, names, [of[axis] for of in curves]))
    return found


def _grouped(axis: Axis, names: Sequence[str], runs: Sequence[Collection[str]]) -> list[_Group]:
    """Group `names`, which are those of all runs; what one run calls loss and another train_loss is in one group."""
    same, groups = dict[str, str](), dict[str, list[str]]()
    partners = {name: [partner for partner in training_partners(name) if partner in names] for name in names}
    for first, *others in filter(None, partners.values()):
        same |= {other: first for other in others if not any(first in run and other in run for run in runs)}
    for name in names:
        key = next(iter(partners[name]), name)
        groups.setdefault(same.get(key, key), []).append(name)
    return [
        _Group(axis, found, [key, *(name for name in found if same.get(name) == key)]) for key, found in groups.items()
    ]


def _short(ys: Sequence[float]) -> list[float | None]:
    """Return values with seven digits, which is what a chart can show and more."""
    return [float(f"{y:.7g}") if drawable(y) else None for y in ys]


def _say(label: str, found: Summary, axis: Axis) -> str:
    if found.first is None or found.last is None or found.lowest is None or found.highest is None:
        return f"{label} has {words.count(found.points, 'value')}, none of which can be drawn."
    if found.points == 1:
        return f"{label} is {_value(found.first)} at {axis} {found.first[0]:,.0f}."
    missing = f" {words.count(found.missing, 'value')} cannot be drawn." if found.missing else ""
    return (
        f"{label} goes from {_value(found.first)} at {axis} {found.first[0]:,.0f} to {_value(found.last)} at {axis} "
        f"{found.last[0]:,.0f}; its lowest is {_value(found.lowest)} at {axis} {found.lowest[0]:,.0f}, its highest "
        f"{_value(found.highest)} at {axis} {found.highest[0]:,.0f}.{missing}"
    )


def _say_thinned(drawn: int, points: int) -> str:
    if drawn >= points:
        return ""
    return f"Drawn from {drawn:,} of {points:,} points; the lowest and the highest of every stretch are kept."


def _value(point: tuple[float, float]) -> str:
    return words.number(point[1])


def _summary_table(axis: Axis, labels: Sequence[str], summaries: Sequence[Summary]) -> Table:
    titles = ("first", "last", "lowest", "highest")
    places = [title for name in titles for title in (name, f"at {axis}")]
    return Table(
        caption="The curves in figures",
        columns=(
            Column(title="curve"),
            Column(title="values", number=True),
            Column(title="not drawn", number=True),
            *(Column(title=title, number=True) for title in places),
        ),
        lines=tuple(
            Line(
                cells=(
                    Cell(text=label),
                    Cell(text=f"{found.points:,}", value=found.points),
                    Cell(text=f"{found.missing:,}", value=found.missing),
                    *itertools.chain.from_iterable(
                        _cells(point) for point in (found.first, found.last, found.lowest, found.highest)
                    ),
                )
            )
            for label, found in zip(labels, summaries, strict=True)
        ),
    )


def _cells(point: tuple[float, float] | None) -> tuple[Cell, Cell]:
    if point is None:
        return Cell(text=""), Cell(text="")
    return Cell(text=_value(point), value=point[1]), Cell(text=f"{point[0]:,.0f}", value=point[0])
