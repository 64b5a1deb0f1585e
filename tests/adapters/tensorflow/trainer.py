"""A small, ordinary TensorFlow loop: digits, tf.data with shuffling, dropout, batch statistics, an average of weights.

A script: URL, kind of death, moment. The kinds: `never`; `step`, killed by SIGKILL at the end of that training step of
this process, right after its save was asked for; `call`, killed before that change of the file system. What survives
prints a fingerprint of all state and the number of steps that it trained.
"""

import hashlib
import itertools
import os
import signal
import sys

import keras
import tensorflow as tf
from sklearn.datasets import load_digits

from keepbest import Checkpointer, CheckpointPolicy

EPOCHS, STEPS, BATCH = 3, 8, 32


class Dense(tf.Module):
    def __init__(self, generator, inputs, outputs):
        super().__init__()
        self.w = tf.Variable(generator.normal([inputs, outputs], stddev=0.1))
        self.b = tf.Variable(tf.zeros(outputs))

    def __call__(self, x):
        return x @ self.w + self.b


class Classifier(tf.Module):
    """With the three kinds of what changes: trained weights, statistics that are not trained, random numbers."""

    def __init__(self):
        super().__init__()
        self.random = tf.random.Generator.from_seed(5)
        self.layers = {"hidden": Dense(self.random, 64, 24), "out": Dense(self.random, 24, 10)}
        self.mean = tf.Variable(tf.zeros(24), trainable=False)

    def __call__(self, x, *, training=False):
        x = self.layers["hidden"](x)
        if training:
            self.mean.assign(0.9 * self.mean + 0.1 * tf.reduce_mean(x, 0))
        x = tf.nn.relu(x - self.mean)
        if training:
            x = x * tf.cast(self.random.uniform(tf.shape(x)) > 0.3, x.dtype) / 0.7
        return self.layers["out"](x)


def build(*, jit=False):
    """Return the objects by name, and a function that makes one training step."""
    digits = load_digits()
    x, y = (digits.data[: STEPS * BATCH] / 16).astype("float32"), digits.target[: STEPS * BATCH].astype("int64")
    dataset = tf.data.Dataset.from_tensor_slices((x, y)).shuffle(100, seed=3).repeat().batch(BATCH).prefetch(2)
    model, optimizer = Classifier(), keras.optimizers.Adam(0.01)
    optimizer.build(model.trainable_variables)
    objects = {
        "model": model,
        "optimizer": optimizer,
        "data": iter(dataset),
        "ema": [tf.Variable(variable) for variable in model.trainable_variables],
        "step": tf.Variable(0, dtype=tf.int64),
    }

    @tf.function(jit_compile=jit)
    def train(x, y):
        with tf.GradientTape() as tape:
            losses = tf.nn.sparse_softmax_cross_entropy_with_logits(y, model(x, training=True))
            loss = tf.reduce_mean(losses)
        variables = model.trainable_variables
        optimizer.apply_gradients(zip(tape.gradient(loss, variables), variables, strict=True))
        for mean, variable in zip(objects["ema"], variables, strict=True):
            mean.assign(0.9 * mean + 0.1 * variable)
        objects["step"].assign_add(1)
        return loss

    return objects, lambda: train(*next(objects["data"]))


def variables_of(objects):
    """Return every variable of the objects."""
    return [*objects["model"].variables, objects["model"].random.state, *objects["ema"], objects["step"]] + [
        variable.value for variable in objects["optimizer"].variables
    ]


def fingerprint(objects):
    """Return a digest over every bit of the variables, and of the batch that would come next."""
    found = hashlib.sha256()
    for tensor in (*variables_of(objects), *next(objects["data"])):
        found.update(tensor.numpy().tobytes())
    return found.hexdigest()[:16]


def train(url, after_step=lambda: None, **policy):
    """Train, or go on training, to the end; returns the objects and the steps that were trained."""
    objects, step = build()
    trained = 0
    policy = CheckpointPolicy(monitor="loss", **({"every_n_steps": 3, "keep_best": 2} | policy))
    with Checkpointer(url, policy, **objects) as ckpt:
        for _ in ckpt.epochs(EPOCHS):
            for _ in range(ckpt.position.steps_in_epoch, STEPS):
                loss = step()
                trained += 1
                ckpt.log_step(loss=loss)
                after_step()
            ckpt.log(loss=loss)
    return objects, trained


def die_at_step(moment):
    """Return what kills this process when it is called for that time."""
    count = itertools.count(1)

    def after_step():
        if next(count) == moment:
            os.kill(os.getpid(), signal.SIGKILL)

    return after_step


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


if __name__ == "__main__":
    url, kind, moment = sys.argv[1], sys.argv[2], int(sys.argv[3])
    if kind == "call":
        die_before_call(moment)
    objects, trained = train(url, die_at_step(moment) if kind == "step" else lambda: None)
    print("ended", fingerprint(objects), trained)  # noqa: T201 - for the test that started it
