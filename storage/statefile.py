"""State file: `state.json`, everything of a checkpoint that is not a large tensor.

{"objects": {name: {"role", "file", "state"}}, "training": {…}}: for each object the tensor file that holds its tensors
(or null) and its typed state, in which tensors are referred to by name; and where training stood.
"""

from __future__ import annotations

import base64
import contextlib
import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal

import msgspec
from msgspec import Struct
from msgspec.structs import asdict

from ..errors import DamagedFileError, KeepbestError
from .arrays import Converter
from .layout import STATE_FILE
from .manifest import check_shape
from .tensorfile import TensorSpec, TensorView
from .typedjson import Json, decode, tensors_in

_MALFORMED = (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError)
"""What taking a stranger's state apart can raise; of a state that was written as it should be, nothing is raised."""

Role = Literal["weights", "optimizer", "state"]


class ObjectRecord(Struct, frozen=True, kw_only=True):
    """One object of a checkpoint."""

    role: Role
    """"weights": what a weights-only checkpoint keeps."""
    file: str | None
    """The tensor file that holds its tensors; None if they stand in `state` itself, or there are none."""
    state: Json


class StateFile(Struct, frozen=True, kw_only=True):
    """The content of `state.json`."""

    objects: dict[str, ObjectRecord]
    training: dict[str, Json]
    """Position, monitors and journal mark; core writes and reads it."""


def dump(objects: Mapping[str, ObjectRecord], training: Mapping[str, Json]) -> bytes:
    """Return the bytes of a state file."""
    content = {"objects": {name: asdict(record) for name, record in objects.items()}, "training": dict(training)}
    return json.dumps(content, separators=(",", ":"), allow_nan=False).encode()


def parse(data: bytes, location: str) -> StateFile:
    """Return the content of a state file.

    Raises:
        DamagedFileError: it is not one.
    """
    try:
        return msgspec.convert(json.loads(data), StateFile)
    except (ValueError, RecursionError, MemoryError) as error:
        raise DamagedFileError(location, f"it is no state file ({error!s:.200})") from error


# ── how a typed state refers to a tensor ──────────────────────────────────────────────────────────────────────────
# "name" · {"name": …, "as": "C128"} in the object's tensor file · {"dtype", "shape", "data": base64[, "as"]} inline


def reference(name: str, logical: str | None) -> Json:
    """Return what refers to the tensor `name` of the object's file."""
    return name if logical is None else {"name": name, "as": logical}


def inline(spec: TensorSpec, data: bytes | memoryview, logical: str | None) -> Json:
    """Return a small tensor as JSON."""
    payload = {"dtype": spec.dtype, "shape": list(spec.shape), "data": base64.b64encode(data).decode()}
    return payload if logical is None else payload | {"as": logical}


def restore(record: ObjectRecord, tensors: Mapping[str, TensorView], convert: Callable[[str], Converter]) -> Any:
    """Return the nested state of an object.

    Args:
        record: the object.
        tensors: those of its file, by name.
        convert: from a tag to what makes the tensors that stand under it.

    Raises:
        DamagedFileError: the state refers to a tensor that is not among them.
    """
    with _understood():
        return decode(record.state, lambda tag, payload: tensor(payload, tensors, convert(tag)))


def tensor(payload: Json, tensors: Mapping[str, TensorView], convert: Converter) -> Any:
    """Return the tensor that a reference, or an inline payload, stands for.

    Raises:
        DamagedFileError: it stands for none.
    """
    with _understood():
        logical = payload.get("as") if isinstance(payload, dict) else None
        name = stored_name(payload)
        if name is None:
            return convert(_inlined(payload), logical)
        if name not in tensors:
            raise DamagedFileError(STATE_FILE, "it speaks of it, and the tensor file does not have it", tensor=name)
        return convert(tensors[name], logical)


def _inlined(payload: Mapping[str, Any]) -> TensorView:
    data = memoryview(bytearray(base64.b64decode(payload["data"], validate=True)))
    spec = TensorSpec(name="", dtype=payload["dtype"], shape=tuple(payload["shape"]))
    check_shape(spec.shape)
    if min(spec.shape, default=0) < 0 or spec.nbytes != len(data):
        raise ValueError(f"a tensor of {len(data)} bytes cannot be of shape {spec.shape!r:.80}")
    return TensorView(spec=spec, data=data)


@contextlib.contextmanager
def _understood() -> Iterator[None]:
    try:
        yield
    except KeepbestError:
        raise
    except _MALFORMED as error:
        raise DamagedFileError(
            STATE_FILE, f"its state is not what keepbest writes ({type(error).__name__}: {error!s:.200})"
        ) from error


def references(record: ObjectRecord) -> dict[str, Json]:
    """Return what refers to each tensor of the object, inline ones too: by the keys on the way to it, joined by dots.

    Where two ways read the same, the second is called "name~2", as in the tensor file.
    """
    found: dict[str, Json] = {}
    with _understood():
        for path, payload in tensors_in(record.state):
            key, number = path, 1
            while key in found:
                number += 1
                key = f"{path}~{number}"
            stored_name(payload)
            found[key] = payload
    return found


def stored_name(payload: Json) -> str | None:
    """Return the name in the object's file that `payload` refers to, which tied tensors share; None if it is inline."""
    name = payload if isinstance(payload, str) else payload.get("name")
    if name is not None and not isinstance(name, str):
        raise TypeError(f"a tensor's name is a {type(name).__name__}")
    return name
