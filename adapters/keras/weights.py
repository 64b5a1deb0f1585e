"""Weights: a `.safetensors` file back into a model, with no run around it."""

from __future__ import annotations

import io
import os
import zipfile
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

_HDF5 = b"\x89HDF\r\n\x1a\n"


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
        ConfigError: it is a folder, or a file in one of Keras' own formats.

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
        if loads := _loads_with(data):
            raise ConfigError(
                f"{path} is a file in Keras' own format, no safetensors file. Load it by {loads}."
            ) from None
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


def _loads_with(data: bytes) -> str | None:
    """Return what loads a file that Keras wrote, `.keras` or `.h5`; None for any other."""
    if zipfile.is_zipfile(io.BytesIO(data)) and b"model.weights.h5" in data:
        return "keras.saving.load_model(path)"
    return "model.load_weights(path)" if data.startswith(_HDF5) else None


def _best_in(run: str) -> str:
    found = sorted(Path(run, "best").glob("*.safetensors"))
    return str(found[0] if found else Path(run, "best", "model.safetensors"))


def _view(name: str, found: Mapping[str, Any]) -> TensorView:
    spec = TensorSpec(name=name, dtype=found["dtype"], shape=tuple(found["shape"]))
    return TensorView(spec=spec, data=memoryview(bytearray(found["data"])))
