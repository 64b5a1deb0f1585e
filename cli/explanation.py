"""Explanation: what is known of a run and of the epochs that were asked for, to be shown or given to programs.

The sentences are `explaining`'s and `explaining_epoch`'s.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any, TypedDict

import click
from msgspec import Struct
from msgspec.structs import asdict

from ..storage.backend import open_backend
from ..storage.checkpoint import Checkpoint
from ..storage.journal import read_journal
from ..storage.jsonfloat import float_to_json, floats_to_json, plain
from ..storage.notes import Decided, note_to_json
from ..storage.printable import printable
from ..storage.run import Run, open_run
from . import explaining, explaining_epoch, machine, screen
from .account import Account, Best, Better, Epoch, Overfitting
from .after_best import AfterBest
from .explaining import Section

_INDENT = "  "


class Explanation(Struct, frozen=True, kw_only=True):
    """A run, and the epochs of it that were asked for."""

    account: Account
    epochs: Sequence[Epoch]
    """Empty: the story of the run is asked for."""
    damaged: int
    """Manifests that cannot be read."""
    now: float
    """Seconds since 1970."""


class SectionJson(TypedDict):
    """Some sentences about one thing, as people get them: epochs count from 1."""

    title: str
    sentences: list[str]


class BestJson(TypedDict):
    """What is the best by one monitor."""

    monitor: str
    mode: str
    checkpoint: machine.CheckpointJson | None
    """null: none that is there was ranked by it."""
    value: float | str | None
    """What it is ranked by."""
    kept_as: list[str]
    """Why retention keeps it."""


class PassedOverJson(TypedDict):
    """An epoch that looked better than the best by a monitor, or was NaN or infinite, and is not the best."""

    monitor: str
    epoch: int
    value: float | str
    reason: str | None
    """What the monitor said; null: no note says."""


class AfterBestJson(TypedDict):
    """What became of a metric and its training metric since it was best."""

    epoch: int
    checks: int
    """After that epoch."""
    validation: list[float]
    """Then, and at the last check."""
    training: list[float]
    overfits: bool
    """Over all those checks, `overfit_window` of them or more, it worsened while its training metric improved."""


class OverfittingJson(TypedDict):
    """How one metric stands to training."""

    monitor: str
    partner: str | None
    """The training metric beside it; null: none was logged."""
    since: int | None
    """Epoch at whose end it was seen first, over the checks up to then, and ever since; null: it is not seen now."""
    epochs: list[int]
    """At whose end it overfitted."""
    gap_then: float | str | None
    """How much worse than training it was at `since`."""
    gap_now: float | str | None
    noted: bool
    """false: found now, in the history; no note says."""
    after_best: AfterBestJson | None
    """null: they were never logged together."""


class EndJson(TypedDict):
    """Why training ended."""

    cause: str
    """"complete", "stopped" (by a monitor), "callback" (by another one of `fit`), "signal", "exception" or "closed"."""
    error: str | None
    """The class of the exception; null with "exception": the Checkpointer was closed without a last save."""
    text: str
    """The first line of what the exception said, as far as it was noted."""
    epoch: int | None
    """In which a loop over `epochs(n)` was left; null: none was, or it is not known."""
    planned: int | None
    """How many epochs that loop was to have."""
    time: float
    stopped_by: list[str]
    """What the monitors said that stopped it."""


class EpochJson(TypedDict):
    """One epoch."""

    epoch: int
    step: int | None
    """null: its end was not logged."""
    time: float | None
    metrics: dict[str, float | str]
    steps: int
    """Rows of single steps within it."""
    checks: list[dict[str, Any]]
    """What each monitor made of it, with all fields of a check in the journal (docs/format.md)."""
    saves: list[dict[str, Any]]
    """The "decided" notes of its end and of other saves within it, each with "saved", "failed" and "retired_by": the
    notes that say what became of it, or null."""
    text: list[SectionJson]


class LostJson(TypedDict):
    """What of the journal was written and cannot be told any more; not counted is what a crash cut short."""

    lines: int
    """That cannot be read."""
    rows: int
    """That are missing on the way that is told, at least."""


class ExplainJson(TypedDict):
    """What `keepbest explain --json` prints, as keepbest.explain/1."""

    run: str
    notes: bool
    """false: a keepbest wrote it that kept none, or it has no journal, so much is not known."""
    epochs: int
    """How many were closed."""
    steps: int
    """Of training, as far as was logged."""
    best: list[BestJson]
    """One for each monitor, the primary one first."""
    passed_over: list[PassedOverJson]
    overfitting: list[OverfittingJson]
    unwatched_overfitting: list[OverfittingJson]
    """Of metrics that no monitor watches, those that overfit or did so; `monitor` is such a metric's name."""
    end: EndJson | None
    """null: no end was written; the process was killed, never closed the Checkpointer, or is training."""
    policy: dict[str, Any] | None
    """The settings in force last; null: no note says, or what stands there is none."""
    lost: LostJson
    asked: list[EpochJson]
    """The epochs that were asked for."""
    text: list[SectionJson]
    """The story of the run."""


