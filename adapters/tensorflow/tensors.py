"""Tensors: dense tensors and variables as leaves of any state, held as they are now."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from ...core.tensor import TensorSource
from ...errors import UnsupportedStateError
from ...storage import arrays
from ...storage.arrays import COMPLEX128
from ...storage.tensorfile import TensorView
from . import iterators, modules


def tensor(value: Any, path: str) -> TensorSource | None:
    """Return how to read a dense tensor or variable; it is held as it is now, assigning later does not reach it.

    Raises:
        UnsupportedStateError: it is sparse, ragged, symbolic, of strings; or an iterator within other data.
    """
    kind: Any = type(value)
    read = _reader(kind)
    if read is None:
        if isinstance(value, tf.SparseTensor | tf.RaggedTensor | tf.IndexedSlices):
            raise UnsupportedStateError(path, value, why="is not a dense tensor, and only those are saved")
        iterators.check(path, value)
        if modules.holds_more(value):
            raise UnsupportedStateError(path, value, why="holds values in no variable")
        return None
    held = read(value)
    if not hasattr(held, "numpy"):
        raise UnsupportedStateError(path, value, why="is symbolic: it has no value outside of its tf.function")
    logical, shape = None, tuple(held.shape)
    if held.dtype == tf.complex128:
        held, logical, shape = tf.stack([tf.math.real(held), tf.math.imag(held)], axis=-1), COMPLEX128, (*shape, 2)
    dtype = arrays.dtype_name(held.dtype.name)
    if dtype is None:
        raise UnsupportedStateError(path, value, why=f"of dtype {held.dtype.name} cannot be stored as a tensor")

    identity = ("variable", id(value)) if held is not value and held.shape.num_elements() else None
    return _Held(
        dtype=dtype,
        shape=shape,
        logical=logical,
        identity=identity,
        held=True,
        lets_go=held is not value and logical is None,
        holder=[held],
    )


def from_view(view: TensorView, logical: str | None) -> tf.Tensor:
    """Return a tensor with a copy of the view's bytes."""
    return tf.convert_to_tensor(arrays.from_view(view, logical))


def defer(value: Any) -> Any:
    """Return what a variable holds now; a tensor never changes."""
    return value.read_value() if isinstance(value, tf.Variable) else value


@functools.cache
def _reader(kind: Any) -> Callable[[Any], Any] | None:
    """Return what gives the present value of a variable or a tensor of this class; None if it is neither.

    Asked once for each class, and a plain variable read by the bare operation: `read_value` takes long.
    """
    if issubclass(kind, tf.Variable):
        plain = next((base for base in kind.__mro__ if base.__name__ == "BaseResourceVariable"), None)
        if plain is not None and kind.read_value is plain.read_value:
            return lambda variable: tf.raw_ops.ReadVariableOp(resource=variable.handle, dtype=variable.dtype)
        return lambda variable: variable.read_value()
    return (lambda tensor: tensor) if issubclass(kind, tf.Tensor) else None


class _Held(TensorSource, frozen=True, kw_only=True):
    holder: list[Any]
    """The tensor; nothing once it is let go."""

    def view(self) -> memoryview:
        return memoryview(_readable(self.holder[0])).cast("B")

    def let_go(self) -> None:
        self.holder.clear()


def _readable(held: Any) -> Any:
    """Return what gives the tensor's memory, without a copy where the buffer protocol has its dtype."""
    if not held.shape.num_elements():
        return b""
    if held.dtype == tf.bfloat16:
        held = tf.bitcast(held, tf.uint16)
    elif held.dtype.name in arrays.EXTENDED_DTYPES.values():
        return np.asarray(held.numpy()).tobytes()
    return memoryview(held)
