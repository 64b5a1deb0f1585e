"""Tensor file: safetensors, planned, then written as a stream and read by range.

The format: 8 bytes (header length, little-endian), the header (JSON, padded with spaces), then the tensors' bytes
without holes, C order, little-endian. Source: https://huggingface.co/docs/safetensors, "Format".

How a file is cut into a stream, and what of it an older file has already, is decided in `tensorstream`.
"""

from __future__ import annotations

import contextlib
import json
import math
import mmap
from collections.abc import Mapping, Sequence

from msgspec import Struct

from ..errors import DamagedError, DamagedFileError, ObjectNotFoundError
from . import progress
from .backend import Backend
from .digest import altered, digest, is_signed, matches
from .file_hasher import FileHasher
from .manifest import Artifact, TensorRecord
from .tensorstream import LARGE, Bytes, TensorStream

ITEM_BYTES = {
    "F64": 8, "I64": 8, "U64": 8, "C64": 8,
    "F32": 4, "I32": 4, "U32": 4,
    "F16": 2, "BF16": 2, "I16": 2, "U16": 2,
    "I8": 1, "U8": 1, "BOOL": 1, "F8_E4M3": 1, "F8_E5M2": 1, "F8_E8M0": 1,
    "F8_E4M3FNUZ": 1, "F8_E5M2FNUZ": 1,
}  # fmt: skip
"""Bytes of one element, for each dtype that a tensor file can hold."""

_ALIGNMENT = 64
_PAGE = 4096
"""The data of a large file begins on a page, so that staging, which does too, can be written as it lies."""


class TensorSpec(Struct, frozen=True, kw_only=True, gc=False):
    """What a tensor is, without its values."""

    name: str
    dtype: str
    """The safetensors name: a key of `ITEM_BYTES`."""
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        """Bytes of the values."""
        return ITEM_BYTES[self.dtype] * math.prod(self.shape)


class TensorFilePlan(Struct, frozen=True, kw_only=True):
    """A tensor file before its values are there: the header, and where each tensor goes."""

    header: bytes
    """With its length in front; the data follows at once."""
    offsets: dict[str, tuple[int, int]]
    """Name → begin and end in bytes, counted from the end of the header, in the order of the file."""
    specs: dict[str, TensorSpec]
    data_bytes: int


class TensorView(Struct, frozen=True, kw_only=True):
    """One tensor as it was read."""

    spec: TensorSpec
    data: memoryview
    """Bytes, C order; writable, and writing to it changes no file."""


def plan(specs: Sequence[TensorSpec], metadata: Mapping[str, str]) -> TensorFilePlan:
    """Lay out a tensor file; the largest elements first, so that every tensor is aligned to its element.

    Args:
        specs: the tensors, of distinct names.
        metadata: goes under `__metadata__`; text only, as the format demands.
    """
    table: dict[str, object] = {"__metadata__": dict(metadata)} if metadata else {}
    offsets: dict[str, tuple[int, int]] = {}
    end = 0
    for spec in sorted(specs, key=lambda spec: -ITEM_BYTES[spec.dtype]):
        begin, end = end, end + spec.nbytes
        offsets[spec.name] = (begin, end)
        table[spec.name] = {"dtype": spec.dtype, "shape": spec.shape, "data_offsets": (begin, end)}
    text = json.dumps(table, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-(len(text) + 8) % (_PAGE if end >= LARGE else _ALIGNMENT))
    return TensorFilePlan(
        header=len(text).to_bytes(8, "little") + text,
        offsets=offsets,
        specs={spec.name: spec for spec in specs},
        data_bytes=end,
    )


def write(  # noqa: PLR0913 - what is written, and what is known of older files
    backend: Backend,
    key: str,
    file: TensorFilePlan,
    data: Bytes,
    *,
    base: tuple[str, Artifact] | None = None,
    spare: tuple[str, Artifact] | None = None,
    hasher: FileHasher | None = None,
) -> Artifact:
    """Stream a tensor file to `key` and return its record; no copy of `data`, which is hashed on the way.

    Tensors that an older file holds already are not sent again, where the backend can make use of that.

    Args:
        backend: where to.
        key: a fresh key.
        file: the plan.
        data: `file.data_bytes` bytes, each tensor at its offset.
        base: key and record of a committed file. If nothing has changed since, nor from the spare one to it, `key`
            becomes a copy of it (a link, in a file system), and its very record is returned; the spare file is left as
            it is then.
        spare: what `Backend.recycle` returned, and the record of what that file holds.
        hasher: of this file, if somebody has begun to hash it.
    """
    large = file.data_bytes >= LARGE
    delta = large and backend.capabilities.delta
    stream = _stream(file, data, base=base and base[1], spare=spare and spare[1], delta=delta, hasher=hasher)
    if base is not None and (delta or (large and backend.capabilities.links)):
        with contextlib.suppress(ObjectNotFoundError):  # somebody deleted it
            if stream.is_all_of(base[1]):
                backend.copy(base[0], key)
                progress.current().process(base[1].size)
                return base[1]
    helps = {"base": base[0]} if stream.base is not None and base is not None else {}
    if spare is not None:
        helps["spare"] = spare[0]
    size = backend.put(key, stream, **helps)
    return Artifact(
        size=size,
        digest=stream.hasher.file_digest(),
        header_digest=digest(file.header),
        data_start=len(file.header),
        tensors={
            name: TensorRecord(
                dtype=file.specs[name].dtype,
                shape=file.specs[name].shape,
                offsets=(begin, end),
                digest=stream.hasher.digests[name],
            )
            for name, (begin, end) in file.offsets.items()
        },
    )


