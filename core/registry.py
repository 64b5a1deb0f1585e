"""Registry: which adapter knows an object or a tensor, found by the top-level module of its classes.

The table is filled by `adapters/__init__.py`; an adapter's module is imported when the first object of its framework
is handed over. Packages join by the entry point group `keepbest.adapters`: the entry's name is the top-level module,
and the adapter's NAME; its value is the adapter's module.
"""

from __future__ import annotations

import importlib
import sys
from functools import cache
from typing import Any, Protocol

from ..storage import arrays
from ..storage.statefile import Role
from ..storage.tensorfile import TensorView
from .tensor import TensorSource


class Adapter(Protocol):
    """How a framework gives and takes state; a module with these functions is one.

    It may have one more, `companions(obj) -> dict[str, Any]`: what is saved beside `obj`, by what it is called.
    """

    NAME: str
    """The framework's tag in state files and for `load(framework=…)`."""
    TENSOR_FILE_METADATA: dict[str, str]
    """What other readers of this framework expect under `__metadata__`."""

    def role(self, obj: Any) -> Role | None:
        """Say what part `obj` plays, or None if it is for the generic protocol (`state_dict`) to handle."""

    def capture(self, obj: Any) -> Any:
        """Return the nested state of `obj`, by reference; nothing is copied."""

    def mismatches(self, obj: Any, state: Any) -> list[str]:
        """Return every reason why `state` does not fit `obj`; changes nothing."""

    def restore(self, obj: Any, state: Any) -> None:
        """Set `obj` to a state that fits it."""

    def tensor(self, value: Any, path: str) -> TensorSource | None:
        """Return how to read a tensor of this framework; None if `value` is none.

        Raises:
            UnsupportedStateError: it is one that no tensor file can hold (sparse, quantised); names `path`.
        """

    def from_view(self, view: TensorView, logical: str | None) -> Any:
        """Return a tensor of this framework on the memory of `view`, or a copy of it."""

    def capture_rng(self) -> Any:
        """Return the state of the framework's global random number generators."""

    def restore_rng(self, state: Any) -> None:
        """Set them."""

    def defer(self, value: Any) -> Any:
        """Return `value`, a scalar, so that later in-place changes do not reach it; never synchronises a device."""


_MODULES: dict[str, str] = {}


def register(top_level: str, module: str, *, framework: str) -> None:
    """Say that the adapter `module` knows the classes of the package `top_level`."""
    _MODULES[top_level] = module
    arrays.register(framework, module)


def adapter_of(obj: Any) -> Adapter | None:
    """Return the adapter of the first class in the object's line of descent that one is registered for."""
    return _adapter_of_bases(type(obj).__mro__)


def adapter_named(framework: str) -> Adapter | None:
    """Return the adapter with this NAME if its framework is imported already."""
    return next((adapter for adapter in adapters_in_use() if framework == adapter.NAME), None)


def adapters_in_use() -> list[Adapter]:
    """Return the adapters whose framework is imported already, each once."""
    modules = {module: None for top_level, module in _MODULES.items() if top_level in sys.modules}
    return [_load(module) for module in modules]


@cache
def _adapter_of_bases(bases: tuple[type, ...]) -> Adapter | None:
    for base in bases:
        top_level = base.__module__.partition(".")[0]
        if top_level in _MODULES:
            return _load(_MODULES[top_level])
        entry = arrays.joined().get(top_level)
        if entry is not None:
            adapter = _load(entry)
            register(top_level, entry, framework=adapter.NAME)  # so that its random numbers are captured, too
            return adapter
    return None


@cache
def _load(module: str) -> Adapter:
    loaded: Any = importlib.import_module(module)
    adapter: Adapter = loaded
    return adapter
