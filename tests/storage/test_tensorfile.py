"""Tensor files: plain safetensors that anyone reads, and no altered byte goes unnoticed."""

from __future__ import annotations

import itertools
import json

import ml_dtypes
import numpy as np
import pytest
import safetensors
import safetensors.numpy
from contracts.faults import WrappedBackend
from contracts.runs import SmallRun, same, spec, staged
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import asdict, replace

from keepbest.errors import ConfigError, DamagedFileError
from keepbest.storage import arrays, tensorfile
from keepbest.storage.backend import open_backend
from keepbest.storage.digest import digest
from keepbest.storage.manifest import TensorRecord
from keepbest.storage.run import Run
from keepbest.storage.tensorfile import ITEM_BYTES, TensorSpec

KEY = "checkpoints/c/model.safetensors"


def stored(backend, held, key=KEY):
    """Write arrays as a tensor file and return its record."""
    plan, data = staged(held)
    return tensorfile.write(backend, key, plan, data)


def loaded(backend, artifact, names=None):
    """Return the arrays of a tensor file."""
    views = tensorfile.read(backend, KEY, artifact, names)
    return {name: arrays.from_view(view, None) for name, view in views.items()}


def values(dtype, shape, seed=0):
    """Return an array of every kind of bit pattern that its dtype allows."""
    kind = arrays.numpy_dtype(dtype)
    count = int(np.prod(shape))
    raw = np.random.default_rng(seed).integers(0, 2 if dtype == "BOOL" else 256, count * kind.itemsize, dtype=np.uint8)
    return raw.view(kind).reshape(shape)


SHAPES = [(), (1,), (7,), (0,), (3, 0, 2), (2, 3, 4), (1, 1, 1, 1)]


# ── what others read ─────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("dtype", ITEM_BYTES)
def test_safetensors_reads_every_dtype(backend, tmp_path, dtype):
    """A file of any dtype and shape, scalars and empty tensors included, is read by the safetensors library itself."""
    held = {f"t{number}.{shape}": values(dtype, shape, number) for number, shape in enumerate(SHAPES)}
    artifact = stored(backend, held)
    path = tmp_path / "copy.safetensors"
    path.write_bytes(backend.read(KEY))
    for name, found in safetensors.deserialize(path.read_bytes()):
        assert found["dtype"] == dtype
        assert tuple(found["shape"]) == held[name].shape
        assert bytes(found["data"]) == held[name].tobytes()
    with safetensors.safe_open(path, framework="np") as file:
        assert set(file.keys()) == set(held)
        assert file.metadata() == {"format": "pt"}
    assert same(loaded(backend, artifact), held)


@pytest.mark.parametrize("dtype", sorted(set(ITEM_BYTES) - {"F8_E8M0"}))
def test_torch_reads_every_dtype(backend, tmp_path, dtype):
    """`safetensors.torch.load_file`, which knows nothing of keepbest, gives the tensors back bit for bit."""
    torch = pytest.importorskip("torch")
    from safetensors.torch import load_file

    held = {f"t{number}": values(dtype, shape, number) for number, shape in enumerate(SHAPES)}
    stored(backend, held)
    path = tmp_path / "copy.safetensors"
    path.write_bytes(backend.read(KEY))
    found = load_file(path)
    for name, array in held.items():
        assert tuple(found[name].shape) == array.shape
        assert found[name].contiguous().reshape(-1).view(torch.uint8).numpy().tobytes() == array.tobytes()


def test_an_empty_file_is_a_file(backend):
    """No tensors at all make a valid file."""
    artifact = stored(backend, {})
    assert safetensors.deserialize(backend.read(KEY)) == []
    assert loaded(backend, artifact) == {}


names = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12).filter(lambda n: n != "__metadata__")
shapes = st.lists(st.integers(0, 4), max_size=4).map(tuple)


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(names, st.tuples(st.sampled_from(sorted(ITEM_BYTES)), shapes), max_size=8))
def test_any_tensors_are_read_back_and_aligned(held):
    """Whatever the names, dtypes and shapes: the library and we read them, and each is aligned to its element."""
    held = {name: values(dtype, shape) for name, (dtype, shape) in held.items()}
    backend = open_backend("memory://test-tensorfile")
    backend.delete([KEY])
    artifact = stored(backend, held)
    data = backend.read(KEY)
    assert len(data) == artifact.size
    assert artifact.data_start % 64 == 0
    assert {name: bytes(found["data"]) for name, found in safetensors.deserialize(data)} == {
        name: array.tobytes() for name, array in held.items()
    }
    assert same(loaded(backend, artifact), held)
    for name, entry in artifact.tensors.items():
        assert (artifact.data_start + entry.offsets[0]) % held[name].dtype.itemsize == 0