def read(
    url: str, storage_options: Mapping[str, Any], numbers: Sequence[int], checkpoints: Sequence[str]
) -> Explanation:
    """Read what a run says of itself. Cost: its manifests and its journal.

    Args:
        url: what the Checkpointer was given.
        storage_options: what fsspec takes for the scheme.
        numbers: epochs that are asked for, from 1.
        checkpoints: names or numbers of checkpoints whose epochs are asked for, too.
    """
    run = Run(open_backend(url, storage_options))
    listing, journal = run.listing(), read_journal(run.backend)
    if not listing.checkpoints and not listing.damaged and not journal.entries:
        open_run(url, storage_options=storage_options)  # says if it is no run
    account = Account(run.url, journal.entries, listing.checkpoints, journal.lost)
    wanted = [_epoch(account, number - 1) for number in numbers]
    wanted += [_epoch_of(account, run.get(which)) for which in checkpoints]
    return Explanation(
        account=account,
        epochs=[*{epoch.number: epoch for epoch in wanted}.values()],
        damaged=len(listing.damaged),
        now=time.time(),
    )


def _epoch(account: Account, number: int) -> Epoch:
    found = account.epochs.get(number)
    if found is None:
        none = "It has logged no epoch yet." if account.entries else explaining.no_journal(account)
        has = f"It has epochs {explaining.epochs_of(account)}." if account.epochs else none
        told = " ".join([f"the run has no epoch {number + 1}.", has, *explaining.incomplete(account)])
        raise click.BadParameter(told, param_hint="--epoch")
    return found


def _epoch_of(account: Account, checkpoint: Checkpoint) -> Epoch:
    """Return the epoch of a checkpoint, unless the journal tells of another one of that number, or of none."""
    found = account.epoch_of(checkpoint.info)
    if not account.entries:
        why = "is in a run without a journal, so its epoch is not told"
    elif checkpoint.epoch is None:
        why = "was taken before the first epoch, so there is none to explain"
    elif "converted" in checkpoint.info.reasons:
        why = "was converted: no epoch of this run led to it"
    elif found is None:
        why = "lies on a way that training left to go on from an earlier checkpoint, so its epoch is not told"
    else:
        return found
    raise click.BadParameter(
        f"{printable(checkpoint.name)} {why}; `keepbest show` has what is known of it.", param_hint="--checkpoint"
    )


# ── for people ────────────────────────────────────────────────────────────────────────────────────────────────────


def show(found: Explanation) -> None:
    """Print the epochs that were asked for, or the story of the run, as sentences under titles."""
    account, now = found.account, found.now
    screen.line(account.url, "bold")
    told = [explaining_epoch.explained(account, epoch, now) for epoch in found.epochs]
    for section in (section for sections in told or [explaining.story(account, now)] for section in sections):
        screen.line(section.title, "bold")
        for sentence in section.sentences:
            for line in _wrapped(sentence):
                screen.line(line)
    for sentence in explaining.incomplete(account) if found.epochs else ():  # a story has it in its place
        screen.line(f"{sentence} See: keepbest verify {account.url}", "red")
    if found.damaged:
        screen.line(f"{found.damaged} of its manifests cannot be read; see: keepbest verify {account.url}", "red")


def _wrapped(sentence: str) -> list[str]:
    """Return a sentence as lines; a word that is wider than the terminal stays whole, and where none reads, all do."""
    if not screen.is_terminal():
        return [_INDENT + sentence]
    lines, room = [_INDENT], screen.width()
    for word in sentence.split(" "):
        longer = lines[-1] + word if lines[-1].isspace() else f"{lines[-1]} {word}"
        if screen.cells(longer) > room and not lines[-1].isspace():
            lines.append(2 * _INDENT + word)
        else:
            lines[-1] = longer
    return lines


