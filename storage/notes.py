"""Notes: what stands in the journal between the rows: what was decided and why, what became of saves, begin and end.

A row says what was logged; a note says what followed from it. Nothing is ever restored from a note: they are for people
who ask what a run did, and a reader that does not know a kind of note passes over it.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from .manifest import JsonFloat, Moment, Natural


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class Check(_Record):
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


class _Note(_Record):
    time: Moment
    """Seconds since 1970."""
    epoch: Natural | None
    """The epoch that was closed last or is under way, from 0; None before the first."""
    step: Natural
    """Training steps closed."""


class Began(_Note):
    """A process began to train: afresh, or from a checkpoint. Written before its first row."""

    kind: Literal["began"] = "began"
    checkpoint: str | None
    """The name of what it continues; None: the beginning."""
    policy: dict[str, Any] = {}
    """The policy's settings, as `CheckpointPolicy.model_dump(mode="json")` gives them."""
    host: str = ""
    versions: dict[str, str] = {}


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


class SaveFailed(_Note):
    """A save has failed; older checkpoints are unharmed."""

    kind: Literal["failed"] = "failed"
    checkpoint: str
    error: str
    """Class and message."""


class WentBack(_Note):
    """Training went back to a checkpoint and goes on from there, in the same process."""

    kind: Literal["back"] = "back"
    checkpoint: str


class Ended(_Note):
    """The process let go of the run. Absent: it was killed, or trains still."""

    kind: Literal["ended"] = "ended"
    cause: Literal["complete", "stopped", "signal", "exception", "closed"]
    """"complete": `epochs(n)` came to its end; "stopped": a monitor ended it; "closed": the loop ended by itself."""
    error: str | None = None
    """The class of the exception."""


Note = Annotated[Began | Decided | Saved | SaveFailed | WentBack | Ended, Field(discriminator="kind")]


@functools.cache
def _adapter() -> TypeAdapter[Note]:
    return TypeAdapter(Note)


def note_to_json(note: Note) -> dict[str, Any]:
    """Return a note's fields as plain data for a line of the journal; what is as usual is left out."""
    return {"kind": note.kind, **note.model_dump(mode="json", exclude_defaults=True)}


def note_from_json(line: Mapping[str, Any]) -> Note | None:
    """Return the note that a line of the journal holds; None for one of an unknown kind, or a damaged one."""
    try:
        return _adapter().validate_python(line)
    except (ValidationError, RecursionError):
        return None
