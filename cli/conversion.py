"""Conversion: what `keepbest convert` does and tells, in both directions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypedDict

import click
from msgspec.structs import replace

from ..core import foreign_folder
from ..errors import CheckpointNotFoundError, ObjectExistsError
from ..storage.checkpoint import Checkpoint
from ..storage.foreign import Placed, place
from ..storage.printable import printable
from ..storage.run import Run, open_run
from . import converting, screen, words
from .targets import check_target

DEFAULT_SHARD = "5GB"
DEFAULT_NAME = "model"

_KERAS_KERNEL = "/kernel"
"""Keras alone calls a weight so, by its path."""

_KERAS_LAYOUT = (
    "Names and layout are still Keras' own: a Dense kernel is (inputs, outputs), a Conv2D kernel (height, width, "
    "inputs, outputs). A layer of PyTorch wants them the other way round."
)


class PlacedJson(TypedDict):
    """A file that was written."""

    path: str
    """Absolute."""
    bytes: int


class ConvertJson(TypedDict):
    """What `keepbest convert --json` prints, as keepbest.convert/1."""

    run: str
    checkpoint: str
    sequence: int
    step: int
    epoch: int | None
    """From 0."""
    complete: bool
    """false: weights only."""
    format: str
    """Of what was converted: "a PyTorch file"; or what it became: "pth", "weights.h5", "hf"."""
    objects: dict[str, int]
    """The checkpoint's objects that were converted, and how many tensors each has in its file."""
    left_out: list[str]
    """Sentences about what was not taken over, or not changed, and why."""
    files: list[PlacedJson]
    """What was written out of a run; empty where one was written into."""


def into(
    source: converting.Source, target: str, storage_options: Mapping[str, Any], settings: Mapping[str, Any]
) -> ConvertJson:
    """Write a checkpoint of others into the run `target`."""
    from ..core import foreign  # noqa: PLC0415 - it imports NumPy, and a checkpoint is given back without

    converting.check_run(target)
    try:
        writer = foreign.open_target(target, storage_options, append=bool(settings["append"]))
    except ObjectExistsError as error:
        raise click.ClickException(
            f"{printable(str(error.location))} holds something already, so nothing was converted. Give another URL; "
            "or, if it is a run, say --append."
        ) from error
    with converting.read(source, settings["name"] or DEFAULT_NAME) as found:
        position = found.position
        if settings["epoch"] is not None:
            position = replace(position, next_epoch=settings["epoch"])
        if settings["step"] is not None:
            position = replace(position, step=settings["step"])
        done = foreign.write(writer, replace(found, position=position))
    return _to_json(done.run, done.checkpoint, found.format, done.objects, left_out=found.left_out)


def out(url: str, storage_options: Mapping[str, Any], target: str, settings: Mapping[str, Any]) -> ConvertJson:
    """Write a checkpoint of a run to `target`, in the format that it asks for."""
    kind, path = converting.kind_of(target, settings["to"])
    for key, option, only in (("shard", "--max-shard-size", "hf"), ("model", "--model", "weights.h5")):
        if settings[key] is not None and kind != only:
            raise click.UsageError(f"{option} goes with {'a folder' if only == 'hf' else 'a .weights.h5 file'}.")
    run = open_run(url, storage_options=storage_options)
    check_target(path if kind == "hf" else path.parent)
    checkpoint = _checkpoint(run, settings["which"])
    name = _object(checkpoint, settings["name"])
    force = bool(settings["force"])
    taken = foreign_folder.weights_in(path) if kind == "hf" else [path] if path.exists() else []
    if taken and not force:
        raise click.ClickException(f"{printable(str(taken[0]))} exists already. To replace it, say --force.")
    if kind == "hf":
        shard = settings["shard"] or DEFAULT_SHARD
        files = place(path, lambda folder: foreign_folder.write(folder, run, checkpoint, name, shard), overwrite=force)
        for stale in {str(file.absolute()) for file in taken} - {file.path for file in files}:
            Path(stale).unlink()
    else:
        write = _writer(kind, checkpoint, name, settings["model"])
        files = place(path.parent, lambda folder: write(folder / path.name), overwrite=force)
    left_out = foreign_folder.left_out(checkpoint, name) if kind == "hf" else ()
    file = checkpoint.state().objects[name].file
    tensors = {} if file is None else checkpoint.manifest().artifacts[file].tensors or {}
    if kind != "weights.h5" and any(path.endswith(_KERAS_KERNEL) for path in tensors):
        left_out = (*left_out, _KERAS_LAYOUT)
    return _to_json(run.url, checkpoint, kind, {name: len(tensors)}, left_out=left_out, files=files)


