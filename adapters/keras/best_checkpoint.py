"""BestCheckpoint: the whole service for `fit`. It turns Keras' hooks into calls of a Checkpointer; nothing more."""

from __future__ import annotations

import os
import threading
import warnings
import weakref
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import keras
from msgspec.structs import replace

from ...core import restoring
from ...core.caller import warn_caller
from ...core.checkpointer import Checkpointer
from ...core.decision import Decision
from ...core.hooks import Hook
from ...core.notebook import Cause
from ...core.policy import CheckpointPolicy, checked_policy
from ...core.position import Position
from ...core.retention import KeepAll, KeepBest, simple_keep_rules
from ...errors import CheckpointNotFoundError, ConfigError, KeepbestError, UsageError
from ...storage.backend import open_backend
from ...storage.remote_errors import without_password
from . import direction, state
from .console import say
from .logs import numbers


class BestCheckpoint(keras.callbacks.Callback):  # type: ignore[misc]  # Keras has no types
    """Saves what the policy wants while `fit` trains, ends it on patience, and continues where a run stopped.

    The same script started again continues: `fit` begins at the epoch after the last one saved, with the weights, the
    optimizer, the seed generators, the best value and the patience of then. `epochs` counts the whole training, earlier
    runs included. A run that is complete, or out of patience, trains nothing more.

    List it last: it saves an epoch as callbacks before it have left it. A learning rate that `ReduceLROnPlateau` sets
    after it is the old one again after a restart. What other callbacks count, as that one's `wait`, is not saved. Only
    `SwapEMAWeights(swap_on_epoch=True)` comes after it: before it, averages would be saved as the weights, and a
    restart would train on from them.

    Args:
        url: the run: a folder, or a URL (`s3://…`, `gs://…`).
        policy: a `CheckpointPolicy`; or its fields in a dict, where a metric that keepbest does not know by name may be
            left to the direction that its Keras class declares; None saves every epoch and keeps the last one.
        storage_options: what fsspec takes for the URL's scheme; never logged or stored.
        mode: "async": `fit` waits only while the state is copied. "sync": also while it is written.
        mirror: a second place for the run, usually a bucket, to which what was saved is copied behind training.
        mirror_options: as `storage_options`, for the mirror.
        restore_best: give the model the best weights when `fit` ends, whether it ended early or not.
        verbose: 1 prints a line for every epoch, saying what was decided and why.
        hooks: who else hears of each row and decision, as `Checkpointer` takes them.
        objects: further objects to save and to resume, by name: a data loader with `state_dict`, a dict of your own.

    Raises:
        ConfigError, PolicyError: a setting is wrong.

    `fit` raises what a `Checkpointer` raises; a SIGTERM ends it with SystemExit(143) after saving.

    Example:
        >>> policy = CheckpointPolicy(monitor="val_loss", keep_best=3, patience=5)
        >>> model.fit(x, y, epochs=50, validation_data=val, callbacks=[BestCheckpoint("runs/8", policy)])
    """

    async_safe = True
    """Keras may call `on_train_batch_end` beside training, so that no step waits for its logs: it only counts."""

    def __init__(  # noqa: PLR0913 - all but two by name
        self,
        url: str | os.PathLike[str],
        policy: CheckpointPolicy | Mapping[str, Any] | None = None,
        *,
        storage_options: Mapping[str, Any] | None = None,
        mode: Literal["async", "sync"] = "async",
        mirror: str | os.PathLike[str] | None = None,
        mirror_options: Mapping[str, Any] | None = None,
        restore_best: bool = True,
        verbose: int = 0,
        hooks: Sequence[Hook] = (),
        objects: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.url = os.fspath(url)
        self._shown = without_password(self.url)
        self.policy = CheckpointPolicy() if policy is None else policy
        """As it was given."""
        self.decision: Decision | None = None
        """What was decided at the end of the last epoch."""
        self.restore_best = restore_best
        self.verbose = verbose
        self._storage_options = storage_options
        self._mode = mode
        self._mirror, self._mirror_options = mirror, mirror_options
        self._hooks = hooks
        self._objects = dict(objects or {})
        self._open: Checkpointer | None = None
        self._last: Checkpointer | None = None
        self._counting = threading.Lock()
        self._steps_before = self._steps = self._made_before = 0
        self._warned_of: set[str] = set()
        self._check()

    @property
    def checkpointer(self) -> Checkpointer:
        """The Checkpointer of the `fit` under way, or of the last one, for reading: `run`, `history`, `monitors`.

        Raises:
            UsageError: there was no `fit` yet.
        """
        if self._last is None:
            raise UsageError("a BestCheckpoint has a checkpointer from the moment that fit begins; call fit first.")
        return self._last

    # ── hooks ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def on_train_begin(self, logs: Any = None) -> None:  # noqa: ARG002 - Keras' signature, here and below
        """Open the run and continue it."""
        self._let_go()
        model = self.model
        state.check_built(model)
        if not model.optimizer.built:
            model.optimizer.build(model.trainable_variables)
        self._warn_of_unsaved(model)
        policy = direction.directed(self.policy, lambda key: direction.compiled_direction(model, key))
        self._last = self._open = Checkpointer(
            self.url,
            policy,
            storage_options=self._storage_options,
            mode=self._mode,
            mirror=self._mirror,
            mirror_options=self._mirror_options,
            hooks=self._hooks,
            model=model,
            optimizer=model.optimizer,
            **self._objects,
        )
        # If nobody fits again, the run is let go when this callback is forgotten, or at the end of the program.
        self._finalizer = weakref.finalize(self, _forget, self._open)
        position = self._open.resume()
        if position is not None:
            self._continue_at(position)

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:  # noqa: ARG002
        """Count the steps of the epoch from here."""
        self.model._initial_epoch = None  # noqa: SLF001 - or the next `fit` of this model would begin there again
        self._steps_before, self._steps = self._opened().position.step, 0
        self._made_before = self._made() or 0

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:  # noqa: ARG002
        """Close the steps before this batch: a batch's begin, not its end, is told by the thread that trains."""
        if batch:
            self._opened().log_step(step=self._steps_before + self._steps_made(batch))

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:  # noqa: ARG002
        """Count; with `steps_per_execution`, `batch` is the last one of several, even if the epoch ends before it."""
        in_epoch = (self.params or {}).get("steps") or batch + 1
        with self._counting:
            self._steps = max(self._steps, min(batch + 1, in_epoch))

    def on_epoch_end(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        """Log the epoch; stop training if a monitor says so; save what is due at the end."""
        opened = self._opened()
        step = self._steps_before + self._steps_made(self._steps)
        decision = opened.log(self._numbers(logs or {}), epoch=epoch, step=step)
        if decision.stop:
            self.model.stop_training = True
        if self.model.stop_training or epoch + 1 == (self.params or {}).get("epochs"):
            # Before `on_train_end`: until then, Keras and other callbacks put averages or older weights into the model.
            decision = replace(decision, save_reasons=decision.save_reasons or opened._save_at_end())  # noqa: SLF001
        self.decision = decision
        if self.verbose:
            say(f"\nEpoch {epoch + 1}: {decision.reason}")

    def on_train_end(self, logs: Any = None) -> None:  # noqa: ARG002
        """Wait for what is being saved, and give the model its best weights."""
        ended = self._opened()
        self.model._initial_epoch = None  # noqa: SLF001 - see `on_epoch_begin`
        try:
            late = ended._save_at_end()  # noqa: SLF001 - whoever ended `fit` did so after `on_epoch_end`
        finally:
            self._let_go(self._cause(ended))
        if late:
            warn_caller(_SAVED_LATE)
        if self.restore_best and ended.monitors:
            self._restore_best(ended)

    # ── in order ──────────────────────────────────────────────────────────────────────────────────────────────────

    def _check(self) -> None:
        """Raise at construction what can be known there."""
        open_backend(self.url, self._storage_options)
        if self._mirror is not None:
            open_backend(self._mirror, self._mirror_options)
        if self._mode not in ("async", "sync"):
            raise ConfigError(f"unknown mode {self._mode!r} of a BestCheckpoint. Use mode='async' or mode='sync'.")
        if taken := {"model", "optimizer", state.RNN_STATES} & self._objects.keys():
            raise ConfigError(
                f"objects cannot have the name {taken.pop()!r}: it is the model's own. Call it something else."
            )
        if isinstance(self.policy, Mapping):
            direction.check_fields(self.policy)
            policy = direction.directed(self.policy, lambda _: "min")
        else:
            policy = checked_policy(self.policy)
        keeps_best = any(isinstance(rule, KeepBest | KeepAll) for rule in simple_keep_rules(policy.keep_rule))
        if self.restore_best and policy.monitor and not keeps_best:
            raise ConfigError(
                "restore_best, and the policy keeps nothing for being the best: set keep_best=1, or restore_best=False."
            )
        if any("exception" in str(rule) for rule in policy.when_rules):
            warn_caller(
                "on_exception has no effect under fit: Keras tells its callbacks nothing of exceptions. What was saved "
                "before stays; every_n_steps or every_n_seconds saves within epochs."
            )

    def _warn_of_unsaved(self, model: keras.Model) -> None:
        """Say which optimizers `fit` does not know of, as those of a GAN's `train_step`, and nobody handed over."""
        own = {name: value for name, value in vars(model).items() if isinstance(value, keras.optimizers.Optimizer)}
        known = {id(model.optimizer), *map(id, self._objects.values())}
        if unsaved := sorted({name.lstrip("_") for name, value in own.items() if id(value) not in known}):
            warn_caller(
                f"the model has optimizers of its own ({', '.join(unsaved)}), whose state is not saved. Build each "
                f"with its variables, and hand it over: BestCheckpoint(…, objects={{'{unsaved[0]}': …}})."
            )

    def _continue_at(self, position: Position) -> None:
        opened, epochs = self._opened(), (self.params or {}).get("epochs", 0)
        out_of_patience = any(monitor.stopped for monitor in opened.monitors)
        begin = max(position.next_epoch, epochs if out_of_patience else 0)
        self.model._initial_epoch = begin  # noqa: SLF001 - Keras' BackupAndRestore does so; there is no other way
        if self.verbose:
            say(f"\nResuming {self._shown} from {position}{', which is out of patience' if out_of_patience else ''}")
        if position.steps_in_epoch:
            warn_caller(
                f"the run {self._shown} was left in the middle of epoch {position.next_epoch + 1}, after "
                f"{position.steps_in_epoch} of its steps. fit cannot begin inside an epoch, so it begins this one anew "
                "with the weights of then; its first batches are trained on twice."
            )

    def _steps_made(self, counted: int) -> int:
        """Return the steps of this epoch that were counted; where the last several were fewer, as the optimizer says.

        Keras' hooks are told the same for the last ones, however many there were.
        """
        made = self._made()
        if made is None:
            return counted
        fewest = max(0, counted - self.model.steps_per_execution) + 1
        return made - self._made_before if fewest <= made - self._made_before <= counted else counted

    def _made(self) -> int | None:
        """Return the steps of the optimizer, if only that knows of how many in an epoch Keras makes several at a time.

        One that takes several batches for a step does not. To ask is to wait for the device.
        """
        optimizer = self.model.optimizer
        known = (self.params or {}).get("steps") is not None or self.model.steps_per_execution == 1
        if known or optimizer.gradient_accumulation_steps:
            return None
        state.attach(self.model)
        return int(keras.ops.convert_to_numpy(optimizer.iterations))

    def _numbers(self, logs: Mapping[str, Any]) -> dict[str, Any]:
        """Return the logs that are numbers, and those that are monitored, whatever they are."""
        monitored = {monitor.key: logs[monitor.key] for monitor in self._opened().monitors if monitor.key in logs}
        found = numbers(logs) | monitored
        if others := logs.keys() - found.keys() - self._warned_of:
            self._warned_of |= others
            warn_caller(
                f"{', '.join(sorted(others))} in the logs of fit is no number, so the run's history does not have it."
            )
        return found

    def _restore_best(self, ended: Checkpointer) -> None:
        try:
            best = ended.run.best
        except CheckpointNotFoundError:
            warn_caller(
                f"{self._shown} holds no checkpoint that was ranked, so the model keeps the weights of its last epoch."
            )
            return
        restoring.restore(best, {"model": self.model}, with_rng=False)
        if self.verbose:
            say(f"\nRestoring model weights from the end of the best epoch: {(best.epoch or 0) + 1}.")

    def _cause(self, ended: Checkpointer) -> Cause:
        """Return why `fit` came to its end, unless a monitor wanted that. Keras does not say which callback did."""
        if self.model.stop_training:
            return "callback"
        epochs = (self.params or {}).get("epochs")
        return "closed" if epochs is None or ended.position.next_epoch < epochs else "complete"

    def _let_go(self, cause: Cause = "exception") -> None:
        """Close what is open: at the end of `fit`, or before the next one, if an exception ended the last."""
        ended, self._open = self._open, None
        if ended is not None:
            self._finalizer.detach()
            ended._close(cause)  # noqa: SLF001 - `close` does not know why

    def _opened(self) -> Checkpointer:
        if self._open is None:
            raise UsageError("a BestCheckpoint's hooks are for fit to call, from on_train_begin on.")
        return self._open


_SAVED_LATE = (
    "a callback that is listed after BestCheckpoint ended fit, so the last epoch was saved late: the averages of an "
    "optimizer, or weights that a callback restored, may be in the model by then. List BestCheckpoint last."
)


def _forget(opened: Checkpointer) -> None:
    """An exception ended `fit`, and the callback is gone: wait for the save in flight, and say if it failed.

    Python collects garbage in whichever thread it likes, also in one that the save itself needs, such as that of a
    bucket's event loop. Only the main thread may wait.
    """
    if threading.current_thread() is threading.main_thread():
        _end(opened)
    else:
        threading.Thread(target=_end, args=(opened,), name="keepbest-forgotten").start()


def _end(opened: Checkpointer) -> None:
    try:
        opened.close(save=False)
    except KeepbestError as error:
        warnings.warn(str(error), stacklevel=1)
