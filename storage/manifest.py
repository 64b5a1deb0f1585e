"""What a committed checkpoint is, to and from JSON. The bytes are specified in `docs/format.md`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Any, Literal

import msgspec
from msgspec import DecodeError, Meta, Struct, ValidationError, field
from msgspec.structs import asdict, replace

from ..errors import DamagedManifestError, UnsupportedFormatError
from .digest import digest
from .jsonfloat import JsonFloat, float_to_json, floats_to_json, read_floats

FORMAT_MAJOR = 1
FORMAT_MINOR = 0

_MOST_AXES = 1000
_MOST_ELEMENTS = 2**59
"""Of one array, of 16 bytes each: NumPy can count the bytes of no more, even where one axis is 0 and there are none."""
_LONGEST_NUMBER = 9
"""Digits of a major version."""

# Records are msgspec's: what is read is checked against their fields' types, and to declare one takes a fiftieth of
# what a dataclass or a pydantic model takes. Fields that they do not have, as newer minor versions write them, are
# passed over.

Natural = Annotated[int, Meta(ge=0, le=2**63 - 1)]
"""A count, or a place in a file. Python reads numbers of any length, and other things that get them do not."""


def check_plain(name: str) -> None:
    """Raise ValueError unless this is the name of one folder or file, with no way out of where it lies.

    The record may be a stranger's, and retiring deletes what it names.
    """
    if name in {"", ".", ".."} or "/" in name or "\\" in name or "\0" in name:
        raise ValueError("is no plain name")


def check_shape(shape: Sequence[int]) -> None:
    """Raise ValueError unless arrays may have this shape: a stranger's may have a thousand axes, of any length."""
    if len(shape) > _MOST_AXES:
        raise ValueError(f"it has {len(shape):,} axes")
    if math.prod(length for length in shape if length) >= _MOST_ELEMENTS:
        raise ValueError("it has more elements than can be counted")


class Score(Struct, frozen=True, kw_only=True):
    """What one monitor made of a checkpoint: the value it is ranked by."""

    monitor: str
    """The metric's name, as it was logged."""
    mode: Literal["min", "max"]
    """"min": lower is better."""
    value: JsonFloat | None
    """The (smoothed) value, or None when it must not rank: not finite, stale, absent, or outside a constraint."""
    constrained: bool = False
    """The monitor has constraints, so a value that it did not judge itself must not rank."""

    def __post_init__(self) -> None:
        read_floats(self, "value")


class TensorRecord(Struct, frozen=True, kw_only=True, gc=False):
    """Where one tensor lies in its tensor file, and what it must read as."""

    dtype: str
    """The safetensors name: "F32", "BF16", …"""
    shape: tuple[Natural, ...]
    offsets: tuple[Natural, Natural]
    """Begin (inclusive) and end (exclusive) in bytes, counted from the artifact's `data_start`."""
    digest: str

    def __post_init__(self) -> None:
        if self.offsets[0] > self.offsets[1]:
            raise ValueError("it ends before it begins")
        check_shape(self.shape)


class Artifact(Struct, frozen=True, kw_only=True):
    """One file of a checkpoint."""

    size: Natural
    """Bytes."""
    digest: str
    """Of the whole file."""
    header_digest: str | None = None
    """Of the first `data_start` bytes of a tensor file; None for a file that is not one."""
    data_start: Natural | None = None
    """Byte at which a tensor file's data begins."""
    tensors: dict[str, TensorRecord] | None = None

    def __post_init__(self) -> None:
        if len({value is None for value in (self.header_digest, self.data_start, self.tensors)}) > 1:
            raise ValueError("header_digest, data_start and tensors belong together")
        ends = (tensor.offsets[1] for tensor in (self.tensors or {}).values())
        if (self.data_start or 0) + max(ends, default=0) > self.size:
            raise ValueError("a tensor ends behind the end of the file")


class Manifest(Struct, frozen=True, kw_only=True):
    """One committed checkpoint: it exists if and only if its manifest does."""

    format: str = f"{FORMAT_MAJOR}.{FORMAT_MINOR}"
    sequence: Natural
    """Position in the run's commits, from 1."""
    write_id: str
    """32 hex digits drawn anew for each save: tells our own commit from another writer's."""
    name: str
    """The checkpoint's folder below `checkpoints/`."""
    step: Natural
    """Training steps closed, over the whole run."""
    epoch: Natural | None
    """The epoch (from 0) that was closed last, or is under way; None before the first."""
    parent: Natural | None
    """Sequence of the checkpoint that training continued from; None at the root."""
    time: float
    """Seconds since 1970, by the writer's clock. For people: nothing is decided by it."""
    reasons: tuple[str, ...]
    """Why it was saved: "improvement", "epoch", "step", "time", "end", "signal", "exception", "request", or
    "converted": another program had saved it."""
    complete: bool
    """True: training can continue from it. False: weights only."""
    metrics: dict[str, JsonFloat]
    scores: tuple[Score, ...]
    """One for each monitor, the primary one first."""
    artifacts: dict[str, Artifact]
    """Name of the file in the checkpoint's folder → what it must be."""
    host: str
    versions: dict[str, str]

    def __post_init__(self) -> None:
        for name in (self.name, *self.artifacts):
            check_plain(name)
        read_floats(self, "metrics")


