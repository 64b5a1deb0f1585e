"""Generators: `tf.random.Generator`, whose state is its algorithm and one variable."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from . import variables


def capture(generator: tf.random.Generator) -> Any:
    """Return the algorithm and the variable."""
    return {"algorithm": int(generator.algorithm), "state": generator.state}


def mismatches(generator: tf.random.Generator, state: Any) -> list[str]:
    """Compare the algorithm, and the variable's shape and dtype."""
    here = int(generator.algorithm)
    if here != state["algorithm"]:
        return [f"the generator's algorithm is number {state['algorithm']} in the checkpoint, {here} here"]
    return variables.mismatches(generator.state, state["state"])


def restore(generator: tf.random.Generator, state: Any) -> None:
    """Assign to the variable that is there."""
    generator.state.assign(state["state"])
