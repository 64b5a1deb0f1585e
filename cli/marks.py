"""Marks: which checkpoints of a listing are the best, the latest, weights only, or left behind. Pure."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from msgspec import Struct

from ..storage.layout import whole_name
from ..storage.manifest import CheckpointInfo, Score, todays_scores
from ..storage.ranking import best_of, newest_complete

if TYPE_CHECKING:
    from ..storage.history import Row
    from ..storage.notes import Note


class Marks(Struct, frozen=True, kw_only=True):
    """What stands out in a run."""

    monitors: tuple[Score, ...]
    """Those of the newest checkpoint that has any, the primary one first; their values are not of interest here."""
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
    monitors = todays_scores(checkpoints)
    ranked = {score.monitor: best_of(checkpoints, score.monitor) for score in monitors}
    latest = newest_complete(checkpoints)
    return Marks(
        monitors=monitors,
        best={monitor: found.sequence for monitor, found in ranked.items() if found is not None},
        latest=latest.sequence if latest is not None else None,
    )


def smoothed(checkpoint: CheckpointInfo, monitor: str) -> float | None:
    """Return the smoothed value that a checkpoint is ranked by; None: it is ranked by the one that was logged."""
    value = next((score.value for score in checkpoint.scores if score.monitor == monitor), None)
    return None if value == checkpoint.metrics.get(monitor, value) else value


def left(checkpoints: Iterable[CheckpointInfo], entries: Iterable[Row | Note]) -> set[int]:
    """Return the sequences of those that are not on the way to where training stands, which `entries` are.

    Training left their way to go on from an earlier checkpoint, or they were brought in. That is known by what was
    decided in their epoch, or, of a run without notes, by what was logged there.
    """
    from ..storage.notes import Decided  # noqa: PLC0415 - a listing is marked without its journal

    logged: dict[int, Mapping[str, float]] = {}
    decided: dict[int | None, set[str | None]] = {}
    for entry in entries:
        if isinstance(entry, Decided):
            decided.setdefault(entry.epoch, set()).add(entry.checkpoint)
        elif entry.kind == "epoch":
            logged[entry.epoch] = entry.metrics
    return {info.sequence for info in checkpoints if _is_left(info, decided.get(info.epoch), logged)}


def _is_left(
    info: CheckpointInfo, decided: Collection[str | None] | None, logged: Mapping[int, Mapping[str, float]]
) -> bool:
    if decided:
        return whole_name(info.name) not in decided
    if info.epoch is None or info.epoch not in logged:
        return bool(info.metrics)
    return not _agree(info.metrics, logged[info.epoch])


def _agree(metrics: Mapping[str, float], others: Mapping[str, float]) -> bool:
    """Return whether two have the same value for each name that is in both."""
    pairs = ((value, others[name]) for name, value in metrics.items() if name in others)
    return all(one == other or (math.isnan(one) and math.isnan(other)) for one, other in pairs)
