"""Variables: captured by reference, and restored by assigning to the variable that is there, wherever it lies."""

from __future__ import annotations

from typing import Any

import tensorflow as tf


def mismatches(variable: tf.Variable, stored: Any) -> list[str]:
    """Compare shape and dtype; a variable whose shape may change takes every shape that it may have."""
    if not hasattr(stored, "shape") or not hasattr(stored, "dtype"):
        return [f"it is a {type(stored).__name__} in the checkpoint, a variable here"]
    if not variable.shape.is_compatible_with(tuple(stored.shape)):
        return [f"its shape is {tuple(stored.shape)} in the checkpoint, {_shape(variable)} here"]
    if variable.dtype != stored.dtype:
        return [f"it is {stored.dtype.name} in the checkpoint, {variable.dtype.name} here"]
    return []


def _shape(variable: tf.Variable) -> Any:
    return "unknown" if variable.shape.rank is None else tuple(variable.shape)
