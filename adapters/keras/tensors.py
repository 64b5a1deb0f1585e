"""Tensors: the values of Keras variables, read and written by the adapter of the backend they live on."""

from __future__ import annotations

import operator
from typing import Any

import keras
import numpy as np
from msgspec.structs import replace

from ...core.registry import adapter_of
from ...core.tensor import TensorSource, numpy_source
from ...errors import UnsupportedStateError
from ...storage.tensorfile import TensorSpec, TensorView

Array = np.ndarray[Any, Any]
_VALUE_OF = operator.attrgetter("value")


def tensor(value: Any, path: str) -> TensorSource | None:
    """Return how to read a variable into host memory.

    On TensorFlow and JAX the value is held as it is now, and assigning later does not reach it; on PyTorch it is read
    when it is copied.
    """
    if not isinstance(value, keras.Variable):
        return None
    held = value.value
    adapter = adapter_of(held)
    source = numpy_source(np.asarray(held), path) if adapter is None else adapter.tensor(held, path)
    if source is None:
        raise UnsupportedStateError(
            path, value, why=f"whose value is a {type(held).__name__} cannot be stored as a tensor"
        )
    return replace(source, unwrap=_VALUE_OF) if source.lasts else source


def defer(value: Any) -> Any:
    """Return what a variable holds now, detached from later changes."""
    held = value.value if isinstance(value, keras.Variable) else value
    adapter = adapter_of(held)
    return held if adapter is None or held is value else adapter.defer(held)


def write(variable: keras.Variable, array: Array) -> None:
    """Set a variable to the bits of `array`, which has its shape and dtype, or is of integers that fit into its own.

    The memory of `array` is not held on to.
    """
    adapter = adapter_of(variable.value)
    if adapter is None:
        variable.assign(np.array(array))
        return
    source = numpy_source(array, variable.path)
    spec = TensorSpec(name=variable.path, dtype=source.dtype, shape=source.shape)
    data = memoryview(bytearray(spec.nbytes))
    if data:
        source.copy_into(data)
    variable.assign(adapter.from_view(TensorView(spec=spec, data=data), source.logical))


def dtype_of(variable: keras.Variable) -> str:
    """Return NumPy's name for a variable's dtype."""
    name: str = keras.backend.standardize_dtype(variable.dtype)
    return name
