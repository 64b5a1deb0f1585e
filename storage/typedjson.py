"""Typed JSON: nested plain data ⇄ JSON that keeps every type, with tensors referred to by name.

JSON has no tuple, no int key and no NaN. A one-key object whose key starts with "$" stands for each (`docs/format.md`
lists them). Whatever is in no table here is an error that names its place: nothing is guessed, nothing is pickled.
"""

from __future__ import annotations

import base64
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import chain
from typing import Any

from ..errors import UnsupportedStateError

Json = Any
TensorEncoder = Callable[[str, Any], "tuple[str, Json] | None"]
"""Given a path and a value: its tag and the JSON that refers to the tensor, or None if it is no tensor."""
TensorDecoder = Callable[[str, Json], Any]
"""Given the tag and what the encoder returned: the tensor."""

_MAX_DEPTH = 100
"""Levels. Each takes four of Python's 1000 frames, and the caller may be deep down already."""
_TOO_DEEP = "refers to itself, or is nested too deeply"
_INT_BITS = 14_284
"""Python turns no int of more than 4,300 digits into text or back, unless told to."""
_TOO_LONG = "has too many digits for JSON (4,300 at most)"
_HEX = "Save hex(…) of it instead."
_KEYS = "Keys may be str, int, float, bool, None, and tuples of plain values."
_VALUE_BYTES = 16
"""What a value takes at the least; in a pickle it may be one byte."""
_TENSOR_BYTES = 256
"""The same, of what refers to a tensor."""


def encode(value: Any, path: str, tensor: TensorEncoder) -> Json:
    """Return JSON for `value`.

    Args:
        value: nested plain data and tensors.
        path: where it stands, for errors: "optimizer.param_groups.0".
        tensor: called for whatever is not plain data.

    Raises:
        UnsupportedStateError: something in it is neither tensor nor plain data; names its path.
    """
    return _encode(value, path, tensor, 0)


def size(value: Any, path: str) -> int:
    """Return about how many bytes of memory `encode` takes for `value`, without doing it.

    What stands in many places counts in each, and is looked at once: it takes no longer than the value is large.

    Args:
        value: nested plain data and tensors.
        path: where it stands, for errors.

    Raises:
        UnsupportedStateError: it refers to itself, or is nested too deeply.
    """
    known: dict[int, int] = {}

    def of(item: Any, depth: int) -> int:
        if isinstance(item, str | bytes | bytearray):
            return _VALUE_BYTES + len(item)
        if item is None or isinstance(item, int | float | complex):
            return _VALUE_BYTES
        if not isinstance(item, dict | list | tuple | set | frozenset | deque):
            return _TENSOR_BYTES
        if depth > _MAX_DEPTH:
            raise UnsupportedStateError(path, item, why=_TOO_DEEP)
        if id(item) not in known:
            inside = chain(item, item.values()) if isinstance(item, dict) else item
            known[id(item)] = _VALUE_BYTES + sum(of(each, depth + 1) for each in inside)
        return known[id(item)]

    return of(value, 0)


def _encode(value: Any, path: str, tensor: TensorEncoder, depth: int) -> Json:  # noqa: C901, PLR0911, PLR0912 - a table
    if depth > _MAX_DEPTH:
        raise UnsupportedStateError(path[:200], value, why=_TOO_DEEP)

    def inner(item: Any, key: str) -> Json:
        return _encode(item, path + key, tensor, depth + 1)

    kind = type(value)
    if kind is int:
        _check_length(value, path)
    if value is None or kind in (bool, int, str):
        return value
    if kind is float:
        return value if value - value == 0 else {"$float": repr(value)}
    if kind is list:
        return [inner(item, f".{i}") for i, item in enumerate(value)]
    if kind is dict:
        if all(type(key) is str and not key.startswith("$") for key in value):
            return {key: inner(item, f".{key}") for key, item in value.items()}
        return {"$dict": _pairs(value, path, tensor, depth)}
    if kind is OrderedDict:
        return {"$ordered": _pairs(value, path, tensor, depth)}
    if kind is Counter:
        return {"$counter": _pairs(value, path, tensor, depth)}
    if kind is tuple:
        return {"$tuple": [inner(item, f".{i}") for i, item in enumerate(value)]}
    if kind in (set, frozenset):
        _check_hashable(value, path)
        return {f"${kind.__name__}": [_encode_hashable(item, path + ".{}", depth) for item in sorted(value, key=repr)]}
    if kind is deque:
        return {"$deque": [[inner(item, f".{i}") for i, item in enumerate(value)], value.maxlen]}
    if kind in (bytes, bytearray):
        return {f"${kind.__name__}": base64.b64encode(value).decode()}
    if kind is complex:
        return {"$complex": [inner(value.real, ".real"), inner(value.imag, ".imag")]}
    found = tensor(path, value)
    if found is None:
        raise UnsupportedStateError(path, value)
    tag, payload = found
    return {f"${tag}": payload}


