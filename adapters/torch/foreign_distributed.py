"""Foreign, distributed: folders that `torch.distributed.checkpoint` wrote. Nothing in them is run.

Their `.metadata` is a pickle, and torch reads it as one, with all that this allows. Here no class of it is looked up:
the dozen names that such metadata has stand for empty classes of ours, made anew for each file; any other ends it.
The tensors are pickles too, and read as far as `torch.load(weights_only=True)` goes, one at a time.
"""

from __future__ import annotations

import io
import math
import pickle
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import torch
from msgspec import Struct

from ...core.foreign import Found, Lazy, Unread
from ...errors import ForeignFileError
from ...storage.arrays import COMPLEX128
from ...storage.foreign import check_size, checked_shape, nbytes
from ...storage.printable import printable
from ...storage.tensorfile import TensorSpec, TensorView
from . import _NAMES, NAME, from_view
from .foreign import MALFORMED, check_archive, load, sort_out

METADATA = ".metadata"
"""The file that makes a folder such a checkpoint."""

_LARGEST_METADATA = 256 << 20
_MODULE = "torch.distributed.checkpoint"
_RECORDS = frozenset(
    (
        f"{_MODULE}.metadata.Metadata",
        f"{_MODULE}.metadata.TensorStorageMetadata",
        f"{_MODULE}.metadata.BytesStorageMetadata",
        f"{_MODULE}.metadata.ChunkStorageMetadata",
        f"{_MODULE}.metadata.TensorProperties",
        f"{_MODULE}.metadata.StorageMeta",
        f"{_MODULE}.metadata.MetadataIndex",
        f"{_MODULE}.metadata._MEM_FORMAT_ENCODING",
        f"{_MODULE}.filesystem._StorageInfo",
        "torch.serialization._get_layout",
        "pathlib.PosixPath",
        "pathlib.PurePosixPath",
        "pathlib.WindowsPath",
        "pathlib._local.PosixPath",
        "pathlib._local.WindowsPath",
    )
)
"""What is understood, or passed over."""


class _Slice(Struct, frozen=True, kw_only=True):
    """Where some bytes of the checkpoint lie."""

    path: Path
    begin: int
    length: int


@contextmanager
def read(folder: Path, name: str) -> Iterator[Found]:
    """Read a folder; whichever ranks wrote it, its tensors are whole.

    Raises:
        ForeignFileError: it is damaged, or holds what cannot be had without running code.
    """
    try:
        loaded, stored = _loaded(folder)
    except MALFORMED as error:
        if isinstance(error, ForeignFileError):
            raise
        raise ForeignFileError(
            str(folder / METADATA), f"it is not what torch writes ({type(error).__name__}: {error!s:.200})."
        ) from error
    yield sort_out(loaded, str(folder), name, stored=stored, kind="a torch.distributed checkpoint")


def _loaded(folder: Path) -> tuple[Any, int]:
    metadata = _unpickled(folder / METADATA)
    slices: dict[str, dict[Any, _Slice]] = {}
    for index, info in metadata["storage_data"].items():
        slices.setdefault(index.facts["fqn"], {})[index.facts.get("offset")] = _slice(folder, info.facts)
    pieces = [piece for held in slices.values() for piece in held.values()]
    stored = sum(path.stat().st_size for path in {piece.path for piece in pieces})
    check_size(str(folder), "all of it", sum(piece.length for piece in pieces), stored)
    places = metadata.get("planner_data") or {}
    root = _Node()
    for fqn, described in metadata["state_dict_metadata"].items():
        if type(fqn) is not str:
            raise TypeError(f"a {type(fqn).__name__} is no name")
        held = slices.get(fqn, {})
        tensor = described.kind.endswith(".TensorStorageMetadata")
        value = _tensor(folder, fqn, described.facts, held) if tensor else _plain(folder, fqn, held)
        _put(root, places.get(fqn, (fqn,)), value)
    return _as_torch_has_it(root), stored


# ── the metadata ──────────────────────────────────────────────────────────────────────────────────────────────────


