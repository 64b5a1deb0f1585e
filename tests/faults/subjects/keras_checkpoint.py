"""Keras' ModelCheckpoint onto one `.keras` file, loaded by `load_model`. On PyTorch: TensorFlow may not be forked."""

from __future__ import annotations

import os

os.environ["KERAS_BACKEND"] = "torch"

from pathlib import Path

import keras
import numpy as np
from faults.children import Voice

NAME = "Keras ModelCheckpoint"
PROMISE = "none of crashes or damage"
VERSION = keras.__version__
WIDTH = 512


class Become(keras.callbacks.Callback):
    """Gives the model the values of the epoch, and says when the kill may come. Comes first among the callbacks."""

    def __init__(self, voice: Voice, ready_at: int) -> None:
        super().__init__()
        self._voice, self._ready_at = voice, ready_at

    def on_epoch_begin(self, epoch: int, logs: object = None) -> None:
        """Become what training makes of it."""
        if epoch == self._ready_at:
            self._voice.ready()
        self.model.layers[-1].set_weights([content(epoch)])


class Say(keras.callbacks.Callback):
    """Says what is saved. Comes last among the callbacks."""

    def __init__(self, voice: Voice) -> None:
        super().__init__()
        self._voice = voice

    def on_epoch_end(self, epoch: int, logs: object = None) -> None:
        """All callbacks before have ended."""
        self._voice.say(f"saved {epoch}")


def train(folder: Path, voice: Voice, *, warm: int, window: int) -> None:
    """Fit for some epochs more, from the file."""
    found = newest(folder)
    begin = 0 if found is None else found + 1
    model = build() if found is None else keras.saving.load_model(_path(folder))
    saver = keras.callbacks.ModelCheckpoint(_path(folder))
    fit(model, saver, voice, begin=begin, warm=warm, window=window)


def newest(folder: Path) -> int | None:
    """Load the file."""
    return epoch_in(keras.saving.load_model(_path(folder))) if _path(folder).exists() else None


def load(folder: Path, epoch: int) -> int:
    """Load the file."""
    return epoch_in(keras.saving.load_model(_path(folder)))


def build() -> keras.Model:
    """Return a model whose learning rate is 0: what it was set to it stays."""
    model = keras.Sequential([keras.Input((WIDTH,)), keras.layers.Dense(WIDTH, use_bias=False)])
    model.compile(optimizer=keras.optimizers.SGD(0.0), loss="mse")
    return model


def fit(model, saver, voice: Voice, *, begin: int, warm: int, window: int) -> None:  # noqa: PLR0913 - by name
    """Fit, one batch an epoch."""
    batch = np.zeros((1, WIDTH), np.float32)
    callbacks = [Become(voice, begin + warm), saver, Say(voice)]
    epochs = begin + warm + window
    model.fit(batch, batch, epochs=epochs, initial_epoch=begin, callbacks=callbacks, verbose=0)


def content(epoch: int) -> np.ndarray:
    """Return what the weights are at the end of an epoch."""
    return (np.arange(WIDTH * WIDTH, dtype=np.float32) % 8191 + epoch * 8192).reshape(WIDTH, WIDTH)


def epoch_in(model: keras.Model) -> int:
    """Return the epoch that the weights are of.

    Raises:
        ValueError: they are of none, or of several.
    """
    values = np.asarray(model.layers[-1].get_weights()[0])
    epoch = round(float(values.flat[0]) / 8192)
    if not np.array_equal(values, content(epoch)):
        raise ValueError("these are no epoch's values")
    return epoch


def _path(folder: Path) -> Path:
    return folder / "model.keras"
