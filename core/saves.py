"""Saves: the saves of one training — whether one is due, the snapshot, the write behind training, what became of it."""

from __future__ import annotations

import contextlib
import logging
import os
import time
import warnings
import weakref
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Literal

from ..errors import KeepbestError, MirrorFailedError
from ..storage.backend import Backend
from . import preemption, preflight
from .at_exit import at_exit
from .caller import warn_caller
from .mirror import Mirror
from .mirroring import Mirroring
from .notices import warn_of_forsaken_bests
from .overlap import Overlap
from .pace import Pace
from .policy import CheckpointPolicy
from .position import name_checkpoint
from .saver import Saver, SaveRequest
from .snapshot import Snapshot, Snapshots
from .staging import Staging
from .tracker import SaveTracker
from .training import Rewind, Training
from .verdict import Verdict
from .when import Facts
from .writer import SaveHandle, Writer

_log = logging.getLogger(__name__)

Event = Literal["epoch", "step", "end", "signal", "exception"]


class Saves:
    """Takes snapshots of `objects` and has them written, one at a time. Belongs to the thread that trains."""

    def __init__(  # noqa: PLR0913 - all but three by name
        self,
        backend: Backend,
        policy: CheckpointPolicy,
        training: Training,
        *,
        objects: Mapping[str, Any],
        pace: Pace,
        mirror: Backend | None,
    ) -> None:
        self._policy = policy
        self._training = training
        self._pace = pace
        self._snapshots = Snapshots(objects)
        self._saver = Saver(backend, policy)
        # While an upload is under way, one checkpoint more than the policy keeps lies on the first tier.
        nbytes = preflight.check_objects(objects, policy, self._snapshots)
        preflight.check_place(backend, nbytes, policy, held=len(self._saver.checkpoints) - (mirror is not None))
        self._mirror: Mirror | None = None
        if mirror is not None:
            self._mirror = Mirror(self._saver.run, mirror, policy)
            preflight.check_place(mirror, nbytes, policy, held=len(self._mirror.held))
            self._saver.mirroring = Mirroring(self._mirror, self._saver.checkpoints)
        self._tracker = SaveTracker(time.monotonic())
        self._staging = Staging()
        self._writer = Writer(pace)
        self._overlap: Overlap | None = None
        """The last one, until training has been told of it."""
        self._retakes = 0
        """Snapshots that were taken again, as something changed what was being copied."""
        self._hurried = False
        """A step had to wait for a copy: those that follow are made as fast as can be."""
        self._superseded: tuple[str, ...] = ()
        """Why a save is due as soon as the writer is free; it takes the state of then."""
        self._told_of_staging: set[str] = set()
        self._began = self._blocked = 0.0
        """When the last save was called, and for how long it held training; seconds, monotonic."""
        _OPEN.add(self)

    @property
    def holding(self) -> tuple[str, str] | None:
        """The newest checkpoint that the run holds, or else its mirror, as (URL, name); None if neither holds any."""
        name = self._saver.newest_name
        if name is not None:
            return self._saver.run.url, name
        mirrored = self._mirror.newest_name if self._mirror is not None else None
        return None if self._mirror is None or mirrored is None else (self._mirror.url, mirrored)

    @property
    def mirror_pending(self) -> tuple[str, ...]:
        """The names of the checkpoints that are still to come to the mirror, the newest first."""
        return self._saver.mirroring.pending if self._saver.mirroring is not None else ()

    def bring_back(self) -> None:
        """Bring what training goes on from back from the mirror, if only that has it, and training has not gone on yet.

        Raises:
            DivergedError, DamagedError, StorageError: as `Mirror.bring_back`.
        """
        if self._mirror is not None and not self._has_gone_on:
            self._mirror.bring_back()

    def bring_back_one(self, which: str | int) -> str | int:
        """Bring one checkpoint back from the mirror, if only that has it; returns what it is called in the run."""
        return which if self._mirror is None else self._mirror.bring_back_one(which, fresh=not self._has_gone_on)

    def forget(self) -> None:
        """The objects are about to get other tensors: hold on to none that they have. No save is in flight."""
        self._snapshots.forget()

    @property
    def _has_gone_on(self) -> bool:
        return self._saver.mirroring is not None and self._saver.mirroring.started

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
            within_epoch=position.within_epoch,
            last_saved_within_epoch=last.within_epoch,
            ranks=any(verdict.score.value is not None for verdict in verdicts),
        )
        reasons = self._policy.decide(facts)
        if reasons and self._leaves_out(facts, reasons):
            self._training.decided(event, reasons, busy=True)
            return ()
        if not reasons and facts.event != "exception" and not (self._writer.busy and facts.event in _PASSING):
            reasons = self._superseded
        if reasons:
            self.save(reasons, event)
        elif event == "epoch":
            self._training.decided(event, reasons)
        return reasons

    def _leaves_out(self, facts: Facts, reasons: tuple[str, ...]) -> bool:
        """Say whether a save is not made because one is in flight; the best, and what is last, always is."""
        if self._policy.on_busy == "wait" or facts.improved or facts.event not in _PASSING:
            return False
        if not self._writer.busy:
            return False
        _log.info("save.left_out run=%s at=%s", self._saver.run.url, self._training.position)
        if self._policy.on_busy == "supersede":
            self._superseded = reasons
        self._tracker.left_out(facts.step, facts.time)
        return True

    def save(self, reasons: tuple[str, ...], event: Event | Literal["request"] = "request") -> SaveHandle:
        """Capture the state and start writing it; waits for the save before, whose snapshot still lies in staging.

        Raises:
            SaveFailedError: the save before failed, or in mode "sync" this one.
            UnsupportedStateError: something in the state cannot be saved.
        """
        began = time.monotonic()
        training = self._training
        name, write_id = name_checkpoint(training.position)
        # Before anything can fail: what was logged is not lost with a save.
        training.decided(event, reasons, checkpoint=name)
        try:
            self.wait()
            training.make_up()
            self._superseded = ()
            self._began, self._blocked = began, 0.0
            handle, taken, live = self._start(name, write_id, reasons)
        except BaseException as error:
            training.notes.failed(training.position, name, error)
            raise
        if live:
            self._wait_here(handle, taken)
        self._blocked = time.monotonic() - began
        return handle

    def _start(self, name: str, write_id: str, reasons: tuple[str, ...]) -> tuple[SaveHandle, Snapshot, bool]:
        """Capture the state and hand it to the writer; also return whether training must wait until it is written."""
        training = self._training
        metrics, scores = training.metrics_and_scores()
        self._tracker.started(training.position, time.monotonic(), scores)
        try:
            taken, live = self._take()
            request = SaveRequest(
                name=name,
                write_id=write_id,
                position=training.position,
                reasons=reasons,
                metrics=metrics,
                scores=scores,
                training=training.to_json(),
            )
            overlap = Overlap(taken, self._take_again, hashed=not self._hurried)
            try:
                handle = self._writer.submit(name, overlap, partial(self._saver.save, request))
            except BaseException:  # no thread could be started, or Ctrl-C
                overlap.abandon()
                raise
            self._overlap = None if overlap.settled else overlap
        except BaseException:
            self._tracker.failed(self._saver.checkpoints)
            raise
        return handle, taken, live

    def _take(self) -> tuple[Snapshot, bool]:
        """Return a snapshot, and whether training must wait until it is written."""
        if self._pace.mode == "sync":
            return self._snapshots.live(), True
        limit = self._pace.max_staging_bytes
        try:
            overlap = self._pace.snapshot == "overlap" and self._retakes < _MOST_RETAKES
            staged = self._snapshots.staged(self._staging, overlap=overlap, limit=limit)
        except MemoryError as error:
            return self._taken_live(f"there is no memory for a copy of the state ({error})")
        if staged is not None:
            return staged, False
        return self._taken_live(f"a snapshot takes more than max_staging_bytes={limit:,}")

    def _taken_live(self, why: str) -> tuple[Snapshot, bool]:
        if why not in self._told_of_staging:
            self._told_of_staging.add(why)
            warn_caller(f"{why}, so training waits until each save is written.")
        return self._snapshots.live(), True

    def _take_again(self) -> Snapshot:
        self._snapshots.distrust()
        again = self._snapshots.staged(self._staging, overlap=False)
        assert again is not None
        return again

    def _wait_here(self, handle: SaveHandle, taken: Snapshot) -> None:
        """Wait for a save that reads what training would change; interrupted, do not let go before it has ended."""
        try:
            self.wait()
        except BaseException:
            taken.revoke()
            while not handle.done():
                with contextlib.suppress(KeyboardInterrupt):
                    handle.wait()
            raise

    def wait(self) -> None:
        """Wait for the save in flight, then `surface`."""
        self._writer.wait()
        if self._overlap is not None:
            self._overlap.settle()  # a save that was called off may still be being copied
        self.surface()

    def surface(self) -> None:
        """Tell the user what went wrong behind training, once.

        Raises:
            SaveFailedError: a save failed, and the policy does not say that training goes on.
        """
        if self._overlap is not None:
            self._overlap.settle(0)
        ended = self._writer.take_ended()
        self._tell_notices()
        if ended is None:
            return
        self._note(ended)
        if ended.succeeded:
            return
        self._tracker.failed(self._saver.checkpoints)
        failure = ended.untold_error()
        if failure is None:  # cancelled, or told by `result` already
            return
        if self._policy.on_save_error == "raise":
            raise failure
        warn_caller(f"{failure} Training goes on.")

    def _note(self, ended: SaveHandle) -> None:
        notes, position = self._training.notes, self._training.position
        if ended.committed is not None:
            # Of a save that training waits for, `save` has not come to its end yet.
            blocked = self._blocked or time.monotonic() - self._began
            notes.saved(position, ended.committed, began=self._began, blocked=blocked)
        elif ended.error is not None:
            notes.failed(position, ended.checkpoint, ended.error)

    def continue_from(self, rewind: Rewind) -> None:
        """The next checkpoint is a child of the one that training went back to."""
        if self._saver.parent is None:  # it goes on where another process stopped
            warn_of_forsaken_bests(self._saver.checkpoints, self._policy, self._saver.run.url)
        self._saver.parent = rewind.checkpoint.sequence
        self._tracker.resumed(rewind.position, time.monotonic(), self._saver.checkpoints)
        if self._saver.mirroring is not None:
            self._saver.mirroring.offer(self._saver.checkpoints)

    def finish_mirror(self, *, hurry: bool = False) -> None:
        """Wait until the mirror has all that it should have, the history too. Call `wait` first.

        Args:
            hurry: the machine goes away: the newest checkpoint goes first, and what fails is a warning.

        Raises:
            MirrorFailedError: something is missing there, and the policy does not say that this is a warning.
        """
        mirroring = self._saver.mirroring
        if mirroring is None or preemption.at_once.is_set():
            return
        try:
            mirroring.finish(hurry=hurry)
            self._training.flush()
            mirroring.copy_rows()
        except MirrorFailedError as failure:
            if self._policy.on_save_error == "raise" and not hurry:
                raise
            warn_caller(str(failure))
        finally:
            self._saver.make_up_for_spared()
            self._tell_notices()

    def close(self) -> None:
        """Let go of the threads and the memory."""
        _OPEN.discard(self)
        self._writer.close()
        if self._saver.mirroring is not None:
            self._saver.mirroring.close()
        self._saver.run.close()
        self._staging.release()

    def end(self) -> None:
        """The program ends without `close`: wait for the save in flight and for the mirror, and say what failed."""
        try:
            try:
                self.wait()
            finally:
                self.finish_mirror()
        except KeepbestError as error:
            warnings.warn(str(error), stacklevel=1)

    def _tell_notices(self) -> None:
        if self._overlap is not None and self._overlap.settled:
            if self._overlap.retaken:
                self._retakes += 1
                if self._retakes < _MOST_RETAKES:
                    warn_caller(_RETAKEN_ONCE)
                else:
                    warn_caller(_RETAKEN_AGAIN)
            self._hurried |= self._overlap.waited_for
            self._overlap = None
        mirroring = self._saver.mirroring
        for notices in (self._saver.notices, [] if mirroring is None else mirroring.notices):
            while notices:
                warn_caller(notices.pop(0))


_PASSING = ("epoch", "step")
"""Events that are followed by others."""

_MOST_RETAKES = 2
"""From then on nothing is copied beside training: it changes its tensors where no fence is."""

_RETAKEN_ONCE = (
    "tensors were changed by other means than a step of their optimizer while a snapshot was copied, or unnoticed "
    "before. It was taken once more, as they were then. If that is what your training does, use "
    "Checkpointer(…, snapshot='copy')."
)
_RETAKEN_AGAIN = (
    "tensors were changed by other means than a step of their optimizer once more while a snapshot was copied, which "
    "was taken anew. From now on training waits while all is copied, as with Checkpointer(…, snapshot='copy')."
)

_OPEN: weakref.WeakSet[Saves] = weakref.WeakSet()
"""Not closed yet."""


def _end_all() -> None:
    for saves in list(_OPEN):
        saves.end()


at_exit(_end_all)
os.register_at_fork(after_in_child=_OPEN.clear)  # a child's exit must not wait for threads that it does not have