# ── for programs ──────────────────────────────────────────────────────────────────────────────────────────────────


def to_json(found: Explanation) -> ExplainJson:
    """Return what `--json` prints."""
    run, now = found.account, found.now
    bests = [run.best(monitor) for monitor in run.monitors]
    passed = [found for best in bests for found in (*run.better(best), *run.not_finite(best.monitor))]
    return ExplainJson(
        run=run.url,
        notes=run.has_notes,
        epochs=len(run.closed),
        steps=run.last_row.step if run.last_row is not None else 0,
        best=[_best_to_json(run, best) for best in bests],
        passed_over=[_passed_to_json(found) for found in passed],
        overfitting=[_overfitting_to_json(run.overfitting(monitor)) for monitor in run.monitors],
        unwatched_overfitting=[_overfitting_to_json(found) for found in run.unwatched],
        end=_end_to_json(run),
        policy=None if run.settings is None else dict(run.settings),
        lost=LostJson(lines=run.lost.lines, rows=run.lost.rows),
        asked=[_epoch_to_json(run, epoch, now) for epoch in found.epochs],
        text=_text_to_json(explaining.story(run, now)),
    )


def _best_to_json(run: Account, best: Best) -> BestJson:
    return BestJson(
        monitor=best.monitor,
        mode=best.mode,
        checkpoint=None if best.checkpoint is None else machine.checkpoint(best.checkpoint),
        value=None if best.value is None else float_to_json(best.value),
        kept_as=[] if best.checkpoint is None else run.kept_as(best.checkpoint),
    )


def _passed_to_json(found: Better) -> PassedOverJson:
    return PassedOverJson(
        monitor=found.monitor,
        epoch=found.epoch.number,
        value=float_to_json(found.value),
        reason=None if found.check is None else found.check.reason,
    )


def _overfitting_to_json(found: Overfitting) -> OverfittingJson:
    then = found.gaps.get(found.since) if found.since is not None else None
    now = found.gaps.get(found.last) if found.last is not None else None
    return OverfittingJson(
        monitor=found.monitor,
        partner=found.partner,
        since=found.since,
        epochs=list(found.seen),
        gap_then=None if then is None else float_to_json(then),
        gap_now=None if now is None else float_to_json(now),
        noted=found.noted,
        after_best=None if found.after_best is None else _after_best_to_json(found.after_best),
    )


def _after_best_to_json(found: AfterBest) -> AfterBestJson:
    return AfterBestJson(
        epoch=found.epoch,
        checks=found.checks,
        validation=list(found.validation),
        training=list(found.training),
        overfits=found.overfits,
    )


def _end_to_json(run: Account) -> EndJson | None:
    if run.end is None:
        return None
    decided = run.last_decided
    stopped = [check.reason for check in (decided.checks if decided is not None else ()) if check.stop]
    return EndJson(
        cause=run.end.cause,
        error=run.end.error,
        text=run.end.text,
        epoch=run.end.within,
        planned=run.end.planned,
        time=run.end.time,
        stopped_by=stopped if run.end.cause == "stopped" else [],
    )


def _epoch_to_json(run: Account, epoch: Epoch, now: float) -> EpochJson:
    row = epoch.row
    return EpochJson(
        epoch=epoch.number,
        step=None if row is None else row.step,
        time=None if row is None else row.time,
        metrics={} if row is None else floats_to_json(row.metrics),
        steps=epoch.steps,
        checks=[plain(check) for check in (epoch.decided.checks if epoch.decided is not None else ())],
        saves=[_save_to_json(run, note) for note in epoch.notes],
        text=_text_to_json(explaining_epoch.explained(run, epoch, now)),
    )


def _save_to_json(run: Account, note: Decided) -> dict[str, Any]:
    name = note.checkpoint or ""
    became = {"saved": run.saved.get(name), "failed": run.failed.get(name), "retired_by": run.retired_by.get(name)}
    return {
        **{field: plain(held) for field, held in asdict(note).items() if field not in {"checks", "kind"}},
        **{what: None if found is None else note_to_json(found) for what, found in became.items()},
    }


def _text_to_json(sections: Sequence[Section]) -> list[SectionJson]:
    return [SectionJson(title=section.title, sentences=list(section.sentences)) for section in sections]
