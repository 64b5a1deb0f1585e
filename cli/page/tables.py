"""Tables: a table as a value, and those of runs, checkpoints and saves. Pure; the page sorts and draws them."""

from __future__ import annotations

import math
from collections.abc import Sequence

from msgspec import Struct

from ...storage.history import Row
from ...storage.manifest import CheckpointInfo
from ...storage.notes import Ended, Note
from .. import words
from .saving import Save, Saving
from .source import Source
from .text import seconds, shown

_MOST_METRICS = 10
"""Columns of metrics in the table of checkpoints."""
_MOST_MONITORS = 6
"""Columns of best values in the table of runs."""


class Column(Struct, frozen=True, kw_only=True):
    """A column of a table."""

    title: str
    number: bool = False
    """Numbers stand at the right, and are sorted by value."""


class Cell(Struct, frozen=True, kw_only=True):
    """One cell."""

    text: str
    value: float | None = None
    """What it is sorted by; None: its text."""
    code: bool = False
    """A digest or the like, to be read letter by letter."""


class Line(Struct, frozen=True, kw_only=True):
    """One row of a table."""

    cells: tuple[Cell, ...]
    stands_out: bool = False


class Table(Struct, frozen=True, kw_only=True):
    """A table."""

    caption: str
    columns: tuple[Column, ...]
    lines: tuple[Line, ...]
    omitted: str = ""
    """What it leaves out, in words."""


def runs(sources: Sequence[Source], labels: Sequence[str]) -> Table:
    """Return the table of runs, with the best value of each monitored metric, as it was logged."""
    metrics = list(dict.fromkeys(name for source in sources for name in source.modes))[:_MOST_MONITORS]
    modes = {name: next(filter(None, (source.mode(name) for source in sources)), None) for name in metrics}
    columns = [Column(title="run"), Column(title="epochs", number=True), Column(title="steps", number=True)]
    for name in metrics:
        columns += [
            Column(title=f"best {shown(name)} ({modes[name]})", number=True),
            Column(title="at epoch", number=True),
        ]
    columns += [
        Column(title="best checkpoint"),
        Column(title="checkpoints", number=True),
        Column(title="size", number=True),
        Column(title="ended"),
        Column(title="URL"),
    ]
    return Table(
        caption="Runs",
        columns=tuple(columns),
        lines=tuple(
            Line(cells=(Cell(text=label), *_run(source, metrics)))
            for source, label in zip(sources, labels, strict=True)
        ),
    )


def checkpoints(source: Source) -> Table:
    """Return the table of a run's checkpoints, the newest last."""
    modes = source.modes
    logged = dict.fromkeys(name for info in source.shown for name in info.metrics)
    names = [*(name for name in modes if name in logged), *(name for name in logged if name not in modes)]
    metrics = names[:_MOST_METRICS]
    return Table(
        caption="Checkpoints",
        columns=(
            Column(title="#", number=True),
            Column(title="name"),
            Column(title="marks"),
            Column(title="epoch", number=True),
            Column(title="step", number=True),
            *(
                Column(title=f"{shown(name)} ({modes[name]})" if name in modes else shown(name), number=True)
                for name in metrics
            ),
            Column(title="size", number=True),
            Column(title="saved", number=True),
            Column(title="why"),
            Column(title="file of weights"),
            Column(title="its digest"),
        ),
        lines=tuple(_checkpoint(source, info, metrics) for info in source.shown),
        omitted=" ".join(
            filter(
                None,
                (
                    f"Shown are the newest and the best {len(source.shown):,} of {len(source.listing.checkpoints):,}."
                    if len(source.shown) < len(source.listing.checkpoints)
                    else "",
                    f"{words.count(len(names) - len(metrics), 'more metric')} stand in the files."
                    if len(metrics) < len(names)
                    else "",
                ),
            )
        ),
    )


