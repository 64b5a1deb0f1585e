"""Ranking: which of a run's checkpoints is the best, and which the latest. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence

from .manifest import CheckpointInfo, with_todays_scores


def best_of(checkpoints: Sequence[CheckpointInfo], monitor: str | None) -> CheckpointInfo | None:
    """Return the best by `monitor` (None: the newest checkpoint's primary one); of equals the earliest."""
    if not checkpoints:
        return None
    if monitor is None:
        newest = max(checkpoints, key=lambda found: found.sequence).score()
        monitor = newest.monitor if newest else None
    best: CheckpointInfo | None = None
    best_value = 0.0
    for found in with_todays_scores(checkpoints):
        score = found.score(monitor)
        if score is None or score.value is None or not math.isfinite(score.value):
            continue
        value = score.value if score.mode == "min" else -score.value
        if best is None or value < best_value:
            best, best_value = found, value
    return best


def newest_complete(checkpoints: Sequence[CheckpointInfo]) -> CheckpointInfo | None:
    """Return the newest checkpoint that training can continue from, else the newest, else None."""
    complete = [found for found in checkpoints if found.complete] or list(checkpoints)
    return max(complete, key=lambda found: found.sequence, default=None)