def _encode_hashable(value: Any, path: str, depth: int) -> Json:
    # A tensor is not told apart by its value, and comes back as an array, which no set and no dict takes as a key.
    def refuse(where: str, found: Any) -> None:
        raise UnsupportedStateError(where, found, why="cannot be in a set, or in the key of a dict, in saved state")

    return _encode(value, path, refuse, depth + 1)


def _check_length(value: int, path: str) -> None:
    if value.bit_length() > _INT_BITS:
        raise UnsupportedStateError(path, value, why=_TOO_LONG, instead=_HEX)


def _check_hashable(value: Any, path: str) -> None:
    """Raise for an int that is too long, before anything of the value is put into text."""
    if type(value) is int:
        _check_length(value, path)
    if type(value) in (tuple, set, frozenset):
        for item in value:
            _check_hashable(item, path)


def _pairs(value: Mapping[Any, Any], path: str, tensor: TensorEncoder, depth: int) -> list[list[Json]]:
    for key in value:
        _check_hashable(key, path)
        if type(key) not in (str, int, float, bool, tuple, type(None)):
            raise UnsupportedStateError(
                f"{path}[{key!r}]", key, why="cannot be the key of a dict in saved state", instead=_KEYS
            )
    return [
        [_encode_hashable(key, f"{path}.{key}", depth), _encode(item, f"{path}.{key}", tensor, depth + 1)]
        for key, item in value.items()
    ]


def decode(value: Json, tensor: TensorDecoder) -> Any:
    """Return what `encode` was given.

    Args:
        value: the JSON.
        tensor: called for each tensor with its tag and what `encode`'s own `tensor` returned for it.
    """
    if isinstance(value, list):
        return [decode(item, tensor) for item in value]
    if not isinstance(value, dict):
        return value
    tag = next(iter(value), "")
    if len(value) != 1 or not tag.startswith("$"):
        return {key: decode(item, tensor) for key, item in value.items()}
    payload = value[tag]
    plain = _DECODERS.get(tag)
    if plain is None:
        return tensor(tag[1:], payload)
    return plain(payload, lambda item: decode(item, tensor))


def tensors_in(value: Json, path: str = "") -> Iterator[tuple[str, Json]]:
    """Yield for each tensor the keys on the way to it, joined by dots, and what `encode`'s own `tensor` returned."""
    tag = next(iter(value), "") if isinstance(value, dict) and len(value) == 1 else ""
    if tag.startswith("$") and tag not in _DECODERS:
        yield path or "value", value[tag]
    for key, item in _inside(value):
        yield from tensors_in(item, f"{path}.{key}" if path else str(key))


def plain_in(value: Json, path: str = "") -> Iterator[str]:
    """Yield for each value that has no tensor in it, and stands beside one that has, the keys on the way to it."""
    for key, item in _inside(value):
        where = f"{path}.{key}" if path else str(key)
        if next(tensors_in(item), None) is None:
            yield where
        else:
            yield from plain_in(item, where)


def _inside(value: Json) -> Iterable[tuple[Any, Json]]:
    """Return the keys and values of what may hold tensors."""
    if isinstance(value, list):
        return enumerate(value)
    if not isinstance(value, dict):
        return ()
    tag = next(iter(value), "")
    if len(value) != 1 or not tag.startswith("$"):
        return value.items()
    payload: Json = value[tag]
    if tag in {"$dict", "$ordered", "$counter"}:
        return ((decode(key, lambda _tag, _payload: None), item) for key, item in payload)
    if tag in {"$tuple", "$deque"}:
        return enumerate(payload if tag == "$tuple" else payload[0])
    return ()


_DECODERS: dict[str, Callable[[Json, Callable[[Json], Any]], Any]] = {
    "$float": lambda payload, _: float(payload),
    "$dict": lambda payload, inner: {inner(key): inner(item) for key, item in payload},
    "$ordered": lambda payload, inner: OrderedDict((inner(key), inner(item)) for key, item in payload),
    "$counter": lambda payload, inner: Counter({inner(key): inner(item) for key, item in payload}),
    "$tuple": lambda payload, inner: tuple(inner(item) for item in payload),
    "$set": lambda payload, inner: {inner(item) for item in payload},
    "$frozenset": lambda payload, inner: frozenset(inner(item) for item in payload),
    "$deque": lambda payload, inner: deque((inner(item) for item in payload[0]), payload[1]),
    "$bytes": lambda payload, _: base64.b64decode(payload),
    "$bytearray": lambda payload, _: bytearray(base64.b64decode(payload)),
    "$complex": lambda payload, inner: complex(inner(payload[0]), inner(payload[1])),
}
