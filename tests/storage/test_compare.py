"""Compare: how two checkpoints differ, tensor by tensor."""

from __future__ import annotations

import math
import sys
import uuid

import ml_dtypes
import numpy as np
import pytest
from contracts.runs import SmallRun, record
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from msgspec.structs import replace

from keepbest.errors import DamagedFileError
from keepbest.storage import compare
from keepbest.storage.arrays import dtype_name
from keepbest.storage.backend import open_backend
from keepbest.storage.compare import Figures, Stored, TensorDifference
from keepbest.storage.layout import data_key
from keepbest.storage.run import Run


def stored(array, *, name="w", dtype=None, digest=None, file="model.safetensors"):
    """What a checkpoint would say of `array`."""
    return Stored(
        dtype=dtype or dtype_name(array.dtype.name),
        shape=array.shape,
        digest=digest or uuid.uuid4().hex,
        place=None if file is None else (file, name),
    )


def figures(before, after, *, dtype=None, cut=None):
    """Measure two arrays, their bytes cut into pieces of `cut` elements."""
    step = (cut or max(before.size, 1)) * before.itemsize
    pieces = [
        [data[at : at + step] for at in range(0, len(data), step)] for data in (before.tobytes(), after.tobytes())
    ]
    found = TensorDifference(
        object="model",
        names=("w",),
        kind="values",
        before=stored(before, dtype=dtype),
        after=stored(after, dtype=dtype),
    )
    return compare.measure(found, *pieces)


def kinds(before, after):
    """Name → kind, of the tensors of one object."""
    tables = [{("model", name): held for name, held in side.items()} for side in (before, after)]
    return {found.names: found.kind for found in compare.pair(*tables)}


A, B = np.zeros((2, 3), np.float32), np.zeros((3, 2), np.float32)


def test_what_is_known_without_reading():
    """Digests, shapes, dtypes and names say how most tensors differ."""
    same = stored(A, digest="1")
    assert kinds(
        {"same": same, "values": stored(A, name="v"), "shape": stored(A, name="s"), "gone": stored(A, name="g")},
        {"same": same, "values": stored(A, name="v"), "shape": stored(B, name="s"), "new": stored(A, name="n")},
    ) == {("same",): "same", ("values",): "values", ("shape",): "shape", ("gone",): "removed", ("new",): "added"}
    assert kinds({"w": stored(A)}, {"w": stored(A.astype(np.float16))}) == {("w",): "dtype"}


def test_tied_tensors_are_one():
    """What shares its bytes is compared once, and what shares them in one checkpoint only is told."""
    first, second = stored(A, name="a", digest="1"), stored(A, name="b", digest="1")
    assert kinds({"a": first, "b": first}, {"a": first, "b": first}) == {("a", "b"): "same"}
    assert kinds({"a": first, "b": first}, {"a": first, "b": second}) == {("a",): "ties", ("b",): "ties"}
    assert kinds({"a": first, "b": first}, {}) == {("a", "b"): "removed"}
    changed = stored(A, name="a")
    assert kinds({"a": first, "b": first}, {"a": changed, "b": changed}) == {("a", "b"): "values"}


def test_tensors_in_the_state_file_are_not_tied():
    """Small tensors that stand in the state file are compared each by itself."""
    small = stored(A, file=None, digest="1")
    assert kinds({"a": small, "b": small}, {"a": small, "b": small}) == {("a",): "same", ("b",): "same"}
    assert kinds({"a": small}, {"a": stored(A, name="a", digest="1"), "b": stored(A, name="a", digest="1")}) == {
        ("a",): "ties",
        ("b",): "added",
    }


FLOATS = [np.float64, np.float32, np.float16, ml_dtypes.bfloat16, ml_dtypes.float8_e4m3fn, ml_dtypes.float8_e5m2]


@pytest.mark.parametrize("kind", [np.dtype(kind) for kind in FLOATS], ids=str)
def test_floats_are_measured_as_what_they_are(kind):
    """The figures of every float dtype, the short ones too, are those of their values."""
    before, after = np.array([1, 2, -2, 0], kind), np.array([1, 3, -2, 4], kind)
    found = figures(before, after).figures
    assert found == Figures(relative=pytest.approx(math.sqrt(17) / 3), largest=4, changed=0.5, nonfinite=0)


@pytest.mark.parametrize("cut", [1, 3, 1000])
@given(data=st.data())
def test_pieces_change_no_figure(cut, data):
    """However a tensor is cut, the figures are those of the whole."""
    floats = arrays.arrays(np.float32, 7, elements=st.floats(-1e6, 1e6, width=32))
    before, after = data.draw(floats), data.draw(floats)
    found = figures(before, after, cut=cut).figures
    apart = np.abs(after.astype(float) - before)
    length = np.linalg.norm(before.astype(float))
    assert found.largest == apart.max()
    assert found.changed == np.mean(before != after)
    assert found.relative == pytest.approx(np.linalg.norm(apart) / length if length else math.inf if apart.any() else 0)


