"""Folder for others: a checkpoint's weights as Hugging Face lays them out, in shards with an index."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import ConfigError, ForeignFileError
from ..storage import statefile, tensorfile, typedjson
from ..storage.checkpoint import Checkpoint
from ..storage.layout import data_key
from ..storage.manifest import TensorRecord
from ..storage.run import Run

INDEX = "model.safetensors.index.json"

_PATTERN = "model{suffix}.safetensors"
_WEIGHTS = re.compile(r"model(-[0-9]{5}-of-[0-9]{5})?\.safetensors(\.index\.json)?")


def write(folder: Path, run: Run, checkpoint: Checkpoint, name: str, max_shard_size: str) -> None:
    """Write the tensors of one object. Cost: one shard in memory, or none where the run is local.

    A tensor that is tied to another is stored once; the file's metadata says which name it goes by too.

    Args:
        folder: an empty one.
        run: where the checkpoint is.
        checkpoint: which.
        name: the object.
        max_shard_size: as huggingface_hub reads it: "5GB".

    Raises:
        ConfigError: huggingface_hub is not installed, or cannot read the size.
        ForeignFileError: the object has no tensors, or such as no safetensors file of others has.
        DamagedError: what the manifest says of them does not fit what is there.
    """
    record = checkpoint.state().objects[name]
    artifact = None if record.file is None else checkpoint.manifest().artifacts.get(record.file)
    if record.file is None or artifact is None or artifact.tensors is None:
        raise ForeignFileError(f"{run.url}/{checkpoint.name}", f"'{name}' has no tensors.")
    ties = _ties(record, f"{run.url}/{checkpoint.name}")
    shards, metadata = _split(artifact.tensors, max_shard_size)
    key = data_key(checkpoint.name, record.file)
    for file, names in shards.items():
        own = {alias: stored for alias, stored in ties.items() if stored in names}
        views = tensorfile.read(run.backend, key, artifact, names)
        plan = tensorfile.plan([views[each].spec for each in names], {"format": "pt"} | own)
        with (folder / file).open("xb") as target:
            target.write(plan.header)
            for each in plan.offsets:
                target.write(views[each].data)
    if len(shards) > 1:
        places = {each: file for file, names in shards.items() for each in names}
        text = json.dumps({"metadata": metadata, "weight_map": dict(sorted(places.items()))}, indent=2)
        (folder / INDEX).write_text(text + "\n", encoding="utf-8")


def left_out(checkpoint: Checkpoint, name: str) -> tuple[str, ...]:
    """Return a sentence about each value of an object that is no tensor, and so is not in the folder."""
    plain = typedjson.plain_in(checkpoint.state().objects[name].state)
    return tuple(f"'{where}' holds no tensor and was left out." for where in plain)


def weights_in(folder: Path) -> list[Path]:
    """Return the files in a folder that readers would take for a model's weights."""
    return [] if not folder.is_dir() else sorted(file for file in folder.iterdir() if _WEIGHTS.fullmatch(file.name))


def _ties(record: statefile.ObjectRecord, where: str) -> dict[str, str]:
    """Return the second names of tensors, and what they are stored under."""
    ties = {}
    for key, payload in statefile.references(record).items():
        stored = statefile.stored_name(payload)
        if isinstance(payload, dict) and "as" in payload:
            raise ForeignFileError(
                where, f"'{key}' is of complex numbers of 128 bits, which safetensors does not have."
            )
        if stored is not None and key != stored:
            ties[key] = stored
    return ties


def _split(tensors: Mapping[str, TensorRecord], max_shard_size: str) -> tuple[dict[str, list[str]], dict[str, Any]]:
    try:
        from huggingface_hub import split_state_dict_into_shards_factory  # noqa: PLC0415 - only here, and optional
    except ModuleNotFoundError as error:
        raise ConfigError(
            "a Hugging Face folder is split into files by huggingface_hub. Install it with: pip install huggingface_hub"
        ) from error
    try:
        split = split_state_dict_into_shards_factory(
            dict(tensors),
            get_storage_size=lambda record: record.offsets[1] - record.offsets[0],
            filename_pattern=_PATTERN,
            max_shard_size=max_shard_size,
        )
    except ValueError as error:
        raise ConfigError(f"'{max_shard_size}' is no size of a file: write 5GB or 500MB ({error}).") from error
    return split.filename_to_tensors, split.metadata
