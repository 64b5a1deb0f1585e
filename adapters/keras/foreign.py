"""Foreign: a checkpoint's weights as Keras' own `.weights.h5`, which only the model itself knows how to lay out."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras

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
        ForeignFileError: Keras cannot make a model of it.
        StateMismatchError: paths, shapes or dtypes differ; all differences are listed.
    """
    model = _build(model_file)
    state.check_built(model)
    weights = _in_order(checkpoint.load(name), state.capture(model))
    problems = state.mismatches(model, weights)
    if problems:
        raise StateMismatchError(f"{checkpoint.name}/{name}", problems)
    state.restore(model, weights)
    model.save_weights(path)


def _in_order(stored: Mapping[str, Any], here: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the weights by the paths that the variables have here, if they are the same in the same order.

    A layer that was built before its model was has not got the model's name in its path, and Keras builds those of a
    file so.
    """
    pairs = list(zip(stored, here, strict=False))
    if len(stored) == len(here) and all(_agree(_COUNTER.sub("", one), _COUNTER.sub("", other)) for one, other in pairs):
        return {path: stored[key] for key, path in pairs}
    return stored


def _agree(one: str, other: str) -> bool:
    return f"/{one}".endswith(f"/{other}") or f"/{other}".endswith(f"/{one}")


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
