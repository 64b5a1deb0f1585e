"""SaveTracker: what was saved last and what is the best that was saved, so that a failed save is made good."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct
from msgspec.structs import replace

from ..storage.manifest import CheckpointInfo, Score
from ..storage.ranking import best_of
from .monitor import MetricMonitor
from .position import Position
from .verdict import Verdict


class LastSave(Struct, frozen=True, kw_only=True):
    """The save started last."""

    epoch: int | None
    step: int | None
    within_epoch: bool = False
    """The epoch was under way."""
    time: float
    """Seconds, monotonic."""


class SaveTracker:
    """Follows the saves of one training."""

    def __init__(self, now: float) -> None:
        self.last = LastSave(epoch=None, step=None, time=now)
        self.last_tried_step: int | None = None
        """The step of the last save that failed."""
        self._before = self.last
        self._owed = False
        self._best: dict[str, float] = {}

    def improved(self, verdicts: Sequence[Verdict], monitors: Sequence[MetricMonitor]) -> bool:
        """Say whether a save is due for improvement.

        It is if a monitor says so; and, after a save of the best failed, if a value is the best of those that *are*
        saved.
        """
        if any(verdict.improved for verdict in verdicts):
            return True
        return self._owed and any(  # no verdicts, no improvement: only the end of an epoch judges
            verdict.eligible
            and verdict.smoothed is not None
            and monitor.better(verdict.smoothed, self._best.get(monitor.key))
            for verdict, monitor in zip(verdicts, monitors, strict=bool(verdicts))
        )

    def started(self, position: Position, now: float, scores: Sequence[Score]) -> None:
        """Note that a save began."""
        self._before = self.last
        self.last = _at(position, now)
        if self._owed and any(score.value is not None for score in scores):
            self._owed = False

    def left_out(self, step: int, now: float) -> None:
        """Note that a save that was due was not made, so that it is not due again at once."""
        self.last_tried_step = step
        self.last = replace(self.last, time=now)

    def failed(self, committed: Sequence[CheckpointInfo]) -> None:
        """Note that the save that began last failed: the end, a signal and an improvement find it missing."""
        self.last_tried_step = self.last.step
        self.last = replace(self._before, time=self.last.time)
        self._owed = True
        self._note_best(committed)

    def resumed(self, position: Position, now: float, committed: Sequence[CheckpointInfo]) -> None:
        """Note that training continues from a checkpoint at `position`."""
        self.last = self._before = _at(position, now)
        self._owed = False
        self._note_best(committed)

    def _note_best(self, committed: Sequence[CheckpointInfo]) -> None:
        self._best = {}
        for monitor in {score.monitor for checkpoint in committed for score in checkpoint.scores}:
            best = best_of(committed, monitor)
            score = best.score(monitor) if best is not None else None
            if score is not None and score.value is not None:
                self._best[monitor] = score.value


def _at(position: Position, now: float) -> LastSave:
    return LastSave(epoch=position.epoch, step=position.step, within_epoch=position.within_epoch, time=now)
