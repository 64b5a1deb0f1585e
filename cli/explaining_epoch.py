"""Explaining an epoch: what was logged, what the monitors made of it, what became of its save, in sentences. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterator

from ..storage.layout import weights_name, whole_name
from ..storage.notes import Began, Check, Decided
from . import words
from .account import Account, Epoch
from .explaining import Section, keeps, place_of, reason, saves, seconds, way, why_ended, why_stopped


def explained(run: Account, epoch: Epoch, now: float) -> list[Section]:
    """Return what there is to say of one epoch; `now` is in seconds since 1970."""
    decided = epoch.decided.checks if epoch.decided is not None else ()
    told = [
        (f"Epoch {epoch.number + 1}", _logged(epoch, now)),
        *((f"What was made of {check.monitor}", list(_judged(check))) for check in decided),
        ("What was made of it", [] if epoch.decided is not None else list(_without_note(run, epoch))),
        ("Saved", list(_saved(run, epoch, now))),
        ("Afterwards", list(_afterwards(run, epoch, now))),
    ]
    return [Section(title=title, sentences=tuple(lines)) for title, lines in told if lines]


def _logged(epoch: Epoch, now: float) -> list[str]:
    steps = f"{words.count(epoch.steps, 'single step')} {'was' if epoch.steps == 1 else 'were'} logged within it."
    within = [steps] if epoch.steps else []
    row = epoch.row
    if row is None:
        return ["Its end was not logged: it is under way, or training broke off within it.", *within]
    what = words.listed([f"{name} {words.number(value)}" for name, value in row.metrics.items()])
    return [
        f"It ended {words.age(row.time, now)} ({words.moment(row.time)}), after step {row.step:,} of the run.",
        f"Logged was {what}.",
        *within,
    ]


# ── judging ───────────────────────────────────────────────────────────────────────────────────────────────────────


def _judged(check: Check) -> Iterator[str]:
    if check.value is not None:
        yield f"It was {words.number(check.value)} ({way(check.mode)}){_how_old(check)}."
    if check.judged is not None and check.judged != check.value:
        yield f"It is smoothed, so what was judged is {words.number(check.judged)}."
    yield f"The verdict: {check.reason}."
    if check.improved:
        yield "So this was the best so far."
    elif check.best is not None and check.best_epoch is not None:
        yield f"The best so far was {words.number(check.best)}, of epoch {check.best_epoch + 1}."
    if check.wait and check.patience is None:
        yield f"That made {words.count(check.wait, 'check')} in a row without improvement; nothing limits how many."
    elif check.wait and check.patience is not None:
        yield (
            f"That made {words.count(check.wait, 'check')} in a row without improvement; at {max(check.patience, 1)} "
            "training ends."
        )
    if not check.eligible and check.judged is not None:
        yield "A checkpoint of this epoch cannot be the best."
    if check.gap is not None:
        yield f"It was {words.number(abs(check.gap))} {'worse' if check.gap >= 0 else 'better'} than in training."
    if check.overfitting:
        yield "It overfitted: over the last checks it got worse while its training value got better."


def _how_old(check: Check) -> str:
    return f", measured {words.count(check.age, 'step')} before" if check.age else ""


def _without_note(run: Account, epoch: Epoch) -> Iterator[str]:
    """Yield what the history shows where no note says what was made of an epoch."""
    if epoch.row is None:
        return
    what = "of this epoch" if run.has_notes else "in this run, which a keepbest wrote that kept none"
    yield f"There are no decision notes {what}, so what was decided then is not known. The history shows this:"
    for monitor, mode in run.monitors.items():
        value = epoch.row.metrics.get(monitor)
        if value is None:
            yield f"{monitor} was not logged."
            continue
        if not math.isfinite(value):
            yield f"{monitor} was {words.number(value)}, which is never the best."
            continue
        sign = 1.0 if mode == "min" else -1.0
        before = [
            (sign * found, -other.number, other.number, found)
            for other in run.closed
            if other.number < epoch.number and other.row is not None
            for found in [other.row.metrics.get(monitor, math.nan)]
            if math.isfinite(found)
        ]
        is_ = f"{monitor} was {words.number(value)} ({way(mode)})"
        if not before:
            yield f"{is_}, the first value logged."
            continue
        _, _, number, best = min(before, key=lambda found: (found[0], found[2]))
        if sign * value < sign * best:
            yield f"{is_}, better than all before; the best of those was {words.number(best)}, of epoch {number + 1}."
        else:
            yield f"{is_}; the best before was {words.number(best)}, of epoch {number + 1}."


# ── saving ────────────────────────────────────────────────────────────────────────────────────────────────────────


def _saved(run: Account, epoch: Epoch, now: float) -> Iterator[str]:
    for note in epoch.notes:
        yield from _save(run, epoch, note, now)
    known = {note.checkpoint for note in epoch.notes}
    others = [info for info in run.checkpoints if run.epoch_of(info) is epoch and whole_name(info.name) not in known]
    for info in others:
        why = words.listed([reason(word, None, ()) for word in info.reasons])
        yield f"Checkpoint {info.name} (number {info.sequence}) was saved at step {info.step:,}, as {why}."
        yield from _kept(run, info.name)
    if not epoch.notes and not others:
        yield "No checkpoint of it is there; whether none was saved or it was deleted since, no note says."


def _save(run: Account, epoch: Epoch, note: Decided, now: float) -> Iterator[str]:
    why = words.listed([reason(word, epoch.policy or run.policy, note.checks) for word in note.reasons])
    name = note.checkpoint
    if name is None:
        none = _why_none(note, why, saves(epoch.policy or run.policy))
        yield f"No checkpoint was saved{_at(note) or ' at its end'}{none}."
        return
    begun = f"Checkpoint {name} was saved" if name in run.ended_well else f"A save of checkpoint {name} began"
    yield f"{begun}{_at(note)}, as {why}."
    yield from _became(run, name, killed=any(isinstance(turn, Began) and turn.time >= note.time for turn in run.turns))
    yield from _kept(run, name)
    turns = [turn for turn in run.turns if turn.checkpoint == name]
    if turns:
        yield f"Training went on from it {words.listed([words.age(turn.time, now) for turn in turns])}."


def _why_none(note: Decided, why: str, when: str | None) -> str:
    if note.busy:
        return (
            f". A save was due, as {why}, and left out: the one before was still being written, and the policy does "
            "not wait for that"
        )
    return ", as none was due" if when is None else f". The policy saves {when}; none of that was the case"


def _at(note: Decided) -> str:
    if note.event == "epoch":
        return ""
    if note.event in {"step", "request"}:
        return f" at step {note.step:,}" if note.step else ""
    return " after it"


def _became(run: Account, name: str, *, killed: bool) -> Iterator[str]:
    """Yield what became of a save; `killed`: another process came after the one that made it."""
    saved, failed = run.saved.get(name), run.failed.get(name)
    if saved is not None:
        yield (
            f"It became number {saved.sequence} of the run, with {words.size(saved.nbytes)}. It was durable after "
            f"{seconds(saved.seconds)}; training was held for {seconds(saved.blocked)}."
        )
    elif failed is not None:
        yield f"That save failed: {failed.error.removesuffix('.')}. Older checkpoints were not touched by it."
    elif name in run.ended_well:
        number = f"It became number {run.by_name[name].sequence} of the run" if name in run.by_name else "It ended well"
        why = "The process was killed before it could note so" if killed else "No note says so (yet)"
        yield f"{number}. {why}."
    else:
        yield "Nothing says what became of that save: it is under way, or the process was killed before it ended."


def _kept(run: Account, name: str) -> Iterator[str]:
    """Yield whether a checkpoint is there and why, or when it was deleted and why; the weights kept apart, too."""
    weights = run.by_name.get(weights_name(name))
    if weights is not None:
        kept = run.kept_as(weights)
        stay = f", kept as {words.listed(kept)}" if kept else ""
        yield f"Its weights are there by themselves, as {weights.name}{stay}."
    found, after = run.by_name.get(name), run.retired_by.get(name)
    if found is not None:
        kept = run.kept_as(found)
        yield (
            f"It is kept as {words.listed(kept)}."
            if kept
            else "It is there, though the policy does not keep it: it goes when the next one is saved."
        )
    elif after is not None:
        then = keeps(run.retired_under[name])
        tense = "keeps" if then == keeps(run.policy) else "then was to keep"
        why = "" if then is None else f", as the policy {tense} {then}"
        yield f"It was deleted when {place_of(after.checkpoint, run)} had been saved{why}."
    elif name in run.ended_well:
        yield "It is not there any more, or its manifest cannot be read; `keepbest verify` tells which."


# ── what came after ───────────────────────────────────────────────────────────────────────────────────────────────


def _afterwards(run: Account, epoch: Epoch, now: float) -> Iterator[str]:
    decided, ended = epoch.decided, epoch.ended
    if decided is not None and decided.stop:
        stopping = [why_stopped(check) for check in decided.checks if check.stop]
        yield from stopping or ["A monitor said that training should end here."]
    if ended is not None:
        if ended.cause != "stopped" or decided is None or not decided.stop:
            yield f"Training ended here: {why_ended(ended, decided.checks if decided is not None else ())}"
        yield f"The process let go of the run {words.age(ended.time, now)}."
        if ended is not run.end:
            yield "It was taken up again later."
