"""`keepbest ls`: the checkpoints of a run, one line each."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypedDict

import click

from ..errors import DamagedError, ObjectNotFoundError, UnsupportedFormatError
from ..storage.layout import JOURNAL, commit_key
from . import machine, screen, words
from .options import run_verb
from .sparkline import BLOCKS, sparkline

if TYPE_CHECKING:
    from ..storage.listing import Listing
    from ..storage.manifest import CheckpointInfo, Score
    from ..storage.run import Run
    from .marks import Marks

NEWEST = 50
"""Rows that are shown unless all are asked for; a terminal that scrolls by is of no use to anyone."""

_GLANCE = 8 << 20
"""Bytes of a journal that is read for the sake of one line; a longer one takes a moment."""
_WIDEST = 60
"""Characters of the curve."""


class DamagedJson(TypedDict):
    """A manifest that cannot be read."""

    sequence: int
    manifest: str
    """Its key."""
    error: str
    """The class: "DamagedManifestError", or "UnsupportedFormatError" where a newer keepbest wrote it."""
    message: str


class LsJson(TypedDict):
    """What `keepbest ls --json` prints, as keepbest.ls/1; always all checkpoints, oldest first."""

    run: str
    best: dict[str, int]
    """Monitored metric → sequence of the best checkpoint by it, the primary metric first."""
    latest: int | None
    """Sequence of the newest checkpoint that training can continue from, else of the newest."""
    checkpoints: list[machine.CheckpointJson]
    damaged: list[DamagedJson]


@click.command(epilog="Example: keepbest ls runs/7")
@run_verb
@click.option("--all", "everything", is_flag=True, help=f"Show all, not only the newest {NEWEST} and the best.")
def ls(url: str, storage_options: Mapping[str, Any], as_json: bool, everything: bool) -> None:  # noqa: FBT001
    """List the checkpoints of a run.

    The newest comes last. Metrics that are monitored come first, with the direction in which they improve.
    """
    from ..storage.backend import open_backend  # noqa: PLC0415 - help needs none of it
    from ..storage.run import Run, open_run  # noqa: PLC0415
    from .marks import marks  # noqa: PLC0415

    run = Run(open_backend(url, storage_options))
    listing = run.listing()
    if not listing.checkpoints and not listing.damaged:
        open_run(url, storage_options=storage_options)  # says if it is no run; not before, as it lists too
    found = marks(listing.checkpoints)
    if as_json:
        machine.emit("ls/1", _to_json(run.url, listing, found))
    else:
        _show(run, listing, found, everything=everything)


def _to_json(url: str, listing: Listing, found: Marks) -> LsJson:
    return LsJson(
        run=url,
        best=found.best,
        latest=found.latest,
        checkpoints=[machine.checkpoint(info) for info in listing.checkpoints],
        damaged=[
            DamagedJson(
                sequence=sequence, manifest=commit_key(sequence), error=type(error).__name__, message=str(error)
            )
            for sequence, error in listing.damaged
        ],
    )


def _show(run: Run, listing: Listing, found: Marks, *, everything: bool) -> None:
    url, checkpoints = run.url, listing.checkpoints
    nbytes = words.size(sum(info.nbytes for info in checkpoints))
    screen.line(f"{url}: {words.count(len(checkpoints), 'checkpoint')}, {nbytes}")
    if found.monitors and screen.is_terminal() and screen.can_show(BLOCKS):
        _show_curve(run, checkpoints, found)
    lines: dict[int, CheckpointInfo | DamagedError] = {info.sequence: info for info in checkpoints}
    lines.update(listing.damaged)
    shown = sorted(lines) if everything else sorted({*sorted(lines)[-NEWEST:], *found.best.values()})
    if shown:
        columns, metrics = _columns([lines[sequence] for sequence in shown], found.monitors)
        now = time.time()
        screen.table(columns, (_row(sequence, lines[sequence], metrics, found, now) for sequence in shown))
    if len(shown) < len(lines):
        more = words.count(len(lines) - len(shown), "more line")
        screen.line(f"Shown are the newest {NEWEST} and the best; {more} with --all.", "dim")
    if listing.damaged:
        screen.line(
            f"{words.count(len(listing.damaged), 'manifest')} cannot be read; see: keepbest verify {url}", "red"
        )


def _show_curve(run: Run, checkpoints: Sequence[CheckpointInfo], found: Marks) -> None:
    """Show how the primary monitor went, in one line, with the best checkpoint marked."""
    from .marks import smoothed  # noqa: PLC0415 - see above

    primary = found.monitors[0]
    epochs, values = _logged(run, checkpoints, primary.monitor)
    best = next((info for info in checkpoints if info.sequence == found.best.get(primary.monitor)), None)
    value = None if best is None else best.metrics.get(primary.monitor)
    told, at = "", None
    if best is not None and best.epoch is not None and value is not None:
        judged = words.smoothed(smoothed(best, primary.monitor))
        told = f"best {words.number(value)} in epoch {words.epoch(best.epoch)}{judged}"
        points = enumerate(zip(epochs, values, strict=True))
        at = next((place for place, point in points if point == (best.epoch, value)), None)
    room = screen.width() - screen.cells(primary.monitor) - len(told) - 4
    drawn = sparkline(values, min(room, _WIDEST), at, lowest=primary.mode == "min") if room >= len(BLOCKS) else None
    if drawn is not None:
        screen.spans(
            [(f"{primary.monitor}  {drawn.before}", ""), (drawn.mark, "bold green"), (f"{drawn.after}  {told}", "")]
        )


def _logged(run: Run, checkpoints: Sequence[CheckpointInfo], metric: str) -> tuple[list[int | None], list[float]]:
    """Return a metric's values and their epochs: those logged, where they can be had at once, else the checkpoints'.

    In a bucket the journal lies in pieces, and each would be a request: nothing that `ls` may take time for.
    """
    with contextlib.suppress(ObjectNotFoundError):
        if run.backend.capabilities.appends and run.backend.head(JOURNAL).size <= _GLANCE:
            history = run.history()
            if metric in history:
                return list(history.epochs[metric]), history[metric]
    ranked = [(info.epoch, info.metrics[metric]) for info in checkpoints if metric in info.metrics]
    return [epoch for epoch, _ in ranked], [value for _, value in ranked]


def _columns(
    lines: Sequence[CheckpointInfo | DamagedError], monitors: Sequence[Score]
) -> tuple[list[screen.Column], list[str]]:
    """Return the columns, and the names of the metrics among them."""
    logged = dict.fromkeys(name for line in lines if not isinstance(line, DamagedError) for name in line.metrics)
    modes = {score.monitor: score.mode for score in monitors}
    others = [name for name in logged if name not in modes]
    return [
        screen.Column(title="#", number=True),
        screen.Column(title="name"),
        screen.Column(title="epoch", number=True, drop=4),
        screen.Column(title="step", number=True, drop=3),
        *(screen.Column(title=f"{name} ({mode})", number=True) for name, mode in modes.items()),
        # Metrics that nothing is decided by go one by one, the last of them first.
        *(screen.Column(title=name, number=True, drop=-place) for place, name in enumerate(others)),
        screen.Column(title="size", number=True, drop=5),
        screen.Column(title="saved", drop=6),
        screen.Column(title="why", drop=2),
        screen.Column(title=""),
    ], [*modes, *others]


def _row(
    sequence: int, line: CheckpointInfo | DamagedError, metrics: Sequence[str], found: Marks, now: float
) -> screen.Row:
    if isinstance(line, DamagedError):
        what = "written by a newer keepbest" if isinstance(line, UnsupportedFormatError) else "damaged manifest"
        return screen.Row(
            cells=[str(sequence), commit_key(sequence), "", "", *("" for _ in metrics), "", "", "", what], style="red"
        )
    names = found.of(line)
    return screen.Row(
        cells=[
            str(sequence),
            line.name,
            words.epoch(line.epoch),
            str(line.step),
            *_values(line, metrics),
            words.size(line.nbytes),
            words.age(line.time, now),
            ", ".join(line.reasons),
            ", ".join(names),
        ],
        style="bold green" if "best" in names else "",
    )


def _values(info: CheckpointInfo, metrics: Sequence[str]) -> Iterator[str]:
    for name in metrics:
        yield words.number(info.metrics[name]) if name in info.metrics else ""
