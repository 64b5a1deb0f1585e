"""Capturing: the state of one object, captured again and again. What is as it was is not worked out anew.

Between two saves of a training its state mostly keeps its form: the same keys, the same tensors, other plain values.
Then a capture costs about a microsecond for each tensor, and names and JSON are left to whoever writes.
"""

from __future__ import annotations

from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..storage.statefile import Role
from .registry import Adapter
from .state import CapturedState, Leaf, capture_value, reencode, source_of
from .tensor import TensorSource

_PLAIN = frozenset({type(None), bool, int, float, str, bytes, complex})
_MAX_DEPTH = 100
"""Below, `typedjson` says what is wrong."""

_MAPPINGS = frozenset({dict, OrderedDict})
_SEQUENCES = frozenset({list, tuple, deque})
_COPIED = frozenset({set, frozenset, bytearray, Counter})
"""Their items hold no tensors."""

Read = Callable[[], "tuple[Any, Role, Adapter | None]"]
"""Returns the nested state of an object by reference, its role, and the adapter that knows it."""


@dataclass(slots=True)
class _Form:
    """The form of a state: its keys and types, and each tensor in it, in order."""

    outline: list[Any]
    leaves: list[Leaf]
    sources: dict[str, TensorSource] | None
    """Those of the leaves; None if they are not to be kept."""
    metadata: dict[str, str]
    memo: dict[str, Any] = field(default_factory=dict)


class Capturing:
    """Captures one object. Used by one thread at a time."""

    def __init__(self, name: str, read: Read) -> None:
        self.name = name
        self._read = read
        self._form: _Form | None = None

    def forget(self) -> None:
        """Hold on to no tensor that was captured."""
        self._form = None

    def capture(self) -> CapturedState:
        """Capture the state: its tensors by reference, plain values by copy.

        Raises:
            UnsupportedStateError: something in it is neither a tensor nor plain data; names its path from the name.
        """
        value, role, adapter = self._read()
        outline: list[Any] = []
        tensors: list[Any] = []
        frozen = freeze(value, outline, tensors)
        form = self._form
        if form is not None and form.outline == outline:
            leaves = _renewed(form.leaves, tensors)
            if leaves is not None:
                same = leaves is form.leaves and form.sources is not None
                sources = form.sources if same and form.sources is not None else _sources(leaves)
                if not same and any(leaf.source is not None and leaf.source.lasts for leaf in leaves):
                    self._form = _form(outline, leaves, sources, form.metadata, form.memo)
                return CapturedState(
                    name=self.name,
                    role=role,
                    state=reencode(self.name, frozen, leaves),
                    sources=sources,
                    metadata=form.metadata,
                    memo=form.memo,
                )
        captured, leaves = capture_value(self.name, frozen, role=role, adapter=adapter)
        known = len(leaves) == len(tensors)
        self._form = _form(outline, leaves, captured.sources, captured.metadata, captured.memo) if known else None
        return captured


def freeze(value: Any, outline: list[Any], tensors: list[Any], depth: int = 0) -> Any:
    """Return a copy of nested plain data, with the same tensors in it.

    Args:
        value: the data.
        outline: takes the keys and types, which are equal for data of equal form.
        tensors: takes whatever is no plain data, in order.
        depth: how deep `value` lies.
    """
    kind = type(value)
    if kind in _PLAIN:
        outline.append(kind)
        return value
    if (kind in _MAPPINGS or kind in _SEQUENCES) and depth <= _MAX_DEPTH:
        items = value.values() if kind in _MAPPINGS else value
        kinds = tuple(map(type, items))
        plain = _PLAIN.issuperset(kinds)
        outline.append((kind, tuple(value) if kind in _MAPPINGS else None, kinds if plain else len(kinds)))
        if not plain:
            items = [freeze(item, outline, tensors, depth + 1) for item in items]
        if kind in _MAPPINGS:
            return kind(zip(value, items, strict=True))
        return deque(items, value.maxlen) if kind is deque else kind(items)
    if kind in _COPIED:
        outline.append(kind)
        return kind(value)
    outline.append(Any)
    tensors.append(value)
    return value


def _renewed(leaves: list[Leaf], tensors: Sequence[Any]) -> list[Leaf] | None:
    """Return the leaves for these tensors, the same list if they are the same; None if the form has changed."""
    renewed: list[Leaf] = []
    same = True
    for leaf, value in zip(leaves, tensors, strict=True):
        source = leaf.source
        if source is not None and leaf.value is value and source.is_still(value):
            renewed.append(leaf)
            continue
        found = source_of(leaf.path, value)
        if found is None or found[0] != leaf.tag or found[1].facts != leaf.facts:
            return None
        renewed.append(leaf.of(value, found[1]))
        same = False
    if same:
        return leaves
    return renewed if _ties(renewed) == [leaf.stored for leaf in leaves] else None


def _ties(leaves: Sequence[Leaf]) -> list[str] | None:
    """Return for each leaf the name of the first that is the same memory; None if one name is now two memories."""
    first: dict[Any, str] = {}
    names = [
        leaf.stored
        if leaf.source is None or leaf.source.identity is None
        else first.setdefault(leaf.source.identity, leaf.stored)
        for leaf in leaves
    ]
    return names if len(set(first.values())) == len(first) else None


def _sources(leaves: Sequence[Leaf]) -> dict[str, TensorSource]:
    found: dict[str, TensorSource] = {}
    for leaf in leaves:
        if leaf.source is not None:
            found.setdefault(leaf.stored, leaf.source)
    return found


def _form(
    outline: list[Any],
    leaves: Sequence[Leaf],
    sources: dict[str, TensorSource],
    metadata: dict[str, str],
    memo: dict[str, Any],
) -> _Form:
    """Return the form without the tensors that will not be met again: these are not to be kept alive."""
    kept = [leaf if leaf.source is not None and leaf.source.lasts else leaf.of(None, None) for leaf in leaves]
    whole = all(leaf.source is not None for leaf in kept)
    return _Form(outline, kept, sources if whole else None, metadata, memo)
