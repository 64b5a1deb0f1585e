"""Machine: the objects that `--json` prints. One JSON object on one line of standard output, and nothing else there.

Every object says which one it is and in which version (`"schema": "keepbest.ls/1"`). Within a version fields may be
added, none is renamed, removed or given another meaning. The fields are documented where each verb builds its object.
In all of them: epochs count from 0, as in Python; times are seconds since 1970, spans are seconds, sizes are bytes; a
metric that is not finite is the string "nan", "inf" or "-inf".
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypedDict

from ..storage.jsonfloat import float_to_json, floats_to_json
from . import output

if TYPE_CHECKING:
    from ..storage.manifest import CheckpointInfo, Score


class ScoreJson(TypedDict):
    """What one monitor ranks a checkpoint by."""

    monitor: str
    """The metric's name."""
    mode: str
    """"min": lower is better; or "max"."""
    value: float | str | None
    """null: it is not ranked."""


class CheckpointJson(TypedDict):
    """A checkpoint, as far as a listing knows it."""

    sequence: int
    """Position in the run's commits, from 1."""
    name: str
    step: int
    epoch: int | None
    parent: int | None
    """Sequence of the checkpoint that training continued from."""
    time: float
    reasons: list[str]
    complete: bool
    """false: weights only."""
    metrics: dict[str, float | str]
    scores: list[ScoreJson]
    """The primary monitor first."""
    bytes: int


def emit(schema: str, body: Mapping[str, Any]) -> None:
    """Print one object."""
    text = json.dumps({"schema": f"keepbest.{schema}", **body}, allow_nan=False, separators=(",", ":"))
    output.write(f"{text}\n")


def checkpoint(info: CheckpointInfo) -> CheckpointJson:
    """Return a checkpoint's light record."""
    return CheckpointJson(
        sequence=info.sequence,
        name=info.name,
        step=info.step,
        epoch=info.epoch,
        parent=info.parent,
        time=info.time,
        reasons=list(info.reasons),
        complete=info.complete,
        metrics=floats_to_json(info.metrics),
        scores=scores(info.scores),
        bytes=info.nbytes,
    )


def scores(found: Sequence[Score]) -> list[ScoreJson]:
    """Return what each monitor made of a checkpoint."""
    return [
        ScoreJson(
            monitor=score.monitor, mode=score.mode, value=None if score.value is None else float_to_json(score.value)
        )
        for score in found
    ]
