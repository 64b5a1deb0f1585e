"""TensorFlow: tensors as leaves in any state, variables and generators as objects; models are the Keras adapter's."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from ..core.tensor import TensorSource
from ..errors import UnsupportedStateError
from ..storage import arrays
from ..storage.arrays import COMPLEX128
from ..storage.statefile import Role
from ..storage.tensorfile import TensorView

NAME = "tensorflow"
TENSOR_FILE_METADATA: dict[str, str] = {}


# ── objects ───────────────────────────────────────────────────────────────────────────────────────────────────────


def role(obj: Any) -> Role | None:
    """Variables and generators are state; whatever else TensorFlow has is for the generic protocol."""
    return "state" if isinstance(obj, tf.Variable | tf.random.Generator) else None


def capture(obj: Any) -> Any:
    """Return the variable itself; of a generator the algorithm and its variable."""
    return {"algorithm": int(obj.algorithm), "state": obj.state} if isinstance(obj, tf.random.Generator) else obj


def mismatches(obj: Any, state: Any) -> list[str]:
    """Compare shape and dtype, and of a generator the algorithm."""
    if not isinstance(obj, tf.random.Generator):
        return _tensor_problems(obj, state)
    if int(obj.algorithm) != state["algorithm"]:
        return [
            f"the generator's algorithm is number {state['algorithm']} in the checkpoint, {int(obj.algorithm)} here"
        ]
    return _tensor_problems(obj.state, state["state"])


def restore(obj: Any, state: Any) -> None:
    """Assign to the variable that is there, on whatever device it is."""
    if isinstance(obj, tf.random.Generator):
        obj.state.assign(state["state"])
    else:
        obj.assign(state)


# ── tensors ───────────────────────────────────────────────────────────────────────────────────────────────────────


def tensor(value: Any, path: str) -> TensorSource | None:
    """Return how to read a dense tensor or variable; it is held as it is now, assigning later does not reach it."""
    kind: Any = type(value)
    read = _reader(kind)
    if read is None:
        if isinstance(value, tf.SparseTensor | tf.RaggedTensor | tf.IndexedSlices):
            raise UnsupportedStateError(path, value, why="is not a dense tensor, and only those are saved")
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

    return _source(held, dtype, shape, logical, may_be_assigned_to=held is not value and logical is None)


def from_view(view: TensorView, logical: str | None) -> tf.Tensor:
    """Return a tensor with a copy of the view's bytes."""
    return tf.convert_to_tensor(arrays.from_view(view, logical))


def defer(value: Any) -> Any:
    """Return what a variable holds now; a tensor never changes."""
    return value.read_value() if isinstance(value, tf.Variable) else value


# ── random numbers ────────────────────────────────────────────────────────────────────────────────────────────────


def capture_rng() -> Any:
    """Return the state of the global generator if there is one; asking TensorFlow for it would make one.

    What `tf.random.set_seed` governs (`tf.random.shuffle`, `Dataset.shuffle`) is counted where TensorFlow shows it to
    nobody.
    """
    held = _global_generator()
    return None if held is None else capture(held)


def restore_rng(state: Any) -> None:
    """Set the global generator, made if there is none."""
    if state is None:
        return
    held = _global_generator()
    if held is None or int(held.algorithm) != state["algorithm"]:
        tf.random.set_global_generator(tf.random.Generator.from_state(state["state"], state["algorithm"]))
    else:
        restore(held, state)


# ── helpers ───────────────────────────────────────────────────────────────────────────────────────────────────────


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


def _source(
    held: Any, dtype: str, shape: tuple[int, ...], logical: str | None, *, may_be_assigned_to: bool
) -> TensorSource:
    holder = [held]

    def copy_into(target: memoryview) -> None:
        np.copyto(np.frombuffer(target, np.uint8), np.frombuffer(_readable(holder[0]), np.uint8))

    def view() -> memoryview:
        return memoryview(_readable(holder[0])).cast("B")

    return TensorSource(
        dtype=dtype,
        shape=shape,
        logical=logical,
        copy_into=copy_into,
        view=view,
        held=True,
        let_go=holder.clear if may_be_assigned_to else None,
    )


def _readable(held: Any) -> Any:
    """Return what gives the tensor's memory, without a copy where the buffer protocol has its dtype."""
    if not held.shape.num_elements():
        return b""
    if held.dtype == tf.bfloat16:
        held = tf.bitcast(held, tf.uint16)
    elif held.dtype.name in arrays.EXTENDED_DTYPES.values():
        return np.asarray(held.numpy()).tobytes()
    return memoryview(held)


def _tensor_problems(here: Any, stored: Any) -> list[str]:
    if tuple(here.shape) != tuple(stored.shape):
        return [f"its shape is {tuple(stored.shape)} in the checkpoint, {tuple(here.shape)} here"]
    if here.dtype != stored.dtype:
        return [f"it is {stored.dtype.name} in the checkpoint, {here.dtype.name} here"]
    return []


def _global_generator() -> Any:
    return getattr(sys.modules.get("tensorflow.python.ops.stateful_random_ops"), "global_generator", None)
