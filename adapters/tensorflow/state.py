"""State: what of a TensorFlow object is saved and restored, and what part it plays."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from ...storage.statefile import Role
from . import generators, iterators, modules, variables


def role(obj: Any) -> Role | None:
    """Modules are weights; variables, generators and iterators are state. Of datasets, `capture` says what to do.

    Whatever else TensorFlow has is for the generic protocol.
    """
    if isinstance(obj, tf.Module):
        return "weights"
    return "state" if isinstance(obj, tf.Variable | tf.random.Generator) or iterators.concerns(obj) else None


def capture(obj: Any) -> Any:
    """Return the variable itself, of a module its variables by path, of a generator or an iterator its state.

    Raises:
        StateError: a module that has no variables yet.
    """
    if isinstance(obj, tf.Module):
        return modules.capture(obj)
    if isinstance(obj, tf.random.Generator):
        return generators.capture(obj)
    return iterators.capture(obj) if iterators.concerns(obj) else obj


def mismatches(obj: Any, state: Any) -> list[str]:
    """Compare paths, shapes and dtypes; an iterator takes its state for a moment, to see whether it can."""
    if isinstance(obj, tf.Module):
        return modules.mismatches(obj, state)
    if isinstance(obj, tf.random.Generator):
        return generators.mismatches(obj, state)
    return iterators.mismatches(obj, state) if iterators.concerns(obj) else variables.mismatches(obj, state)


def restore(obj: Any, state: Any) -> None:
    """Assign to the variables that are there; an iterator goes on where it stood."""
    if isinstance(obj, tf.Module):
        modules.restore(obj, state)
    elif isinstance(obj, tf.random.Generator):
        generators.restore(obj, state)
    elif iterators.concerns(obj):
        iterators.restore(obj, state)
    else:
        obj.assign(state)