def _stream(  # noqa: PLR0913 - as `write`
    file: TensorFilePlan,
    data: Bytes,
    *,
    base: Artifact | None,
    spare: Artifact | None,
    delta: bool,
    hasher: FileHasher | None,
) -> TensorStream:
    """Return the stream of a file; what of it may be the same in an older one is what will be compared.

    A tensor that differs between the two older files may well differ again, and is not compared; if it does not, it is
    written anew. Where blocks can be shared with `base` (`delta`), all is compared.
    """
    training: frozenset[str] = frozenset()
    if base is not None and spare is not None and not delta:
        old, new = spare.tensors or {}, base.tensors or {}
        training = frozenset(name for name in old.keys() & new.keys() if old[name].digest != new[name].digest)
    base = base if delta else None
    return TensorStream(file.header, file.offsets, data, base=base, spare=spare, training=training, hasher=hasher)


def read(backend: Backend, key: str, artifact: Artifact, names: Sequence[str] | None = None) -> dict[str, TensorView]:
    """Read tensors and check each against its digest; `names=None` reads all, and checks the header too.

    Cost: the bytes asked for, and one pass of hashing (some 10 GB/s and more).

    Raises:
        DamagedFileError: the file is missing, short or altered; names the tensor.
    """
    assert artifact.tensors is not None
    assert artifact.data_start is not None
    start = artifact.data_start
    records = artifact.tensors if names is None else _named(artifact.tensors, names, _where(backend, key))
    ranges = [(start + record.offsets[0], start + record.offsets[1]) for record in records.values()]
    if names is None:
        ranges.append((0, start))
    try:
        views = backend.read_ranges(key, ranges)
    except ObjectNotFoundError as error:
        raise DamagedFileError(_where(backend, key), "it does not exist") from error
    if names is None and not matches(views.pop(), artifact.header_digest):
        raise _header_altered(_where(backend, key), artifact.header_digest)
    return {
        name: TensorView(
            spec=TensorSpec(name=name, dtype=record.dtype, shape=record.shape),
            data=_checked(_where(backend, key), name, record, view),
        )
        for (name, record), view in zip(records.items(), views, strict=True)
    }


def _header_altered(location: str, expected: str | None) -> DamagedError:
    if expected is not None and is_signed(expected):
        return altered(location, expected)
    return DamagedFileError(location, "its header was altered or cut short")


def contradiction(record: TensorRecord) -> str | None:
    """Return why no tensor can be as the manifest says; None if one can."""
    if record.dtype not in ITEM_BYTES:
        return f"this version of keepbest does not know its dtype {record.dtype:.80}"
    if record.offsets[1] - record.offsets[0] != ITEM_BYTES[record.dtype] * math.prod(record.shape):
        return "the manifest contradicts itself about its size"
    return None


def _named(tensors: Mapping[str, TensorRecord], names: Sequence[str], location: str) -> dict[str, TensorRecord]:
    for name in names:
        if name not in tensors:
            raise DamagedFileError(location, "the manifest does not list it", tensor=name)
    return {name: tensors[name] for name in names}


def _checked(location: str, name: str, record: TensorRecord, view: memoryview) -> memoryview:
    problem = contradiction(record)
    if problem is not None:
        raise DamagedFileError(location, problem, tensor=name)
    expected = record.offsets[1] - record.offsets[0]
    if len(view) != expected:
        raise DamagedFileError(location, f"it ends after {len(view)} of {expected} bytes", tensor=name)
    if is_signed(record.digest) and isinstance(view.obj, mmap.mmap):
        view = memoryview(bytearray(view))  # who can write to the file could change what is mapped, once it was checked
    if not matches(view, record.digest):
        raise altered(location, record.digest, tensor=name)
    progress.current().process(len(view))
    return view


def _where(backend: Backend, key: str) -> str:
    return f"{backend.url}/{key}"
