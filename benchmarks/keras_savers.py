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
from turns import collect

EVERY = 10
"""Batches after which a callback saves."""

WARM = 5
"""Batches of a `fit` that are not counted."""

UNCOUNTED = 2
"""Saves that are not counted: the first makes what a saver keeps, its memory and its threads; the second finds no file
of a checkpoint that has been replaced, which all later ones do."""

PAIRS = 6
"""Blocks of `EVERY` batches in a `fit` that save, each with one before it that does not."""


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
        self._data = np.zeros((batch * (len(called()) + 1), width), np.float32) + 0.5
        self._batch = batch
        self._fit(EVERY, [])

    def fit(self) -> dict[str, list[float]]:
        """Train, by turns without the callback's hooks for batches, and with them.

        So blocks of one `fit` are compared that follow each other: from one `fit` to the next, TensorFlow's steps take
        75 ms or 107, whether it saves or not.
        """
        folder = self._folder / str(next(self._numbers))
        folder.mkdir()
        callback, calls = self._make(folder), called()
        held = timed(callback, calls)
        steps = self._fit(len(calls), [callback])
        shutil.rmtree(folder)
        samples: dict[str, list[float]] = {}
        for pair in range(UNCOUNTED, PAIRS):
            begin = len(calls) - 2 * EVERY * (PAIRS - pair)
            middle, end = begin + EVERY, begin + 2 * EVERY
            collect(samples, {"blocked": [sum(held[middle:end])]})
            collect(samples, overhead_of(steps[begin:middle], steps[middle:end]))
        return samples

    def _fit(self, steps: int, callbacks: list[Any]) -> list[float]:
        """Return the seconds from each batch's begin to the next one's, so that callbacks are part of it."""
        import keras

        begins: list[float] = []
        clock = keras.callbacks.LambdaCallback(on_train_batch_begin=lambda *_, **__: begins.append(time.perf_counter()))
        data = self._data[: self._batch * (steps + 1)]
        self._model.fit(data, data, batch_size=self._batch, verbose=0, shuffle=False, callbacks=[clock, *callbacks])
        return [after - before for before, after in itertools.pairwise(begins)]


def called() -> list[bool]:
    """Say of each batch of a `fit` whether the callback is called: in blocks that have its save in their midst."""
    pair = [False] * EVERY + [True] * EVERY
    return [False] * WARM + [True] * (EVERY // 2) + pair * PAIRS


def timed(callback: Any, calls: list[bool]) -> list[float]:
    """Let the callback's hooks for batches note their time; return what will hold the seconds, by batch.

    Where it is not called, it does not see that there was a batch.
    """
    seconds = [0.0] * len(calls)
    seen = list(itertools.accumulate(calls, initial=0))

    def wrap(hook: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(hook)
        def noting(batch: int, logs: Any = None) -> None:
            if batch < len(calls) and calls[batch]:
                begin = time.perf_counter()
                hook(seen[batch], logs)
                seconds[batch] += time.perf_counter() - begin

        return noting

    callback.on_train_batch_begin = wrap(callback.on_train_batch_begin)
    callback.on_train_batch_end = wrap(callback.on_train_batch_end)
    return seconds
