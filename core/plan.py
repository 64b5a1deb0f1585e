"""Plan: what the fields of a policy come to: monitors, and rules that say when to save and what to keep.

A policy here is whatever has the fields: a `CheckpointPolicy`, or what the journal holds of one (`recorded.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .monitor import MetricMonitor
from .retention import (
    KeepAll,
    KeepAnyOf,
    KeepBest,
    KeepBytes,
    KeepEveryNEpochs,
    KeepEveryNSteps,
    KeepLast,
    KeepRule,
    SimpleKeepRule,
)
from .when import (
    AtEnd,
    EveryNEpochs,
    EveryNSeconds,
    EveryNSteps,
    OnException,
    OnImprovement,
    OnSignal,
    SimpleWhenRule,
    simple_rules,
)


def entries(policy: Any) -> tuple[Any, ...]:
    """Return what is monitored: names, and specs of single metrics."""
    given = policy.monitor
    if given is None:
        return ()
    return tuple(given) if isinstance(given, Sequence) and not isinstance(given, str) else (given,)


def monitors(policy: Any) -> tuple[MetricMonitor, ...]:
    """Return fresh monitors, the primary one first."""
    return tuple(
        policy.monitor_for(entry) if isinstance(entry, str) else entry.monitor_for(entry.key)
        for entry in entries(policy)
    )


def when_rules(policy: Any) -> tuple[SimpleWhenRule, ...]:
    """Return the rules that say when to save, however they were written."""
    if policy.when is not None:
        return tuple(simple_rules(policy.when))
    rules: list[SimpleWhenRule] = []
    if policy.every_n_epochs is not None:
        rules.append(EveryNEpochs(policy.every_n_epochs))
    if policy.every_n_steps is not None:
        rules.append(EveryNSteps(policy.every_n_steps))
    if policy.every_n_seconds is not None:
        rules.append(EveryNSeconds(policy.every_n_seconds))
    if policy.on_improvement:
        rules.append(OnImprovement())
    if policy.at_end:
        rules.append(AtEnd())
    if policy.on_sigterm:
        rules.append(OnSignal())
    if policy.on_exception:
        rules.append(OnException())
    return tuple(rules)


def keep_rule(policy: Any, keys: Sequence[str]) -> KeepRule:
    """Return the rule that says what stays, however it was written; `keys` are the metrics that are monitored."""
    given: KeepRule | None = policy.keep
    if given is not None:
        return given
    if policy.keep_all:
        return KeepAll()
    rules: list[SimpleKeepRule] = []
    if policy.keep_best:
        rules.extend(KeepBest(policy.keep_best, key) for key in keys)
    rules.append(KeepLast(policy.keep_last))
    if policy.keep_every_n_epochs is not None:
        rules.append(KeepEveryNEpochs(policy.keep_every_n_epochs))
    if policy.keep_every_n_steps is not None:
        rules.append(KeepEveryNSteps(policy.keep_every_n_steps))
    together = KeepAnyOf(tuple(rules))
    return together if policy.keep_max_bytes is None else KeepBytes(policy.keep_max_bytes, together)