class CheckpointInfo(Struct, frozen=True, kw_only=True):
    """The light record of a checkpoint: all that policies and listings need, and no file."""

    sequence: Natural
    """Position in the run's commits, from 1."""
    name: str
    """The checkpoint's folder below `checkpoints/`."""
    step: Natural
    epoch: Natural | None
    """From 0; None before the first epoch."""
    parent: Natural | None
    """Sequence of the checkpoint that training continued from."""
    time: float
    """Seconds since 1970."""
    reasons: tuple[str, ...]
    complete: bool
    """True: training can continue from it. False: weights only."""
    metrics: dict[str, JsonFloat] = field(default_factory=dict)
    scores: tuple[Score, ...] = ()
    """One for each monitor, the primary one first."""
    nbytes: Natural = 0
    """Bytes of all its files."""

    def __post_init__(self) -> None:
        check_plain(self.name)
        read_floats(self, "metrics")

    def score(self, monitor: str | None = None) -> Score | None:
        """Return what `monitor` (default: the primary one) made of this checkpoint, or None."""
        for score in self.scores:
            if monitor is None or score.monitor == monitor:
                return score
        return None


def todays_scores(checkpoints: Sequence[CheckpointInfo]) -> tuple[Score, ...]:
    """Return the scores of the newest checkpoint that has any: one that was converted has none."""
    scored = (found for found in checkpoints if found.scores)
    newest = max(scored, key=lambda found: found.sequence, default=None)
    return () if newest is None else newest.scores


def with_todays_scores(checkpoints: Sequence[CheckpointInfo]) -> list[CheckpointInfo]:
    """Return the records with a score for each of today's monitors, so that a change of monitor loses no best.

    A checkpoint from before the change is ranked by the value that was logged with it, as it was. One without that
    metric does not rank, nor does any where the monitor has constraints, which nobody judged then.
    """
    today = todays_scores(checkpoints)
    return [_scored(checkpoint, today) for checkpoint in checkpoints]


def _scored(checkpoint: CheckpointInfo, today: tuple[Score, ...]) -> CheckpointInfo:
    own = {score.monitor for score in checkpoint.scores}
    added = tuple(
        Score(monitor=score.monitor, mode=score.mode, value=checkpoint.metrics[score.monitor])
        for score in today
        if score.monitor not in own and score.monitor in checkpoint.metrics and not score.constrained
    )
    return replace(checkpoint, scores=checkpoint.scores + added) if added else checkpoint


def info(manifest: Manifest) -> CheckpointInfo:
    """Return the light record of `manifest`."""
    return CheckpointInfo(
        sequence=manifest.sequence,
        name=manifest.name,
        step=manifest.step,
        epoch=manifest.epoch,
        parent=manifest.parent,
        time=manifest.time,
        reasons=manifest.reasons,
        complete=manifest.complete,
        metrics=manifest.metrics,
        scores=manifest.scores,
        nbytes=sum(artifact.size for artifact in manifest.artifacts.values()),
    )


# ── sealed JSON: a value and the digest of its exact bytes ────────────────────────────────────────────────────────
# {"digest":"xxh3-128:…","body":…}\n — the digest covers the bytes of the body as they stand, so that a reader in any
# language can check it by slicing, with no canonical form of JSON to agree on.

_HEAD = b'{"digest":"'
_MIDDLE = b'","body":'
_TAIL = b"}\n"
_BODY_START = len(_HEAD) + len(digest(b"")) + len(_MIDDLE)


def seal(body: bytes) -> bytes:
    """Return `body` (JSON) in an envelope that carries its digest."""
    return _HEAD + digest(body).encode() + _MIDDLE + body + _TAIL


def unseal(data: bytes, location: str) -> bytes:
    """Return the body of a sealed file.

    Raises:
        DamagedManifestError: the envelope is cut short, or the digest is not that of the body.
    """
    if (
        not data.startswith(_HEAD)
        or not data.endswith(_TAIL)
        or data[_BODY_START - len(_MIDDLE) : _BODY_START] != _MIDDLE
    ):
        raise DamagedManifestError(location, "it is cut short, or no sealed JSON")
    body = data[_BODY_START : -len(_TAIL)]
    if digest(body).encode() != data[len(_HEAD) : _BODY_START - len(_MIDDLE)]:
        raise DamagedManifestError(location, "its digest does not match its content")
    return body


def to_plain(record: Manifest | CheckpointInfo) -> dict[str, Any]:
    """Return its fields, with the floats that JSON has no word for as words."""
    scores = [
        asdict(score) | {"value": None if score.value is None else float_to_json(score.value)}
        for score in record.scores
    ]
    return asdict(record) | {"metrics": floats_to_json(record.metrics), "scores": scores}


class _Version(Struct):
    format: str = ""


def encode(manifest: Manifest) -> bytes:
    """Return the bytes of a manifest's file.

    Raises:
        ValueError: nobody could read it back: a field is not what its type says, which is seen only when it is read.
    """
    body = msgspec.json.encode(to_plain(manifest))
    msgspec.json.decode(body, type=Manifest)
    return seal(body)


def decode(data: bytes, location: str) -> Manifest:
    """Return the manifest in `data`, which was read from `location`.

    Raises:
        DamagedManifestError: it is truncated or altered.
        UnsupportedFormatError: its major version is not ours.
    """
    body = unseal(data, location)
    try:
        _check_version(msgspec.json.decode(body, type=_Version).format, location)
        return msgspec.json.decode(body, type=Manifest)
    except ValidationError as error:
        raise DamagedManifestError(location, f"it is no manifest ({error!s:.200})") from error
    except (DecodeError, RecursionError, MemoryError) as error:
        raise DamagedManifestError(location, f"it is not JSON ({error!s:.200})") from error


def _check_version(version: str, location: str) -> None:
    major = version.split(".", maxsplit=1)[0]
    if not (major.isascii() and major.isdigit()) or len(major) > _LONGEST_NUMBER:
        raise DamagedManifestError(location, "it says no format version")
    if int(major) != FORMAT_MAJOR:
        raise UnsupportedFormatError(location, version, FORMAT_MAJOR)
