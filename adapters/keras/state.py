"""State: what of a Keras object is saved and restored. Variables are captured by reference, and matched by path."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras

from ...errors import StateError
from ...storage.statefile import Role
from . import matching, tensors

RNN_STATES = "rnn_states"
"""What the object of these is called."""


def role(obj: Any) -> Role | None:
    """Models and layers are weights, optimizers optimizers; variables, seed generators and metrics are state."""
    if isinstance(obj, keras.Layer):
        return "weights"
    if isinstance(obj, keras.optimizers.Optimizer):
        return "optimizer"
    return "state" if isinstance(obj, keras.Variable | keras.random.SeedGenerator | keras.metrics.Metric) else None


def capture(obj: Any) -> Any:
    """Return path → variable, seed generators and other non-trainable ones among them; of a single variable itself.

    Raises:
        StateError: a model that is not built yet has nothing to save.
    """
    if isinstance(obj, keras.Layer):
        attach(obj)
        check_built(obj)
    single = _single(obj)
    return dict(matching.named(_variables(obj))) if single is None else single


def mismatches(obj: Any, state: Any) -> list[str]:
    """Compare paths, shapes and dtypes."""
    single = _single(obj)
    if single is not None:
        return list(matching.Pair("value", state, single).problems())
    if isinstance(obj, keras.Layer | keras.optimizers.Optimizer) and not obj.built:
        return [f"the {_owner(obj)} is not built; {_how_to_build(obj)} before it is restored"]
    if isinstance(obj, keras.Layer):
        attach(obj)
    return matching.problems(matching.named(_variables(obj)), state, owner=_owner(obj))


def restore(obj: Any, state: Any) -> None:
    """Assign to the variables that are there."""
    single = _single(obj)
    if single is not None:
        tensors.write(single, state)
        return
    for pair in matching.pairs(matching.named(_variables(obj)), state, owner=_owner(obj)):
        tensors.write(pair.variable, pair.stored)


def attach(layer: keras.Layer) -> None:
    """Bring what `fit` has trained back into the variables: in the middle of an epoch, JAX keeps it elsewhere."""
    sync = getattr(layer, "jax_state_sync", None)
    if sync is not None:
        sync()


def companions(obj: Any) -> dict[str, list[keras.Variable]]:
    """Return what stateful RNN layers carry from batch to batch, which is in no `variables`, if there are any.

    No weights: a model of another batch size has others. Public names do not lead to a layer inside another, as those
    of a Bidirectional are.

    Raises:
        StateError: such a layer is in a model that is not built yet.
    """
    layers = obj._flatten_layers() if isinstance(obj, keras.Layer) else ()  # noqa: SLF001 - see above
    stateful = [layer for layer in layers if isinstance(layer, keras.layers.RNN) and layer.stateful]
    if stateful:
        check_built(obj)
    carried = [state for layer in stateful for state in keras.tree.flatten(layer.states or ())]
    return {RNN_STATES: carried} if carried else {}


def check_built(layer: keras.Layer) -> None:
    """Raise unless the layer has its weights.

    Raises:
        StateError: it is not built yet.
    """
    if not layer.built:
        raise StateError(
            f"the Keras model '{layer.name}' is not built, so it has no weights to save or to restore yet. "
            f"Before that, {_how_to_build(layer)}."
        )


def _variables(obj: Any) -> Sequence[keras.Variable]:
    found: Sequence[keras.Variable] = obj.variables
    return found


def _single(obj: Any) -> keras.Variable | None:
    if isinstance(obj, keras.random.SeedGenerator):
        return obj.state
    return obj if isinstance(obj, keras.Variable) else None


def _owner(obj: Any) -> str:
    if isinstance(obj, keras.optimizers.Optimizer):
        return matching.OPTIMIZER
    return "model" if isinstance(obj, keras.Model) else type(obj).__name__


def _how_to_build(obj: Any) -> str:
    if isinstance(obj, keras.optimizers.Optimizer):
        return "call optimizer.build(model.trainable_variables)"
    return "begin the model with keras.Input(shape), or call it on a batch"
