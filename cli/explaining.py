"""Explaining: the story of a run in plain sentences: what is best and why, what was passed over, how it ended. Pure."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from msgspec import Struct

from ..core.direction import Mode
from ..core.recorded import RecordedPolicy
from ..core.wording import sentences
from ..storage.layout import checkpoint_place
from ..storage.notes import Began, Check, Decided, Ended, SaveFailed, WentBack
from . import words
from .account import Account, Best, Better
from .explaining_overfitting import overfitting, unwatched

MOST = 5
"""Of a kind that are told one by one; of more the first and the last."""

_NO_NOTES = (
    "This run has no decision notes: a keepbest that kept none wrote it. So what was decided, and why, is not known; "
    "what follows is from its checkpoints and its history."
)

_NO_POLICY = "It cannot be read: another version of keepbest wrote it, or somebody altered it."

_ENDS = {
    "complete": "All epochs were done.",
    "callback": "Another callback of fit ended it (model.stop_training), as EarlyStopping does; no monitor stopped it.",
    "signal": "SIGTERM ended it: the machine was to be taken away, or somebody stopped the job.",
    "closed": "The program closed the run when its loop had ended; no monitor stopped it.",
}

_LONG = 60.0
"""Seconds from which a span is told in minutes."""

_T = TypeVar("_T")


class Section(Struct, frozen=True, kw_only=True):
    """Some sentences about one thing."""

    title: str
    sentences: tuple[str, ...]


def story(run: Account, now: float) -> list[Section]:
    """Return the story of a run; `now` is in seconds since 1970."""
    bests = [run.best(monitor) for monitor in run.monitors]
    told = [
        ("Training", _training(run, now)),
        ("Best", _best(run, bests, now)),
        ("Passed over", _passed_over(run, bests)),
        ("Overfitting", _overfitting(run)),
        ("Saves", _saves(run)),
        ("End", list(ending(run, now))),
        ("Policy", _policy(run)),
    ]
    return [Section(title=title, sentences=tuple(lines)) for title, lines in told if lines]


# ── training ──────────────────────────────────────────────────────────────────────────────────────────────────────


def _training(run: Account, now: float) -> list[str]:
    if not run.entries:
        return incomplete(run) or [no_journal(run)]
    many = [words.count(len(run.closed), "epoch")]
    if run.last_row is not None and run.last_row.step:
        many.append(words.count(run.last_row.step, "step"))
    began = sum(isinstance(turn, Began) for turn in run.turns)
    by = f", by {began:,} {'process' if began == 1 else 'processes'}" if began else ""
    lines = [f"It went through {' and '.join(many)}{by}.", *incomplete(run)]
    if not run.has_notes:
        return [*lines, _NO_NOTES]
    turns = shortened(run.turns, lambda turn: _turned(turn, run, now), "time", "it was resumed or went back")
    return [*lines, *turns]


def incomplete(run: Account) -> list[str]:
    """Return that the journal has lost some of what is told, in one sentence; none if it has not."""
    lost = run.lost
    lines = f"{words.count(lost.lines, 'line')} of its journal cannot be read"
    rows = words.count(lost.rows, "row"), "is missing" if lost.rows == 1 else "are missing"
    if not lost:
        return []
    if not lost.lines:
        lines = f"At least {rows[0]} of its journal {rows[1]}"
    elif lost.rows:
        lines += f" and at least {' '.join(rows)}"
    return [f"{lines}, so what is told here is incomplete."]


def no_journal(run: Account) -> str:
    """Return why a run has no journal, as far as its checkpoints tell."""
    if run.checkpoints and all("converted" in info.reasons for info in run.checkpoints):
        return "It has no journal, as it was converted."
    return "It has no journal: a ModelCheckpoint for Keras wrote it, which keeps none, or it was copied without."


def _turned(turn: Began | WentBack, run: Account, now: float) -> str:
    if isinstance(turn, Began):
        on = f" on {turn.host}" if turn.host else ""
        if turn.checkpoint is None:
            return f"It began {words.age(turn.time, now)}{on}."
        return f"It was resumed from {place_of(turn.checkpoint, run)} {words.age(turn.time, now)}{on}."
    return f"It went back to {place_of(turn.checkpoint, run)}, in the same process, and went on from there."


def place_of(name: str, run: Account) -> str:
    """Return a checkpoint's name and where in training it was taken, if that is known."""
    if name in run.decided_in:
        return f"{name} (the end of epoch {run.decided_in[name] + 1})"
    info = run.by_name.get(name)
    epoch, _ = (checkpoint_place(name) or (None, 0)) if info is None else (info.epoch, info.step)
    return name if epoch is None else f"{name} (epoch {epoch + 1})"


