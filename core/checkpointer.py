"""Checkpointer: log → decide → snapshot → write → commit → retire. It only puts these in order."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, Literal, Self

from ..errors import CheckpointNotFoundError, ClosedError, ConfigError, StorageError, UsageError
from ..storage.backend import open_backend
from ..storage.checkpoint import Checkpoint
from ..storage.history import History
from ..storage.run import Run
from ..storage.trust import Trust, as_trusted
from . import object_names, restoring, rng
from .caller import warn_caller
from .companions import with_companions
from .decision import Decision
from .generators import as_stateful
from .hooks import Hook, Hooks
from .metric import together
from .mirror import open_mirror
from .monitor import MetricMonitor
from .notebook import Cause
from .notices import say_if_complete, warn_of_missing, warn_of_repeated_batches
from .pace import Pace
from .policy import CheckpointPolicy, checked_policy
from .position import Position
from .preemption import Preemption
from .resumption import Resumption
from .saves import Event, Saves
from .state import check_objects
from .training import Training
from .when import Facts
from .writer import SaveHandle

_log = logging.getLogger(__name__)


class Checkpointer:
    """Watches a training's metrics, keeps the checkpoints that its policy wants, and continues where a run stopped.

    Args:
        url: the run: a folder, `s3://…`, `gs://…`, any URL that fsspec knows, or `memory://…`.
        policy: when to save and what to keep, or its fields in a dict; None saves every epoch and keeps the last one.
        storage_options: what fsspec takes for the URL's scheme; never logged or stored.
        mode: "async": `log` and `save` return as soon as training may go on, and the rest is done behind it.
            "sync": they return when the checkpoint is durable, and hold no second copy of the state.
        mirror: a second place for the run, usually a bucket: what was saved to `url` is copied there behind training,
            the newest first, and comes back from there if `url` is lost. `close` waits for it.
        mirror_options: as `storage_options`, for the mirror.
        snapshot: "overlap": what an optimizer among the objects owns is copied while training goes on, and its next
            step waits for that. "copy": everything is copied at once.
        max_staging_bytes: host memory for that copy; a larger state is saved as if `mode` were "sync". None: no limit.
        writer_share: of a core, what writing gets where training wants it too; more than 0, at most 0.5. On Linux.
        hooks: who else hears of each row and decision, see `core.hooks.Hook`: TensorBoard, W&B, MLflow, CSV
            (`keepbest.adapters.hooks`), or any callable.
        **objects: everything that makes up the training's state, by name: modules, optimizers, schedulers, data
            loaders with `state_dict`, random number generators of one's own, plain dicts. Saved along are the global
            random number generators and, as `rnn_states`, what stateful RNN layers of a Keras model carry.

    Raises:
        ConfigError: a setting is wrong; `UnsupportedStateError`: an object that cannot be saved, or state inside one;
            `StateError`: a Keras model with stateful RNN layers is not built yet.
        StorageError: the place cannot be written to, or has no space for what the policy keeps; or the mirror.

    Example:
        >>> policy = CheckpointPolicy(monitor="val_loss", keep_best=3, patience=5)
        >>> with Checkpointer("runs/7", policy, model=model, optimizer=optimizer) as ckpt:
        ...     for epoch in ckpt.epochs(20):
        ...         ckpt.log(train_loss=train_epoch(), val_loss=validate_epoch())
        ...     ckpt.restore("best")

    Not thread-safe: it belongs to the thread that trains.
    """

    def __init__(  # noqa: PLR0913 - all but two by name
        self,
        url: str | os.PathLike[str],
        policy: CheckpointPolicy | Mapping[str, Any] | None = None,
        *,
        storage_options: Mapping[str, Any] | None = None,
        mode: Literal["async", "sync"] = "async",
        mirror: str | os.PathLike[str] | None = None,
        mirror_options: Mapping[str, Any] | None = None,
        snapshot: Literal["overlap", "copy"] = "overlap",
        max_staging_bytes: int | None = None,
        writer_share: float = 0.1,
        hooks: Sequence[Hook] = (),
        **objects: Any,
    ) -> None:
        pace = Pace(mode=mode, snapshot=snapshot, max_staging_bytes=max_staging_bytes, writer_share=writer_share)
        object_names.check(objects, CheckpointPolicy.model_fields)
        objects = {name: as_stateful(obj) for name, obj in objects.items()}
        check_objects(objects)
        objects = with_companions(objects)
        backend = open_backend(url, storage_options)
        second = open_mirror(backend.url, mirror, mirror_options)
        self.policy = CheckpointPolicy() if policy is None else checked_policy(policy)
        self.run = Run(backend)
        """The run, for reading."""
        self._objects = objects
        self._training = Training(self.run, self.policy, Hooks(hooks))
        self._saves = Saves(backend, self.policy, self._training, objects=objects, pace=pace, mirror=second)
        self._preemption = Preemption()
        self._handles_sigterm = bool(self.policy.decide(_SIGNALLED))
        self._resumption = Resumption(self.run.url, self._saves.holding)
        self._epoch_of_loop: int | None = None
        self._ended_at: Position | None = None
        self._closed = False

    @property
    def position(self) -> Position:
        """Where training stands."""
        return self._training.position

    @property
    def history(self) -> History:
        """Every row logged on the way here, by this process and by those that it continues."""
        return self._training.history

    @property
    def monitors(self) -> tuple[MetricMonitor, ...]:
        """The monitors, the primary one first."""
        return self._training.monitors

    @property
    def mirror_pending(self) -> tuple[str, ...]:
        """The names of the checkpoints that are still to come to the mirror, the newest first; empty without one."""
        return self._saves.mirror_pending

    # ── the loop ──────────────────────────────────────────────────────────────────────────────────────────────────

    def epochs(self, n: int) -> Iterator[int]:
        """Iterate over the epochs that are left of `n`, counted from 0, and end early on patience.

        The body calls `log` once. When the loop ends, everything is committed.

        Args:
            n: how many epochs the whole training has, those of earlier processes included.

        Raises:
            ConfigError: `n` is not a whole number of at least 0.
            StateMismatchError, DamagedError: the run cannot be resumed; nothing was changed.
        """
        if not isinstance(n, int) or isinstance(n, bool) or n < 0:
            raise ConfigError(f"epochs(n) takes how many epochs the training has, a whole number (got {n!r}).")
        self._check_open("epochs")
        return self._epochs(n)

    def _epochs(self, n: int) -> Iterator[int]:
        self._go_back()
        if self._resumption.must_resume:
            self.resume()
        self._resumption.check_whole()
        say_if_complete(self._training, n, self.run.url)
        warn_of_repeated_batches(self.position, self._objects)
        self._arm()
        try:
            while self.position.next_epoch < n and not self._training.stopped:
                if self._resumption.going_back is not None:
                    self._go_back()
                    continue
                self._training.begin()
                self._epoch_of_loop = self.position.next_epoch
                self._training.notes.loops(self._epoch_of_loop, n)
                yield self._epoch_of_loop
                if self._resumption.going_back is None and self.position.next_epoch == self._epoch_of_loop:
                    self.log()  # nothing to say is fine without a monitor; with one it is an error that names it
            self._epoch_of_loop = None
            self._training.notes.looped()
            self._save_unless_restored("end")
            self.wait()
            self._end_if_preempted()
            self._training.end("complete")
        finally:
            self._epoch_of_loop = None
            self._preemption.uninstall()

    def log(
        self,
        metrics: Mapping[str, object] | None = None,
        /,
        *,
        epoch: int | None = None,
        step: int | None = None,
        **named: object,
    ) -> Decision:
        """Close an epoch: judge its metrics, save if the policy says so.

        Args:
            metrics: values by name, for names that are no identifiers: `{"val/loss": 0.3}`.
            epoch: the epoch that ends (from 0), where the loop knows better than counting.
            step: training steps so far, likewise.
            **named: values by name: numbers, 0-d arrays or tensors, `Measured(value, step=…)`.

        Returns:
            What was decided and why.

        Raises:
            MetricError: the monitored metric is missing, or not a number; nothing was recorded.
            SaveFailedError: the save before this one failed.
            RunExistsError: the run holds checkpoints and was not resumed.
            UsageError: `log` was called twice in one pass of `epochs()`, or with another epoch than it is at.

        Cost: some 0.1 ms if nothing is saved. Otherwise a few µs for each tensor and a copy of those that no optimizer
        among the objects owns; with mode="sync", writing them all.
        """
        self._begin("log")
        self._check_epoch(epoch)
        verdicts = self._training.close_epoch(together(metrics, named), epoch=epoch, step=step)
        reasons = self._saves.save_if_due("epoch", verdicts)
        made = Decision(verdicts=verdicts, save_reasons=reasons)
        _log.debug("epoch.decided step=%d %s", self.position.step, made)
        self._end_if_preempted()
        return made

    def log_step(
        self, metrics: Mapping[str, object] | None = None, /, *, step: int | None = None, **named: object
    ) -> None:
        """Close a training step: record its metrics, save if the policy saves by steps or seconds.

        Args:
            metrics: as for `log`; scalars on a device stay there until the next `log` or save, so nothing waits for it.
            step: training steps so far, where the loop knows better than counting.
            **named: values by name.

        Raises:
            As `log`.
        """
        self._begin("log_step")
        self._training.close_step(together(metrics, named), step=step)
        self._saves.save_if_due("step")
        self._end_if_preempted()

    # ── saving and restoring ──────────────────────────────────────────────────────────────────────────────────────

    def save(self) -> SaveHandle:
        """Save now, whatever the policy says of when; what it says of keeping holds.

        Returns:
            A handle: `.result()` returns when the checkpoint is committed and durable.

        Raises:
            As `log`.
        """
        self._begin("save")
        return self._saves.save(("request",))

    def resume(self) -> Position | None:
        """Continue the run from its latest checkpoint: objects, random numbers, monitors, history and position.

        Returns:
            Where training stands now, or None if the run holds no checkpoint to continue from yet.

        Raises:
            StateMismatchError: the objects do not fit; all differences are listed, nothing was changed.
            TornStateError: an object did not take its state, and not all could be put back.
            DamagedError: the latest checkpoint is damaged; nothing was changed. `restore(name)` goes back to an older
            one.
            DivergedError: the run and its mirror do not continue one another.
        """
        self._check_open("resume")
        self.wait()
        self._saves.bring_back()
        try:
            latest = self.run.latest
        except CheckpointNotFoundError:
            self._resumption.begin_anew()
            return None
        ignored = sorted(set(latest.objects()) - set(self._objects) - {rng.NAME})
        if ignored:
            warn_caller(
                f"checkpoint {latest.name} holds {', '.join(ignored)}, which this Checkpointer was not given, so "
                "training goes on without. Pass them to the Checkpointer to restore them."
            )
        if not latest.complete:
            warn_caller(
                f"{self.run.url} holds only weights ({latest.name}), as the training before broke off within its first "
                "save. There is nothing to continue from, so training begins anew."
            )
            self._resumption.begin_anew()
            return None
        rewind = self._training.rewind(latest)
        prepared = restoring.prepare(latest, self._objects, with_rng=True)
        self._saves.forget()
        self._resumption.apply(prepared)
        self._resumption.restored(latest, rewind)
        self._go_back()
        self._clear_away()
        _log.info("run.resumed run=%s checkpoint=%s at=%s", self.run.url, latest.name, self.position)
        return self.position

    def restore(
        self, which: str | int = "best", *, only: str | Sequence[str] | None = None, trusted: Trust | None = None
    ) -> Checkpoint:
        """Set the objects to their states in a checkpoint. If training goes on from there, it makes a new branch.

        What training left is saved before, if the policy saves at the end. Within `epochs()` the loop goes on with the
        epoch after the checkpoint's.

        Args:
            which: "best", "latest", a checkpoint's name or its unique beginning, or a sequence number.
            only: names of objects; None means all. Training goes on from a checkpoint only if all were restored.
            trusted: the public key whose holder must have signed it as it is, as `open_run` takes it.

        Returns:
            The checkpoint.

        Raises:
            CheckpointNotFoundError: there is none of that name.
            StateMismatchError, TornStateError, DamagedError: as `resume`. UntrustedError: nothing was changed.
            SaveFailedError: what training left could not be saved; nothing was changed.
        """
        self._check_open("restore")
        demanded = as_trusted(trusted)
        self.wait()
        found = self._saves.bring_back_one(which)
        checkpoint = Run(self.run.backend, demanded).get(found if demanded is None else which)
        names = [only] if isinstance(only, str) else only
        wanted = self._objects if names is None else {name: self._object(name) for name in names}
        if not checkpoint.complete and only is None:
            wanted = {name: obj for name, obj in self._objects.items() if name in checkpoint.objects()}
        whole = checkpoint.complete and only is None
        rewind = self._training.rewind(checkpoint) if whole else None
        prepared = restoring.prepare(checkpoint, wanted, with_rng=whole)
        self._save_unless_restored("end")
        self.wait()
        self._saves.forget()
        self._resumption.apply(prepared)
        self._resumption.restored(checkpoint, rewind)
        _log.info("checkpoint.restored run=%s checkpoint=%s", self.run.url, checkpoint.name)
        return checkpoint

    def wait(self) -> None:
        """Return when no save is in flight. The mirror is waited for by `close` alone.

        Raises:
            SaveFailedError: the last one failed.
        """
        self._saves.wait()

    def close(self, *, save: bool = True) -> None:
        """Save at the end if the policy says so and training went on since the last save; wait; let go of everything.

        With a mirror, that waits until it has everything, too.

        Args:
            save: False saves no more: training was broken off, and nobody knows what the objects hold by now.

        Raises:
            SaveFailedError: a save failed that nobody was told of yet.
            MirrorFailedError: all is saved, and something of it did not reach the mirror.
            StorageError: all is saved, and the last rows of metrics could not be written: the store is away, or full.
        """
        self._close("closed" if save else "exception")

    def _close(self, cause: Cause) -> None:
        """Do what `close` does, where an adapter knows better why training ended."""
        if not self._closed:
            self._end(None if cause == "exception" else "end", cause)
            if self._preemption.requested:
                self._preemption.end_training()

    def __enter__(self) -> Self:
        self._check_open("__enter__")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is None:
            self.close()
            return
        try:
            last: Event | None = None if self._closed or isinstance(error, SystemExit) else "exception"
            self._end(last, "exception", error)
        except Exception as second:  # noqa: BLE001 - the user is about to see what ended training: this must not hide it
            error.add_note(f"keepbest: {second}")

    # ── in order ──────────────────────────────────────────────────────────────────────────────────────────────────

    def _begin(self, call: str) -> None:
        """What comes before anything is recorded."""
        self._check_open(call)
        self._saves.surface()
        if self._resumption.going_back is not None:
            self._go_back()
        self._resumption.trains_on()
        self._arm()

    def _check_open(self, call: str) -> None:
        if self._closed:
            raise ClosedError(call, self.run.url)

    def _check_epoch(self, epoch: int | None) -> None:
        if self._epoch_of_loop is None:
            return
        if self.position.next_epoch != self._epoch_of_loop:
            raise UsageError(
                f"log() was called twice in epoch {self._epoch_of_loop + 1}. Log all metrics of an epoch in one call; "
                "log_step() is for what happens within it."
            )
        if epoch is not None and epoch != self._epoch_of_loop:
            raise UsageError(
                f"epochs() is at epoch {self._epoch_of_loop} (from 0), log() was told epoch={epoch}. Leave epoch out."
            )

    def _save_at_end(self) -> tuple[str, ...]:
        """Save what `close` would, where others change the objects before that: once for a position, by `close` too."""
        if self._ended_at == self.position:
            return ()
        self._ended_at = self.position
        return self._save_unless_restored("end")

    def _save_unless_restored(self, event: Event) -> tuple[str, ...]:
        """Save what training left, unless it never began, or the objects are those of an older checkpoint by now."""
        return self._saves.save_if_due(event) if self._resumption.holds_trained else ()

    def _clear_away(self) -> None:
        """Delete whatever the process before left half-written, if it is old enough to be nobody's.

        That lists all there is, so it also tells of checkpoints whose files are gone.
        """
        try:
            warn_of_missing(self.run.gc().missing, self.run.url)
        except StorageError as error:
            warn_caller(
                f"what a process before may have left half-written could not be cleared away: {error} "
                "Training goes on; `keepbest gc` deletes it."
            )

    def _go_back(self) -> None:
        """Training goes on from the checkpoint that was restored last."""
        rewind = self._resumption.going_back
        if rewind is None:
            return
        self._training.go_back(rewind)
        self._saves.continue_from(rewind)
        self._resumption.went_back()
        if self._epoch_of_loop is not None:
            self._epoch_of_loop = self.position.next_epoch

    def _arm(self) -> None:
        if self._handles_sigterm:
            self._preemption.install()

    def _end_if_preempted(self) -> None:
        if self._preemption.requested:
            self._save_unless_restored("signal")
            self.wait()
            self._training.end("signal")
            self._saves.finish_mirror(hurry=True)
            self._preemption.end_training()

    def _object(self, name: str) -> Any:
        if name not in self._objects:
            raise UsageError(
                f"only={name!r} names no object of this Checkpointer; it has {', '.join(self._objects) or 'none'}."
            )
        return self._objects[name]

    def _end(self, event: Event | None, cause: Cause, error: BaseException | None = None) -> None:
        """Save for the last time, wait for it and for the mirror, let go; each also if what comes before it fails."""
        with contextlib.ExitStack() as stack:
            stack.callback(self._release)
            if not self._closed:
                stack.callback(self._saves.finish_mirror)
                stack.callback(self._training.end, cause, error)
            stack.callback(self.wait)
            if event is not None and self._ended_at != self.position:
                self._save_unless_restored(event)

    def _release(self) -> None:
        self._closed = True
        self._preemption.uninstall()
        self._saves.close()
        self._training.close()


_SIGNALLED = Facts(
    event="signal",
    epoch=0,
    step=1,
    time=0.0,
    improved=False,
    last_saved_epoch=None,
    last_saved_step=None,
    last_saved_time=0.0,
)