def test_the_plan_says_where_everything_goes():
    """The header, its length and the offsets are known before a byte of data is there; large elements come first."""
    specs = [
        TensorSpec(name="flag", dtype="BOOL", shape=(3,)),
        TensorSpec(name="wide", dtype="F64", shape=(2,)),
        TensorSpec(name="half", dtype="BF16", shape=(5,)),
    ]
    plan = tensorfile.plan(specs, {})
    assert plan.offsets == {"wide": (0, 16), "half": (16, 26), "flag": (26, 29)}
    assert plan.data_bytes == 29
    length = int.from_bytes(plan.header[:8], "little")
    assert len(plan.header) == 8 + length
    assert json.loads(plan.header[8:])["half"] == {"dtype": "BF16", "shape": [5], "data_offsets": [16, 26]}


# ── what we read ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_loaded_arrays_are_writable_and_private(backend):
    """Whoever trains on in what was loaded changes no checkpoint."""
    held = {"w": np.arange(12, dtype=np.float32).reshape(3, 4)}
    artifact = stored(backend, held)
    first = loaded(backend, artifact)["w"]
    first[:] = 0
    assert same(loaded(backend, artifact), held)


def test_only_some_are_read(backend):
    """Asking for one tensor gives that one."""
    held = {"a": np.arange(3.0), "b": np.arange(4.0)}
    assert same(loaded(backend, stored(backend, held), ["b"]), {"b": held["b"]})


def test_complex128_is_folded_back():
    """Complex numbers that safetensors has no word for come back as what they were, scalars and empty ones too."""
    for shape in SHAPES:
        array = values("F64", (*shape, 2))
        view = tensorfile.TensorView(spec=spec("z", array), data=memoryview(bytearray(array.tobytes())))
        found = arrays.from_view(view, arrays.COMPLEX128)
        assert (found.dtype, found.shape) == (np.complex128, shape)
        assert found.tobytes() == array.tobytes()


def test_numpy_has_a_dtype_for_each():
    """Every dtype that can be written can be read as NumPy, with the names of ml_dtypes where NumPy has none."""
    for dtype, nbytes in ITEM_BYTES.items():
        assert arrays.numpy_dtype(dtype).itemsize == nbytes
        assert arrays.dtype_name(arrays.numpy_dtype(dtype).name) == dtype
    assert arrays.numpy_dtype("BF16") == ml_dtypes.bfloat16
    assert arrays.dtype_name("object") is None


def test_an_unknown_framework_is_named():
    """A framework that nobody registered is an error that lists those there are."""
    with pytest.raises(ConfigError, match=r"unknown framework 'nunpy'.*Did you mean 'numpy'"):
        arrays.converter("nunpy")


# ── damage ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def overwrite(backend, key, data):
    """Alter an object behind the store's back."""
    backend.replace(key, bytes(data))


def test_every_flipped_byte_is_noticed(memory_url):
    """Flip any byte of a tensor file: both a full read and `verify` fail, and say which tensor where it is one's."""
    backend = open_backend(memory_url)
    run = SmallRun(backend)
    facts = run.save(arrays={"a": np.arange(4, dtype=np.int16), "b": np.array(1.5, np.float32)})
    key = f"checkpoints/{facts.name}/model.safetensors"
    whole = backend.read(key)
    checkpoint = Run(backend).latest
    artifact = checkpoint.manifest().artifacts["model.safetensors"]
    assert same(checkpoint.load("model"), run.wrote[facts.name])
    for place in range(len(whole)):
        altered = bytearray(whole)
        altered[place] ^= 1 << place % 8
        overwrite(backend, key, altered)
        tensor = next(
            (
                name
                for name, entry in artifact.tensors.items()
                if entry.offsets[0] <= place - artifact.data_start < entry.offsets[1]
            ),
            None,
        )
        with pytest.raises(DamagedFileError) as caught:
            checkpoint.load("model")
        assert caught.value.tensor == tensor
        assert key in caught.value.location
        problems = Run(backend).verify().problems
        assert [(problem.file, problem.tensor) for problem in problems] == [("model.safetensors", tensor)]
    overwrite(backend, key, whole)
    assert Run(backend).verify().ok


