"""Notes: what stands in the journal between the rows: what was decided and why, what became of saves, begin and end.

A row says what was logged; a note says what followed from it. Nothing is ever restored from a note: they are for people
who ask what a run did, and a reader that does not know a kind of note passes over it.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import MISSING, Field, dataclass, field, fields
from operator import attrgetter
from typing import Any, Literal

from pydantic import TypeAdapter, ValidationError

from .jsonfloat import float_to_json
from .manifest import JsonFloat, Moment, Natural

# Plain dataclasses: two are made with every `log`, and a pydantic model takes several times as long to make and dump.
# What is read is checked by pydantic, against the same types.


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """What one monitor made of the metrics of one epoch."""

    monitor: str
    """The metric's name."""
    mode: Literal["min", "max"]
    value: JsonFloat | None
    """As it was logged; None when it was not."""
    judged: JsonFloat | None
    """The value that was judged: smoothed, if the monitor smooths; None when nothing was judged."""
    age: Natural = 0
    """Training steps between the measurement and the check."""
    best: JsonFloat | None
    """The best so far, this one included."""
    best_epoch: Natural | None
    """From 0."""
    wait: Natural
    """Checks without improvement since the best."""
    patience: Natural | None = None
    """Checks without improvement that end training; None: it never ends for that."""
    improved: bool
    stop: bool
    eligible: bool
    """A checkpoint with this value may be the best."""
    gap: JsonFloat | None = None
    """How much worse validation is than training; None where only one of them was logged."""
    overfitting: bool = False
    """Validation worsened while training improved, over the monitor's window."""
    unmet: tuple[str, ...] = ()
    """Constraints that the values do not meet."""
    reason: str
    """One sentence, for people; it counts epochs from 1."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Note:
    time: Moment
    """Seconds since 1970."""
    epoch: Natural | None
    """The epoch that was closed last or is under way, from 0; None before the first."""
    step: Natural
    """Training steps closed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Began(_Note):
    """A process began to train: afresh, or from a checkpoint. Written before its first row."""

    kind: Literal["began"] = "began"
    checkpoint: str | None
    """The name of what it continues; None: the beginning."""
    policy: dict[str, Any] = field(default_factory=dict)
    """The policy's settings, as `CheckpointPolicy.model_dump(mode="json")` gives them."""
    host: str = ""
    versions: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Decided(_Note):
    """A check: every `log`, and whenever else a save was due."""

    kind: Literal["decided"] = "decided"
    event: str
    """"epoch", "step", "end", "signal", "exception", or "request" (`save()` was called)."""
    checkpoint: str | None
    """The name of the checkpoint that is saved for it; None: nothing is."""
    reasons: tuple[str, ...] = ()
    """Why it is saved, or was due: "improvement", "epoch", …"""
    busy: bool = False
    """It was due, and left out because the save before was still being written."""
    checks: tuple[Check, ...] = ()
    """What each monitor made of the values, the primary one first; only with `event` "epoch"."""
    stop: bool = False
    """A monitor says that training should end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Saved(_Note):
    """A save has ended well: the checkpoint is committed and durable."""

    kind: Literal["saved"] = "saved"
    checkpoint: str
    sequence: Natural
    nbytes: Natural
    """Of all its files."""
    blocked: JsonFloat
    """Seconds for which training was held."""
    seconds: JsonFloat
    """From the call to durable."""
    retired: tuple[str, ...] = ()
    """Names of the checkpoints that were deleted after it, as the policy no longer keeps them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SaveFailed(_Note):
    """A save has failed; older checkpoints are unharmed."""

    kind: Literal["failed"] = "failed"
    checkpoint: str
    error: str
    """Class and message."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WentBack(_Note):
    """Training went back to a checkpoint and goes on from there, in the same process."""

    kind: Literal["back"] = "back"
    checkpoint: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended(_Note):
    """The process let go of the run. Absent: it was killed, never closed its Checkpointer, or trains still."""

    kind: Literal["ended"] = "ended"
    cause: Literal["complete", "stopped", "signal", "exception", "closed"]
    """"complete": `epochs(n)` came to its end; "stopped": a monitor ended it; "closed": the loop ended by itself."""
    error: str | None = None
    """The class of the exception; None with "exception": the Checkpointer was closed without a last save."""


Note = Began | Decided | Saved | SaveFailed | WentBack | Ended

_KINDS: dict[str, type[Note]] = {
    "began": Began, "decided": Decided, "saved": Saved, "failed": SaveFailed, "back": WentBack, "ended": Ended,
}  # fmt: skip


def note_to_json(note: Note) -> dict[str, Any]:
    """Return a note's fields as plain data for a line of the journal; what is as usual is left out."""
    return {"kind": note.kind, **_unusual(note)}


def note_from_json(line: Mapping[str, Any]) -> Note | None:
    """Return the note that a line of the journal holds; None for one of an unknown kind, or a damaged one."""
    kind = line.get("kind")
    if not isinstance(kind, str) or kind not in _KINDS:
        return None
    try:
        return _reader(kind).validate_python(line)
    except (ValidationError, RecursionError):
        return None


@functools.cache
def _reader(kind: str) -> TypeAdapter[Note]:
    """Return what checks notes of a kind; to build those of all takes longer than to read a short journal."""
    return TypeAdapter(_KINDS[kind])


def _unusual(record: Note | Check) -> dict[str, Any]:
    """Return the fields that differ from their defaults."""
    names, usual, values = _PLANS[type(record)]
    told: dict[str, Any] = {}
    for name, default, value in zip(names, usual, values(record), strict=True):
        if value is default or value == default:
            continue
        if isinstance(value, float):
            told[name] = float_to_json(value)
        elif isinstance(value, tuple):
            told[name] = [_unusual(each) if isinstance(each, Check) else each for each in value]
        else:
            told[name] = value
    return told


def _plan(kind: type[Note | Check]) -> tuple[tuple[str, ...], tuple[object, ...], attrgetter[tuple[Any, ...]]]:
    """Return names and defaults of a record's fields, and what gets their values."""
    names = tuple(each.name for each in fields(kind))
    return names, tuple(_default(each) for each in fields(kind)), attrgetter(*names)


def _default(of: Field[Any]) -> object:
    return of.default if of.default_factory is MISSING else of.default_factory()


_PLANS = {kind: _plan(kind) for kind in (Check, Began, Decided, Saved, SaveFailed, WentBack, Ended)}
