"""A small, ordinary Keras training: digits, dropout, batch normalisation, Adam. A script: URL, kind of death, moment.

The kinds: `never`; `step`, killed by SIGKILL at the end of that training step of this process; `call`, killed before
that change of the file system; `term`, sent SIGTERM at the end of that step. What survives prints a fingerprint of all
weights and the optimizer's state, and the epochs that were trained.
"""

import hashlib
import itertools
import os
import signal
import sys

import keras
import numpy as np
from sklearn.datasets import load_digits

from keepbest import CheckpointPolicy
from keepbest.adapters.keras import BestCheckpoint

EPOCHS = 5


def build():
    keras.utils.set_random_seed(11)
    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input((64,)),
            layers.Dense(16, activation="relu"),
            layers.BatchNormalization(),
            layers.Dropout(0.3),
            layers.Dense(10, activation="softmax"),
        ]
    )
    model.compile(keras.optimizers.Adam(0.01), "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def fingerprint(model):
    found = hashlib.sha256()
    for variable in (*model.variables, *model.optimizer.variables):
        found.update(np.ascontiguousarray(keras.ops.convert_to_numpy(variable.value)).tobytes())
    return found.hexdigest()[:16]


class Dying(keras.callbacks.Callback):
    """Sends this process a signal after so many training steps."""

    def __init__(self, number, moment):
        super().__init__()
        self.number, self.left = number, moment

    def on_train_batch_end(self, batch, logs=None):
        self.left -= 1
        if self.left == 0:
            os.kill(os.getpid(), self.number)


def die_before_call(moment):
    """Patch what changes a file system to kill this process before the call of that number."""
    count = itertools.count(1)

    def wrap(call):
        def wrapped(*args, **settings):
            if next(count) == moment:
                os.kill(os.getpid(), signal.SIGKILL)
            return call(*args, **settings)

        return wrapped

    for name in ("write", "fsync", "link", "unlink", "replace", "rename", "rmdir", "mkdir", "symlink"):
        setattr(os, name, wrap(getattr(os, name)))


def train(url, extra=(), *, shuffle=False, **policy):
    digits = load_digits()
    x, y = digits.data[:320].astype("float32") / 16, digits.target[:320]
    model = build()
    policy = CheckpointPolicy(monitor="val_loss", keep_best=2, **policy)
    trained = model.fit(
        x[:256],
        y[:256],
        validation_data=(x[256:], y[256:]),
        batch_size=32,
        epochs=EPOCHS,
        shuffle=shuffle,
        verbose=0,
        callbacks=[BestCheckpoint(url, policy, restore_best=False), *extra],
    )
    return model, trained.epoch


if __name__ == "__main__":
    url, kind, moment, shuffle = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4:] == ["shuffle"]
    if kind == "call":
        die_before_call(moment)
    dying = [Dying(signal.SIGTERM if kind == "term" else signal.SIGKILL, moment)] if kind in ("step", "term") else []
    model, epochs = train(url, dying, shuffle=shuffle)
    print("ended", fingerprint(model), epochs)  # noqa: T201 - for the test that started it
