"""`keepbest show`: everything about one checkpoint."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypedDict

import click

from ..errors import DamagedError
from ..storage.printable import printable
from . import machine, screen, words
from .options import run_verb

if TYPE_CHECKING:
    from ..storage.checkpoint import Checkpoint
    from ..storage.manifest import Artifact, Manifest, Score, TensorRecord
    from ..storage.run import Run
    from ..storage.statefile import ObjectRecord


class TensorJson(TypedDict):
    """A tensor in a tensor file."""

    dtype: str
    """The safetensors name: "F32", "BF16", …"""
    shape: list[int]
    bytes: int
    digest: str


class FileJson(TypedDict):
    """A file of the checkpoint."""

    bytes: int
    digest: str
    tensors: dict[str, TensorJson] | None
    """null: it is no tensor file."""


class ObjectJson(TypedDict):
    """An object of the checkpoint, as it was given to the Checkpointer."""

    role: str
    """"weights", "optimizer" or "state"."""
    file: str | None
    """The tensor file that holds its tensors; null: its state stands in state.json."""


class ShowJson(machine.CheckpointJson):
    """What `keepbest show --json` prints, as keepbest.show/1."""

    run: str
    marks: list[str]
    """"best" (by the primary monitor), "best METRIC", "latest", "weights only"."""
    host: str
    versions: dict[str, str]
    write_id: str
    format: str
    files: dict[str, FileJson]
    objects: dict[str, ObjectJson] | None
    """null: state.json is damaged."""


@click.command(epilog="Example: keepbest show runs/7 latest --tensors")
@run_verb
@click.argument("checkpoint", default="best")
@click.option("--tensors", is_flag=True, help="List every tensor, not only how many there are.")
def show(
    url: str,
    storage_options: Mapping[str, Any],
    as_json: bool,  # noqa: FBT001
    checkpoint: str,
    tensors: bool,  # noqa: FBT001
) -> None:
    """Show everything about one checkpoint.

    CHECKPOINT is best (default), latest, a name or its unique beginning, or a sequence number.
    """
    from ..storage.run import open_run  # noqa: PLC0415 - help needs none of it
    from .marks import marks  # noqa: PLC0415

    run = open_run(url, storage_options=storage_options)
    found = run.get(checkpoint)
    manifest = found.manifest()
    names = marks(run.listing().checkpoints).of(found.info)
    objects = _objects(found)
    if as_json:
        machine.emit("show/1", _to_json(run, found, names, objects))
        return
    screen.line(", ".join([found.name, *names]), "bold")
    screen.facts(_facts(run, manifest, found))
    screen.line("metrics", "bold")
    screen.facts((name, words.number(value)) for name, value in manifest.metrics.items())
    screen.line("ranked by", "bold")
    for score in manifest.scores:
        way = "lower is better" if score.mode == "min" else "higher is better"
        screen.line(f"  {score.monitor} ({way}): {_ranked(score, manifest.metrics.get(score.monitor))}")
    screen.line("objects", "bold")
    for name, record in (objects or {}).items():
        screen.line(f"  {name}: {record.role}, in {record.file or 'state.json'}")
    for file, artifact in manifest.artifacts.items():
        _show_file(file, artifact, every_tensor=tensors)


def _ranked(score: Score, logged: float | None) -> str:
    """Return by which value a checkpoint is ranked, and that it is smoothed if it is not the one that was logged."""
    if score.value is None:
        return "not ranked"
    smoothed = "" if logged is None or logged == score.value else ", smoothed"
    return words.number(score.value) + smoothed


def _objects(checkpoint: Checkpoint) -> Mapping[str, ObjectRecord] | None:
    try:
        return checkpoint.state().objects
    except DamagedError as error:
        click.echo(f"Warning: {printable(str(error))}", err=True)
        return None


def _to_json(
    run: Run, checkpoint: Checkpoint, names: list[str], objects: Mapping[str, ObjectRecord] | None
) -> ShowJson:
    manifest = checkpoint.manifest()
    return ShowJson(
        **machine.checkpoint(checkpoint.info),
        run=run.url,
        marks=names,
        host=manifest.host,
        versions=manifest.versions,
        write_id=manifest.write_id,
        format=manifest.format,
        files={file: _file_to_json(artifact) for file, artifact in manifest.artifacts.items()},
        objects=None
        if objects is None
        else {name: ObjectJson(role=record.role, file=record.file) for name, record in objects.items()},
    )


def _file_to_json(artifact: Artifact) -> FileJson:
    tensors = None
    if artifact.tensors is not None:
        tensors = {
            name: TensorJson(dtype=record.dtype, shape=list(record.shape), bytes=_nbytes(record), digest=record.digest)
            for name, record in artifact.tensors.items()
        }
    return FileJson(bytes=artifact.size, digest=artifact.digest, tensors=tensors)


def _facts(run: Run, manifest: Manifest, checkpoint: Checkpoint) -> list[tuple[str, str]]:
    return [
        ("run", run.url),
        ("number", str(manifest.sequence)),
        ("epoch", words.epoch(manifest.epoch)),
        ("step", str(manifest.step)),
        ("saved", f"{words.moment(manifest.time)}, {words.age(manifest.time, time.time())}, on {manifest.host}"),
        ("why", ", ".join(manifest.reasons)),
        ("contents", "everything, training can continue from it" if manifest.complete else "weights only"),
        ("parent", "none" if manifest.parent is None else f"number {manifest.parent}"),
        ("size", f"{words.size(checkpoint.nbytes)} ({checkpoint.nbytes:,} bytes)"),
        ("versions", ", ".join(f"{name} {version}" for name, version in manifest.versions.items())),
        ("format", manifest.format),
    ]


def _show_file(file: str, artifact: Artifact, *, every_tensor: bool) -> None:
    screen.line(f"{file}: {words.size(artifact.size)}", "bold")
    screen.line(f"  {artifact.digest}")
    if artifact.tensors is None:
        return
    elements = sum(math.prod(record.shape) for record in artifact.tensors.values())
    dtypes = Counter(record.dtype for record in artifact.tensors.values())
    kinds = ", ".join(f"{many} {dtype}" for dtype, many in dtypes.items())
    screen.line(f"  {words.count(len(artifact.tensors), 'tensor')} ({kinds}), {words.count(elements, 'element')}")
    if every_tensor:
        screen.table(
            [
                screen.Column(title="  tensor"),
                screen.Column(title="dtype"),
                screen.Column(title="shape"),
                screen.Column(title="bytes", number=True),
            ],
            (
                screen.Row(cells=[f"  {name}", record.dtype, str(list(record.shape)), f"{_nbytes(record):,}"])
                for name, record in artifact.tensors.items()
            ),
        )


def _nbytes(record: TensorRecord) -> int:
    return record.offsets[1] - record.offsets[0]
