"""Containers: lists, tuples and dicts with variables in them. Who made the variables holds on to them: they are set.

A variable is what an adapter knows as an object and has `assign` (TensorFlow's, Keras'), or is trained (PyTorch's
parameters: an optimizer holds on to them). Whatever else stands in such a
container is plain data or a tensor, and is replaced, as in a container without variables.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterable
from typing import Any

from ..errors import UnsupportedStateError
from .registry import Adapter, adapter_of

_MAX_DEPTH = 100
"""Below, `typedjson` says what is wrong."""


def holds_variables(value: Any, depth: int = 0) -> bool:
    """Say whether `value` is a container in which, however deep, a variable stands."""
    return depth <= _MAX_DEPTH and any(
        _variables_adapter(item) is not None or holds_variables(item, depth + 1) for item in _items(value)
    )


def check(name: str, obj: Any) -> None:
    """Raise if `obj` is a tuple in which, or in a tuple of which, something could not be set.

    Raises:
        UnsupportedStateError: names the item.
    """
    if isinstance(obj, tuple):
        for number, item in enumerate(obj):
            if _variables_adapter(item) is None and not holds_variables(item):
                raise UnsupportedStateError(
                    f"{name}.{number}", item, why="stands in a tuple, which takes no other; use a list or a dict"
                )
            check(f"{name}.{number}", item)


def capture(value: Any) -> Any:
    """Return the container as plain ones, its variables by reference."""
    adapter = _variables_adapter(value)
    if adapter is not None:
        return adapter.capture(value)
    if not holds_variables(value):
        return value
    if isinstance(value, dict):
        items = {key: capture(item) for key, item in value.items()}
        return OrderedDict(items) if isinstance(value, OrderedDict) else items
    return tuple(map(capture, value)) if isinstance(value, tuple) else list(map(capture, value))


def mismatches(here: Any, stored: Any, place: str = "") -> list[str]:
    """Return every reason why the variables in `here` cannot take what is stored; changes nothing."""
    adapter = _variables_adapter(here)
    if adapter is not None:
        return [f"'{place}': {problem}" for problem in adapter.mismatches(here, stored)]
    if not holds_variables(here):
        return []
    at, inside = (f"'{place}'", f"{place}.") if place else ("it", "")
    if not isinstance(stored, dict if isinstance(here, dict) else list | tuple | deque):
        return [f"{at} is a {type(stored).__name__} in the checkpoint, a {type(here).__name__} here"]
    if isinstance(here, dict):
        return _dict_problems(here, dict(stored), inside)
    if len(stored) != len(here):
        return [f"{at} has {len(stored)} items in the checkpoint, {len(here)} here"]
    return [
        problem
        for number, (item, other) in enumerate(zip(here, stored, strict=True))
        for problem in mismatches(item, other, f"{inside}{number}")
    ]


def restore(here: Any, stored: Any) -> Any:
    """Set the variables, and replace in place whatever else is there; returns what stands for `here` now."""
    adapter = _variables_adapter(here)
    if adapter is not None:
        adapter.restore(here, stored)
        return here
    if not holds_variables(here):
        return stored
    if isinstance(here, dict):
        for key in set(here) - set(stored):
            del here[key]
        for key, item in stored.items():
            found = restore(here[key], item) if key in here else item
            if key not in here or here[key] is not found:
                here[key] = found
        return here
    items = [restore(item, other) for item, other in zip(here, stored, strict=True)]
    if isinstance(here, tuple):
        same = all(item is other for item, other in zip(here, items, strict=True))
        return here if same else here._make(items) if hasattr(here, "_make") else tuple(items)
    for number, item in enumerate(items):
        if here[number] is not item:
            here[number] = item
    return here


def _dict_problems(here: dict[Any, Any], stored: dict[Any, Any], inside: str) -> list[str]:
    problems = []
    for key, item in here.items():
        if key in stored:
            problems += mismatches(item, stored[key], f"{inside}{key}")
        elif _variables_adapter(item) is not None or holds_variables(item):
            problems.append(f"'{inside}{key}' is not in the checkpoint")
    problems += [
        f"'{inside}{key}' is in the checkpoint and not here"
        for key, item in stored.items()
        if key not in here and hasattr(item, "dtype")
    ]
    return problems


def _variables_adapter(value: Any) -> Adapter | None:
    trained = getattr(value, "requires_grad", False) is True and getattr(value, "is_leaf", False) is True
    if not trained and not hasattr(value, "assign"):
        return None
    adapter = adapter_of(value)
    return adapter if adapter is not None and adapter.role(value) is not None else None


def _items(value: Any) -> Iterable[Any]:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list | tuple | deque) else ()
