"""Saves: the saves of one training — whether one is due, the snapshot, the write behind training, what became of it."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from ..storage.backend import Backend
from . import preflight, snapshot
from .caller import warn_caller
from .policy import CheckpointPolicy
from .saver import Saver, SaveRequest, name_checkpoint
from .staging import Staging
from .tracker import SaveTracker
from .training import Rewind, Training
from .verdict import Verdict
from .when import Facts
from .writer import SaveHandle, Writer

Event = Literal["epoch", "step", "end", "signal", "exception"]


class Saves:
    """Takes snapshots of `objects` and has them written, one at a time. Belongs to the thread that trains."""

    def __init__(
        self, backend: Backend, policy: CheckpointPolicy, training: Training, objects: Mapping[str, Any], *, sync: bool
    ) -> None:
        self._policy = policy
        self._training = training
        self._objects = objects
        self._sync = sync
        self._saver = Saver(backend, policy)
        preflight.check(backend, objects, policy, held=len(self._saver.checkpoints))
        self._tracker = SaveTracker(time.monotonic())
        self._staging = Staging()
        self._writer = Writer()

    @property
    def newest_held(self) -> str | None:
        """The name of the newest checkpoint that the run holds; None if it holds none, not even a damaged one."""
        return self._saver.newest_name

    def save_if_due(self, event: Event, verdicts: Sequence[Verdict] = ()) -> tuple[str, ...]:
        """Start a save if the policy wants one at this moment; returns its reasons."""
        position, last = self._training.position, self._tracker.last
        facts = Facts(
            event=event,
            epoch=position.epoch,
            step=position.step,
            time=time.monotonic(),
            improved=self._tracker.improved(verdicts, self._training.monitors),
            last_saved_epoch=last.epoch,
            last_saved_step=last.step,
            last_saved_time=last.time,
            last_tried_step=self._tracker.last_tried_step,
        )
        reasons = self._policy.decide(facts)
        if reasons:
            self.save(reasons)
        return reasons

    def save(self, reasons: tuple[str, ...]) -> SaveHandle:
        """Copy the state and start writing it; waits for the save before, whose snapshot still lies in staging.

        Raises:
            SaveFailedError: the save before failed, or with `sync` this one.
            UnsupportedStateError: something in the state cannot be saved.
        """
        self.wait()
        training = self._training
        training.flush()
        metrics, scores = training.metrics_and_scores()
        name, write_id = name_checkpoint(training.position)
        self._tracker.started(training.position, time.monotonic(), scores)
        try:
            request = SaveRequest(
                name=name,
                write_id=write_id,
                snapshot=snapshot.take(self._objects, self._staging),
                position=training.position,
                reasons=reasons,
                metrics=metrics,
                scores=scores,
                training=training.to_json(),
            )
            handle = self._writer.submit(name, lambda: self._saver.save(request))
        except BaseException:
            self._tracker.failed(self._saver.checkpoints)
            raise
        if self._sync:
            self.wait()
        return handle

    def wait(self) -> None:
        """Wait for the save in flight, then `surface`."""
        self._writer.wait()
        self.surface()

    def surface(self) -> None:
        """Tell the user what went wrong behind training, once.

        Raises:
            SaveFailedError: a save failed, and the policy does not say that training goes on.
        """
        ended = self._writer.take_ended()
        while self._saver.notices:
            warn_caller(self._saver.notices.pop(0))
        if ended is None or ended.succeeded:
            return
        self._tracker.failed(self._saver.checkpoints)
        failure = ended.untold_error()
        if failure is None:  # cancelled, or told by `result` already
            return
        if self._policy.on_save_error == "raise":
            raise failure
        warn_caller(f"{failure} Training goes on.")

    def continue_from(self, rewind: Rewind) -> None:
        """The next checkpoint is a child of the one that training went back to."""
        self._saver.parent = rewind.checkpoint.sequence
        self._tracker.resumed(rewind.position, time.monotonic(), self._saver.checkpoints)

    def close(self) -> None:
        """Let go of the thread and the memory."""
        self._writer.close()
        self._staging.release()