def test_every_truncation_is_noticed(memory_url):
    """Cut the file anywhere: reading it is an error and `verify` says so, as it does when something was added."""
    backend = open_backend(memory_url)
    facts = SmallRun(backend).save()
    key = f"checkpoints/{facts.name}/model.safetensors"
    whole = backend.read(key)
    checkpoint = Run(backend).latest
    for end in range(len(whole)):
        overwrite(backend, key, whole[:end])
        with pytest.raises(DamagedFileError):
            checkpoint.load("model")
        assert not Run(backend).verify().ok
    overwrite(backend, key, whole + b"\0")
    assert not Run(backend).verify().ok


@pytest.mark.parametrize("only", [None, "layer.weight"])
def test_a_missing_or_short_file_is_named(backend, only):
    """When the file is gone or short, the error names the file, and the tensor where one was cut."""
    facts = SmallRun(backend).save()
    key = f"checkpoints/{facts.name}/model.safetensors"
    whole = backend.read(key)
    overwrite(backend, key, whole[:-1])
    with pytest.raises(DamagedFileError, match=r"'layer\.weight' in .*ends after 47 of 48 bytes") as caught:
        Run(backend).latest.load("model", only=only)
    assert caught.value.tensor == "layer.weight"
    backend.delete([key])
    with pytest.raises(DamagedFileError, match="does not exist") as caught:
        Run(backend).latest.load("model", only=only)
    assert caught.value.location.endswith(key)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        pytest.param({"dtype": "F4"}, "does not know its dtype F4", id="unknown-dtype"),
        pytest.param({"shape": (5, 3)}, "contradicts itself", id="another-shape"),
        pytest.param({"dtype": "F64"}, "contradicts itself", id="another-size"),
    ],
)
def test_a_record_that_contradicts_itself_is_damage(backend, change, problem):
    """A manifest that says what cannot be, with a digest that fits, is an error that names the tensor."""
    held = {"w": np.zeros((4, 3), np.float32)}
    artifact = stored(backend, held)
    facts = asdict(artifact.tensors["w"]) | change
    altered = replace(artifact, tensors={"w": TensorRecord(**facts)})
    with pytest.raises(DamagedFileError, match=problem) as caught:
        tensorfile.read(backend, KEY, altered)
    assert caught.value.tensor == "w"


def test_a_tensor_that_the_manifest_does_not_list(backend):
    """A state that speaks of a tensor which the manifest does not have is an error that names it."""
    artifact = stored(backend, {"w": np.zeros(3)})
    with pytest.raises(DamagedFileError, match="'v'"):
        tensorfile.read(backend, KEY, artifact, ["v"])


# ── chunks ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_large_tensors_are_streamed_as_views_of_themselves(memory_url):
    """Of any mixture, chunks of large tensors are cut at their edges, small ones go together; digests are right."""
    sizes = [3 << 20, 10, 20 << 20, *range(1, 400, 7), 0, (1 << 20) + 1, 5, 9 << 20]
    arrays = {f"t{number}": np.full(size, number, np.uint8) for number, size in enumerate(sizes)}
    plan, data = staged(arrays)
    backend = open_backend(memory_url)
    seen = []

    class Watching(WrappedBackend):
        def _call(self, name, *args):
            if name == "put":
                seen.extend(args[1])
                args = (args[0], seen)
            return super()._call(name, *args)

    artifact = tensorfile.write(Watching(backend), "checkpoints/c/a.safetensors", plan, data)
    assert len(seen) < 20
    assert max(map(len, seen[1:])) <= 8 << 20
    large = {name: span for name, span in plan.offsets.items() if span[1] - span[0] >= 1 << 20}
    starts = list(itertools.accumulate((len(chunk) for chunk in seen[1:]), initial=0))
    assert starts[-1] == plan.data_bytes
    assert {edge for span in large.values() for edge in span} <= set(starts)
    found = tensorfile.read(backend, "checkpoints/c/a.safetensors", artifact)
    assert all(bytes(found[name].data) == array.tobytes() for name, array in arrays.items())
    assert artifact.digest == digest(backend.read("checkpoints/c/a.safetensors"))
