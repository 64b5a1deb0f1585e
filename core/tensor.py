"""TensorSource: how core reads a tensor of any framework into host memory, without knowing the framework."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import UnsupportedStateError
from ..storage.arrays import COMPLEX128, dtype_name


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorSource:
    """A live tensor that can be copied into staging."""

    dtype: str
    """The safetensors name it is stored as."""
    shape: tuple[int, ...]
    """As it is stored."""
    logical: str | None = None
    """`COMPLEX128` where the last axis of `shape` holds (real, imaginary)."""
    identity: Hashable | None = None
    """Equal for tensors that are the same memory seen in the same way (tied weights); None: never the same."""
    copy_into: Callable[[memoryview], None]
    """Fill a writable view of exactly the tensor's bytes, C order."""
    view: Callable[[], memoryview | None] | None = None
    """Return the bytes where they lie, if they lie contiguously in host memory."""


def numpy_source(value: np.ndarray[Any, Any] | np.generic, path: str) -> TensorSource:
    """Return how to read a NumPy array or scalar.

    Raises:
        UnsupportedStateError: its dtype is none that a tensor file can hold (object, str, datetime, …); or it is
            masked.
    """
    if isinstance(value, np.ma.MaskedArray):
        raise UnsupportedStateError(path, value, why="would lose its mask; save its data and its mask as two arrays")
    array = np.asarray(value)
    if not array.dtype.isnative:
        array = array.astype(array.dtype.newbyteorder("="))
    shape: tuple[int, ...] = array.shape
    logical = None
    if array.dtype.name == "complex128":
        array = np.ascontiguousarray(array).reshape(shape).view(np.float64).reshape((*shape, 2))
        logical = COMPLEX128
    dtype = dtype_name(array.dtype.name)
    if dtype is None:
        raise UnsupportedStateError(path, value, why=f"of dtype {array.dtype} cannot be stored as a tensor")

    def copy_into(target: memoryview) -> None:
        np.copyto(np.frombuffer(target, array.dtype).reshape(array.shape), array)

    def view() -> memoryview | None:
        return array.reshape(-1).view(np.uint8).data if array.flags.c_contiguous and array.size else None

    return TensorSource(dtype=dtype, shape=tuple(array.shape), logical=logical, copy_into=copy_into, view=view)
