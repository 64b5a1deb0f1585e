"""State files: everything that is no large tensor, and how it refers to those that are."""

from __future__ import annotations

import json
import math
from collections import OrderedDict

import numpy as np
import pytest
from contracts.runs import SmallRun, record, same, spec

from keepbest.errors import CheckpointNotFoundError, DamagedFileError
from keepbest.storage import statefile
from keepbest.storage.arrays import COMPLEX128, from_view
from keepbest.storage.run import Run
from keepbest.storage.statefile import ObjectRecord
from keepbest.storage.tensorfile import TensorView


def view(array):
    return TensorView(spec=spec("", array), data=memoryview(bytearray(array.tobytes())))


def saved(backend, state, *, inline=False):
    """Save one object of this state and return its checkpoint."""
    SmallRun(backend).save(objects={"thing": record("thing", state, inline=inline, role="state")})
    return Run(backend).latest


# ── to and from bytes ────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_state_file_is_read_back():
    """Objects, their roles and files, and where training stood come back as they were written."""
    objects = {
        "model": ObjectRecord(role="weights", file="model.safetensors", state={"w": {"$torch": "w"}}),
        "größe": ObjectRecord(role="state", file=None, state=[1, {"$tuple": []}, "\ud800"]),
    }
    training = {"position": {"epoch": 3}, "monitors": []}
    found = statefile.parse(statefile.dump(objects, training), "x")
    assert (found.objects, found.training) == (objects, training)


def test_a_state_file_is_valid_utf8():
    """Text that is no valid Unicode, such as a file's name in another encoding, breaks no other reader of the file."""
    data = statefile.dump({"a": ObjectRecord(role="state", file=None, state="\udcff.png")}, {})
    assert json.loads(data.decode("utf-8"))["objects"]["a"]["state"] == "\udcff.png"


def test_a_deep_state_is_saved():
    """State nested as deep as it may be is no problem of the file."""
    state = 0
    for _ in range(300):
        state = {"$tuple": [state]}
    objects = {"a": ObjectRecord(role="state", file=None, state=state)}
    assert statefile.parse(statefile.dump(objects, {}), "x").objects == objects


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"{", id="no-json"),
        pytest.param(b"\xff\xfe", id="no-utf8"),
        pytest.param(b"[]", id="list"),
        pytest.param(b'{"objects":{}}', id="half"),
        pytest.param(b'{"objects":{"a":{"role":"king","file":null,"state":1}},"training":{}}', id="unknown-role"),
    ],
)
def test_what_is_no_state_file_is_damage(data):
    """Anything else is an error that names the file."""
    with pytest.raises(DamagedFileError, match="no state file") as caught:
        statefile.parse(data, "checkpoints/c/state.json")
    assert caught.value.location == "checkpoints/c/state.json"


def test_a_newer_field_is_passed_over():
    """What a newer minor version added does not disturb."""
    data = b'{"objects":{"a":{"role":"state","file":null,"state":1,"new":2}},"training":{},"new":{}}'
    assert statefile.parse(data, "x").objects["a"].state == 1


# ── tensors ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("dtype", ["float32", "int8", "bool", "complex64"])
@pytest.mark.parametrize("shape", [(), (0,), (2, 3)])
def test_a_small_tensor_stands_in_the_file_itself(dtype, shape):
    """A tensor that is kept inline comes back with its dtype and shape, writable."""
    array = np.ones(shape, dtype)
    payload = json.loads(json.dumps(statefile.inline(spec("", array), array.tobytes(), None)))
    found = statefile.tensor(payload, {}, from_view)
    assert same({"x": found}, {"x": array})
    assert found.flags.writeable


def test_complex128_is_kept_by_a_word_beside_the_reference():
    """Complex numbers come back as such, whether they lie in the tensor file or inline."""
    array = np.array([1 + 2j, 3 - 4j])
    pairs = array.view(np.float64).reshape(2, 2)
    for payload in (
        statefile.reference("z", COMPLEX128),
        statefile.inline(spec("z", pairs), pairs.tobytes(), COMPLEX128),
    ):
        assert np.array_equal(statefile.tensor(payload, {"z": view(pairs)}, from_view), array)


def test_a_reference_to_no_tensor_names_it():
    """A state that speaks of a tensor which its file does not have is damage, and the tensor is named."""
    entry = ObjectRecord(role="state", file="a.safetensors", state={"w": {"$numpy": "w"}})
    with pytest.raises(DamagedFileError, match="'w' in state.json") as caught:
        statefile.restore(entry, {}, lambda _tag: from_view)
    assert caught.value.tensor == "w"


# ── load(only=…) ─────────────────────────────────────────────────────────────────────────────────────────────────────

STATE = {
    "encoder.weight": np.arange(6.0).reshape(2, 3),
    "encoder.bias": np.arange(3),
    "decoder.weight": np.arange(4, dtype=np.float32),
    "loss": math.nan,
    "note": b"encoder.weight",
    "groups": [{"momentum": np.arange(2)}, {"momentum": np.arange(5)}],
    "by_id": OrderedDict({0: (np.arange(1),)}),
}
PATHS = {
    "encoder.weight": STATE["encoder.weight"],
    "encoder.bias": STATE["encoder.bias"],
    "decoder.weight": STATE["decoder.weight"],
    "groups.0.momentum": STATE["groups"][0]["momentum"],
    "groups.1.momentum": STATE["groups"][1]["momentum"],
    "by_id.0.0": STATE["by_id"][0][0],
}


