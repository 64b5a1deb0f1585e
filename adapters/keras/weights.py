"""Weights: a `.safetensors` file back into a model, with no run around it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras
import safetensors

from ...errors import ConfigError, DamagedFileError, StateMismatchError
from ...storage import arrays, progress
from ...storage.backend import open_backend
from ...storage.remote_errors import without_password
from ...storage.tensorfile import TensorSpec, TensorView
from . import state


def load_weights(
    model: keras.Model, filepath: str | os.PathLike[str], *, storage_options: Mapping[str, Any] | None = None
) -> None:
    """Set a model's weights to those in a `.safetensors` file that ModelCheckpoint, or a Checkpointer, wrote.

    Args:
        model: built as the model was that was saved.
        filepath: a path or URL.
        storage_options: what fsspec takes for the URL's scheme.

    Raises:
        StateMismatchError: paths, shapes or dtypes differ; all differences are listed, nothing was changed.
        ObjectNotFoundError, DamagedFileError: there is no such file, or it is none.
        ConfigError: it is a folder.

    Example:
        >>> load_weights(model, "runs/best.safetensors")
    """
    path = os.fspath(filepath)
    if "://" not in path:
        path = os.path.realpath(Path(path).expanduser())  # a link to a file, as in a cache, is a file to its owner
        if Path(path).is_dir():
            raise ConfigError(f"{path} is a folder, and weights are in a file; a run's best ones in {_best_in(path)}.")
    folder, _, name = path.rpartition("/")
    backend = open_backend(folder or ("/" if path.startswith("/") else "."), storage_options)
    path = without_password(path)
    size = backend.head(name).size
    with progress.waiting(), progress.task("load", path, size):
        data = bytes(backend.read_ranges(name, [(0, size)])[0])  # in parallel, from a bucket
    try:
        tensors = safetensors.deserialize(data)  # type: ignore[no-untyped-call]
    except safetensors.SafetensorError as error:
        raise DamagedFileError(path, f"it is no safetensors file ({error})") from error
    try:
        stored = {key: arrays.from_view(_view(key, found), None) for key, found in tensors}
    except (LookupError, ValueError) as error:
        raise DamagedFileError(path, f"NumPy has no such tensor ({error!r})") from error
    state.check_built(model)
    problems = state.mismatches(model, stored)
    if problems:
        raise StateMismatchError(path, problems)
    state.restore(model, stored)


def _best_in(run: str) -> str:
    found = sorted(Path(run, "best").glob("*.safetensors"))
    return str(found[0] if found else Path(run, "best", "model.safetensors"))


def _view(name: str, found: Mapping[str, Any]) -> TensorView:
    spec = TensorSpec(name=name, dtype=found["dtype"], shape=tuple(found["shape"]))
    return TensorView(spec=spec, data=memoryview(bytearray(found["data"])))