# ── best ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def _best(run: Account, bests: Sequence[Best], now: float) -> list[str]:
    if not bests:
        latest = run.checkpoints[-1] if run.checkpoints else None
        newest = "Nothing is saved yet." if latest is None else f"The newest checkpoint is {latest.name}."
        return ["No metric is monitored, so no epoch is the best.", newest]
    return [line for best in bests for line in _best_by(run, best, now)]


def _best_by(run: Account, best: Best, now: float) -> Iterator[str]:
    by = f"by {best.monitor} ({way(best.mode)})"
    found, check = best.checkpoint, best.check
    if found is None or best.value is None:
        yield f"No checkpoint is the best {by}: none that is there was ranked by it."
        if check is not None and check.best is not None and check.best_epoch is not None:
            yield f"The best value was {words.number(check.best)}, in epoch {check.best_epoch + 1}."
        return
    where = f"step {found.step}" if found.epoch is None else f"epoch {found.epoch + 1}"
    logged = found.metrics.get(best.monitor)
    smoothed = f" ({words.number(logged)} before smoothing)" if logged is not None and logged != best.value else ""
    yield f"The best {by} is {where}: {words.number(best.value)}{smoothed}."
    epoch = run.epoch_of(found)
    many = sum(other is not epoch for other in run.closed)
    if many and not run.better(best):
        yield f"Of {words.count(many, 'other epoch')} none was better; of equals the earliest is the best."
    kept = run.kept_as(found)
    stays = f" It is kept as {words.listed(kept)}." if kept else ""
    contents = "" if found.complete else " It holds the weights only, so training cannot continue from it."
    noted = epoch.decided.checks if epoch is not None and epoch.decided is not None else ()
    why = words.listed([reason(word, run.policy, noted) for word in found.reasons])
    yield (
        f"Its checkpoint is {found.name} (number {found.sequence}), saved {words.age(found.time, now)}, as {why}."
        f"{stays}{contents}"
    )
    if check is None or check.best is None or check.best_epoch is None:
        return
    if epoch is None or check.best_epoch != found.epoch:
        came = "what came after it did not improve on that by enough, or was not saved"
        why = f"{found.name} does not lie on the way that training took" if epoch is None else came
        yield (
            f"The monitor itself goes by {words.number(check.best)} of epoch {words.epoch(check.best_epoch)}, as "
            f"{why}; patience counts from there."
        )


def _passed_over(run: Account, bests: Sequence[Best]) -> list[str]:
    lines = []
    for best in bests:
        lines.extend(shortened(run.better(best), lambda found: _looked_better(run, found), "epoch", "it was so"))
        bad = run.not_finite(best.monitor)
        if bad:
            which = ", ".join(str(found.epoch.number + 1) for found in bad[:MOST])
            more = f" and {len(bad) - MOST:,} more" if len(bad) > MOST else ""
            noun = "epoch" if len(bad) == 1 else "epochs"
            lines.append(f"{best.monitor} was NaN or infinite in {noun} {which}{more}, and that is never the best.")
    return lines


def _looked_better(run: Account, found: Better) -> str:
    return (
        f"Epoch {found.epoch.number + 1}, with {found.monitor} {words.number(found.value)}, looked better and is not "
        f"the best: {_why_passed_over(run, found)}."
    )


def _why_passed_over(run: Account, found: Better) -> str:
    check, decided = found.check, found.epoch.decided
    if check is None or decided is None:
        return "why cannot be said, as there is no note about it"
    if not check.eligible:
        return check.reason
    if decided.checkpoint is None:
        return not_saved(decided, found.epoch.policy)
    return _what_became(run, decided.checkpoint)