def _writer(kind: str, checkpoint: Checkpoint, name: str, model: Path | None) -> Callable[[Path], None]:
    if kind == "pth":
        write = converting.imported("adapters.torch.foreign", "write_pth")
        return lambda path: write(path, checkpoint, name)
    if model is not None:
        write = converting.imported("adapters.keras.foreign", "write_weights")
        return lambda path: write(path, checkpoint, name, model)
    from ..core import foreign_h5  # noqa: PLC0415 - see `into`

    arrays = checkpoint.load(name)
    if not foreign_h5.can_write(arrays):
        raise click.ClickException(
            "where in a .weights.h5 each weight goes, only the model knows. Give it with --model, as a .keras file or "
            "as the .json of model.to_json(); or write .pth, or a folder."
        )
    if name == DEFAULT_NAME and "optimizer" in checkpoint.objects():  # Keras loads both, or neither
        optimizer = checkpoint.load("optimizer")
        arrays |= optimizer if foreign_h5.can_write(optimizer) else {}
    return lambda path: foreign_h5.write_h5(path, arrays)


def _checkpoint(run: Run, which: str | None) -> Checkpoint:
    if which is not None:
        return run.get(which)
    try:
        return run.best
    except CheckpointNotFoundError:
        return run.latest


def _object(checkpoint: Checkpoint, name: str | None) -> str:
    """Return the object that was asked for, or the only one that holds weights."""
    records = checkpoint.state().objects
    if name is not None and name in records:
        return name
    weights = [each for each, record in records.items() if record.role == "weights"]
    if name is None and len(weights) == 1:
        return weights[0]
    held = printable(", ".join(records)) or "none"
    raise click.ClickException(
        f"checkpoint {printable(checkpoint.name)} has "
        f"{'no object ' + printable(repr(name)) if name else f'{len(weights)} objects that hold weights'}. "
        f"Say --name; it has {held}."
    )


def _to_json(  # noqa: PLR0913 - what is told of a conversion
    run: str,
    checkpoint: Checkpoint,
    kind: str,
    objects: Mapping[str, int],
    *,
    left_out: tuple[str, ...] = (),
    files: tuple[Placed, ...] = (),
) -> ConvertJson:
    return ConvertJson(
        run=run,
        checkpoint=checkpoint.name,
        sequence=checkpoint.sequence,
        step=checkpoint.step,
        epoch=checkpoint.epoch,
        complete=checkpoint.complete,
        format=kind,
        objects=dict(objects),
        left_out=list(left_out),
        files=[PlacedJson(path=file.path, bytes=file.nbytes) for file in files],
    )


def show(done: ConvertJson) -> None:
    """Print what was converted, and what was left out."""
    if done["files"]:
        screen.line(f"Converted {done['checkpoint']} of {done['run']}:")
        for file in done["files"]:
            screen.line(f"  {file['path']} ({words.size(file['bytes'])})")
    else:
        what = "complete" if done["complete"] else "weights only"
        screen.line(f"Converted {done['format']} to {done['checkpoint']} of {done['run']} ({what}):")
        for name, tensors in done["objects"].items():
            screen.line(f"  {name}: {words.count(tensors, 'tensor')}")
        if done["epoch"] is not None:
            place = f"epoch {words.epoch(done['epoch'])}, counted from 1, at step {done['step']}"
            screen.line(f"It ended {place}; --epoch and --step say it otherwise.")
    for sentence in done["left_out"]:
        screen.line(sentence)
