"""Callbacks that save a Keras model every few batches, and how long they hold `fit`, on the TensorFlow backend."""

from __future__ import annotations

import functools
import itertools
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from steps import overhead_of

EVERY = 10
"""Batches after which a callback saves."""

WARM = 5
"""Batches of a `fit` that are not counted."""

PLAIN = slice(WARM, WARM + EVERY)
"""Batches of a `fit` at which the callback is not called yet; what saving costs is compared with these.

Not with another `fit`: from one to the next, TensorFlow's steps take 75 ms or 107, whether it saves or not.
"""

COUNTED = slice(25, 35)
"""Batches from where the callback is called, with the third save in their midst, the first that is like all after it.

The first makes what a saver keeps, its memory and its threads; the second finds no file of a checkpoint that has been
replaced, which all later ones do.
"""


def best_checkpoint(folder: Path) -> Any:
    """Return the whole service."""
    from keepbest import CheckpointPolicy
    from keepbest.adapters.keras import BestCheckpoint

    policy = CheckpointPolicy(every_n_epochs=None, every_n_steps=EVERY, at_end=False)
    return BestCheckpoint(folder / "run", policy, restore_best=False)


def model_checkpoint(folder: Path) -> Any:
    """Return the drop-in."""
    from keepbest.adapters.keras import ModelCheckpoint

    return ModelCheckpoint(folder / "model.keras", save_freq=EVERY)


def model_checkpoint_safetensors(folder: Path) -> Any:
    """Return the drop-in, for the weights alone."""
    from keepbest.adapters.keras import ModelCheckpoint

    return ModelCheckpoint(folder / "model.safetensors", save_freq=EVERY)


def keras_model_checkpoint(folder: Path) -> Any:
    """Return Keras' own."""
    import keras

    return keras.callbacks.ModelCheckpoint(folder / "model.keras", save_freq=EVERY)


def keras_orbax_checkpoint(folder: Path) -> Any:
    """Return Keras' own on Orbax, which saves in the background."""
    import keras

    return keras.callbacks.OrbaxCheckpoint(str(folder / "run"), save_freq=EVERY)


class KerasMeasurements:
    """Belongs to a process of its own."""

    def __init__(self, place: str, megabytes: int, folder: Path) -> None:
        import os

        os.environ["KERAS_BACKEND"] = "tensorflow"
        os.environ["CUDA_VISIBLE_DEVICES"] = "-1"
        os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
        import keras
        import numpy as np
        from cases import class_of

        self._make: Callable[[Path], Any] = class_of(place)
        self._folder = folder
        self._numbers = itertools.count()
        width = int((megabytes * 10**6 / (4 * 4 * 3)) ** 0.5)
        layers = [keras.layers.Dense(width, "relu", use_bias=False) for _ in range(4)]
        self._model = keras.Sequential([keras.Input((width,)), *layers])
        self._model.compile(optimizer="adam", loss="mse")
        batch = 16
        self._data = np.zeros((batch * (PLAIN.stop + COUNTED.stop + 1), width), np.float32) + 0.5
        self._batch = batch
        self._fit(EVERY, [])

    def fit(self) -> dict[str, list[float]]:
        """Train, first without the callback's hooks for batches, then with them."""
        folder = self._folder / str(next(self._numbers))
        folder.mkdir()
        callback = self._make(folder)
        held = timed(callback, after=PLAIN.stop)
        steps = self._fit(PLAIN.stop + COUNTED.stop, [callback])
        shutil.rmtree(folder)
        return {"blocked": [sum(held()[COUNTED])], **overhead_of(steps[PLAIN], steps[PLAIN.stop :][COUNTED])}

    def _fit(self, steps: int, callbacks: list[Any]) -> list[float]:
        """Return the seconds from each batch's begin to the next one's, so that callbacks are part of it."""
        import keras

        begins: list[float] = []
        clock = keras.callbacks.LambdaCallback(on_train_batch_begin=lambda *_, **__: begins.append(time.perf_counter()))
        data = self._data[: self._batch * (steps + 1)]
        self._model.fit(data, data, batch_size=self._batch, verbose=0, shuffle=False, callbacks=[clock, *callbacks])
        return [after - before for before, after in itertools.pairwise(begins)]


def timed(callback: Any, *, after: int) -> Callable[[], list[float]]:
    """Let the callback's hooks for batches note their time; return the function that says it, by batch.

    They are not called for the first batches, `after` of them; the next one is their first.
    """
    seconds: list[float] = []

    def wrap(hook: Callable[..., None], *, begins: bool) -> Callable[..., None]:
        @functools.wraps(hook)
        def noting(batch: int, logs: Any = None) -> None:
            if batch < after:
                return
            begin = time.perf_counter()
            hook(batch - after, logs)
            if begins or not seconds:
                seconds.append(0.0)
            seconds[-1] += time.perf_counter() - begin

        return noting

    callback.on_train_batch_begin = wrap(callback.on_train_batch_begin, begins=True)
    callback.on_train_batch_end = wrap(callback.on_train_batch_end, begins=False)
    return lambda: seconds
