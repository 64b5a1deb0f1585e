"""Explaining overfitting: how one metric stands to training, in plain sentences. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from . import words
from .account import Overfitting
from .after_best import AfterBest


def overfitting(found: Overfitting) -> Iterator[str]:
    """Yield whether it overfits, since when as far as anybody can tell, and how far apart the two metrics are now."""
    if found.last is None:
        yield (
            f"Whether it overfits by {found.monitor} cannot be said: no training value was logged beside it, such as "
            f"{_partner_of(found.monitor)}."
        )
        return
    partner = found.partner or "training"
    before = ""
    if found.after_best is not None and found.after_best.overfits:
        yield from _since_best(found, found.after_best, partner)
    elif found.since is not None:
        yield f"It overfits, {_up_to_now(found, found.since, found.monitor, partner)}"
        if found.since in found.gaps and found.since != found.last:
            before = f"; in epoch {found.since + 1} it was {_gap(found.gaps[found.since])}"
    else:
        yield _not_now(found, partner)
    yield f"{found.monitor} is {_gap(found.gaps[found.last])} than {partner} in epoch {found.last + 1}{before}."


def unwatched(found: Overfitting) -> str:
    """Return that a metric overfits, or did so, that no monitor watches: one sentence."""
    partner, name = found.partner or "training", f"{found.monitor}, which no monitor watches,"
    if found.after_best is not None and found.after_best.overfits:
        return f"{name} overfits: {_after(found.after_best, 'it', partner)}."
    if found.since is not None:
        return f"{name} overfits, {_up_to_now(found, found.since, 'it', partner)}"
    return f"{name} overfitted in {_epochs(found.seen)}{_how(found)}; the last {_window(found)} show no such trend."


def _since_best(found: Overfitting, after: AfterBest, partner: str) -> Iterator[str]:
    yield f"It overfits: {_after(after, found.monitor, partner)}."
    if found.seen:
        seen = f"overfitting by {found.monitor} was seen in {_epochs(found.seen)}{_how(found)}"
        yield f"Over {_window(found)} at a time {seen}."


def _after(after: AfterBest, name: str, partner: str) -> str:
    worse, better = _change(after.validation), _change(after.training)
    return (
        f"since its best, in epoch {after.epoch + 1}, {name} got worse ({worse}) while {partner} got better "
        f"({better}), over {words.count(after.checks, 'check')}"
    )


def _up_to_now(found: Overfitting, since: int, name: str, partner: str) -> str:
    seen = f"seen from epoch {since + 1} on" if since != found.last else f"seen in epoch {since + 1}"
    return f"{seen}{_how(found)}: {name} gets worse while {partner} gets better, over the {_window(found)} up to then."


def _not_now(found: Overfitting, partner: str) -> str:
    name = found.monitor
    if found.seen:
        seen = f"Overfitting by {name} was seen in {_epochs(found.seen)}{_how(found)}."
        return f"{seen} The last {_window(found)} show no such trend."
    if len(found.gaps) < found.window:
        both = f"{name} and {partner} were logged together at {words.count(len(found.gaps), 'check')}"
        return f"Whether it overfits by {name} cannot be said yet: {both}, and a trend takes {found.window}."
    return (
        f"No overfitting by {name} was seen{_how(found)}: in no {_window(found)} in a row did it clearly get worse "
        f"while {partner} got better."
    )


def _how(found: Overfitting) -> str:
    return "" if found.noted else " (found now, in the history)"


def _window(found: Overfitting) -> str:
    return words.count(found.window, "check")


def _change(values: tuple[float, float]) -> str:
    return " to ".join(map(words.number, values))


def _epochs(numbers: Sequence[int]) -> str:
    return f"epoch{'s' if len(numbers) > 1 else ''} {words.epochs(numbers)}"


def _gap(gap: float) -> str:
    return f"{words.number(abs(gap))} {'worse' if gap >= 0 else 'better'}"


def _partner_of(monitor: str) -> str:
    first = monitor.replace("val", "train", 1)
    return first if first != monitor else f"train_{monitor}"
