"""Verdict: what a monitor says about one check, as a value."""

from __future__ import annotations

from msgspec import Struct

from ..storage.manifest import Score
from .direction import Mode


class Verdict(Struct, frozen=True, kw_only=True):
    """What a monitor made of the metrics of one epoch."""

    monitor: str
    """The metric's name."""
    mode: Mode
    value: float | None
    """As it was logged, NaN and infinity included; None when it was not."""
    smoothed: float | None
    """What was judged: the smoothed value, `value` itself without smoothing; None when nothing was judged."""
    improved: bool
    """A new best, by more than min_delta."""
    best: float | None
    """The best so far, this value included; None before the first."""
    best_epoch: int | None
    """From 0."""
    wait: int
    """Checks without improvement since the best."""
    stop: bool
    """Training should end."""
    eligible: bool
    """A checkpoint with this value may be ranked."""
    gap: float | None
    """How much worse validation is than training (negative: better); None without a training value."""
    overfitting: bool
    """Validation worsened while training improved, over the window."""
    unmet: tuple[str, ...]
    """The constraints that this check does not meet."""
    constrained: bool
    """There are constraints."""
    reason: str
    """One sentence saying why, for people."""

    @property
    def score(self) -> Score:
        """What a checkpoint saved now is ranked by."""
        value = self.smoothed if self.eligible else None
        return Score(monitor=self.monitor, mode=self.mode, value=value, constrained=self.constrained)