def _what_became(run: Account, name: str) -> str:
    """Return why a checkpoint that could have been the best is not: a clause."""
    if name in run.failed:
        return f"its save failed ({run.failed[name].error})"
    if name in run.retired_by:
        return f"its checkpoint was deleted after that of {place_of(run.retired_by[name].checkpoint, run)} was saved"
    if name in run.by_name:
        return "its checkpoint is there, and ranked by another value"
    if name in run.ended_well:
        return "its checkpoint is not there any more, or cannot be read"
    return "its save had not ended when the process did, or is under way"


# ── overfitting ───────────────────────────────────────────────────────────────────────────────────────────────────


def _overfitting(run: Account) -> list[str]:
    watched = [line for monitor in run.monitors for line in overfitting(run.overfitting(monitor))]
    return [*watched, *shortened(run.unwatched, unwatched, "metric", "no monitor watches them")]


# ── saves ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def _saves(run: Account) -> list[str]:
    held = words.count(len(run.checkpoints), "checkpoint")
    if not run.has_notes:
        return [f"{held} {'is' if len(run.checkpoints) == 1 else 'are'} there."]
    decided = [note for epoch in run.epochs.values() for note in epoch.notes]
    ended = sum(name in run.ended_well for name in run.begun)
    well = "and" if ended == len(run.begun) else f"and {ended:,}"
    there = f"{held} {'is' if len(run.checkpoints) == 1 else 'are'} there now"
    lines = [f"{words.count(len(run.begun), 'save')} began {well} ended well; {there}.", *_deleted(run)]
    busy = sum(note.busy for note in decided)
    if busy:
        lines.append(f"{words.count(busy, 'save')} that came due while the one before was being written: left out.")
    return [*lines, *shortened([*run.failed.values()], _failed, "time", "a save failed")]


def _deleted(run: Account) -> Iterator[str]:
    """Yield how many checkpoints were deleted and why, also without a note by a process that was killed after it."""
    without = len(run.gone) if run.unnoted else 0
    many = len(run.retired_by) + without
    if many:
        kept, policies = keeps(run.policy), {id(policy): policy for policy in run.retired_under.values()}
        then = set(map(keeps, policies.values())) or {kept}
        by = "" if kept is None else f", as the policy keeps {kept}"
        why = by if then == {kept} else f", by the {'policy' if len(then) == 1 else 'policies'} in force then"
        yield f"{words.count(many, 'checkpoint')} {'was' if many == 1 else 'were'} deleted{why}."
    if without:
        of = "" if without == many else f" of {without:,} of them"
        yield f"No note says so{of}: a process was killed before it could write one."
    elif run.gone:
        more = words.count(len(run.gone), "more checkpoint")
        yield f"{more} cannot be found or read; `keepbest verify` tells which."


def _failed(note: SaveFailed) -> str:
    return f"The save of {note.checkpoint} failed: {note.error}.".replace("..", ".")


def reason(word: str, policy: RecordedPolicy | None, improved: Sequence[Check]) -> str:
    """Return why a checkpoint was saved, from the word for it: a clause."""
    if word == "improvement":
        better = [check.monitor for check in improved if check.improved]
        if better:
            return f"{words.listed(better)} improved"
        return "the best had not been saved yet, as its save failed" if improved else "a monitored metric improved"
    rules: dict[str, str] = {rule.kind: str(rule) for rule in (policy.when_rules if policy is not None else ())}
    kinds = {"epoch": "every_n_epochs", "step": "every_n_steps", "time": "every_n_seconds"}
    if word in kinds:
        return f"the policy saves {rules.get(kinds[word], f'by {word}s' if word != 'time' else 'by time')}"
    known = {
        "end": "training ended",
        "signal": "SIGTERM came",
        "exception": "an exception ended training",
        "request": "the program asked for it",
        "converted": "it was brought in from another program",
    }
    return known.get(word, f"'{word}' said so")


def saves(policy: RecordedPolicy | None) -> str | None:
    """Return when a policy saves: "every epoch, when val_loss improves (lower is better)"; None: not known."""
    return _clause(policy, "Saves ")


