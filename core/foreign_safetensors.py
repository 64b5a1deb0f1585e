"""Safetensors from others: one file, or a folder as Hugging Face writes it. Nothing in the format is code."""

from __future__ import annotations

import json
import mmap
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import safetensors

from ..errors import ForeignFileError
from ..storage.foreign import check_name, checked_shape
from ..storage.layout import TENSOR_SUFFIX
from ..storage.printable import printable
from ..storage.tensorfile import ITEM_BYTES
from .foreign import Found, Lazy, Part
from .foreign_folder import INDEX
from .tensor import Lying

SINGLE = "model.safetensors"

_LARGEST_INDEX = 100 << 20
_TAGS = {"pt": "torch", "tf": "tensorflow", "flax": "jax", "mlx": "numpy"}
"""What `format` in the metadata says → the framework whose tensors they are; without it they are NumPy's."""


@contextmanager
def read_file(path: Path, name: str) -> Iterator[Found]:
    """Read one file; its tensors stay mapped for as long as the block lasts.

    Raises:
        ForeignFileError: it is no safetensors file, or holds what no tensor file of keepbest can.
    """
    with ExitStack() as stack:
        tensors, metadata = _open(path, stack)
        part = Part(role="weights", value=tensors | _ties(tensors, metadata), metadata=_plain(metadata))
        yield Found(location=str(path), format="a safetensors file", parts={name: part}, stored=path.stat().st_size)


@contextmanager
def read_folder(folder: Path, name: str) -> Iterator[Found]:
    """Read the shards that an index names, or the only file there is; raises as `read_file`."""
    if not (folder / INDEX).is_file():
        with read_file(folder / SINGLE, name) as found:
            yield found
        return
    index = folder / INDEX
    expected = _weight_map(index)
    tensors: dict[str, Lazy] = {}
    metadata: dict[str, str] = {}
    with ExitStack() as stack:
        for file in sorted(set(expected.values())):
            held, facts = _open(folder / file, stack)
            twice = next((key for key in held if key in tensors), None)
            if twice is not None:
                raise ForeignFileError(str(folder / file), f"'{twice}' is in another file of the folder too.")
            tensors |= held
            metadata |= facts
        whole = tensors | _ties(tensors, metadata)
        for key, file in expected.items():
            if key not in whole:
                raise ForeignFileError(
                    str(index), f"'{printable(key)[:200]}' should be in {printable(file)}, and is not."
                )
        part = Part(role="weights", value=whole, metadata=_plain(metadata))
        stored = sum((folder / file).stat().st_size for file in set(expected.values()))
        yield Found(location=str(folder), format="a Hugging Face folder", parts={name: part}, stored=stored)


def _weight_map(index: Path) -> dict[str, str]:
    """Return which tensor is in which file, all of them in the index's own folder."""
    if index.stat().st_size > _LARGEST_INDEX:
        raise ForeignFileError(str(index), f"it has more than {_LARGEST_INDEX:,} bytes.")
    try:
        found = json.loads(index.read_bytes())["weight_map"]
        files = {str(key): str(file) for key, file in found.items()}
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise ForeignFileError(str(index), f"it is no index of tensors ({error!r:.200}).") from error
    for file in files.values():
        if not file.endswith(TENSOR_SUFFIX) or not file.isprintable() or "/" in file or "\\" in file:
            raise ForeignFileError(
                str(index), f"it names '{printable(file)[:200]}', which is no safetensors file of the same folder."
            )
    if not files:
        raise ForeignFileError(str(index), "it names no tensor.")
    return files


def _open(path: Path, stack: ExitStack) -> tuple[dict[str, Lazy], dict[str, str]]:
    """Map a file, and return its tensors and metadata; the library checks that they lie in it and do not overlap."""
    try:
        with safetensors.safe_open(path, framework="numpy") as checked:
            metadata = dict(checked.metadata() or {})
    except (safetensors.SafetensorError, OSError, ValueError) as error:
        raise ForeignFileError(str(path), f"it is no whole safetensors file ({error!s:.200}).") from error
    file = stack.enter_context(path.open("rb"))
    mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    length = int.from_bytes(mapped[:8], "little")
    table: dict[str, dict[str, Any]] = json.loads(mapped[8 : 8 + length])
    table.pop("__metadata__", None)
    data, tag = memoryview(mapped)[8 + length :], _TAGS.get(metadata.get("format", ""), "numpy")
    return {name: _lazy(str(path), tag, name, facts, data) for name, facts in table.items()}, metadata


def _lazy(location: str, tag: str, name: str, facts: Mapping[str, Any], data: memoryview) -> Lazy:
    check_name(location, name)
    if facts["dtype"] not in ITEM_BYTES:
        raise ForeignFileError(location, f"keepbest does not know the dtype {facts['dtype']!r:.40} of '{name[:200]}'.")
    shape = checked_shape(location, name, facts["shape"])
    begin, end = facts["data_offsets"]
    return Lazy(
        tag=tag, source=Lying(dtype=facts["dtype"], shape=shape, identity=(location, name), lies=data[begin:end])
    )


def _ties(tensors: Mapping[str, Lazy], metadata: Mapping[str, str]) -> dict[str, Lazy]:
    """Return the tensors that the metadata calls by a second name, as `safetensors.torch.save_model` does."""
    return {key: tensors[stored] for key, stored in metadata.items() if key not in tensors and stored in tensors}


def _plain(metadata: Mapping[str, str]) -> dict[str, str]:
    """Return of the metadata only what readers go by; ties are written anew."""
    return {"format": metadata["format"]} if metadata.get("format", "").isalnum() else {}