class _Record:
    """An object of the metadata: what it was called, and what it was filled with."""

    kind = ""

    def __init__(self, *_: Any) -> None:
        """Take what the class's own constructor would get, and pass it over."""
        self.facts: Any = {}

    def __setstate__(self, state: Any) -> None:
        self.facts = state


class _Unpickler(pickle._Unpickler):  # noqa: SLF001 - the one in C gives memory for what a file only says it has
    dispatch: ClassVar = dict(pickle._Unpickler.dispatch)  # noqa: SLF001 - as above
    del dispatch[pickle.BYTEARRAY8[0]]  # gives memory for what a file only says it has, and no such metadata has any

    def find_class(self, module: str, name: str) -> Any:
        """Return an empty class, a dtype, or a container; look nothing up."""
        wanted = f"{module}.{name}"
        if wanted in _RECORDS:
            return type("_Record", (_Record,), {"kind": wanted})
        if wanted == "torch.Size":
            return ().__add__  # gives a tuple back as it is, and takes nothing else
        if wanted == "collections.OrderedDict":
            return {}.copy  # takes nothing, where dict would copy what it is given, as often as the file says
        dtype = vars(torch).get(name) if module == "torch" else None
        if isinstance(dtype, torch.dtype):
            return dtype
        raise _RefusedError(wanted)


class _RefusedError(Exception):
    """A name that no such metadata has."""


def _unpickled(path: Path) -> dict[str, Any]:
    size = path.stat().st_size
    if size > _LARGEST_METADATA:
        raise ForeignFileError(str(path), f"it has {size:,} bytes, and such files have some hundred thousand.")
    try:
        found = _Unpickler(io.BytesIO(path.read_bytes())).load()
    except _RefusedError as error:
        raise ForeignFileError(
            str(path),
            f"there is a {printable(str(error))[:200]} in it, which no such file needs, and to make one, code that "
            "whoever made the file has chosen would run. Nothing was run. If you trust it, convert it with torch: "
            "torch.distributed.checkpoint.format_utils.dcp_to_torch_save(folder, 'weights.pth').",
        ) from error
    if not isinstance(found, _Record) or not found.kind.endswith(".Metadata"):
        raise ForeignFileError(str(path), "it is no metadata of such a checkpoint.")
    facts: dict[str, Any] = found.facts
    return facts


def _slice(folder: Path, facts: Mapping[str, Any]) -> _Slice:
    file, begin, length = facts["relative_path"], facts["offset"], facts["length"]
    if facts.get("transform_descriptors"):
        raise ForeignFileError(str(folder), "it was written through an extension (compressed, or encrypted).")
    plain = isinstance(file, str) and file.isprintable() and not {"/", "\\"} & set(file) and file not in {"", ".", ".."}
    if not plain:
        named = printable(repr(file[:200])) if isinstance(file, str) else f"a {type(file).__name__}"
        raise ForeignFileError(str(folder), f"it names {named}, which is no file of the same folder.")
    path = folder / file
    size = path.stat().st_size if path.is_file() else -1
    if size < 0:
        raise ForeignFileError(str(path), "it does not exist, and the metadata names it.")
    if type(begin) is not int or type(length) is not int or begin < 0 or length < 0 or begin + length > size:
        raise ForeignFileError(str(path), f"it has {size:,} bytes, fewer than the metadata says.")
    return _Slice(path=path, begin=begin, length=length)


# ── what it describes ─────────────────────────────────────────────────────────────────────────────────────────────


def _plain(folder: Path, fqn: str, held: Mapping[Any, _Slice]) -> Any:
    if len(held) != 1:
        raise ForeignFileError(str(folder), f"'{printable(fqn)[:200]}' is missing.")
    return _unpickled_part(next(iter(held.values())))


