"""Keras variables and the host memory that their values are read into and written from, on whatever backend they live."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from ...core.tensor import TensorSource
from ...errors import UnsupportedStateError
from ...storage import arrays
from ...storage.arrays import COMPLEX128

Array = np.ndarray[Any, Any]


def tensor(value: Any, path: str) -> TensorSource | None:
    """Return how to read a variable.

    TensorFlow and JAX: the value is held as it is now, and assigning later does not reach it. PyTorch: it is read when it is copied.
    """
    if not isinstance(value, keras.Variable):
        return None
    read, raw = _reader(value)
    shape = tuple(int(length) for length in value.shape)
    if keras.backend.standardize_dtype(value.dtype) == "complex128":
        return TensorSource(dtype="F64", shape=(*shape, 2), logical=COMPLEX128, identity=id(raw), copy_into=_copier(read))
    dtype = arrays.dtype_name(keras.backend.standardize_dtype(value.dtype))
    if dtype is None:
        raise UnsupportedStateError(path, value, why=f"of dtype {value.dtype} cannot be stored as a tensor")
    return TensorSource(dtype=dtype, shape=shape, identity=id(raw), copy_into=_copier(read))


def defer(value: Any) -> Any:
    """Return what a variable holds now; a copy in its stream where the backend changes memory in place."""
    if not isinstance(value, keras.Variable):
        return value
    held = value.value
    if _framework(held) == "torch":
        return held.detach().clone()
    return held.read_value() if hasattr(held, "read_value") else held


def write(variable: keras.Variable, array: Array) -> None:
    """Set a variable to the bits of `array`, which has its shape and dtype; the memory of `array` is not held on to."""
    held = variable.value
    if _framework(held) != "torch":
        variable.assign(np.array(array))
        return
    import torch  # noqa: PLC0415: only where Keras runs on it

    with torch.no_grad():
        flat = torch.from_numpy(_bytes(np.array(array)))
        held.copy_(flat.view(held.dtype).view(held.shape) if flat.numel() else held)


def value_of(variable: keras.Variable) -> Array:
    """Return a copy of a variable's value."""
    read, _ = _reader(variable)
    dtype = arrays.numpy_dtype_named(keras.backend.standardize_dtype(variable.dtype))
    made: Array = np.empty(tuple(variable.shape), dtype)
    if made.size:
        _copier(read)(memoryview(_bytes(made)))
    return made


def _copier(read: Callable[[], Any]) -> Callable[[memoryview], None]:
    def copy_into(target: memoryview) -> None:
        np.copyto(np.frombuffer(target, np.uint8), read())

    return copy_into


def _reader(variable: keras.Variable) -> tuple[Callable[[], Any], Any]:
    """Return what gives the value's bytes, without a copy where there need be none; and the object that holds the value."""
    held = variable.value
    framework = _framework(held)
    if framework == "torch":
        return lambda: _torch_bytes(held), held
    if framework == "tensorflow":
        from ..tensorflow import readable  # noqa: PLC0415
    return lambda: _bytes(np.asarray(held)), held
