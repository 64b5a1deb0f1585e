"""A policy in plain words: what it will do, for the people who wrote it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from .monitor import MetricMonitor
from .retention import (
    KeepBest,
    KeepBytes,
    KeepEveryNEpochs,
    KeepEveryNSteps,
    KeepLast,
    KeepRule,
    SimpleKeepRule,
    simple_keep_rules,
)
from .when import OnImprovement, SimpleWhenRule

_BUSY = {"skip": "those that are due are left out", "supersede": "the newest that is due waits until it can be made"}


def in_words(policy: Any) -> str:
    """Return `sentences`, one a line."""
    return "\n".join(sentences(policy))


def sentences(policy: Any) -> list[str]:
    """Return a few short ones: when is saved, what is kept, how metrics are judged, what ends training.

    A policy here is what `plan.py` calls one, with the rules and monitors that it comes to.
    """
    monitors: Sequence[MetricMonitor] = policy.monitors()
    when = ", ".join(_when(rule, monitors) for rule in policy.when_rules)
    lines = [f"Saves {when}.", f"Keeps {_keep(policy.keep_rule, monitors)}."]
    if policy.best_contents == "weights":
        lines.append("What is saved only for being the best holds the weights alone.")
    for monitor in monitors:
        lines.extend(_judging(monitor))
    if policy.on_busy != "wait":
        lines.append(f"While a save is being written, {_BUSY[policy.on_busy]}; the best is waited for.")
    if policy.on_save_error == "warn":
        lines.append("A failed save is a warning, and training goes on.")
    return lines


def _when(rule: SimpleWhenRule, monitors: Sequence[MetricMonitor]) -> str:
    if not isinstance(rule, OnImprovement):
        return str(rule)
    return "when " + " or ".join(f"{monitor.key} improves ({_better(monitor)})" for monitor in monitors)


def _better(monitor: MetricMonitor) -> str:
    way = "lower is better" if monitor.mode == "min" else "higher is better"
    return f"{way}, by more than {monitor.min_delta}" if monitor.min_delta else way


def _keep(rule: KeepRule, monitors: Sequence[MetricMonitor]) -> str:
    parts = [_kept(part, monitors) for part in simple_keep_rules(rule)]
    text = f"{', '.join(parts[:-1])}, and {parts[-1]}" if len(parts) > 1 else parts[0]
    return f"{text}, within {rule.limit:,} bytes" if isinstance(rule, KeepBytes) else text


def _kept(rule: SimpleKeepRule, monitors: Sequence[MetricMonitor]) -> str:
    if isinstance(rule, KeepBest):
        return f"the best {_count(rule.n)} by {rule.monitor or monitors[0].key}"
    if isinstance(rule, KeepLast):
        return f"the last {_count(rule.n)}"
    if isinstance(rule, KeepEveryNEpochs | KeepEveryNSteps):
        return f"one {rule}"
    return "all"


def _count(number: int) -> str:
    return "one" if number == 1 else str(number)


def _judging(monitor: MetricMonitor) -> Iterator[str]:
    conditions = [
        f"smoothed by {monitor.smoothing}" if monitor.smoothing else "",
        f"only where {' and '.join(map(str, monitor.where))}" if monitor.where else "",
        f"from epoch {monitor.start_epoch + 1} on" if monitor.start_epoch else "",
        f"in every {monitor.every} epochs at least" if monitor.every > 1 else "",
        f"against the baseline {monitor.baseline:g}" if monitor.baseline is not None else "",
    ]
    if any(conditions):
        yield f"Judges {monitor.key} {', '.join(filter(None, conditions))}."
    if monitor.patience is not None:
        checks = "a check" if monitor.patience <= 1 else f"{monitor.patience} checks"
        yield f"Stops after {checks} of {monitor.key} without improvement."
    if monitor.on_nonfinite in ("stop", "raise"):
        row = f" {monitor.nonfinite_limit} times in a row" if monitor.nonfinite_limit > 1 else ""
        verb = "Stops" if monitor.on_nonfinite == "stop" else "Raises an error"
        yield f"{verb} when {monitor.key} is NaN or infinite{row}."