def _tensor(folder: Path, fqn: str, facts: Mapping[str, Any], held: Mapping[Any, _Slice]) -> Lazy:
    shape = checked_shape(str(folder), fqn, tuple(facts["size"]))
    properties = facts["properties"].facts
    dtype = properties[0] if isinstance(properties, tuple) else properties["dtype"]
    chunks = [_chunk(folder, fqn, chunk.facts, shape, held) for chunk in facts["chunks"]]
    stored = sum(piece.length for _, _, piece in chunks)
    check_size(str(folder), f"'{printable(fqn)[:200]}'", nbytes(shape, dtype.itemsize), stored)
    if sum(math.prod(sizes) for _, sizes, _ in chunks) != math.prod(shape):
        raise ForeignFileError(str(folder), f"'{printable(fqn)[:200]}' is not whole: some of its pieces are missing.")
    logical = COMPLEX128 if dtype is torch.complex128 else None
    kept, axes = (torch.float64, (*shape, 2)) if logical else (dtype, shape)
    if kept not in _NAMES:
        raise ForeignFileError(str(folder), f"'{printable(fqn)[:200]}' is of dtype {dtype}, which cannot be stored.")
    spec = TensorSpec(name=fqn, dtype=_NAMES[kept], shape=axes)

    def read(target: memoryview) -> None:
        whole = from_view(TensorView(spec=spec, data=target), logical)
        for offsets, sizes, piece in chunks:
            part = _unpickled_part(piece)
            if not isinstance(part, torch.Tensor) or part.shape != sizes or part.dtype != dtype:
                raise ForeignFileError(str(piece.path), f"a piece of '{printable(fqn)[:200]}' is not as it should be.")
            whole[tuple(slice(low, low + many) for low, many in zip(offsets, sizes, strict=True))].copy_(part)

    source = Unread(dtype=spec.dtype, shape=axes, logical=logical, read=read)
    return Lazy(tag=NAME, source=source)


def _chunk(
    folder: Path, fqn: str, facts: Mapping[str, Any], shape: Sequence[int], held: Mapping[Any, _Slice]
) -> tuple[tuple[int, ...], tuple[int, ...], _Slice]:
    offsets, sizes = tuple(facts["offsets"]), checked_shape(str(folder), fqn, tuple(facts["sizes"]))
    inside = len(offsets) == len(sizes) == len(shape) and all(
        type(low) is int and 0 <= low <= low + many <= whole
        for low, many, whole in zip(offsets, sizes, shape, strict=True)
    )
    piece = held.get(offsets)
    if not inside or piece is None:
        raise ForeignFileError(str(folder), f"a piece of '{printable(fqn)[:200]}' is missing, or lies outside of it.")
    return offsets, sizes, piece


def _unpickled_part(piece: _Slice) -> Any:
    with piece.path.open("rb") as file:
        file.seek(piece.begin)
        data = io.BytesIO(file.read(piece.length))
    check_archive(str(piece.path), data)
    data.seek(0)
    return load(data, str(piece.path))


# ── the nesting ───────────────────────────────────────────────────────────────────────────────────────────────────


class _Node(dict[Any, Any]):
    """A dict or list that was taken apart when it was written; those within a value were not."""


def _put(root: dict[Any, Any], path: Any, value: Any) -> None:
    """Place a value where it was: text is the key of a dict, a number the place in a list."""
    if not isinstance(path, tuple) or not path or not all(type(key) in (str, int) for key in path):
        raise TypeError(f"a {type(path).__name__} is no place in a state")
    for key in path[:-1]:
        root = root.setdefault(key, _Node())
    root[path[-1]] = value


def _as_torch_has_it(value: Any, path: tuple[str, ...] = ()) -> Any:
    """Return lists where all keys are places; the numbers of an optimizer's parameters were made text, and are not."""
    if not isinstance(value, _Node):
        return value
    inner = {key: _as_torch_has_it(item, (*path, str(key))) for key, item in value.items()}
    if inner and all(type(key) is int for key in inner):
        return [inner[key] for key in sorted(inner)]
    if path[-1:] == ("state",) and inner and all(type(key) is str and key.isdecimal() for key in inner):
        return {int(key): item for key, item in inner.items()}
    return inner
