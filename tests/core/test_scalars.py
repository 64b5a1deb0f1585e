"""NumPy's scalars in saved state: they come back as what they were, not as arrays."""

from __future__ import annotations

import json

import ml_dtypes
import numpy as np
import pytest
import torch
from contracts.stateful import Holder

import keepbest
from keepbest import Checkpointer
from keepbest.errors import ConfigError
from keepbest.storage import statefile
from keepbest.storage.arrays import from_tag

SCALARS = [
    np.float64(0.1), np.float32(0.1), np.float16("nan"), np.int64(-3), np.int32(-3), np.int16(-3), np.int8(-3),
    np.uint64(2**64 - 1), np.uint32(3), np.uint16(3), np.uint8(3), np.bool_(True), np.complex64(1 + 2j),
    np.complex128(1 + 2j), ml_dtypes.bfloat16(0.5), ml_dtypes.float8_e4m3fn(0.5),
]  # fmt: skip


@pytest.fixture
def run_url(tmp_path):
    return tmp_path / "run"


def saved_and_restored(url, state):
    with Checkpointer(url, plain=Holder(state)) as ckpt:
        ckpt.log()
    again = Holder(None)
    with Checkpointer(url, plain=again) as ckpt:
        ckpt.resume()
    return again.state


@pytest.mark.parametrize("beside", [0, 20_000], ids=["inline", "in a tensor file"])
def test_a_scalar_comes_back_as_the_scalar_it_was(run_url, beside):
    """What was a NumPy scalar is one of the same type and bits after a resume, and for who loads it."""
    arrays = [np.asarray(value) for value in SCALARS]
    restored = saved_and_restored(run_url, {"scalars": SCALARS, "arrays": arrays, "beside": np.zeros(beside)})
    for state in (restored, keepbest.open_run(run_url).latest.load("plain")):
        assert [type(found) for found in state["scalars"]] == [type(value) for value in SCALARS]
        assert [found.tobytes() for found in state["scalars"]] == [value.tobytes() for value in SCALARS]
        assert [(type(found), found.shape) for found in state["arrays"]] == [(np.ndarray, ())] * len(SCALARS)


def test_a_restored_scalar_serves_where_the_first_one_did(run_url):
    """A restored scalar can be hashed, can be the key of a dict, and a float64 goes into JSON."""
    state = saved_and_restored(run_url, {"lr": np.float64(0.1), "seen": (np.int64(7), "x")})
    assert {state["seen"][0]: 1} == {7: 1}
    assert hash(state["lr"]) == hash(0.1)
    assert json.dumps(state["lr"]) == "0.1"


def test_a_scalar_takes_the_place_of_an_array_between_two_saves(run_url):
    """Where an array stood at one save and a scalar of the same dtype at the next, each is restored as it was."""
    plain = Holder({"value": np.asarray(1.0)})
    with Checkpointer(run_url, {"keep_last": 2}, plain=plain) as ckpt:
        ckpt.log()
        plain.state = {"value": np.float64(1.0)}
        ckpt.log()
    found = [type(checkpoint.load("plain")["value"]) for checkpoint in keepbest.open_run(run_url).checkpoints()]
    assert found == [np.ndarray, np.float64]


def test_a_fused_optimizer_trains_on_with_a_learning_rate_of_numpy(run_url):
    """A fused optimizer whose rate NumPy worked out goes on after a resume."""
    for _ in range(2):
        model = torch.nn.Linear(3, 1)
        optimizer = torch.optim.AdamW(model.parameters(), lr=np.float64(0.1), fused=True)
        with Checkpointer(run_url, model=model, optimizer=optimizer) as ckpt:
            ckpt.resume()
            model(torch.ones(2, 3)).sum().backward()
            optimizer.step()
            ckpt.log()
    assert type(optimizer.param_groups[0]["lr"]) is np.float64


def test_who_asks_for_a_framework_gets_its_tensors(run_url):
    """Loaded for PyTorch, a NumPy scalar is a tensor like the arrays beside it."""
    saved_and_restored(run_url, {"value": np.float32(0.5)})
    loaded = keepbest.open_run(run_url).latest.load("plain", framework="torch")
    assert torch.equal(loaded["value"], torch.tensor(0.5))


def test_scalars_of_older_checkpoints_are_still_read():
    """A scalar that was saved with the mark of an array is read as the array it was then."""
    payload = {"dtype": "F64", "shape": [], "data": "mpmZmZmZuT8="}
    entry = statefile.ObjectRecord(role="state", file=None, state={"lr": {"$numpy": payload}})
    found = statefile.restore(entry, {}, from_tag)["lr"]
    assert (type(found), found.shape, float(found)) == (np.ndarray, (), 0.1)


def test_the_mark_is_no_framework(run_url):
    """The mark of a scalar is not taken for the name of a framework."""
    saved_and_restored(run_url, {"value": np.float32(0.5)})
    with pytest.raises(ConfigError, match="unknown framework 'numpy-scalar'"):
        keepbest.open_run(run_url).latest.load("plain", framework="numpy-scalar")
