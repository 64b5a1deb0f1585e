"""Foreign: a checkpoint's weights as Keras' own `.weights.h5`, which only the model itself knows how to lay out."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import keras
import numpy as np

from ...errors import ForeignFileError, KeepbestError, StateMismatchError
from ...storage.checkpoint import Checkpoint
from . import state

_LARGEST_CONFIG = 64 << 20
_COUNTER = re.compile(r"_\d+(?=/|~|$)")
"""What Keras appends to the names it gives, counting in each process."""


def write_weights(path: Path, checkpoint: Checkpoint, name: str, model_file: Path) -> None:
    """Build the model, set its variables by their paths, and let Keras write them.

    The file has no optimizer, so Keras loads it into a model before `compile`, and not after.

    Args:
        path: where to; ends in ".weights.h5".
        checkpoint: what holds the weights.
        name: the object.
        model_file: the model as a `.keras` file, or its `model.to_json()`. Loaded in Keras' safe mode: a lambda in it
            is an error. Trust it all the same: it says which classes are made, with which arguments.

    Raises:
        ForeignFileError: Keras cannot make a model of it, or the object is none of Keras'.
        StateMismatchError: paths, shapes or dtypes differ; all differences are listed.
    """
    model = _build(model_file)
    state.check_built(model)
    weights = _in_order(_loaded(checkpoint, name), state.capture(model))
    problems = state.mismatches(model, weights)
    if problems:
        raise StateMismatchError(f"{checkpoint.name}/{name}", problems)
    state.restore(model, weights)
    model.save_weights(path)


def _loaded(checkpoint: Checkpoint, name: str) -> Mapping[str, Any]:
    loaded = checkpoint.load(name)
    if not isinstance(loaded, Mapping) or not all(
        isinstance(key, str) and isinstance(value, np.ndarray) for key, value in loaded.items()
    ):
        raise ForeignFileError(
            f"{checkpoint.name}/{name}", "it is not the weights of a Keras model, which are tensors, each with a path."
        )
    return loaded


def _in_order(stored: Mapping[str, Any], here: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the weights by the paths that the variables have here, if names tell beyond doubt which is which.

    A layer that was built before its model was has not got the model's name in its path, and Keras builds those of a
    file so. Then they are paired in the order that they have in both; or, where theirs is that of HDF5, which sorts
    dense_10 before dense_2, in the order of their names and counters.
    """
    if len(stored) != len(here) or stored.keys() == here.keys():
        return stored
    orders: list[tuple[Iterable[str], Iterable[str]]] = [(stored, here)]
    if list(stored) == sorted(stored):
        orders.append((sorted(stored, key=_by_counters), sorted(here, key=_by_counters)))
    for theirs, ours in orders:
        pairs = list(zip(theirs, ours, strict=True))
        if all(_agree(_plain(one), _plain(other)) for one, other in pairs) and _in_step(pairs):
            return {path: stored[key] for key, path in pairs}
    return stored


def _plain(path: str) -> str:
    return _COUNTER.sub("", path)


def _counters(path: str) -> list[int]:
    """Return the counter of each part of a path; 0 of one that has none."""
    return [int(found[0][1:]) if (found := _COUNTER.findall(part)) else 0 for part in path.split("/")]


def _by_counters(path: str) -> tuple[str, list[int]]:
    return _plain(path), _counters(path)


def _agree(one: str, other: str) -> bool:
    return f"/{one}".endswith(f"/{other}") or f"/{other}".endswith(f"/{one}")


def _in_step(pairs: Iterable[tuple[str, str]]) -> bool:
    """Say whether of layers of a kind the later ones are paired with the later ones, as far as counters tell."""
    kinds: dict[str, list[tuple[list[int], list[int]]]] = {}
    for one, other in pairs:
        theirs, ours = _counters(one)[::-1], _counters(other)[::-1]
        depth = min(len(theirs), len(ours))
        kind = "/".join(_plain(one).split("/")[-min(depth, 2) :])
        kinds.setdefault(kind, []).append((theirs[:depth], ours[:depth]))
    return all(earlier[1] <= later[1] for found in kinds.values() for earlier, later in pairwise(sorted(found)))


def _build(file: Path) -> keras.Model:
    try:
        model: Any = _from_config(file) if file.suffix == ".json" else _from_archive(file)
    except KeepbestError:
        raise
    except Exception as error:  # whatever a layer of theirs raises
        raise ForeignFileError(
            str(file), f"Keras cannot make a model of it in safe mode ({type(error).__name__}: {error!s:.300})."
        ) from error
    if not isinstance(model, keras.Model):
        raise ForeignFileError(str(file), f"it is a {type(model).__name__}, not a model.")
    return model


def _from_archive(file: Path) -> Any:
    return keras.saving.load_model(file, compile=False, safe_mode=True)


def _from_config(file: Path) -> Any:
    if file.stat().st_size > _LARGEST_CONFIG:
        raise ForeignFileError(str(file), f"it has more than {_LARGEST_CONFIG:,} bytes.")
    config = json.loads(file.read_bytes())
    if isinstance(config, dict):
        config.pop("compile_config", None)
    return keras.saving.deserialize_keras_object(config, safe_mode=True)
