"""Saving to a local disk: which cases are measured on which training, and how often."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from cases import (
    DCP_ASYNC,
    DCP_OVERLAPPED,
    DCP_SHARED,
    FLOORS,
    KEEPBEST,
    KEEPBEST_SYNC,
    KERAS,
    KERAS_BEST,
    RAW_FRESH,
    RAW_RECYCLED,
    SAVERS,
    THREAD,
    TORCH,
)
from keras_savers import KerasMeasurements
from measurements import Measurements, prepared, weighed
from turns import Results, Turns, collect

KERAS_MB = 502
"""10⁶ bytes of weights and moments."""


class Turn(NamedTuple):
    """Cases that take turns."""

    what: str
    """A method of their measurements."""
    times: int
    names: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """Some cases on one training."""

    title: str
    """Unique."""
    model: str
    """A name in `models`."""
    cases: tuple[str, ...]
    turns: tuple[Turn, ...]
    prepare: Callable[[str, str, Path], Measurements] = prepared
    """Builds the training of a case and warms it up."""


@dataclass(slots=True)
class Found:
    """What was measured in one part."""

    title: str
    results: Results
    failed: dict[str, str] = field(default_factory=dict)

    def of(self, case: str, measure: str) -> list[float]:
        """Return the samples; empty if there are none."""
        return self.results.get(case, {}).get(measure, [])

    @property
    def nbytes(self) -> float:
        """The state's size, where one was asked for; else 0."""
        return next((self.of(case, "nbytes")[0] for case in self.results if self.of(case, "nbytes")), 0.0)

    def add(self, later: Found) -> None:
        """Take the samples of another time, with processes of its own."""
        for case, measured in later.results.items():
            collect(self.results.setdefault(case, {}), measured)
        self.failed |= later.failed


LARGE = "few large tensors, 0.5 GB"
GIBIBYTE = "few large tensors, 1 GiB"
SMALL = "10,000 small tensors"
RESNET = "ResNet with BatchNorm"
FROZEN = "transformer, tied, 95 % frozen"
WHOLE = "transformer, tied, all training"
MANY = "200 saves, one after each step"
KERAS_PART = "Keras on TensorFlow, 0.5 GB"

ASYNCHRONOUS = (
    KEEPBEST,
    THREAD,
    DCP_ASYNC,
    DCP_SHARED,
    DCP_OVERLAPPED,
    "Orbax async, NumPy",
    "Orbax async, JAX",
    "Lightning AsyncCheckpointIO",
)
"""Those that are measured within a training; the others hold it for as long as their call takes."""


def plan(*, quick: bool) -> list[Part]:
    """Return what is measured on PyTorch, in this order; a part that is there several times is measured so often.

    What a gibibyte costs depends on the minute, and on where in memory a process happens to lie: its turns are spread
    over the run, each time with fresh processes.
    """
    return _quick() if quick else _full()


def _full() -> list[Part]:
    everything = tuple(SAVERS)
    large = Part(
        title=LARGE,
        model=LARGE,
        cases=everything,
        turns=(
            Turn("size", 1, (KEEPBEST,)),
            Turn("save", 5, everything),
            Turn("blocked", 5, ASYNCHRONOUS),
            Turn("restore", 5, everything),
            Turn("memory", 2, tuple(name for name in SAVERS if name not in FLOORS)),
            Turn("overhead", 5, (KEEPBEST, DCP_ASYNC)),
            Turn("overhead", 5, (KEEPBEST,)),  # a hundred steps in all
            Turn("every_step", 5, (KEEPBEST, DCP_ASYNC)),
        ),
    )
    gibibyte = (KEEPBEST, KEEPBEST_SYNC, TORCH, RAW_FRESH, RAW_RECYCLED)
    one = Part(
        title=GIBIBYTE,
        model=GIBIBYTE,
        cases=gibibyte,
        turns=(Turn("size", 1, (KEEPBEST,)), Turn("save", 5, gibibyte)),
    )
    saves = Part(
        title=MANY,
        model="few large tensors, 0.1 GB",
        cases=(KEEPBEST,),
        turns=(Turn("size", 1, (KEEPBEST,)), Turn("many_saves", 1, (KEEPBEST,))),
        prepare=weighed,
    )
    some = (KEEPBEST, TORCH, "safetensors save_file", DCP_ASYNC)
    return [
        large,
        one,
        _small(SMALL, some[:-1], 5),  # a save of DCP takes seconds with so many
        _small(RESNET, some, 5),
        one,
        _written(FROZEN, 5),
        _written(WHOLE, 5),
        saves,
        one,
    ]


def _quick() -> list[Part]:
    names = (KEEPBEST, TORCH, DCP_ASYNC, DCP_SHARED, DCP_OVERLAPPED, RAW_FRESH, RAW_RECYCLED)
    large = Part(
        title=LARGE,
        model=LARGE,
        cases=names,
        turns=(
            Turn("size", 1, (KEEPBEST,)),
            Turn("save", 2, names),
            Turn("blocked", 2, tuple(name for name in names if name in ASYNCHRONOUS)),
            Turn("restore", 2, (KEEPBEST, TORCH)),
            Turn("memory", 1, (KEEPBEST,)),
            Turn("overhead", 2, (KEEPBEST,)),
        ),
    )
    return [large, _written(FROZEN, 2), _written(WHOLE, 2)]


def _small(title: str, names: tuple[str, ...], times: int) -> Part:
    return Part(
        title=title,
        model=title,
        cases=names,
        turns=(
            Turn("size", 1, (KEEPBEST,)),
            Turn("save", times, names),
            Turn("blocked", times, tuple(name for name in names if name in ASYNCHRONOUS)),
            Turn("restore", times, names),
            Turn("memory", 2, names),
        ),
    )


def _written(title: str, times: int) -> Part:
    mine = (KEEPBEST,)
    return Part(title=title, model=title, cases=mine, turns=(Turn("size", 1, mine), Turn("save", times, mine)))


def measure(part: Part, folder: Path) -> Found:
    """Let the cases of one part take turns."""
    made = {name: (part.prepare, (name, part.model)) for name in part.cases}
    return _measured(part.title, made, part.turns, folder)


def measure_keras(folder: Path, *, quick: bool) -> Found:
    """Let the callbacks take turns."""
    names = (KERAS_BEST,) if quick else tuple(KERAS)
    made = {name: (KerasMeasurements, (KERAS[name], KERAS_MB)) for name in names}
    turns = (Turn("fit", 1 if quick else 2, names), Turn("fit", 0 if quick else 6, (KERAS_BEST,)))
    return _measured(KERAS_PART, made, turns, folder)


def _measured(title: str, made: Mapping[str, Any], turns: tuple[Turn, ...], folder: Path) -> Found:
    with Turns(made, folder) as taking:
        for what, times, names in turns:
            taking.take(what, times=times, only=names)
    return Found(title=title, results=taking.results, failed=taking.failed)
