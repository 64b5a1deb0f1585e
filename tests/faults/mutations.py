"""Mutations: valid bytes → bytes that are nearly valid, by flips, cuts and splices, or as a tree of JSON."""

from __future__ import annotations

import copy
import json
import random
from typing import Any

from faults.stranger import VALUES, dumps

_TOKENS = (
    b"{", b"}", b"[", b"]", b'"', b",", b":", b"\\", b"\0", b"\xff", b"\n", b"/", b"..", b"://", b"::", b"{}", b"$",
    b"-", b"0",
    b"999999999999999999999", b"1e999", b"NaN", b"null", b"true", b"\\u0000", b"\\ud800", b"&a", b"*a", b"!!", b"%",
    b"?", b"#", b"@",
)  # fmt: skip
_GENTLE = tuple(
    value
    for value in VALUES
    if value not in ("@deep@", "@huge@") and not (isinstance(value, str) and len(value) > 6000)
)
"""Those that are small: a fuzzer makes thousands in a second."""


def mutated(draw: random.Random, corpus: list[bytes]) -> bytes:
    """Return bytes made of one or two entries of the corpus."""
    data = draw.choice(corpus)
    if draw.random() < 0.6:
        made = _tree(draw, data, corpus)
        if made is not None:
            return made if draw.random() < 0.9 else _bytes(draw, made, corpus)
    return _bytes(draw, data, corpus)


def _tree(draw: random.Random, data: bytes, corpus: list[bytes]) -> bytes | None:
    try:
        tree = json.loads(data)
    except ValueError:
        return None
    if not isinstance(tree, dict | list):
        return None
    for _ in range(draw.choice((1, 1, 1, 2, 4))):
        parent, key = _place(draw, tree)
        if parent is None:
            return dumps(draw.choice(_GENTLE))
        _change(draw, parent, key, corpus)
    return dumps(tree)


def _place(draw: random.Random, tree: Any) -> tuple[Any, Any]:
    """Walk down at random; return a container and one of its keys."""
    parent, key = None, None
    at = tree
    while isinstance(at, dict | list) and at and (parent is None or draw.random() < 0.8):
        parent = at
        key = draw.choice(list(at)) if isinstance(at, dict) else draw.randrange(len(at))
        at = at[key]
    return parent, key


def _change(draw: random.Random, parent: Any, key: Any, corpus: list[bytes]) -> None:
    way = draw.randrange(8)
    if way == 0:
        del parent[key]
    elif way == 1 and isinstance(parent, dict):
        parent[draw.choice(("", "x", "$torch", "$numpy", "__metadata__", "name", "../x", "\x1b[2J"))] = parent.pop(key)
    elif way == 2 and isinstance(parent, list):
        parent.insert(draw.randrange(len(parent) + 1), parent[key])
    elif way == 3:
        parent[key] = [parent[key]]
    elif way == 4:
        parent[key] = {draw.choice(("$tuple", "$set", "$dict", "$deque", "$float", "$torch", "a")): parent[key]}
    elif way == 5 and isinstance(parent[key], int | float) and not isinstance(parent[key], bool):
        if abs(parent[key]) < 1e300:
            parent[key] = parent[key] * draw.choice((-1, 0, 2, 2**31, 2**62, 0.5)) + draw.choice((-1, 0, 1))
    else:
        parent[key] = copy.deepcopy(draw.choice(_GENTLE))  # it may be mutated itself


def _bytes(draw: random.Random, data: bytes, corpus: list[bytes]) -> bytes:
    made = bytearray(data)
    for _ in range(draw.choice((1, 1, 2, 3, 8))):
        at = draw.randrange(len(made) + 1)
        end = min(len(made), at + draw.choice((1, 1, 2, 4, 16, 64)))
        way = draw.randrange(6)
        if way == 0 and at < len(made):
            made[at] ^= 1 << draw.randrange(8)
        elif way == 1 and at < len(made):
            made[at] = draw.randrange(256)
        elif way == 2:
            del made[at:end]
        elif way == 3:
            made[at:at] = draw.choice(_TOKENS)
        elif way == 4:
            made[at:at] = made[at:end] * draw.choice((1, 2, 20))
        else:
            other = draw.choice(corpus)
            begin = draw.randrange(len(other) + 1)
            made[at:end] = other[begin : begin + draw.choice((1, 4, 16, 64, 1024))]
    return bytes(made)
