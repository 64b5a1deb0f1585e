"""ModelCheckpoint: a drop-in for Keras' own. It follows Keras' hooks; `choice` decides, `shelf` keeps the files."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from typing import Any

import keras

from ...core.caller import warn_caller
from ...core.direction import Mode, direction
from ...errors import ConfigError, DamagedFileError, StorageError
from ...storage.backend import open_backend
from ...storage.manifest import Score
from ...storage.remote_errors import without_password
from . import choice, shelf
from .choice import Choice
from .console import say
from .direction import compiled_direction
from .filepath import parse
from .logs import number, numbers
from .shelf import Entry, Shelf, Standing


class ModelCheckpoint(keras.callbacks.Callback):  # type: ignore[misc]  # Keras has no types
    """Saves a Keras model as `keras.callbacks.ModelCheckpoint` does, with its arguments, files and messages, safely.

    A file is replaced only by a whole one, at once, and is on disk when the epoch ends. `best` moves on only when the
    file is safe. NaN is never the best. A model that cannot be judged never replaces one that was. What it takes to do
    so lies in a hidden folder `.keepbest` beside the files.

    Args:
        filepath: a path, or a URL (`s3://…`, `gs://…`); with the placeholders `{epoch}` and `{batch}`, counted from 1,
            and any logged metric, `{val_loss:.2f}`. It ends in `.keras` or `.h5`; in `.weights.h5` with
            save_weights_only; or in `.safetensors`: the weights alone, written by keepbest, which is fast, and read by
            `load_weights` and by safetensors itself.
        monitor: the metric that save_best_only looks at.
        verbose: 1 prints what is done.
        save_best_only: save only when the metric is better than ever.
        save_weights_only: save the weights alone.
        mode: "min" or "max"; "auto" asks the compiled metric, then keepbest's table of names.
        save_freq: "epoch", or a number of batches, counted on over epochs.
        initial_value_threshold: what the first value must be better than, with save_best_only.
        resume: continue with the best of the run before, where this filepath had one, and place its file again.
        storage_options: what fsspec takes for the URL's scheme; never logged or stored.

    Raises:
        ConfigError (a ValueError): a setting is wrong.

    `fit` raises a `KeepbestError` if a file cannot be saved; what was there before is unharmed. What is wrong with the
    place or the credentials it says before the first epoch, at the cost of one request.

    Example:
        >>> best = ModelCheckpoint("runs/best.keras", monitor="val_loss", save_best_only=True, verbose=1)
        >>> model.fit(x, y, epochs=10, validation_data=val, callbacks=[best])
    """

    def __init__(  # noqa: PLR0913, PLR0917 - Keras' own arguments, in its order
        self,
        filepath: str | os.PathLike[str],
        monitor: str = "val_loss",
        verbose: int = 0,
        save_best_only: bool = False,  # noqa: FBT001, FBT002
        save_weights_only: bool = False,  # noqa: FBT001, FBT002
        mode: str = "auto",
        save_freq: str | int = "epoch",
        initial_value_threshold: float | None = None,
        *,
        resume: bool = False,
        storage_options: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        if mode not in ("auto", "min", "max"):
            warn_caller(f"{type(self).__name__} mode '{mode}' is unknown, fallback to auto mode.")
            mode = "auto"
        if save_freq != "epoch" and not isinstance(save_freq, int):
            raise ConfigError(f"Unrecognized save_freq: {save_freq}. Expected save_freq are 'epoch' or integer values")
        if initial_value_threshold is not None and math.isnan(initial_value_threshold):
            raise ConfigError("initial_value_threshold is NaN, and nothing is better than that. Leave it out.")
        self._path = parse(filepath, save_weights_only=save_weights_only)
        self.filepath = self._path.template
        self.monitor = monitor
        self.verbose = verbose
        self.save_best_only = save_best_only
        self.save_weights_only = save_weights_only
        self.mode = mode
        self.save_freq = save_freq
        self.best: float | None = initial_value_threshold
        """The best value of the files that were saved."""
        self.monitor_op: Any = None
        """`keras.ops.less` or `keras.ops.greater`, from the first use on."""
        self._direction: Mode | None = None
        self._shelf = Shelf(self._path.hidden_run, storage_options)
        self._storage_options = storage_options
        self._resume = resume
        self._resumed: Standing | None = None
        self._threshold = initial_value_threshold
        self._held: dict[str, float | None] = {}
        self._epoch = 0
        self._batches = 0
        self._last_batch: int | None = None
        open_backend(self._path.hidden_run, storage_options)

    @property
    def async_safe(self) -> bool:
        """Keras need not wait for each batch's logs where nothing is done with them."""
        return self.save_freq == "epoch"

    # ── hooks ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def on_train_begin(self, logs: Any = None) -> None:  # noqa: ARG002 - Keras' signature, here and below
        """Continue with the run before, if that was asked for; else look whether there is a place to save to."""
        if self._resume:
            self._continue()
            self._resume = False
        else:
            self._shelf.look()

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:  # noqa: ARG002
        """Note the epoch, for files that are saved within it."""
        self._epoch = epoch

    def on_train_batch_end(self, batch: int, logs: Mapping[str, Any] | None = None) -> None:
        """Save after every `save_freq` batches."""
        if self.save_freq != "epoch" and self._is_due(batch):
            self._save(self._epoch, batch, logs or {})

    def on_epoch_end(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        """Save, with save_freq="epoch"."""
        if self.save_freq == "epoch":
            self._save(epoch, None, logs or {})

    # ── in order ──────────────────────────────────────────────────────────────────────────────────────────────────

    def _is_due(self, batch: int) -> bool:
        """Count batches over epochs, from the last save; with `steps_per_execution` several at a time."""
        new_epoch = self._last_batch is None or batch <= self._last_batch
        self._batches += batch + 1 if new_epoch else batch - (self._last_batch or 0)
        self._last_batch = batch
        if self._batches < int(self.save_freq):
            return False
        self._batches = 0
        return True

    def _save(self, epoch: int, batch: int | None, logs: Mapping[str, Any]) -> None:
        path = self._path.at(epoch, batch, logs)
        shown = without_password(path)
        chosen = self._choose(epoch, path, logs)
        if chosen.warning is not None:
            warn_caller(chosen.warning)
        self._say(chosen.message)
        if not chosen.save:
            return
        if shelf.is_folder(path):
            raise StorageError(
                shown,
                "Please specify a non-directory filepath for ModelCheckpoint. Filepath used is an existing directory: "
                + shown,
            )
        self._keep(path, epoch, batch, logs, chosen.value)
        self._held[path] = chosen.value
        self.best = self.best if chosen.value is None else chosen.value
        self._say(f"\nEpoch {epoch + 1}: finished saving model to {shown}")

    def _choose(self, epoch: int, path: str, logs: Mapping[str, Any]) -> Choice:
        if not self.save_best_only:
            return choice.always(epoch=epoch, path=without_password(path))
        lower = self._set_direction() == "min"
        return choice.if_better(
            epoch=epoch,
            path=without_password(path),
            monitor=self.monitor,
            current=logs.get(self.monitor),
            best=self.best,
            better=lambda value, best: value < best if lower else value > best,
            held=lambda: self._value_at(path),
        )

    def _set_direction(self) -> Mode:
        """Return which way is better; asked for at the first use, when the compiled metrics are built."""
        if self._direction is None:
            declared = compiled_direction(self.model, self.monitor) if self.mode == "auto" else None
            self._direction = declared or direction(self.monitor, self.mode)
            self.monitor_op = keras.ops.less if self._direction == "min" else keras.ops.greater
            self._check_continues()
        return self._direction

    def _value_at(self, path: str) -> float | None:
        """Return the value of the file at `path`; one from before is taken to have the threshold's."""
        if path in self._held or self._threshold is None:
            return self._held.get(path)
        return self._threshold if shelf.exists(path, self._storage_options) else None

    def _keep(self, path: str, epoch: int, batch: int | None, logs: Mapping[str, Any], value: float | None) -> None:
        mode = self._direction
        entry = Entry(
            path=path,
            epoch=epoch,
            step=_step(self.model),
            reason="improvement" if value is not None else "epoch" if batch is None else "step",
            metrics=numbers(logs),
            score=Score(monitor=self.monitor, mode=mode, value=value)
            if value is not None and mode is not None
            else None,
            standing=Standing(
                monitor=self.monitor,
                mode=mode,
                best=self.best if value is None else value,
                file=self._path.relative(path),
                value=value,
            ),
        )
        if self._path.is_fast:
            self._shelf.keep_weights(entry, self.model)
        elif self.save_weights_only:
            self._shelf.keep_file(entry, lambda made: self.model.save_weights(made, overwrite=True))
        else:
            self._shelf.keep_file(entry, lambda made: self.model.save(made, overwrite=True))

    def _continue(self) -> None:
        found = self._shelf.standing()
        if found is None:
            return
        self._resumed, place = found
        self._check_continues()
        if not self._path.could_be(self._resumed.file):
            raise DamagedFileError(
                self._shelf.backend.url,
                f"it names {self._resumed.file!r:.200}, which {without_password(self.filepath)} never gives",
            )
        path = self._path.folder + self._resumed.file
        place(path)
        self._held[path] = self._resumed.value
        self.best = self.best if self._resumed.best is None else self._resumed.best

    def _check_continues(self) -> None:
        """The best of the run before must be comparable with values to come."""
        before = self._resumed
        if before is None or not self.save_best_only or before.best is None:
            return
        mode = self._direction or (None if self.mode == "auto" else self.mode)
        if before.monitor != self.monitor or (mode is not None and before.mode not in (mode, None)):
            raise ConfigError(
                f"resume=True, but what lies in {self._shelf.backend.url} was judged by {before.monitor} "
                f"(mode {before.mode!r}), and now it is {self.monitor} (mode {mode or self.mode!r}), which cannot be "
                "compared. Keep the setting, or leave resume out."
            )

    def _say(self, message: str | None) -> None:
        if message is not None and self.verbose > 0:
            say(message)


def _step(model: keras.Model) -> int:
    """Return the steps that the optimizer has made; 0 where there is none, in a loop of one's own."""
    iterations = getattr(getattr(model, "optimizer", None), "iterations", 0)
    return int(number("iterations", getattr(iterations, "value", iterations)) or 0)
