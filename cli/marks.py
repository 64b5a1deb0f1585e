"""Marks: which checkpoints of a listing are the best, the latest, or weights only, in words. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..storage.manifest import CheckpointInfo, Score
from ..storage.run import best_of, newest_complete


@dataclass(frozen=True, slots=True, kw_only=True)
class Marks:
    """What stands out in a run."""

    monitors: tuple[Score, ...]
    """Those of the newest checkpoint, the primary one first; their values are not of interest here."""
    best: dict[str, int]
    """Metric → sequence of the best checkpoint by it; a metric by which none was ranked is absent."""
    latest: int | None
    """Sequence of the newest checkpoint that training can continue from."""

    def of(self, checkpoint: CheckpointInfo) -> list[str]:
        """Return the marks of one checkpoint: "best", "best val_acc", "latest", "weights only"."""
        primary = self.monitors[0].monitor if self.monitors else None
        best = [
            "best" if monitor == primary else f"best {monitor}"
            for monitor, sequence in self.best.items()
            if sequence == checkpoint.sequence
        ]
        latest = ["latest"] if checkpoint.sequence == self.latest else []
        return [*best, *latest, *([] if checkpoint.complete else ["weights only"])]


def marks(checkpoints: Sequence[CheckpointInfo]) -> Marks:
    """Return what stands out among `checkpoints`, oldest first."""
    monitors = checkpoints[-1].scores if checkpoints else ()
    ranked = {score.monitor: best_of(checkpoints, score.monitor) for score in monitors}
    latest = newest_complete(checkpoints)
    return Marks(
        monitors=monitors,
        best={monitor: found.sequence for monitor, found in ranked.items() if found is not None},
        latest=latest.sequence if latest is not None else None,
    )
