"""State: any object the user hands over → named tensors and typed JSON, and back.

Three kinds of object are taken: those an adapter knows; those with `state_dict()` and `load_state_dict(state)`
(`Stateful`); and plain data in a dict or list, which is saved as it stands and restored in place: variables in it are
set, so that whoever holds on to them has what was restored.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
from msgspec import Struct, field

from ..errors import UnsupportedStateError
from ..storage import typedjson
from ..storage.arrays import NUMPY_SCALAR
from ..storage.statefile import Role
from ..storage.typedjson import Json
from . import containers
from .registry import Adapter, adapter_of
from .tensor import TensorSource, numpy_source
from .tensor_names import TensorNames


@runtime_checkable
class Stateful(Protocol):
    """What an object needs to be checkpointed when no adapter knows it.

    Example:
        >>> class Sampler:
        ...     def state_dict(self): return {"position": self.position}
        ...     def load_state_dict(self, state): self.position = state["position"]
    """

    def state_dict(self) -> Any:
        """Return nested plain data and tensors that say all there is to say about the object."""

    def load_state_dict(self, state: Any) -> Any:
        """Take what `state_dict` returned."""


class Leaf(Struct, frozen=True, kw_only=True):
    """One place in a state where a tensor stands."""

    path: str
    tag: str
    """The framework's, or a NumPy scalar's."""
    stored: str
    """The name in the file, which tied tensors share."""
    facts: tuple[str, tuple[int, ...], str | None]
    value: Any
    source: TensorSource | None

    def of(self, value: Any, source: TensorSource | None) -> Leaf:
        """Return the same place with another tensor of the same facts, or none."""
        return Leaf(path=self.path, tag=self.tag, stored=self.stored, facts=self.facts, value=value, source=source)


class CapturedState(Struct, frozen=True, kw_only=True):
    """One object's state, its tensors still those of the live object."""

    name: str
    role: Role
    state: Callable[[Callable[[str], Json]], Json]
    """Builds the typed state, given how the tensor with a stored name is referred to."""
    sources: dict[str, TensorSource]
    """Stored name → tensor; tied tensors once."""
    metadata: dict[str, str]
    """For the tensor file: the framework's own, and for each tied tensor the name it is stored under."""
    memo: dict[str, Any] = field(default_factory=dict)
    """What was worked out from the form of the state; shared by all captures of the same form."""


def check_objects(objects: dict[str, Any]) -> None:
    """Raise unless every object is one that can be captured and restored.

    Raises:
        UnsupportedStateError: names the object.
    """
    for name, obj in objects.items():
        if isinstance(obj, type):
            raise UnsupportedStateError(name, obj, why=f"was given, {obj.__name__} itself, and no object made of it")
        if _handler(obj) is not None:
            continue
        if containers.holds_variables(obj):
            containers.check(name, obj)
        elif not isinstance(obj, Stateful | dict | list):
            raise UnsupportedStateError(
                name,
                obj,
                why="has no state_dict() and load_state_dict(state), and no adapter knows it (arrays go into a dict)",
            )


def value_of(obj: Any) -> tuple[Any, Role, Adapter | None]:
    """Return the nested state of `obj` by reference, its role, and the adapter that knows it."""
    adapter = _handler(obj)
    if adapter is not None:
        return adapter.capture(obj), adapter.role(obj) or "state", adapter
    return obj.state_dict() if isinstance(obj, Stateful) else containers.capture(obj), "state", None


def capture_value(
    name: str, value: Any, *, role: Role, adapter: Adapter | None = None
) -> tuple[CapturedState, list[Leaf]]:
    """Capture nested state by reference; returns its leaves too, in order. `adapter` only gives the file its metadata.

    Its plain values must stay as they are.

    Raises:
        UnsupportedStateError: something in it is neither a tensor nor plain data; names its path from `name`.
    """
    names = TensorNames(adapter.TENSOR_FILE_METADATA if adapter is not None else {})
    leaves: list[Leaf] = []

    def tensor(path: str, leaf: Any) -> tuple[str, Json] | None:
        found = source_of(path, leaf)
        if found is None:
            return None
        tag, source = found
        stored = names.enter(path[len(name) + 1 :] or "value", source)
        leaves.append(Leaf(path=path, tag=tag, stored=stored, facts=source.facts, value=leaf, source=source))
        return tag, None  # how it is referred to is known when the state is written

    typedjson.encode(value, name, tensor)
    captured = CapturedState(
        name=name,
        role=role,
        state=reencode(name, value, leaves),
        sources=names.sources,
        metadata=names.metadata,
    )
    return captured, leaves


def reencode(name: str, value: Any, leaves: Sequence[Leaf]) -> Callable[[Callable[[str], Json]], Json]:
    """Return what builds the typed state of a `value` whose tensors are known: the leaves, in order."""

    def state(refer: Callable[[str], Json]) -> Json:
        found = iter(leaves)

        def tensor(path: str, value: Any) -> tuple[str, Json]:  # noqa: ARG001 - what stands there is known
            leaf = next(found)
            return leaf.tag, refer(leaf.stored)

        return typedjson.encode(value, name, tensor)

    return state


def mismatches(name: str, obj: Any, state: Any) -> list[str]:
    """Return every reason why `state` does not fit `obj`; changes nothing."""
    adapter = _handler(obj)
    if adapter is None and isinstance(obj, Stateful):
        return []
    try:
        if adapter is not None:
            return [f"{name}: {problem}" for problem in adapter.mismatches(obj, state)]
        if containers.holds_variables(obj):
            return [f"{name}: {problem}" for problem in containers.mismatches(obj, state)]
    except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        # Adapters compare states of the form that they have written themselves; a stranger's has any form.
        return [f"{name}: its state in the checkpoint is of another form ({type(error).__name__}: {error!s:.200})"]
    if type(obj) is not type(state):
        return [f"{name}: it is a {type(obj).__name__}, the checkpoint holds a {type(state).__name__}"]
    return []


def holds_weights(obj: Any) -> bool:
    """Say whether `obj` is what inference needs."""
    adapter = adapter_of(obj)
    return adapter is not None and adapter.role(obj) == "weights"


def verifies(obj: Any) -> bool:
    """Say whether `mismatches` finds everything that could make `restore` fail."""
    return _handler(obj) is not None or not isinstance(obj, Stateful)


def restore(obj: Any, state: Any) -> None:
    """Set `obj` to `state`; plain dicts and lists are changed in place."""
    adapter = _handler(obj)
    if adapter is not None:
        adapter.restore(obj, state)
    elif isinstance(obj, Stateful):
        obj.load_state_dict(state)
    elif containers.holds_variables(obj):
        containers.restore(obj, state)
    elif isinstance(obj, dict):
        obj.clear()
        obj.update(state)
    else:
        obj[:] = state


def _handler(obj: Any) -> Adapter | None:
    adapter = adapter_of(obj)
    return adapter if adapter is not None and adapter.role(obj) is not None else None


def source_of(path: str, leaf: Any) -> tuple[str, TensorSource] | None:
    """Return the tag of a tensor, mostly its framework's, and how to read it; None if it is none.

    Raises:
        UnsupportedStateError: no tensor file can hold it.
    """
    if isinstance(leaf, np.ndarray | np.generic):
        return NUMPY_SCALAR if isinstance(leaf, np.generic) else "numpy", numpy_source(leaf, path)
    adapter = adapter_of(leaf)
    source = adapter.tensor(leaf, path) if adapter is not None else None
    return None if adapter is None or source is None else (adapter.NAME, source)
