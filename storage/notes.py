"""Notes: what stands in the journal between the rows: what was decided and why, what became of saves, begin and end.

A row says what was logged; a note says what followed from it. Nothing is ever restored from a note: they are for people
who ask what a run did, and a reader that does not know a kind of note passes over it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import msgspec
from msgspec import Struct, field

from .jsonfloat import JsonFloat, plain, read_floats
from .manifest import Natural


class Check(Struct, frozen=True, kw_only=True, omit_defaults=True):
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

    def __post_init__(self) -> None:
        read_floats(self, "value", "judged", "best", "gap")


class _Note(Struct, frozen=True, kw_only=True, omit_defaults=True):
    time: float
    """Seconds since 1970."""
    epoch: Natural | None
    """The epoch that was closed last or is under way, from 0; None before the first."""
    step: Natural
    """Training steps closed."""


class Began(_Note, frozen=True, kw_only=True, omit_defaults=True):
    """A process began to train: afresh, or from a checkpoint. Written before its first row."""

    kind: Literal["began"] = "began"
    checkpoint: str | None
    """The name of what it continues; None: the beginning."""
    policy: dict[str, Any] | None = field(default_factory=dict)
    """The policy's settings, as `CheckpointPolicy.model_dump(mode="json")` gives them; None: what stands there is no
    policy. Empty: nothing stands there."""
    host: str = ""
    versions: dict[str, str] = field(default_factory=dict)


class Decided(_Note, frozen=True, kw_only=True, omit_defaults=True):
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


class Saved(_Note, frozen=True, kw_only=True, omit_defaults=True):
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

    def __post_init__(self) -> None:
        read_floats(self, "blocked", "seconds")


class SaveFailed(_Note, frozen=True, kw_only=True, omit_defaults=True):
    """A save has failed; older checkpoints are unharmed."""

    kind: Literal["failed"] = "failed"
    checkpoint: str
    error: str
    """Class and message."""


class WentBack(_Note, frozen=True, kw_only=True, omit_defaults=True):
    """Training went back to a checkpoint and goes on from there, in the same process."""

    kind: Literal["back"] = "back"
    checkpoint: str


class Ended(_Note, frozen=True, kw_only=True, omit_defaults=True):
    """The process let go of the run. Absent: it was killed, never closed its Checkpointer, or trains still."""

    kind: Literal["ended"] = "ended"
    cause: Literal["complete", "stopped", "callback", "signal", "exception", "closed"]
    """"complete": all epochs were done; "stopped": a monitor ended it; "callback": another callback of `fit` did;
    "closed": the loop ended by itself."""
    error: str | None = None
    """The class of the exception; None with "exception": the Checkpointer was closed without a last save."""
    text: str = ""
    """The first line of what the exception said, at most 200 characters, without passwords in URLs."""
    within: Natural | None = None
    """The epoch, from 0, in which a loop over `epochs(n)` was left; None: it was not, or nobody knows."""
    planned: Natural | None = None
    """How many epochs that loop was to have, those of earlier processes included."""


Note = Began | Decided | Saved | SaveFailed | WentBack | Ended

_KINDS: dict[str, type[Note]] = {
    "began": Began, "decided": Decided, "saved": Saved, "failed": SaveFailed, "back": WentBack, "ended": Ended,
}  # fmt: skip


def note_to_json(note: Note) -> dict[str, Any]:
    """Return a note's fields as plain data for a line of the journal; what is as usual is left out."""
    return {"kind": note.kind, **plain(msgspec.to_builtins(note))}


def note_from_json(line: Mapping[str, Any]) -> Note | None:
    """Return the note that a line of the journal holds; None for one of an unknown kind, or a damaged one."""
    kind = line.get("kind")
    if not isinstance(kind, str) or kind not in _KINDS:
        return None
    if kind == "began" and not isinstance(line.get("policy", {}), dict):
        line = {**line, "policy": None}  # somebody altered it; who began, and where, can be told all the same
    try:
        return msgspec.convert(line, _KINDS[kind])
    except (msgspec.ValidationError, RecursionError):
        return None


def is_of_newer_kind(line: Mapping[str, Any]) -> bool:
    """Say whether a line of the journal that is no note to us may be one of a newer keepbest."""
    kind = line.get("kind")
    return isinstance(kind, str) and kind not in _KINDS
