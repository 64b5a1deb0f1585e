"""RNG: the global random number generators of Python, NumPy and every framework that is imported."""

from __future__ import annotations

import random
from typing import Any

import numpy as np

from ..storage.statefile import Role
from .generators import PythonGenerator, check_numpy
from .registry import adapter_named, adapters_in_use

NAME = "rng"
"""The object's name in a checkpoint; no user's object may have it."""


def read() -> tuple[Any, Role, None]:
    """Return the states of all, by reference; a generator object of one's own is passed to the Checkpointer by name."""
    state = {
        "python": PythonGenerator(random).state_dict(),
        "numpy": np.random.get_state(legacy=False),  # noqa: NPY002 - the global generator is what people's code uses
        "frameworks": {adapter.NAME: adapter.capture_rng() for adapter in adapters_in_use()},
    }
    return state, "state", None


def restore(state: Any) -> None:
    """Set them; a framework that is not imported now is left out, as nothing can have used its generator."""
    check_numpy(state["numpy"])
    PythonGenerator(random).load_state_dict(state["python"])
    np.random.set_state(state["numpy"])  # noqa: NPY002 - as above
    for name, framework in state["frameworks"].items():
        adapter = adapter_named(name)
        if adapter is not None:
            adapter.restore_rng(framework)
