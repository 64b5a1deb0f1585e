"""State file: `state.json`, everything of a checkpoint that is not a large tensor.

{"objects": {name: {"role", "file", "state"}}, "training": {…}}: for each object the tensor file that holds its tensors
(or null) and its typed state, in which tensors are referred to by name; and where training stood.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from ..errors import DamagedFileError
from .arrays import Converter
from .tensorfile import TensorSpec, TensorView
from .typedjson import Json, decode

Role = Literal["weights", "optimizer", "state"]


class ObjectRecord(BaseModel):
    """One object of a checkpoint."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    role: Role
    """"weights": what a weights-only checkpoint keeps."""
    file: str | None
    """The tensor file that holds its tensors; None if they stand in `state` itself, or there are none."""
    state: Json


class StateFile(BaseModel):
    """The content of `state.json`."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    objects: dict[str, ObjectRecord]
    training: dict[str, Json]
    """Position, monitors and journal mark; core writes and reads it."""


def dump(objects: Mapping[str, ObjectRecord], training: Mapping[str, Json]) -> bytes:
    """Return the bytes of a state file."""
    content = {"objects": {name: record.model_dump() for name, record in objects.items()}, "training": dict(training)}
    return json.dumps(content, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def parse(data: bytes, location: str) -> StateFile:
    """Return the content of a state file.

    Raises:
        DamagedFileError: it is not one.
    """
    try:
        return StateFile.model_validate(json.loads(data))
    except (ValueError, ValidationError) as error:
        raise DamagedFileError(location, f"it is no state file ({error})") from error


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
        convert: from a framework's tag to what makes its tensors.
    """

    def tensor(tag: str, payload: Json) -> Any:
        if isinstance(payload, str):
            return convert(tag)(tensors[payload], None)
        logical = payload.get("as")
        if "name" in payload:
            return convert(tag)(tensors[payload["name"]], logical)
        data = memoryview(bytearray(base64.b64decode(payload["data"])))
        spec = TensorSpec(name="", dtype=payload["dtype"], shape=tuple(payload["shape"]))
        return convert(tag)(TensorView(spec=spec, data=data), logical)

    return decode(record.state, tensor)


def references(record: ObjectRecord) -> dict[str, tuple[str, str | None]]:
    """Return the tensors that lie in the object's file: by key of the state dict, or by stored name where nested.

    The value is the name in the file, which tied tensors share, and the logical dtype.
    """
    found: dict[str, tuple[str, str | None]] = {}

    def note(_tag: str, payload: Json) -> None:
        stored = _stored(payload)
        if stored is not None:
            found.setdefault(stored[0], stored)

    items = record.state.items() if isinstance(record.state, dict) else ()
    for key, item in items:
        payload = next(iter(item.values())) if isinstance(item, dict) and len(item) == 1 else None
        stored = _stored(payload)
        if stored is not None and next(iter(item)).startswith("$"):
            found[key] = stored
        else:
            decode(item, note)
    return found


def _stored(payload: Json) -> tuple[str, str | None] | None:
    if isinstance(payload, str):
        return payload, None
    if isinstance(payload, dict) and "name" in payload:
        return payload["name"], payload.get("as")
    return None
