"""Retention: which checkpoints stay. Pure rules over light records; deleting what does not stay is the run's affair.

Whatever the rules say, the newest complete checkpoint stays (training can always go on), and so does the best one by
each monitor that a `KeepBest` names. A rule adds to what stays; it never takes from what another one keeps. Only
`KeepBytes` takes away, and never one of those two.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import ClassVar

from msgspec import Struct

from ..storage.manifest import CheckpointInfo, with_todays_scores
from .checks import check_key, check_whole
from .rule import Rule, rule_of, rules_of


class RetentionPlan(Struct, frozen=True, kw_only=True):
    """What stays, and why; and what goes."""

    keep: dict[int, tuple[str, ...]]
    """Sequence → the reasons it stays, for people; in ascending order."""
    retire: tuple[int, ...]
    """Sequences to delete, the oldest first."""


def retain(checkpoints: Sequence[CheckpointInfo], rule: KeepRule) -> RetentionPlan:
    """Plan what stays of `checkpoints` (in any order) by `rule`.

    Guarantees: the newest complete checkpoint stays, and the best by each monitor that a `KeepBest` names; retaining
    what a plan keeps retires nothing more. Cost: sorts the records a few times.
    """
    checkpoints = with_todays_scores(checkpoints)
    reasons = rule.reasons(checkpoints)
    newest = _newest_complete(checkpoints)
    if newest is not None and newest not in reasons:
        reasons[newest] = ("newest",)
    return RetentionPlan(
        keep={sequence: reasons[sequence] for sequence in sorted(reasons)},
        retire=tuple(sorted(c.sequence for c in checkpoints if c.sequence not in reasons)),
    )


class _KeepRule(Rule, frozen=True):
    """What every rule of retention can say."""

    says: ClassVar[str] = "what to keep"

    def keeps(self, checkpoints: Sequence[CheckpointInfo]) -> set[int]:
        """Return the sequences of the checkpoints that this rule wants to stay."""
        raise NotImplementedError

    def reasons(self, checkpoints: Sequence[CheckpointInfo]) -> dict[int, tuple[str, ...]]:
        """Return the sequences that this rule wants to stay, each with why."""
        return dict.fromkeys(self.keeps(checkpoints), (str(self),))


class KeepBest(_KeepRule, frozen=True, tag="best"):
    """Keep the best n by one monitor. Of equals the earlier stays; a checkpoint that must not rank never enters.

    Weights-only checkpoints count.
    """

    n: int = 1
    monitor: str | None = None
    """None: the primary one."""

    def _check(self) -> None:
        self._set("n", check_whole("n", self.n, least=1))
        if self.monitor is not None:
            self._set("monitor", check_key(self.monitor))

    def keeps(self, checkpoints: Sequence[CheckpointInfo]) -> set[int]:
        """Return the sequences of the best n."""
        return {sequence for ranking in self.rankings(checkpoints) for sequence in ranking[: self.n]}

    def rankings(self, checkpoints: Sequence[CheckpointInfo]) -> list[list[int]]:
        """Return the sequences of all that may rank, the best first: one list for each scale.

        There is one scale, unless the metric or its direction changed during the run. Values on two scales cannot be
        compared, so each keeps its best.
        """
        scales: dict[tuple[str, str], list[tuple[float, int]]] = {}
        for checkpoint in checkpoints:
            score = checkpoint.score(self.monitor)
            if score is not None and score.value is not None and math.isfinite(score.value):
                rank = score.value if score.mode == "min" else -score.value
                scales.setdefault((score.monitor, score.mode), []).append((rank, checkpoint.sequence))
        return [[sequence for _, sequence in sorted(scale)] for scale in scales.values()]

    def __str__(self) -> str:
        return f"best {self.n if self.n > 1 else ''}".rstrip() + (f" by {self.monitor}" if self.monitor else "")


class KeepLast(_KeepRule, frozen=True, tag="last"):
    """Keep the newest n complete checkpoints."""

    n: int = 1

    def _check(self) -> None:
        self._set("n", check_whole("n", self.n, least=1))

    def keeps(self, checkpoints: Sequence[CheckpointInfo]) -> set[int]:
        """Return the sequences of the newest n that are complete."""
        return set(sorted((c.sequence for c in checkpoints if c.complete), reverse=True)[: self.n])

    def __str__(self) -> str:
        return "last" if self.n == 1 else f"last {self.n}"


class KeepEveryNEpochs(_KeepRule, frozen=True, tag="every_n_epochs"):
    """Keep milestones: of every n-th epoch (counted from 1) the newest checkpoint, a complete one if there is."""

    n: int

    def _check(self) -> None:
        self._set("n", check_whole("n", self.n, least=1))

    def keeps(self, checkpoints: Sequence[CheckpointInfo]) -> set[int]:
        """Return the sequences of the milestones."""
        chosen: dict[int, CheckpointInfo] = {}
        for checkpoint in checkpoints:
            if checkpoint.epoch is not None and (checkpoint.epoch + 1) % self.n == 0:
                held = chosen.get(checkpoint.epoch, checkpoint)
                chosen[checkpoint.epoch] = max(held, checkpoint, key=lambda c: (c.complete, c.sequence))
        return {checkpoint.sequence for checkpoint in chosen.values()}

    def __str__(self) -> str:
        return "every epoch" if self.n == 1 else f"every {self.n} epochs"


class KeepEveryNSteps(_KeepRule, frozen=True, tag="every_n_steps"):
    """Keep milestones: the first checkpoint at or past each multiple of n steps, a complete one if there is."""

    n: int

    def _check(self) -> None:
        self._set("n", check_whole("n", self.n, least=1))

    def keeps(self, checkpoints: Sequence[CheckpointInfo]) -> set[int]:
        """Return the sequences of the milestones."""
        chosen: dict[int, CheckpointInfo] = {}
        for checkpoint in checkpoints:
            multiple = checkpoint.step // self.n
            if multiple > 0:
                held = chosen.get(multiple, checkpoint)
                chosen[multiple] = min(held, checkpoint, key=lambda c: (not c.complete, c.step, c.sequence))
        return {checkpoint.sequence for checkpoint in chosen.values()}

    def __str__(self) -> str:
        return "every step" if self.n == 1 else f"every {self.n:,} steps"


class KeepAll(_KeepRule, frozen=True, tag="all"):
    """Keep every checkpoint."""

    def keeps(self, checkpoints: Sequence[CheckpointInfo]) -> set[int]:
        """Return all sequences."""
        return {checkpoint.sequence for checkpoint in checkpoints}

    def __str__(self) -> str:
        return "all"


class KeepAnyOf(_KeepRule, frozen=True, tag="any_of"):
    """Keep what any of `rules` keeps.

    Example:
        >>> str(KeepAnyOf([KeepBest(3), KeepLast()]))
        'best 3, last'
    """

    rules: Sequence[UncappedKeepRule]

    def _check(self) -> None:
        self._set("rules", rules_of(self.rules, UncappedKeepRule))

    def keeps(self, checkpoints: Sequence[CheckpointInfo]) -> set[int]:
        """Return the sequences that one of the rules keeps."""
        return set(self.reasons(checkpoints))

    def reasons(self, checkpoints: Sequence[CheckpointInfo]) -> dict[int, tuple[str, ...]]:
        """Return the sequences that one of the rules keeps, each with the reasons of all."""
        together: dict[int, tuple[str, ...]] = {}
        for rule in self.rules:
            for sequence, why in rule.reasons(checkpoints).items():
                together[sequence] = (*together.get(sequence, ()), *why)
        return together

    def __str__(self) -> str:
        return ", ".join(map(str, self.rules))


class KeepBytes(_KeepRule, frozen=True, tag="bytes"):
    """Keep what `rule` keeps, but no more than `limit` bytes of it.

    Evicted in this order until the rest fits: milestones, the oldest first; bests but the very best, the worst first;
    older lasts, the oldest first. A checkpoint kept for several reasons waits for the last of them. The newest complete
    checkpoint and the best by each monitor stay, even where they alone are more than the limit.
    """

    limit: int
    """Bytes."""
    rule: UncappedKeepRule

    def _check(self) -> None:
        self._set("limit", check_whole("limit", self.limit, least=1))
        self._set("rule", rule_of("rule", self.rule, UncappedKeepRule))

    def keeps(self, checkpoints: Sequence[CheckpointInfo]) -> set[int]:
        """Return the sequences that stay within the limit."""
        return set(self.reasons(checkpoints))

    def reasons(self, checkpoints: Sequence[CheckpointInfo]) -> dict[int, tuple[str, ...]]:
        """Return the sequences that stay within the limit, each with why."""
        reasons = self.rule.reasons(checkpoints)
        newest = _newest_complete(checkpoints)
        if newest is not None:
            reasons.setdefault(newest, ("newest",))
        sizes = {checkpoint.sequence: checkpoint.nbytes for checkpoint in checkpoints}
        total = sum(sizes[sequence] for sequence in reasons)
        for sequence in self._evictable(checkpoints, set(reasons), newest):
            if total <= self.limit:
                break
            total -= sizes[sequence]
            del reasons[sequence]
        return reasons

    def _evictable(self, checkpoints: Sequence[CheckpointInfo], kept: set[int], newest: int | None) -> list[int]:
        """Return what may be evicted, the first to go first."""
        # (class, place in it): milestones and the like are 0, bests 1, lasts 2.
        order: dict[int, tuple[int, int]] = {sequence: (0, sequence) for sequence in kept}
        protected = {newest}
        parts = list(simple_keep_rules(self.rule))
        for rule in parts:
            if isinstance(rule, KeepBest):
                for ranking in rule.rankings(checkpoints):
                    protected.update(ranking[:1])
                    for rank, sequence in enumerate(ranking[: rule.n]):
                        # Ranked by several monitors, it goes when its better rank goes.
                        order[sequence] = max(order[sequence], (1, -rank))
        for rule in parts:
            if isinstance(rule, KeepLast):
                order.update((sequence, (2, sequence)) for sequence in rule.keeps(checkpoints))
        return sorted(kept - protected, key=lambda sequence: (*order[sequence], sequence))

    def __str__(self) -> str:
        return f"{self.rule}, within {self.limit:,} bytes"


SimpleKeepRule = KeepBest | KeepLast | KeepEveryNEpochs | KeepEveryNSteps | KeepAll
UncappedKeepRule = SimpleKeepRule | KeepAnyOf
KeepRule = UncappedKeepRule | KeepBytes


def simple_keep_rules(rule: KeepRule) -> Iterator[SimpleKeepRule]:
    """Yield the rules that `rule` is made of, in their order."""
    if isinstance(rule, KeepAnyOf):
        for part in rule.rules:
            yield from simple_keep_rules(part)
    elif isinstance(rule, KeepBytes):
        yield from simple_keep_rules(rule.rule)
    else:
        yield rule


def _newest_complete(checkpoints: Sequence[CheckpointInfo]) -> int | None:
    return max((checkpoint.sequence for checkpoint in checkpoints if checkpoint.complete), default=None)