def keeps(policy: RecordedPolicy | None) -> str | None:
    """Return what a policy keeps: "the best one by val_loss, and the last one"; None: not known."""
    return _clause(policy, "Keeps ")


def not_saved(decided: Decided, policy: RecordedPolicy | None) -> str:
    """Return why nothing was saved at a decision that saved nothing: a clause."""
    if decided.busy:
        return "a save was due and left out, as the one before was still being written"
    when = saves(policy)
    return "no save was due" if when is None else f"no save was due, as the policy saves {when}"


def _clause(policy: RecordedPolicy | None, beginning: str) -> str | None:
    lines = [] if policy is None else sentences(policy)
    return next((line.removeprefix(beginning).removesuffix(".") for line in lines if line.startswith(beginning)), None)


def _policy(run: Account) -> list[str]:
    if run.policy is not None:
        return sentences(run.policy)
    return [_NO_POLICY] if run.unreadable_policy else []


# ── the end ───────────────────────────────────────────────────────────────────────────────────────────────────────


def ending(run: Account, now: float) -> Iterator[str]:
    """Yield why training ended, or that nothing says so."""
    if run.end is not None:
        yield f"{why_ended(run.end, run.last_decided.checks if run.last_decided else ())} {_when(run.end.time, now)}"
        return
    last = run.last_row
    ago = "nothing was logged" if last is None else f"the last row was logged {words.age(last.time, now)}"
    if run.has_notes:
        yield (
            f"No end was written: the process was killed, never closed the Checkpointer, or is still training; {ago}."
        )
    else:
        yield f"Whether and why it ended is not known; {ago}."


def why_ended(end: Ended, decided: Sequence[Check]) -> str:
    """Return why a process let go of the run; `decided` are the last checks."""
    if end.cause == "closed" and end.within is not None and end.planned is not None:
        return f"The program left its loop in epoch {end.within + 1:,} of {end.planned:,}; no monitor stopped it."
    if end.cause in _ENDS:
        return _ENDS[end.cause]
    if end.cause == "exception":
        if end.error is None:
            return "It was broken off: the Checkpointer was closed without a last save."
        within = "" if end.within is None else f" in epoch {end.within + 1:,}"
        said = f"{end.error}: {end.text}".rstrip(": .")
        if end.error == "KeyboardInterrupt":
            return f"Ctrl-C ended it{within}."
        return f"An exception ended it{within}: {said}."
    return " ".join(why_stopped(check) for check in decided if check.stop) or "A monitor stopped it."


def why_stopped(check: Check) -> str:
    """Return why a monitor says that training should end."""
    if check.patience is not None and check.wait and check.wait >= check.patience:
        since = "" if check.best_epoch is None else f" since epoch {check.best_epoch + 1}"
        return f"Patience ended it: {check.monitor} did not improve for {words.count(check.wait, 'check')}{since}."
    return f"A monitor stopped it: {check.reason}."


def _when(time: float, now: float) -> str:
    return f"That was {words.age(time, now)}." if now >= time else f"That was at {words.moment(time)}."


# ── words ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def way(mode: Mode) -> str:
    """Return in which direction a metric improves."""
    return "lower is better" if mode == "min" else "higher is better"


def seconds(many: float) -> str:
    """Return a span as exactly as a person wants it: "3 ms", "1.2 s", "4 min"."""
    if not math.isfinite(many):
        return words.number(many)
    if many >= _LONG:
        return words.span(many)
    return f"{many:.3g} s" if many >= 0.9995 else f"{1000 * many:.3g} ms"  # noqa: PLR2004 - what is rounded to 1000


def shortened(found: Sequence[_T], tell: Callable[[_T], str], noun: str, what: str) -> list[str]:
    """Return a line for each, or where they are many for the first and the last, and how many there are between."""
    if len(found) <= MOST:
        return [tell(each) for each in found]
    between = words.count(len(found) - MOST, f"more {noun}")
    return [*map(tell, found[: MOST - 1]), f"({between} between, {what}.)", tell(found[-1])]


def epochs_of(run: Account) -> str:
    """Return which epochs a run has: "1 to 4, 6 to 12"."""
    return words.epochs(run.epochs)