def test_blocks_change_no_figure(monkeypatch):
    """A piece that is measured block by block gives what it gives as one."""
    before, after = np.arange(1000, dtype=np.float32), np.arange(1000, dtype=np.float32) + (np.arange(1000) % 7 == 0)
    whole = figures(before, after.astype(np.float32)).figures
    monkeypatch.setattr(compare, "_BLOCK", 13)
    assert figures(before, after.astype(np.float32)).figures == Figures(
        relative=pytest.approx(whole.relative), largest=1, changed=0.143, nonfinite=0
    )


def test_what_is_not_finite_is_counted_apart():
    """NaN and infinity do not spoil the figures of the rest, and NaN is the same as NaN."""
    before = np.array([math.nan, math.inf, 1.0, 2.0, 3.0])
    after = np.array([math.nan, math.inf, math.nan, 4.0, 3.0])
    found = figures(before, after).figures
    assert found == Figures(relative=pytest.approx(2 / math.sqrt(13)), largest=2, changed=0.4, nonfinite=1)


def test_large_doubles_do_not_overflow():
    """The relative change of values whose squares are beyond a double is still a number."""
    found = figures(np.array([1e300, 0.0]), np.array([1e300, 1e299])).figures
    assert (found.relative, found.largest) == (pytest.approx(0.1), 1e299)
    assert figures(np.array([-1.7e308]), np.array([1.7e308])).figures.largest == math.inf


def test_from_nothing_the_change_is_infinite():
    """Where all was zero, any change is infinitely large; a change of signs of zeros is none."""
    assert figures(np.zeros(2), np.ones(2)).figures.relative == math.inf
    assert figures(np.zeros(2), -np.zeros(2)).figures == Figures(relative=0, largest=0, changed=0, nonfinite=0)


@pytest.mark.parametrize(
    ("before", "after", "largest"),
    [
        pytest.param(np.array([-(2**63), 5]), np.array([2**63 - 1, 5]), 2.0**64, id="int64"),
        pytest.param(np.array([2**64 - 1, 5], np.uint64), np.array([2**64 - 3, 5], np.uint64), 2, id="uint64"),
        pytest.param(np.array([-128, 5], np.int8), np.array([127, 5], np.int8), 255, id="int8"),
        pytest.param(np.array([2**62, 5]), np.array([2**62 + 1, 5]), 1, id="beyond a double"),
        pytest.param(np.array([True, False]), np.array([False, False]), 1, id="bool"),
    ],
)
def test_whole_numbers_are_measured_exactly(before, after, largest):
    """Differences of whole numbers neither wrap around nor vanish in the rounding of doubles."""
    found = figures(before, after).figures
    assert (found.largest, found.changed, found.nonfinite) == (largest, 0.5, 0)


@pytest.mark.parametrize(("kind", "dtype"), [(np.complex64, "C64"), (np.complex128, "C128")])
def test_complex_numbers_are_one_element_each(kind, dtype):
    """Of complex numbers the absolute value of the difference counts."""
    found = figures(np.array([1j, 1], kind), np.array([1j, 1 + 3j], kind), dtype=dtype).figures
    assert (found.largest, found.changed) == (3, 0.5)


def test_empty_tensors_differ_by_nothing():
    """A tensor with no elements can be compared."""
    empty = np.zeros((0, 3), np.float32)
    assert figures(empty, empty).figures == Figures(relative=0, largest=0, changed=0, nonfinite=0)


def test_without_ml_dtypes_it_says_what_is_missing(monkeypatch):
    """Where a dtype cannot be read, the tensor is told as changed, with what to install."""
    monkeypatch.setitem(sys.modules, "ml_dtypes", None)
    before = np.zeros(2, ml_dtypes.bfloat16)
    found = figures(before, before + 1, dtype="BF16")
    assert found.figures is None
    assert found.unmeasured == "BF16 needs the package ml_dtypes: pip install ml_dtypes"


