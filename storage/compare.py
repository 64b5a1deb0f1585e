"""Compare: which tensors differ between two checkpoints, and by how much. Reading their bytes is left to the caller.

What a checkpoint holds is a table of `Stored` by object and name, made of its manifest and its state file. Equal
digests are equal tensors, so nothing is read of those; of the others two streams of pieces are measured against one
another.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Literal

from msgspec import Struct
from msgspec.structs import replace

from ..errors import ConfigError, DamagedFileError, ObjectNotFoundError
from . import progress, statefile
from .arrays import COMPLEX128, numpy_dtype
from .backend import Backend
from .digest import Check, altered, digest
from .layout import data_key
from .manifest import Manifest, TensorRecord
from .statefile import ObjectRecord
from .tensorfile import ITEM_BYTES, TensorView, contradiction

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]

CHUNK = 16 << 20
"""Bytes of a tensor that are read at a time; a whole number of elements of any dtype."""
_BLOCK = 1 << 14
"""Elements that are measured at a time: what is held beside the pieces is some ten times their doubles."""

_SMALL = 1e-100
"""Sizes between this and its inverse can be squared, and what is lost beside them does not count."""

Kind = Literal["same", "values", "dtype", "shape", "ties", "added", "removed"]
"""How a tensor differs. "ties": its values are the same, but it shares them with another one in one checkpoint only."""

Key = tuple[str, str]
"""Object and name of a tensor."""


class Stored(Struct, frozen=True, kw_only=True):
    """One tensor as a checkpoint holds it."""

    dtype: str
    """The safetensors name, or "C128"."""
    shape: tuple[int, ...]
    digest: str
    """Of its bytes."""
    place: tuple[str, str] | None
    """File of the checkpoint, and name in it; tied tensors have one place. None: it stands in the state file."""
    data: bytes | memoryview | None = None
    """Its bytes, if they stand in the state file."""


class Figures(Struct, frozen=True, kw_only=True):
    """By how much the values of a tensor differ. Elements that are not finite enter only `changed` and `nonfinite`."""

    relative: float
    """‖after - before‖ / ‖before‖, Euclidean; infinite where all was zero before and is not now, or too large."""
    largest: float
    """The largest difference of one element, its absolute value."""
    changed: float
    """Share of the elements whose value is another one, from 0 to 1. NaN is the same as NaN, and 0.0 as -0.0."""
    nonfinite: int
    """Elements that changed and were not finite in one of the two."""


class TensorDifference(Struct, frozen=True, kw_only=True):
    """One tensor of two checkpoints. Tied tensors are one, if the same ones are tied in both."""

    object: str
    names: tuple[str, ...]
    """Its name in the object, and those of the tensors tied to it."""
    kind: Kind
    before: Stored | None
    """None: added."""
    after: Stored | None
    """None: removed."""
    figures: Figures | None = None
    """Only with `kind` "values"."""
    unmeasured: str | None = None
    """Why there are no figures."""


def tensors_of(manifest: Manifest, objects: Mapping[str, ObjectRecord]) -> dict[Key, Stored]:
    """Return what a checkpoint holds, by object and name.

    Raises:
        DamagedFileError: the state file and the manifest contradict one another.
    """
    return {
        (name, tensor): _stored(manifest, record, payload)
        for name, record in objects.items()
        for tensor, payload in statefile.references(record).items()
    }


def pair(before: Mapping[Key, Stored], after: Mapping[Key, Stored]) -> list[TensorDifference]:
    """Say of each tensor of two checkpoints how it differs, by what is known without reading any. In their order."""
    shared_before, shared_after = _shared(before), _shared(after)
    groups: dict[object, list[Key]] = {}
    for key in dict.fromkeys((*before, *after)):
        groups.setdefault((key[0], _place(key, before), _place(key, after)), []).append(key)
    found = []
    for keys in groups.values():
        old, new = before.get(keys[0]), after.get(keys[0])
        retied = shared_before[keys[0]] != shared_after[keys[0]]
        names = tuple(name for _, name in keys)
        kind = _kind(old, new, retied=retied)
        found.append(TensorDifference(object=keys[0][0], names=names, kind=kind, before=old, after=new))
    return found


def measure(difference: TensorDifference, before: Iterable[Any], after: Iterable[Any]) -> TensorDifference:
    """Return a difference of kind "values" with its figures.

    Args:
        difference: what `pair` found.
        before: the bytes of the tensor in pieces (see `pieces`), each a whole number of elements.
        after: likewise, cut at the same places.

    Without the package that knows its dtype nothing is read, and `unmeasured` says so.
    """
    assert difference.before is not None
    try:
        measured = _Measured(difference.before.dtype)
    except ConfigError:
        return replace(
            difference, unmeasured=f"{difference.before.dtype} needs the package ml_dtypes: pip install ml_dtypes"
        )
    for old, new in zip(before, after, strict=True):
        measured.add(old, new)
    return replace(difference, figures=measured.figures())


def ranked(differences: Iterable[TensorDifference]) -> list[TensorDifference]:
    """Return those that differ: what is there only once or of another shape first, then by relative change."""
    return sorted((found for found in differences if found.kind != "same"), key=_rank)


def pieces(backend: Backend, manifest: Manifest, stored: Stored) -> Iterator[bytes | memoryview]:
    """Yield the bytes of a tensor, `CHUNK` at a time, compared with its digest at the end. Memory: one piece.

    Raises:
        DamagedFileError: the file is missing, short or altered; names the tensor.
    """
    if stored.place is None:
        assert stored.data is not None
        for at in range(0, len(stored.data), CHUNK):
            yield stored.data[at : at + CHUNK]
        return
    file, name = stored.place
    key, artifact = data_key(manifest.name, file), manifest.artifacts[file]
    record = _record(manifest, file, name)
    where, check = f"{backend.url}/{key}", Check(record.digest)
    start = artifact.data_start or 0
    begin, end = start + record.offsets[0], start + record.offsets[1]
    for at in range(begin, end, CHUNK):
        until = min(at + CHUNK, end)
        try:
            view = backend.read_ranges(key, [(at, until)])[0]
        except ObjectNotFoundError as error:
            raise DamagedFileError(where, "it does not exist") from error
        if len(view) != until - at:
            raise DamagedFileError(where, f"it ends after {at - begin + len(view)} of {end - begin} bytes", tensor=name)
        check.update(view)
        progress.current().process(len(view))
        yield view
    if not check.holds():
        raise altered(where, record.digest, tensor=name)


# ── what is stored ────────────────────────────────────────────────────────────────────────────────────────────────


def _stored(manifest: Manifest, record: ObjectRecord, payload: Any) -> Stored:
    name = statefile.stored_name(payload)
    if name is None:
        view, logical = statefile.tensor(payload, {}, _as_it_is)
        return Stored(
            dtype=logical or view.spec.dtype,
            shape=view.spec.shape[:-1] if logical == COMPLEX128 else view.spec.shape,
            digest=digest(view.data),
            place=None,
            data=view.data,
        )
    found = _record(manifest, record.file or "", name)
    is_complex = isinstance(payload, dict) and payload.get("as") == COMPLEX128
    return Stored(
        dtype=COMPLEX128 if is_complex else found.dtype,
        shape=found.shape[:-1] if is_complex else found.shape,
        digest=found.digest,
        place=(record.file or "", name),
    )


def _as_it_is(view: TensorView, logical: str | None) -> tuple[TensorView, str | None]:
    return view, logical


def _record(manifest: Manifest, file: str, name: str) -> TensorRecord:
    artifact = manifest.artifacts.get(file)
    record = None if artifact is None or artifact.tensors is None else artifact.tensors.get(name)
    where = f"{manifest.name}/{file or 'state.json'}"
    if record is None:
        raise DamagedFileError(where, "the state file speaks of it, and the manifest does not list it", tensor=name)
    problem = contradiction(record)
    if problem is not None:
        raise DamagedFileError(where, problem, tensor=name)
    return record


# ── how two differ ────────────────────────────────────────────────────────────────────────────────────────────────


def _shared(tensors: Mapping[Key, Stored]) -> Counter[Key]:
    """Return with how many of its object each tensor shares its place, itself included."""
    many = Counter((key[0], stored.place) for key, stored in tensors.items())
    return Counter({key: 1 if stored.place is None else many[key[0], stored.place] for key, stored in tensors.items()})


def _place(key: Key, tensors: Mapping[Key, Stored]) -> tuple[str | None, str] | None:
    stored = tensors.get(key)
    return None if stored is None else stored.place or (None, key[1])


def _kind(old: Stored | None, new: Stored | None, *, retied: bool) -> Kind:
    if old is None:
        return "added"
    if new is None:
        return "removed"
    if old.shape != new.shape:
        return "shape"
    if old.dtype != new.dtype:
        return "dtype"
    if old.digest != new.digest:
        return "values"
    return "ties" if retied else "same"


def _rank(found: TensorDifference) -> tuple[int, int, float, str, str]:
    order = 0 if found.kind not in {"values", "ties"} else 1 if found.unmeasured else 3 if found.kind == "ties" else 2
    figures = found.figures
    if figures is None:
        return order, 0, 0.0, found.object, found.names[0]
    return order, -bool(figures.nonfinite), -figures.relative, found.object, found.names[0]


class _Measured:
    """What was seen of two tensors so far."""

    def __init__(self, dtype: str) -> None:
        import numpy as np  # noqa: PLC0415 - who compares what is equal does without

        self._np = np
        self._dtype: Any = np.dtype(np.complex128) if dtype == COMPLEX128 else numpy_dtype(dtype)
        self._item = 16 if dtype == COMPLEX128 else ITEM_BYTES[dtype]
        self._elements = self._changed = self._nonfinite = 0
        self._largest = self._apart = self._length = 0.0

    def add(self, old: Any, new: Any) -> None:
        """Take the next piece of both."""
        size = _BLOCK * self._item
        for at in range(0, len(old), size):
            block = slice(at, at + size)
            # Two that are far apart are infinitely far; NaN may come in forms that are reported when they are cast.
            with self._np.errstate(all="ignore"):
                self._add(*(self._np.frombuffer(piece[block], self._dtype) for piece in (old, new)))

    def figures(self) -> Figures:
        """Return the figures of all that was added."""
        relative = self._apart / self._length if self._length else math.inf if self._apart else 0.0
        return Figures(
            relative=math.inf if math.isnan(relative) else relative,  # of two lengths that no float holds
            largest=self._largest,
            changed=self._changed / self._elements if self._elements else 0.0,
            nonfinite=self._nonfinite,
        )

    def _add(self, old: Array, new: Array) -> None:
        np = self._np
        self._elements += old.size
        if old.dtype.kind in "iub":
            self._changed += int(np.count_nonzero(old != new))
            apart, length = _apart(np, old, new), old.astype(np.float64)
        else:
            wide = np.complex128 if old.dtype.kind == "c" else np.float64
            old, new = old.astype(wide), new.astype(wide)
            other, finite = old != new, np.isfinite(old) & np.isfinite(new)
            if not finite.all():
                other &= ~(np.isnan(old) & np.isnan(new))
                self._nonfinite += int(np.count_nonzero(other & ~finite))
                old, new = np.where(finite, old, 0), np.where(finite, new, 0)
            self._changed += int(np.count_nonzero(other))
            apart, length = np.abs(new - old), old
        self._largest = max(self._largest, float(np.max(apart, initial=0)))
        self._apart = math.hypot(self._apart, _norm(np, apart))
        self._length = math.hypot(self._length, _norm(np, np.abs(length)))


def _apart(np: Any, old: Array, new: Array) -> Array:
    """Return the distances of whole numbers, which may be larger than their own dtype can hold."""
    if old.dtype.kind == "b":
        unlike: Array = (old != new).astype(np.float64)
        return unlike
    low, high = np.minimum(old, new).astype(np.uint64), np.maximum(old, new).astype(np.uint64)
    apart: Array = (high - low).astype(np.float64)
    return apart  # of negative ones both wrapped around alike


def _norm(np: Any, sizes: Array) -> float:
    """Return the Euclidean length; of very large or small doubles, whose squares no double holds, they are scaled."""
    most = float(np.max(sizes, initial=0))
    if _SMALL < most < 1 / _SMALL:
        return math.sqrt(float(np.sum(np.square(sizes))))  # not `dot`: its threads would fight with training
    if most == 0 or math.isinf(most):
        return most
    return most * math.sqrt(float(np.sum(np.square(sizes / most))))
