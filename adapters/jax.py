"""JAX: its arrays as leaves in any state. They never change, so parameters are handed over in a dict of one's own."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

import jax
import jax.experimental
import jax.numpy as jnp
import numpy as np
from msgspec.structs import replace

from ..core.tensor import TensorSource, numpy_source
from ..errors import UnsupportedStateError
from ..storage import arrays
from ..storage.statefile import Role
from ..storage.tensorfile import TensorView

NAME = "jax"
TENSOR_FILE_METADATA: dict[str, str] = {}


def role(obj: Any) -> Role | None:  # noqa: ARG001 - an array cannot be set in place, so none can be an object of its own
    """Nothing of JAX is an object with state: everything is for the generic protocol."""
    return None


def capture(obj: Any) -> Any:
    """Never asked for."""
    return obj


def mismatches(obj: Any, state: Any) -> list[str]:  # noqa: ARG001
    """Never asked for."""
    return []


def restore(obj: Any, state: Any) -> None:
    """Never asked for."""


def tensor(value: Any, path: str) -> TensorSource | None:
    """Return how to read an array that this process can see all of; it never changes, so it is held as it is."""
    if not isinstance(value, jax.Array):
        return None
    if jnp.issubdtype(value.dtype, jax.dtypes.prng_key):
        raise UnsupportedStateError(path, value, why="is a typed random key; save jax.random.key_data(key) instead")
    if isinstance(value, jax.core.Tracer):
        raise UnsupportedStateError(path, value, why="is a tracer: it has no value inside of a transformed function")
    if not value.is_fully_addressable:
        raise UnsupportedStateError(
            path, value, why="is spread over several processes, and this one sees only a part of it"
        )
    # NumPy's view holds the buffer: where it is donated later, XLA makes another.
    return replace(numpy_source(np.asarray(value), path), held=True)


def from_view(view: TensorView, logical: str | None) -> jax.Array:
    """Return an array with a copy of the view's bytes; 64-bit ones stay so, whatever `jax_enable_x64` says."""
    with _x64():
        return jnp.array(arrays.from_view(view, logical))


def defer(value: Any) -> Any:
    """Return `value`: an array never changes."""
    return value


def capture_rng() -> Any:
    """Return None: JAX has no global generator."""
    return None


def restore_rng(state: Any) -> None:
    """Do nothing, for the same reason."""


def _x64() -> AbstractContextManager[Any]:
    if hasattr(jax, "enable_x64"):
        found: AbstractContextManager[Any] = jax.enable_x64(True)
    else:  # JAX before 0.8
        found = jax.experimental.enable_x64()  # type: ignore[attr-defined]
    return found
