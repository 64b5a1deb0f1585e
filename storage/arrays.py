"""Arrays: the bytes of a tensor file → arrays of the framework the reader asks for.

NumPy is built in. A framework's adapter enters itself with `register`, or, if another package brings it, by the entry
point group `keepbest.adapters`; its module is imported when first asked for.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from functools import cache
from typing import TYPE_CHECKING, Any

from ..errors import ConfigError, did_you_mean
from .tensorfile import TensorView

if TYPE_CHECKING:
    import numpy as np

COMPLEX128 = "C128"
"""Not a safetensors dtype: stored as F64 with one more axis of length 2 (real, imaginary)."""

NUMPY_SCALAR = "numpy-scalar"
"""The tag of a NumPy scalar in state files; it is stored as an array without axes is."""

NUMPY_DTYPES = {
    "F64": "float64", "F32": "float32", "F16": "float16",
    "I64": "int64", "I32": "int32", "I16": "int16", "I8": "int8",
    "U64": "uint64", "U32": "uint32", "U16": "uint16", "U8": "uint8",
    "BOOL": "bool", "C64": "complex64",
}  # fmt: skip
"""safetensors dtype → the dtype NumPy itself has for it."""

EXTENDED_DTYPES = {
    "BF16": "bfloat16",
    "F8_E4M3": "float8_e4m3fn", "F8_E5M2": "float8_e5m2", "F8_E8M0": "float8_e8m0fnu",
    "F8_E4M3FNUZ": "float8_e4m3fnuz", "F8_E5M2FNUZ": "float8_e5m2fnuz",
}  # fmt: skip
"""safetensors dtype → the dtype that the package ml_dtypes adds to NumPy."""

Converter = Callable[[TensorView, "str | None"], Any]
"""A view, and `COMPLEX128` where its last axis is to be folded into complex numbers → a tensor on the same memory."""

_MODULES: dict[str, str] = {}


def register(framework: str, module: str) -> None:
    """Say that `module.from_view` makes the tensors of `framework`."""
    _MODULES[framework] = module


@cache
def joined() -> Mapping[str, str]:
    """Return framework → module of the adapters that other packages bring. The first call looks at all packages."""
    from importlib.metadata import entry_points  # noqa: PLC0415 - imports a tenth of what a short verb does

    return {entry.name: entry.value for entry in entry_points(group="keepbest.adapters")}


def converter(framework: str) -> Converter:
    """Return what makes the tensors of `framework`; imports it.

    Raises:
        ConfigError: no such framework, or it is not installed.
    """
    if framework == "numpy":
        return from_view
    name = _MODULES.get(framework) or joined().get(framework)
    if name is None:
        known = ["numpy", *sorted({*_MODULES, *joined()})]
        raise ConfigError(
            f"unknown framework '{framework}'. Known: {', '.join(known)}.{did_you_mean(framework, known)}"
        )
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"framework='{framework}' needs {error.name}, which is not installed. Install it, or load as 'numpy'."
        ) from error
    found: Converter = module.from_view
    return found


def from_tag(tag: str) -> Converter:
    """Return what makes again what stands under a tag in a state file; raises as `converter`."""
    return scalar_from_view if tag == NUMPY_SCALAR else converter(tag)


def from_view(view: TensorView, logical: str | None) -> np.ndarray[Any, Any]:
    """Return a writable NumPy array on the memory of `view`.

    Raises:
        ConfigError: the dtype needs ml_dtypes, which is not installed.
    """
    import numpy as np  # noqa: PLC0415 - a third of the time to import keepbest.storage, and listings need none

    array = np.frombuffer(view.data, numpy_dtype(view.spec.dtype)).reshape(view.spec.shape)
    return array.view(np.complex128).reshape(view.spec.shape[:-1]) if logical == COMPLEX128 else array


def scalar_from_view(view: TensorView, logical: str | None) -> Any:
    """Return a NumPy scalar, a copy; raises as `from_view`."""
    return from_view(view, logical)[()]


def numpy_dtype(dtype: str) -> np.dtype[Any]:
    """Return NumPy's dtype for the safetensors name `dtype`."""
    import numpy as np  # noqa: PLC0415 - see from_view

    if dtype in NUMPY_DTYPES:
        return np.dtype(NUMPY_DTYPES[dtype])
    try:
        import ml_dtypes  # noqa: PLC0415 - only for dtypes that NumPy itself does not have
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"NumPy has no {dtype}; the package ml_dtypes adds it. `pip install ml_dtypes`, or load with "
            "framework='torch'."
        ) from error
    extended: np.dtype[Any] = np.dtype(getattr(ml_dtypes, EXTENDED_DTYPES[dtype]))
    return extended


_NAMES = {name: dtype for dtype, name in (NUMPY_DTYPES | EXTENDED_DTYPES).items()}


def dtype_name(numpy_name: str) -> str | None:
    """Return the safetensors name for a NumPy dtype's name, or None if a tensor file cannot hold it."""
    return _NAMES.get(numpy_name)
