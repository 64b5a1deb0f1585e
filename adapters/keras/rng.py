"""RNG: the generator that Keras draws from where no seed is given. It is looked at, never called into being."""

from __future__ import annotations

from typing import Any

import keras

from . import tensors

_KEY = "global_seed_generator"


def capture_rng() -> Any:
    """Return the state of Keras' global seed generator, or None if there is none."""
    generator = _attributes().get_global_attribute(_KEY)
    return None if generator is None else generator.state


def restore_rng(state: Any) -> None:
    """Set it, made if there is none."""
    if state is None:
        return
    generator = _attributes().get_global_attribute(_KEY)
    if generator is None:
        generator = keras.random.SeedGenerator(0)
        _attributes().set_global_attribute(_KEY, generator)
    tensors.write(generator.state, state)


def _attributes() -> Any:
    from keras.src.backend.common import global_state  # noqa: PLC0415 - Keras has no public way that does not make one

    return global_state