def test_the_order_is_what_changed_most_first():
    """What has another form comes first, then what cannot be measured, then by relative change, ties last."""

    def difference(name, kind="values", relative=None, nonfinite=0):
        measured = None
        if relative is not None:
            measured = Figures(relative=relative, largest=0, changed=1, nonfinite=nonfinite)
        held = stored(A, name=name)
        unmeasured = "why" if kind == "values" and measured is None else None
        return TensorDifference(
            object="m", names=(name,), kind=kind, before=held, after=held, figures=measured, unmeasured=unmeasured
        )

    found = [
        difference("e", relative=0.1), difference("a", "ties"), difference("z", relative=math.inf),
        difference("x", "same"), difference("y", "added"), difference("w"), difference("b", relative=0.01),
        difference("f", relative=0.0, nonfinite=1),
    ]  # fmt: skip
    assert [name for difference in compare.ranked(found) for name in difference.names] == list("ywfzeba")


class Recorder:
    """A backend that notes what is read."""

    def __init__(self, backend):
        self._backend = backend
        self.ranges = []

    def __getattr__(self, name):
        return getattr(self._backend, name)

    def read_ranges(self, key, ranges):
        self.ranges.extend(ranges)
        return self._backend.read_ranges(key, ranges)


@pytest.fixture
def two(run_url):
    """A run of two checkpoints: `bias` is the same in both, `weight` is not, `count` stands in the state file."""
    backend = open_backend(run_url)
    run = SmallRun(backend)
    for number in (1, 2):
        held, tensors = record("model", {"weight": np.full(100, number, np.float32), "bias": np.ones(3, np.float32)})
        small = record("optimizer", {"count": np.array(number)}, inline=True, role="optimizer")
        run.save(objects={"model": (held, tensors), "optimizer": small})
    return Run(backend)


def held_by(checkpoint):
    return compare.tensors_of(checkpoint.manifest(), checkpoint.state().objects)


def test_checkpoints_of_a_run_are_compared(two, monkeypatch):
    """Only what differs is read, a piece at a time; tensors in the state file are compared too."""
    monkeypatch.setattr(compare, "CHUNK", 64)
    first, second = two.checkpoints()
    backend = Recorder(two.backend)
    found = {difference.names: difference for difference in compare.pair(held_by(first), held_by(second))}
    assert {names: difference.kind for names, difference in found.items()} == {
        ("weight",): "values",
        ("bias",): "same",
        ("count",): "values",
    }
    weight = found["weight",]
    pieces = (
        compare.pieces(backend, checkpoint.manifest(), side)
        for checkpoint, side in ((first, weight.before), (second, weight.after))
    )
    assert compare.measure(weight, *pieces).figures == Figures(relative=1, largest=1, changed=1, nonfinite=0)
    assert {end - begin for begin, end in backend.ranges} == {64, 16}
    assert len(backend.ranges) == 2 * 7
    count = found["count",]
    assert (count.before.place, count.before.shape, count.before.dtype) == (None, (), "I64")
    manifests = (first.manifest(), second.manifest())
    sides = zip(manifests, (count.before, count.after), strict=True)
    measured = compare.measure(count, *(compare.pieces(backend, manifest, side) for manifest, side in sides))
    assert measured.figures.largest == 1


def test_what_is_read_is_checked(tmp_path):
    """A byte that is not the one that was written is an error that names the tensor, not a difference."""
    backend = open_backend(str(tmp_path / "run"))
    run = SmallRun(backend)
    run.save()
    (checkpoint,) = Run(backend).checkpoints()
    path = tmp_path / "run" / data_key(checkpoint.name, "model.safetensors")
    data = bytearray(path.read_bytes())
    stored_weight = held_by(checkpoint)["model", "layer.weight"]
    begin = checkpoint.manifest().artifacts["model.safetensors"].data_start
    offset = checkpoint.manifest().artifacts["model.safetensors"].tensors["layer.weight"].offsets[0]
    data[begin + offset] ^= 1
    path.chmod(0o644)
    path.write_bytes(data)
    with pytest.raises(DamagedFileError, match=r"layer\.weight.*not those that were written"):
        list(compare.pieces(backend, checkpoint.manifest(), stored_weight))
    path.write_bytes(data[: begin + offset + 4])
    with pytest.raises(DamagedFileError, match=r"layer\.weight.*it ends after 4 of 48 bytes"):
        list(compare.pieces(backend, checkpoint.manifest(), stored_weight))
    path.unlink()
    with pytest.raises(DamagedFileError, match="does not exist"):
        list(compare.pieces(backend, checkpoint.manifest(), stored_weight))


def test_a_state_file_that_speaks_of_nothing_is_damaged(tmp_path):
    """A tensor that the state file names and the manifest does not list is an error, not a difference."""
    backend = open_backend(str(tmp_path))
    run = SmallRun(backend)
    run.save()
    (checkpoint,) = Run(backend).checkpoints()
    manifest = checkpoint.manifest()
    bare = replace(manifest, artifacts={})
    with pytest.raises(DamagedFileError, match="does not list it"):
        compare.tensors_of(bare, checkpoint.state().objects)
