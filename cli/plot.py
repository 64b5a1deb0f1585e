"""`keepbest plot`: the curves of a run in the terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypedDict

import click

from ..errors import did_you_mean
from ..storage.jsonfloat import float_to_json
from ..storage.printable import printable
from . import machine, screen, words
from .options import run_verb

if TYPE_CHECKING:
    from ..storage.history import History
    from .curves import Pens
    from .panels import Curve, Mark, Panel

NARROWEST, LOWEST = 40, 8
"""Columns and lines below which a curve says nothing."""

MOST = 4
"""Drawings, unless others are asked for."""

_BESIDE, _GAP = 58, "  "
"""Columns that a drawing must have to stand beside another, and what is between them."""

_Parts = list[tuple[str, str]]
"""A line: texts and their styles."""


class CurveJson(TypedDict):
    """The values of one metric, in the order they were logged."""

    metric: str
    x: list[int]
    """Epochs from 0, or training steps, as `x` of the whole says."""
    y: list[float | str]


class MarkJson(TypedDict):
    """A checkpoint on a curve."""

    sequence: int
    name: str
    x: int
    y: float | str


class PanelJson(TypedDict):
    """One drawing."""

    curve: CurveJson
    """The validation metric, where there are both."""
    training: CurveJson | None
    best: MarkJson | None
    """null: the best checkpoint has no value there, or there is none."""
    best_by: str
    """The metric that it is the best by: this one, or the primary monitor; empty: nothing is monitored."""
    smoothed: float | str | None
    """The smoothed value that made it the best; null: the one on the curve did, or another metric."""
    saved: list[MarkJson]
    """The other checkpoints of the run, oldest first."""


class PlotJson(TypedDict):
    """What `keepbest plot --json` prints, as keepbest.plot/1: every value, however many a terminal would show."""

    run: str
    x: str
    """"epoch" or "step"."""
    panels: list[PanelJson]
    others: list[str]
    """Metrics that were logged and are in no drawing."""


@click.command(epilog="Example: keepbest plot runs/7 val_loss accuracy --log")
@run_verb
@click.argument("metrics", nargs=-1, metavar="[METRIC]…")
@click.option("--steps", "over_steps", is_flag=True, help="Draw over training steps, with what single steps logged.")
@click.option("--log", "logarithmic", is_flag=True, help="Draw powers of ten equally far apart.")
@click.option("--width", type=click.IntRange(min=NARROWEST), help="Columns. [default: the terminal's, or 80]")
@click.option("--height", type=click.IntRange(min=LOWEST), default=16, help="Lines of a drawing. [default: 16]")
def plot(  # noqa: PLR0913, PLR0917 - one for each word of the command line
    url: str,
    storage_options: Mapping[str, Any],
    as_json: bool,  # noqa: FBT001
    metrics: Sequence[str],
    over_steps: bool,  # noqa: FBT001
    logarithmic: bool,  # noqa: FBT001
    width: int | None,
    height: int,
) -> None:
    """Draw the curves of a run in the terminal.

    Each METRIC is drawn with the training metric beside it, as loss beside val_loss, and with the checkpoints: where
    the best one was saved, and where the others. Without a METRIC, those that are monitored come first.
    """
    from ..storage.backend import open_backend  # noqa: PLC0415 - help needs none of it
    from ..storage.run import Run, open_run  # noqa: PLC0415
    from .marks import left, marks  # noqa: PLC0415
    from .panels import curves, grouped, panel, rows_of  # noqa: PLC0415

    run = Run(open_backend(url, storage_options))
    checkpoints, entries = run.listing().checkpoints, run.journal()
    history = rows_of(entries)
    if not checkpoints and not history.rows:
        open_run(url, storage_options=storage_options)  # says if it is no run; not before, as it reads the same
    if over_steps and len(history.rows) > 1 and len({row.step for row in history.rows}) == 1:
        raise click.UsageError("no steps were counted, as nobody called log_step: leave out --steps.")
    over_steps = over_steps or not history  # where only single steps were logged, there is nothing else to draw
    found, drawn = marks(checkpoints), curves(history, over_steps=over_steps)
    _check(metrics, drawn, history)
    monitored = [score.monitor for score in found.monitors if score.monitor in drawn]
    pairs = grouped(metrics or [*monitored, *drawn], drawn)
    if not metrics:
        pairs = pairs[: max(MOST, len(monitored))]
    gone = left(checkpoints, entries)
    panels = [panel(pair, drawn, checkpoints, found, gone, over_steps=over_steps) for pair in pairs]
    others = [name for name in drawn if not any(name in pair for pair in pairs)]
    if as_json:
        x = "step" if over_steps else "epoch"
        machine.emit("plot/1", PlotJson(run=run.url, x=x, panels=[_to_json(each) for each in panels], others=others))
        return
    _show(
        f"{run.url}: {_length(history)}",
        panels,
        width or screen.width(),
        height,
        logarithmic=logarithmic,
        over_steps=over_steps,
    )
    if others and not metrics:
        screen.line(f"Not drawn: {', '.join(others)}. Name the metrics to see others.", "dim")


def _check(metrics: Sequence[str], drawn: Mapping[str, Curve], history: History) -> None:
    for name in metrics:
        if name in drawn:
            continue
        if any(name in row.metrics for row in history.steps_log):
            raise click.UsageError(f"'{printable(name)}' was logged by single steps only: draw it with --steps.")
        held = f"It has {', '.join(drawn)}." if drawn else "It has none."
        raise click.UsageError(printable(f"the run logged no metric '{name}'. {held}{did_you_mean(name, drawn)}"))


def _length(history: History) -> str:
    epochs = sum(row.kind == "epoch" for row in history.rows)
    steps = max((row.step for row in history.rows), default=0)
    return f"{words.count(epochs, 'epoch')}, {words.count(steps, 'step')}"


def _to_json(panel: Panel) -> PanelJson:
    return PanelJson(
        curve=_curve_to_json(panel.curve),
        training=None if panel.training is None else _curve_to_json(panel.training),
        best=None if panel.best is None else _mark_to_json(panel.best),
        best_by=panel.best_by,
        smoothed=None if panel.smoothed is None else float_to_json(panel.smoothed),
        saved=[_mark_to_json(mark) for mark in panel.saved],
    )


def _curve_to_json(curve: Curve) -> CurveJson:
    return CurveJson(metric=curve.metric, x=list(curve.x), y=[float_to_json(value) for value in curve.y])


def _mark_to_json(mark: Mark) -> MarkJson:
    return MarkJson(sequence=mark.checkpoint.sequence, name=mark.checkpoint.name, x=mark.x, y=float_to_json(mark.y))


def _show(title: str, panels: Sequence[Panel], width: int, height: int, *, logarithmic: bool, over_steps: bool) -> None:  # noqa: PLR0913 - what a drawing depends on
    from . import curves  # noqa: PLC0415 - see above; where plotille is missing, nothing is printed before that is said

    if width < NARROWEST:
        raise click.ClickException(
            f"curves need {NARROWEST} columns, and here are {width}. Widen the terminal, or print the values: --json."
        )
    pens = curves.FINE if screen.can_show("⣿●○─") else curves.COARSE
    legends = [_legend(panel, pens, over_steps=over_steps) for panel in panels]
    widest = max((screen.cells(text) for legend in legends for text, _ in legend), default=0)
    screen.line(title)
    beside = max(1, min(len(panels), (width + len(_GAP)) // (max(_BESIDE, widest) + len(_GAP))))
    each = (width - len(_GAP) * (beside - 1)) // beside
    for first in range(0, len(panels), beside):
        row = slice(first, first + beside)
        for parts in _side_by_side([_folded(legend, each) for legend in legends[row]], each):
            screen.spans(parts)
        drawings = [
            curves.draw(panel, pens, width=each, height=height, logarithmic=logarithmic, over_steps=over_steps)
            or _nothing(each, height)
            for panel in panels[row]
        ]
        screen.drawing(_GAP.join(lines) for lines in zip(*drawings, strict=True))


def _nothing(width: int, height: int) -> list[str]:
    return ["  no value that can be drawn".ljust(width)] + [" " * width] * (height - 1)


def _legend(panel: Panel, pens: Pens, *, over_steps: bool) -> _Parts:
    from . import curves  # noqa: PLC0415 - see above

    entries = [(f"{curves.SAMPLES[pens.curve]} {panel.curve.metric}", curves.CURVE)]
    if panel.training is not None:
        entries.append((f"{curves.SAMPLES[pens.training]} {panel.training.metric}", curves.TRAINING))
    if panel.best is not None:
        place = f"step {panel.best.x}" if over_steps else f"epoch {words.epoch(panel.best.x)}"
        best = "best" if panel.best_by == panel.curve.metric else f"best by {panel.best_by}:"
        value = words.number(panel.best.y)
        judged = words.smoothed(panel.smoothed)
        entries.append((f"{pens.best} {best} {value} in {place}{judged}", curves.BEST))
    if panel.saved:
        entries.append((f"{pens.saved} saved", ""))
    return entries


def _folded(legend: _Parts, width: int) -> list[_Parts]:
    """Lay a legend out in lines of `width` columns; an entry that is longer has a line of its own."""
    lines: list[_Parts] = [[]]
    for entry in legend:
        taken = sum(screen.cells(text) + len(_GAP) for text, _ in lines[-1])
        if lines[-1] and taken + screen.cells(entry[0]) > width:
            lines.append([])
        lines[-1].append(entry)
    return lines


def _side_by_side(legends: Sequence[list[_Parts]], width: int) -> Iterator[_Parts]:
    """Join the lines of several legends, each in `width` columns."""
    for number in range(max(map(len, legends))):
        joined: _Parts = []
        for place, legend in enumerate(legends):
            parts = legend[number] if number < len(legend) else []
            for at, part in enumerate(parts):
                joined += [part] if at == 0 else [(_GAP, ""), part]
            if place + 1 < len(legends):
                taken = sum(screen.cells(text) for text, _ in parts) + len(_GAP) * max(0, len(parts) - 1)
                joined.append((" " * (width - taken) + _GAP, ""))
        yield joined
