"""Explaining overfitting: how one monitor stands to training, in plain sentences. Pure."""

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
        yield _lately(found, found.since, partner)
        if found.since in found.gaps and found.since != found.last:
            before = f"; in epoch {found.since + 1} it was {_gap(found.gaps[found.since])}"
    else:
        yield _not_now(found, partner)
    yield f"{found.monitor} is {_gap(found.gaps[found.last])} than {partner} in epoch {found.last + 1}{before}."


def _since_best(found: Overfitting, after: AfterBest, partner: str) -> Iterator[str]:
    worse, better = _change(after.validation), _change(after.training)
    yield (
        f"It overfits: since its best, in epoch {after.epoch + 1}, {found.monitor} got worse ({worse}) while "
        f"{partner} got better ({better}), over {words.count(after.checks, 'check')}."
    )
    if found.seen:
        yield f"Over {_window(found)} at a time it was seen in {_epochs(found.seen)}{_how(found)}."


def _lately(found: Overfitting, since: int, partner: str) -> str:
    seen = f"seen from epoch {since + 1} on" if since != found.last else f"seen in epoch {since + 1}"
    return (
        f"It overfits, {seen}{_how(found)}: {found.monitor} gets worse while {partner} gets better, over the "
        f"{_window(found)} up to then."
    )


def _not_now(found: Overfitting, partner: str) -> str:
    if found.seen:
        seen = f"Overfitting was seen in {_epochs(found.seen)}{_how(found)}."
        return f"{seen} The last {_window(found)} show no such trend."
    if len(found.gaps) < found.window:
        both = words.count(len(found.gaps), "check")
        return f"Whether it overfits cannot be said yet: both were logged at {both}, and a trend takes {found.window}."
    trend = f"a clear trend of {found.monitor} to the worse beside one of {partner} to the better"
    return f"No overfitting was seen{_how(found)}: over no {_window(found)} was there {trend}."


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
