"""RNG: TensorFlow's global generator. It is looked at, never called into being."""

from __future__ import annotations

import sys
from typing import Any

import tensorflow as tf

from . import generators


def capture_rng() -> Any:
    """Return the state of the global generator if there is one; asking TensorFlow for it would make one.

    What `tf.random.set_seed` governs (`tf.random.shuffle`, `Dataset.shuffle`) is counted where TensorFlow shows it to
    nobody.
    """
    held = _global_generator()
    return None if held is None else generators.capture(held)


def restore_rng(state: Any) -> None:
    """Set the global generator, made if there is none."""
    if state is None:
        return
    held = _global_generator()
    if held is None or int(held.algorithm) != state["algorithm"]:
        tf.random.set_global_generator(tf.random.Generator.from_state(state["state"], state["algorithm"]))
    else:
        generators.restore(held, state)


def _global_generator() -> Any:
    return getattr(sys.modules.get("tensorflow.python.ops.stateful_random_ops"), "global_generator", None)
