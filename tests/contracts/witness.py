"""Witness: remembers the state of all objects at each save, and says in what the checkpoints of the run differ."""

from __future__ import annotations

import copy
import random
import threading
import time

import numpy as np

import keepbest
from keepbest import Checkpointer, CheckpointPolicy
from keepbest.core.tensor import TensorSource

EVERY_STEP = CheckpointPolicy(every_n_epochs=None, every_n_steps=1, keep_all=True)


class Witness:
    """A Checkpointer that saves at every step, beside a second copy of all that it saves."""

    def __init__(self, url, *, framework="torch", settings=None, **objects):
        self.url, self.objects, self.framework = url, objects, framework
        self.seen = []
        self.ckpt = Checkpointer(url, EVERY_STEP, **(settings or {}), **objects)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.ckpt.__exit__(*error)

    def step(self):
        """Remember the state, and close the step, which saves."""
        self.seen.append({name: copy.deepcopy(_state_of(obj)) for name, obj in self.objects.items()})
        self.ckpt.log_step()

    def differences(self):
        """Wait for all saves; return what is not as it was at its step, such as "step 3: optimizer.state.0.step"."""
        self.ckpt.wait()
        found = sorted(keepbest.open_run(self.url).checkpoints(), key=lambda checkpoint: checkpoint.sequence)
        wrong = [] if len(found) == len(self.seen) else [f"{len(found)} checkpoints of {len(self.seen)} saves"]
        for checkpoint, state in zip(found, self.seen, strict=False):
            for name, expected in state.items():
                loaded = checkpoint.load(name, framework=self.framework)
                wrong += [f"step {checkpoint.step}: {place}" for place in differences(expected, loaded, name)]
        return wrong


def _state_of(obj):
    return obj.state_dict() if hasattr(obj, "state_dict") else obj


def differences(one, other, path=""):
    """Yield where two nested states differ in a type, a key, or a single bit of a tensor."""
    if hasattr(one, "shape") and hasattr(one, "dtype"):
        if not hasattr(other, "dtype") or one.dtype != other.dtype or tuple(one.shape) != tuple(other.shape):
            yield f"{path}: {one.dtype} {tuple(one.shape)}, not {getattr(other, 'dtype', other)}"
        elif bits(one) != bits(other):
            yield path
    elif isinstance(one, dict | list | tuple):
        mine, theirs = _items(one), _items(other) if _same_kind(one, other) else {}
        if list(mine) != list(theirs):
            yield f"{path}: other {'keys' if isinstance(one, dict) else 'items'}"
        else:
            for key, value in mine.items():
                yield from differences(value, theirs[key], f"{path}.{key}")
    elif type(one) is not type(other) or not (one == other or one != one):  # noqa: PLR0124 - NaN
        yield f"{path}: {one!r}, not {other!r}"


def _same_kind(one, other):
    return isinstance(other, dict) if isinstance(one, dict) else type(one) is type(other)


def _items(container):
    return container if isinstance(container, dict) else dict(enumerate(container))


def bits(tensor):
    """Return the bytes of a tensor of NumPy or PyTorch."""
    if hasattr(tensor, "resolve_conj"):
        import torch

        plain = tensor.detach().resolve_conj().resolve_neg().contiguous().reshape(-1)
        return plain.view(torch.uint8).numpy().tobytes()
    return np.ascontiguousarray(tensor).tobytes()


def delay_copier(monkeypatch, *, upto=0.0005, seed=0):
    """Let the thread that copies dawdle before each tensor; others go on as ever."""
    dice = random.Random(seed)
    before_each_copy(monkeypatch, lambda: time.sleep(dice.random() * upto))


def hold_copier(monkeypatch):
    """Return an event that the thread that copies waits for."""
    free = threading.Event()
    before_each_copy(monkeypatch, lambda: free.wait(60))
    return free


def before_each_copy(monkeypatch, call):
    """Have `call` called by the thread that copies before each tensor."""
    fill = TensorSource.fill

    def copying(self, target, came=None):
        if threading.current_thread().name.startswith("keepbest-copier"):
            call()
        fill(self, target, came)

    monkeypatch.setattr(TensorSource, "fill", copying)
