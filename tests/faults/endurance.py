"""Endurance: a training that goes on for thousands of saves, in processes that are killed, on a store that refuses.

What each epoch logs and leaves is known beforehand, so whoever looks at the run knows what must be in it. A ledger, a
file beside the run, has what was committed, however the process ended.
"""

from __future__ import annotations

import contextlib
import json
import logging
import math
import os
import random
import signal
import time
import warnings
from pathlib import Path

import numpy as np
from contracts.faults import FailingBackend, WrappedBackend
from faults.mortal import opened_through

from keepbest import Checkpointer, CheckpointPolicy
from keepbest.errors import StorageError
from keepbest.storage.layout import commit_sequence

STEPS = 9
"""Of an epoch; each is logged, and the epoch itself."""
ROWS = STEPS + 1
BEST, LAST, MILESTONE = 3, 2, 50
POLICY = CheckpointPolicy(
    monitor="val_loss",
    keep_best=BEST,
    keep_last=LAST,
    keep_every_n_epochs=MILESTONE,
    on_save_error="warn",
    on_sigterm=False,
)
SAMPLED = 50
"""Saves from one look at the process to the next."""


def val_loss(epoch):
    """Return what the epoch logs: falling, with ties, and now and then no number."""
    return math.nan if epoch % 41 == 7 else round(1 / (1 + epoch / 500) + random.Random(epoch).uniform(0, 0.05), 3)


def loss(step):
    """Return what the step logs."""
    return 1 / step


class Weights:
    """A model of three tensors, all of which say how many epochs it was trained."""

    def __init__(self):
        self.tensors = {name: np.zeros((64, 64), np.float32) for name in ("first", "second", "third")}

    def state_dict(self):
        return self.tensors

    def load_state_dict(self, state):
        self.tensors = state

    def train(self):
        for tensor in self.tensors.values():
            np.add(tensor, 1, out=tensor)

    @property
    def epochs(self):
        """How many epochs it was trained; None if its tensors do not agree."""
        values = {float(value) for tensor in self.tensors.values() for value in (tensor.min(), tensor.max())}
        return values.pop() if len(values) == 1 else None


class Ledger:
    """Lines that survive the process: each is one call to the system."""

    def __init__(self, path):
        self._fd = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC, 0o666)

    def note(self, kind, *facts):
        """Write one line."""
        os.write(self._fd, (json.dumps([kind, *facts]) + "\n").encode())


class NotingBackend(WrappedBackend):
    """Notes each commit that reached the store."""

    def __init__(self, inner, ledger):
        super().__init__(inner)
        self._ledger = ledger

    def _call(self, name, *args, **kwargs):
        result = super()._call(name, *args, **kwargs)
        if name == "put_if_absent" and (sequence := commit_sequence(args[0])) is not None:
            self._ledger.note("committed", sequence, json.loads(args[1])["body"]["epoch"])
        return result


class UnreliableBackend(FailingBackend):
    """Refuses a change now and then, before or after its effect; and kills its process at one call.

    Args:
        every: changes from one refusal to the next, about; None refuses nothing.
        calls: of any kind, until the process is killed; None for never.
    """

    def __init__(self, inner, ledger, *, every, calls, chance):
        super().__init__(NotingBackend(inner, ledger), -1, after=False)
        self._ledger, self._every, self._chance = ledger, every, chance
        self._left = calls
        self._arm()

    def refuse(self, effect):
        """Let an append be refused now and then."""
        if self._every is None or self._chance.random() > 1 / (ROWS * self._every):
            return effect()
        self._ledger.note("refused")
        if self._chance.random() < 0.5:
            effect()
        raise StorageError(self.url, "no answer (a test).")

    def _arm(self):
        self.trace.clear()
        self.at = -1 if self._every is None else self._chance.randrange(2 * self._every)
        self.after = self._chance.random() < 0.5

    def _call(self, name, *args, **kwargs):
        dies = self._left is not None and self._left <= 0
        if self._left is not None:
            self._left -= 1
        if dies and self._chance.random() < 0.5:
            os.kill(os.getpid(), signal.SIGKILL)
        try:
            result = super()._call(name, *args, **kwargs)
        except StorageError:
            if 0 <= self.at < len(self.trace):
                self._ledger.note("refused")
                self._arm()
            raise
        if dies:
            os.kill(os.getpid(), signal.SIGKILL)
        if len(self.trace) > self.at + 1:  # two threads passed it at once, or nothing is to be refused
            self._arm()
        return result if name != "append" else _Appender(self, result)


class _Appender:
    def __init__(self, owner, inner):
        self._owner, self.close, self._write = owner, inner.close, inner.write

    def write(self, data):
        self._owner.refuse(lambda: self._write(data))


def live(url, ledger_path, *, epochs, mode, every, calls, seed):  # noqa: PLR0913 - each is named
    """Open the run, resume it, and train until there are so many epochs, or until the process is killed."""
    chance, ledger = random.Random(seed), Ledger(ledger_path)
    weights, momentum = Weights(), {"mean": np.zeros(64, np.float32), "seen": 0}

    def wrap(backend):
        return UnreliableBackend(backend, ledger, every=every, calls=calls, chance=chance)

    logging.getLogger("keepbest").setLevel(logging.CRITICAL)  # what is refused is said there, too
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ckpt = None
        while ckpt is None:
            with contextlib.suppress(StorageError), opened_through(wrap):
                ckpt = Checkpointer(url, POLICY, mode=mode, weights=weights, momentum=momentum)
        ckpt.resume()
        found = ckpt.position.next_epoch, ckpt.position.step, weights.epochs, momentum["seen"], momentum["mean"][0]
        if found != (found[0], found[0] * STEPS, *[found[0]] * 3):
            ledger.note("harm", "torn", f"resumed at {found}")
        _train(ckpt, ledger, weights, momentum, epochs)
        ckpt.close()


def _train(ckpt, ledger, weights, momentum, epochs):
    for number, epoch in enumerate(range(ckpt.position.next_epoch, epochs)):
        for _ in range(STEPS):
            ckpt.log_step(loss=loss(ckpt.position.step + 1))
        weights.train()
        momentum["mean"] += 1
        momentum["seen"] += 1
        begin = time.perf_counter()
        ckpt.log(val_loss=val_loss(epoch))
        ledger.note("saved", round(1e6 * (time.perf_counter() - begin)))
        if number % SAMPLED == SAMPLED - 1:
            ckpt.wait()
            ledger.note("sampled", os.getpid(), number * ROWS, *_process())


def _process():
    """Return the bytes that this process has in memory, its threads, and its open files."""
    resident = int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return resident, len(os.listdir("/proc/self/task")), len(os.listdir("/proc/self/fd"))
