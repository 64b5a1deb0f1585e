"""Keras' BackupAndRestore, resumed by `fit` with the same callback."""

from __future__ import annotations

import contextlib
from pathlib import Path

from faults.children import Voice
from faults.subjects import keras_checkpoint
from faults.subjects.keras_checkpoint import build, epoch_in, keras, np

NAME = "Keras BackupAndRestore"
PROMISE = "an interrupted `fit` goes on from the last backup; none of damage"
VERSION = keras_checkpoint.VERSION


class Look(keras.callbacks.Callback):
    """Remembers the epoch that was restored, and ends `fit` then."""

    epoch: int | None = None

    def on_epoch_begin(self, epoch: int, logs: object = None) -> None:
        """What was restored is there."""
        self.epoch = epoch_in(self.model) if epoch else None
        raise StopIteration


def train(folder: Path, voice: Voice, *, warm: int, window: int) -> None:
    """Fit for some epochs more; the callback finds out where it was."""
    found = newest(folder)
    begin = 0 if found is None else found + 1
    keras_checkpoint.fit(build(), _backup(folder), voice, begin=begin, warm=warm, window=window)


def newest(folder: Path) -> int | None:
    """Have `fit` restore, and look."""
    look, batch = Look(), np.zeros((1, keras_checkpoint.WIDTH), np.float32)
    with contextlib.suppress(StopIteration):
        build().fit(batch, batch, epochs=1 << 20, callbacks=[_backup(folder), look], verbose=0)
    return look.epoch


def load(folder: Path, epoch: int) -> int:
    """Have `fit` restore, and look."""
    found = newest(folder)
    assert found is not None
    return found


def _backup(folder: Path) -> keras.callbacks.BackupAndRestore:
    return keras.callbacks.BackupAndRestore(folder / "backup", delete_checkpoint=False)
