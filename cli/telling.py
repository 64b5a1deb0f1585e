"""Telling: what happened in a training and how it stands, in words, for those who watch it. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from ..storage.history import Row
from ..storage.notes import Began, Decided, Note, Saved, SaveFailed, WentBack
from . import words
from .account import Account
from .explaining import reason, seconds, way, why_ended, why_stopped

_MOMENT = 60.0
"""Seconds within which whoever was heard of is probably there still."""


def is_step(entry: Row | Note) -> bool:
    """Return whether it is the row of a single step."""
    return isinstance(entry, Row) and entry.kind == "step"


def clock(entry: Row | Note) -> str:
    """Return the time of day, in local time."""
    date, _, rest = words.moment(entry.time).partition(" ")
    return rest.partition(" ")[0] if date.count("-") > 1 else words.moment(entry.time)


def told(entry: Row | Note, account: Account) -> Iterator[str]:
    """Yield what happened, if it is worth a line: one."""
    if isinstance(entry, Row):
        what = ", ".join(f"{name} {words.number(value)}" for name, value in entry.metrics.items())
        where = f"epoch {entry.epoch + 1} ended" if entry.kind == "epoch" else f"epoch {entry.epoch + 1}"
        yield f"{where}, step {entry.step:,}: {what or 'nothing logged'}"
    elif isinstance(entry, Began):
        on = f" on {entry.host}" if entry.host else ""
        yield f"training began{on}" if entry.checkpoint is None else f"training resumed from {entry.checkpoint}{on}"
    elif isinstance(entry, Decided):
        yield from _told_decision(entry, account)
    elif isinstance(entry, Saved):
        gone = f"; deleted {', '.join(entry.retired)}" if entry.retired else ""
        yield f"saved {entry.checkpoint}, {words.size(entry.nbytes)} in {seconds(entry.seconds)}{gone}"
    elif isinstance(entry, SaveFailed):
        yield f"the save of {entry.checkpoint} failed: {entry.error}"
    elif isinstance(entry, WentBack):
        yield f"training went back to {entry.checkpoint}"
    else:
        decided = account.last_decided
        yield f"training ended. {why_ended(entry, decided.checks if decided is not None else ())}"


def _told_decision(note: Decided, account: Account) -> Iterator[str]:
    for check in note.checks:
        if check.improved:
            yield f"{check.reason}"
    why = words.listed([reason(word, account.policy, note.checks) for word in note.reasons])
    if note.busy:
        yield f"a save was due, as {why}, and left out: the one before is still being written"
    for check in note.checks:
        if check.stop:
            yield f"training is to end. {why_stopped(check)}"


# ── how things stand ──────────────────────────────────────────────────────────────────────────────────────────────


def facts(account: Account, problem: str | None, now: float) -> Iterator[tuple[str, str]]:
    """Yield how things stand at `now`, as names and what they stand for; `problem` is why the last look failed."""
    yield "state", state(account, now)
    if problem is not None:
        yield "not read", f"{problem} Trying again."
    last = account.last_row
    if last is not None:
        yield (
            "position",
            f"epoch {last.epoch + 1} {'ended' if last.kind == 'epoch' else 'is under way'}, step {last.step:,}",
        )
    closed = account.closed[-1].row if account.closed else None
    if closed is not None:
        yield f"epoch {closed.epoch + 1}", _metrics(closed)
    if last is not None and last.kind == "step":
        yield f"step {last.step:,}", _metrics(last)
    for monitor in account.monitors:
        yield from _monitor(account, monitor)
    if account.checkpoints:
        newest = account.checkpoints[-1]
        nbytes = words.size(sum(info.nbytes for info in account.checkpoints))
        held = f"{words.count(len(account.checkpoints), 'checkpoint')}, {nbytes}, in all"
        yield "last saved", f"{newest.name}, {words.age(newest.time, now)}; {held}"
    else:
        yield "last saved", "nothing yet"


def state(account: Account, now: float) -> str:
    """Return whether it is training, or when and why it ended."""
    if account.end is not None:
        decided = account.last_decided
        why = why_ended(account.end, decided.checks if decided is not None else ())
        return f"ended {words.age(account.end.time, now)}. {why}"
    heard = max((entry.time for entry in account.entries), default=None)
    if heard is None:
        return "no journal, so there is nothing to follow" if account.checkpoints else "nothing is logged yet"
    if now - heard <= _MOMENT:
        return f"probably training, as it was heard of {words.age(heard, now)}; else killed, or never closed"
    return f"training, killed, or never closed; last heard of {words.age(heard, now)}"


def _metrics(row: Row) -> str:
    return ", ".join(f"{name} {words.number(value)}" for name, value in row.metrics.items()) or "nothing logged"


def _monitor(account: Account, monitor: str) -> Iterator[tuple[str, str]]:
    best = account.best(monitor)
    found, check = best.checkpoint, best.check
    if found is not None and best.value is not None:
        where = f"step {found.step:,}" if found.epoch is None else f"epoch {found.epoch + 1}"
        yield "best", f"{monitor} {words.number(best.value)} in {where} ({way(best.mode)})"
    else:
        yield "best", f"none by {monitor} yet"
    if check is not None and check.patience is not None:
        used = f"{check.wait} of {words.count(max(check.patience, 1), 'check')} without improvement"
        yield "patience", f"{used}, {monitor}"
    overfits = account.overfitting(monitor)
    if overfits.last is not None:
        since = overfits.since
        gap = overfits.gaps[overfits.last]
        apart = f"{monitor} is {words.number(abs(gap))} {'worse' if gap >= 0 else 'better'} than in training"
        after = overfits.after_best
        seen = "not seen" if since is None else f"seen since epoch {since + 1}"
        if after is not None and after.overfits:
            seen = f"since the best, epoch {after.epoch + 1}"
        yield "overfitting", f"{seen}; {apart}"