@pytest.mark.parametrize("inline", [False, True])
@pytest.mark.parametrize(
    ("only", "expected"),
    [
        pytest.param("*", set(PATHS), id="all"),
        pytest.param("encoder.*", {"encoder.weight", "encoder.bias"}, id="pattern"),
        pytest.param("encoder.bias", {"encoder.bias"}, id="name"),
        pytest.param(["*.weight", "encoder.*"], {"encoder.weight", "encoder.bias", "decoder.weight"}, id="patterns"),
        pytest.param("groups.?.momentum", {"groups.0.momentum", "groups.1.momentum"}, id="nested"),
        pytest.param("[e]ncoder.w*", {"encoder.weight"}, id="set"),
        pytest.param("by_id.0.0", {"by_id.0.0"}, id="int-keys"),
    ],
)
def test_some_tensors_of_a_state(backend, inline, only, expected):
    """With `only`, just the tensors whose names fit are given, wherever in the state they stand and lie."""
    found = saved(backend, STATE, inline=inline).load("thing", only=only)
    assert same(found, {name: PATHS[name] for name in expected})


@pytest.mark.parametrize(
    "state",
    [
        pytest.param([np.arange(3), np.arange(4)], id="list"),
        pytest.param((np.arange(3), np.arange(4)), id="tuple"),
        pytest.param(OrderedDict({"0": np.arange(3), "1": np.arange(4)}), id="ordered"),
        pytest.param({0: np.arange(3), 1: np.arange(4)}, id="int-keys"),
    ],
)
def test_some_tensors_of_a_state_that_is_no_plain_dict(backend, state):
    """The state of an object may be anything: its tensors are found by their place in it."""
    checkpoint = saved(backend, state)
    assert same(checkpoint.load("thing", only=["*"]), {"0": np.arange(3), "1": np.arange(4)})
    assert type(checkpoint.load("thing")) is type(state)


def test_a_bare_tensor_is_called_value(backend):
    """A state that is one tensor can be asked for by the name it has in the tensor file."""
    assert same(saved(backend, np.arange(3)).load("thing", only="*"), {"value": np.arange(3)})


def test_two_ways_that_read_the_same_are_two_tensors(backend):
    """A nested key that spells the same as a key with dots hides no tensor."""
    state = {"a.b": np.arange(3), "a": {"b": np.arange(4)}}
    entry = ObjectRecord(role="state", file=None, state={"a.b": {"$numpy": "a.b"}, "a": {"b": {"$numpy": "a.b~2"}}})
    assert statefile.references(entry) == {"a.b": "a.b", "a.b~2": "a.b~2"}
    found = saved(backend, state, inline=True).load("thing", only="a.b*")
    assert same(found, {"a.b": np.arange(3), "a.b~2": np.arange(4)})


def test_tied_tensors_are_stored_once_and_stay_tied(backend):
    """Tied weights take the space of one, come back as one memory, and each of their names can be asked for."""
    shared = np.arange(1000.0)
    checkpoint = saved(backend, {"embedding": shared, "head": shared, "other": np.arange(3)})
    artifact = checkpoint.manifest().artifacts["thing.safetensors"]
    assert set(artifact.tensors) == {"embedding", "other"}
    found = checkpoint.load("thing")
    assert np.shares_memory(found["embedding"], found["head"])
    found["embedding"][0] = 7
    assert found["head"][0] == 7
    assert same(checkpoint.load("thing", only="head"), {"head": shared})


def test_only_reads_only_its_bytes(memory_url):
    """Asking for a small tensor of a large model reads no other tensor."""
    from contracts.faults import WrappedBackend

    from keepbest.storage.backend import open_backend

    class Recording(WrappedBackend):
        asked = 0

        def _call(self, name, *args):
            if name == "read_ranges":
                self.asked += sum(end - begin for begin, end in args[1])
            return super()._call(name, *args)

    backend = Recording(open_backend(memory_url))
    checkpoint = saved(backend, {"large": np.zeros(100_000), "small": np.arange(4, dtype=np.int8)})
    checkpoint.load("thing", only="small")
    assert backend.asked == 4


def test_nothing_that_fits_is_an_error(backend):
    """A pattern that fits no tensor, or a name that is no object, is an error that lists what there is."""
    checkpoint = saved(backend, STATE)
    with pytest.raises(CheckpointNotFoundError, match=r"encodr\.weight.*encoder\.weight"):
        checkpoint.load("thing", only="encodr.weight")
    with pytest.raises(CheckpointNotFoundError, match="'model'.*thing"):
        checkpoint.load("model")
    with pytest.raises(CheckpointNotFoundError, match=r"weights\.bin.*state\.json"):
        checkpoint.read_file("weights.bin")