def saves(saving: Saving, *, most: int) -> Table:
    """Return the table of a run's saves, the newest last."""
    held = saving.saves[-most:]
    return Table(
        caption="Saves",
        columns=(
            Column(title="#", number=True),
            Column(title="checkpoint"),
            Column(title="size", number=True),
            Column(title="training blocked", number=True),
            Column(title="until durable", number=True),
        ),
        lines=tuple(_save(save) for save in held),
        omitted=f"Shown are the newest {len(held):,} of {len(saving.saves):,}."
        if len(held) < len(saving.saves)
        else "",
    )


def ended(entries: Sequence[Row | Note]) -> str:
    """Say how the last process ended, in a word or two; nothing where no note says."""
    last = next((entry for entry in reversed(entries) if not isinstance(entry, Row)), None)
    if last is None:
        return ""
    if not isinstance(last, Ended):
        return "not noted: it was killed, never closed, or trains still"
    if last.cause == "exception" and last.error is None:
        return "broken off"
    return f"{last.cause}: {shown(last.error)}" if last.error else last.cause


def _run(source: Source, metrics: Sequence[str]) -> list[Cell]:
    rows = [entry for entry in source.entries if isinstance(entry, Row)]
    epochs, steps = sum(row.kind == "epoch" for row in rows), max((row.step for row in rows), default=0)
    cells = [Cell(text=f"{epochs:,}", value=epochs), Cell(text=f"{steps:,}", value=_sortable(steps))]
    for name in metrics:
        cells.extend(_best_logged(rows, name, source.mode(name)))
    held = source.listing.checkpoints
    best = {source.marks.best.get(name) for name in list(source.modes)[:1]}
    nbytes = sum(info.nbytes for info in held)
    return [
        *cells,
        Cell(text=", ".join(shown(info.name) for info in held if info.sequence in best)),
        Cell(text=f"{len(held):,}", value=len(held)),
        Cell(text=words.size(nbytes), value=_sortable(nbytes)),
        Cell(text=ended(source.entries)),
        Cell(text=shown(source.url)),
    ]


def _best_logged(rows: Sequence[Row], name: str, mode: str | None) -> tuple[Cell, Cell]:
    sign = -1.0 if mode == "max" else 1.0
    logged = [(sign * row.metrics[name], row.epoch) for row in rows if row.kind == "epoch" and name in row.metrics]
    value, epoch = min((pair for pair in logged if math.isfinite(pair[0])), default=(math.nan, None))
    if epoch is None:
        return Cell(text=""), Cell(text="")
    return (
        Cell(text=words.number(sign * value), value=sign * value),
        Cell(text=f"{epoch + 1:,}", value=_sortable(epoch + 1)),
    )


def _checkpoint(source: Source, info: CheckpointInfo, metrics: Sequence[str]) -> Line:
    found = source.marks.of(info)
    file, digest = source.digests.get(info.sequence, ("", ""))
    return Line(
        cells=(
            Cell(text=str(info.sequence), value=info.sequence),
            Cell(text=shown(info.name)),
            Cell(text=", ".join(map(shown, found))),
            Cell(text=words.epoch(info.epoch), value=None if info.epoch is None else info.epoch + 1),
            Cell(text=f"{info.step:,}", value=info.step),
            *(_metric(info.metrics.get(name)) for name in metrics),
            Cell(text=words.size(info.nbytes), value=info.nbytes),
            Cell(text=words.moment(info.time), value=info.time),
            Cell(text=", ".join(map(shown, info.reasons))),
            Cell(text=shown(file)),
            Cell(text=shown(digest), code=True),
        ),
        stands_out="best" in found,
    )


def _metric(value: float | None) -> Cell:
    if value is None:
        return Cell(text="")
    return Cell(text=words.number(value), value=value if math.isfinite(value) else None)


def _save(save: Save) -> Line:
    return Line(
        cells=(
            Cell(text=str(save.sequence), value=save.sequence),
            Cell(text=shown(save.checkpoint)),
            Cell(text=words.size(save.nbytes), value=save.nbytes),
            Cell(text=seconds(save.blocked), value=save.blocked),
            Cell(text=seconds(save.seconds), value=save.seconds),
        )
    )


def _sortable(number: int) -> float | None:
    """Return a count as a float; None for one that no float can hold, as a stranger's journal may have."""
    try:
        return float(number)
    except OverflowError:
        return None
