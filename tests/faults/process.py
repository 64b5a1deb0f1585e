"""Process: one that trains a small model with a Checkpointer, whose backends can die under it."""

from __future__ import annotations

import random
import threading
from dataclasses import dataclass

import numpy as np
import torch
import xxhash
from contracts.faults import Crash
from faults.mortal import Mortal, bury, opened_through
from faults.reference import Training

from keepbest import Checkpointer, CheckpointPolicy

SIZES = {"small": 3, "large": 400_000}
"""Inputs of the layer. Large files take another way to the disk than small ones, and are written over."""


@dataclass(frozen=True, kw_only=True)
class State:
    """What the objects and the random number generators hold, as digests."""

    model: str
    optimizer: str
    extra: str
    generators: str


class Process:
    """Its objects, and what it must know: `Training`. Dead when a backend of it is."""

    def __init__(self, rules, listed, *, size):
        self.knows = Training(rules=rules, view=dict(listed))
        self.save = None
        """The save that may still be under way."""
        self.ckpt = None
        self.mortals = []
        self.doomed = False
        layers = torch.nn.Linear(SIZES[size], 1), torch.nn.Linear(3, 3)
        layers[1].requires_grad_(requires_grad=False)
        self.model = torch.nn.ModuleDict({"trained": layers[0], "frozen": layers[1]})
        with torch.no_grad():
            for parameter in self.model.parameters():
                parameter.fill_(1)
        self.optimizer = torch.optim.SGD(layers[0].parameters(), lr=0.1, momentum=0.9)
        self.extra = {"seen": 0}

    def open(self, urls, *, mode, doom):
        """Open the run, and its mirror if there is a second URL; `doom`: how many calls it has to live, and its end."""

        def wrap(backend):
            self.mortals.append(Mortal(backend))
            if doom and len(self.mortals) == 1:
                self.doom(*doom)
            return self.mortals[-1]

        with opened_through(wrap):
            self.ckpt = Checkpointer(
                urls[0],
                CheckpointPolicy(**self.knows.rules.policy()),
                mode=mode,
                mirror=urls[1] if len(urls) > 1 else None,
                model=self.model,
                optimizer=self.optimizer,
                extra=self.extra,
            )

    @property
    def dead(self):
        """Nothing reaches a store any more."""
        return any(mortal.dead for mortal in self.mortals)

    def doom(self, calls, moment):
        """Let it die after so many more calls."""
        self.doomed = True
        self.mortals[0].doom(calls, moment)

    def bury(self):
        """See to it that nothing of it runs any more."""
        bury(self.ckpt, self.mortals)

    def step(self):
        """Train one step, by what the random number generators say."""
        drawn = random.random() + np.random.random() + torch.rand(()).item()
        for parameter in self.optimizer.param_groups[0]["params"]:
            parameter.grad = torch.full_like(parameter, drawn)
        self.optimizer.step()
        self.extra["seen"] += 1

    @property
    def state(self):
        """What its objects hold."""
        generators = [repr(random.getstate()), np.random.get_state(legacy=False), torch.get_rng_state()]
        return State(
            model=digest(dict(self.model.state_dict())),
            optimizer=digest(self.optimizer.state_dict()["state"]),
            extra=digest(self.extra),
            generators=digest(generators),
        )


def loaded(checkpoint):
    """Return digests of the objects that a checkpoint holds, by name, as a reader without the training loads them."""
    found = {name: checkpoint.load(name) for name in checkpoint.objects() if name != "rng"}
    if "optimizer" in found:
        found["optimizer"] = found["optimizer"]["state"]
    return {name: digest(value) for name, value in found.items()}


def digest(value):
    """Return a digest of nested plain data and arrays."""
    hasher = xxhash.xxh3_64()
    _fold(hasher, value)
    return hasher.hexdigest()


def _fold(hasher, value):
    if isinstance(value, dict):
        for key in sorted(value, key=str):
            hasher.update(str(key).encode())
            _fold(hasher, value[key])
    elif isinstance(value, list | tuple):
        for item in value:
            _fold(hasher, item)
    elif isinstance(value, torch.Tensor | np.ndarray):
        hasher.update(np.ascontiguousarray(value).data)
    else:
        hasher.update(repr(value).encode())


def silence_the_dead():
    """Let threads of dead processes end without a word; returns how to undo that."""
    before = threading.excepthook
    threading.excepthook = lambda told: None if issubclass(told.exc_type, Crash) else before(told)
    return lambda: setattr(threading, "excepthook", before)
