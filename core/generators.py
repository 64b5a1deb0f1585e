"""Generators: random number generators of Python and NumPy that are objects of their own, seen as `Stateful`."""

from __future__ import annotations

import random
from types import ModuleType
from typing import Any

import numpy as np

_MT19937_WORDS = 624
_PHILOX_WORDS = 4


def as_stateful(obj: Any) -> Any:
    """Return a generator with `state_dict` and `load_state_dict`; anything else as it is."""
    if isinstance(obj, random.Random):
        return PythonGenerator(obj)
    return NumpyGenerator(obj) if isinstance(obj, np.random.Generator | np.random.RandomState) else obj


def check_numpy(state: Any) -> None:
    """Check what NumPy believes: places in a generator's memory, which lead out of it if they are a stranger's.

    Raises:
        ValueError: they do.
    """
    for place, end in ((state["state"].get("pos", 0), _MT19937_WORDS), (state.get("buffer_pos", 0), _PHILOX_WORDS)):
        if not 0 <= int(place) <= end:
            raise ValueError(f"{place!r:.80} is no place in the state of a random number generator")


class PythonGenerator:
    """A `random.Random`, or the module `random` itself."""

    def __init__(self, generator: random.Random | ModuleType) -> None:
        self._generator = generator

    def state_dict(self) -> Any:
        """Return its state as plain data."""
        version, words, gauss = self._generator.getstate()
        # 625 words: as an array they take a third of the space of a list, and no time to parse.
        return {"version": version, "words": np.array(words, np.uint32), "gauss": gauss}

    def load_state_dict(self, state: Any) -> None:
        """Take what `state_dict` returned."""
        self._generator.setstate((state["version"], tuple(map(int, state["words"])), state["gauss"]))


class NumpyGenerator:
    """A `numpy.random.Generator` or `RandomState`; its own bit generator goes on, and must be of the same kind."""

    def __init__(self, generator: np.random.Generator | np.random.RandomState) -> None:
        self._generator = generator

    def state_dict(self) -> Any:
        """Return its state as plain data."""
        if isinstance(self._generator, np.random.RandomState):
            return self._generator.get_state(legacy=False)
        return dict(self._generator.bit_generator.state)

    def load_state_dict(self, state: Any) -> None:
        """Take what `state_dict` returned."""
        check_numpy(state)
        if isinstance(self._generator, np.random.RandomState):
            self._generator.set_state(state)
        else:
            self._generator.bit_generator.state = state
