"""Capturing: what is captured again and again is what a first capture would find, and keeps nothing alive."""

from __future__ import annotations

import gc
import weakref
from collections import Counter, OrderedDict, deque

import numpy as np
import pytest
import torch
from contracts.stateful import Holder
from hypothesis import given, settings
from hypothesis import strategies as st

import keepbest.adapters  # noqa: F401 - fills the table of adapters
from keepbest.core.capturing import Capturing
from keepbest.core.snapshot import Snapshots
from keepbest.core.staging import Staging
from keepbest.core.state import value_of
from keepbest.errors import UnsupportedStateError

PADS = {True: {"pad": np.zeros(70_000, np.uint8)}, False: {}}
"""With it, tensors go to a file; without, they stay in `state.json`."""


def written(snapshots):
    """Return all that a snapshot would write: each object's record, and each file's plan and bytes."""
    taken = snapshots.live()
    objects = {name: record for name, record in taken.objects.items() if name == "held"}
    files = [(d.file, d.plan, bytes(d.data[0 : len(d.data)])) for d in taken.files if d.file.startswith("held")]
    return objects, files


def captured(capturing):
    """Return all that a capture says: the typed state, and each tensor's facts and bytes."""
    found = capturing.capture()
    tensors = {}
    for name, source in found.sources.items():
        data = bytearray(
            int(np.prod(source.shape)) * {"F32": 4, "F64": 8, "I64": 8, "BF16": 2, "C64": 8, "U8": 1}[source.dtype]
        )
        if data:
            source.fill(memoryview(data))
        tensors[name] = (source.facts, bytes(data))
    return found.state(lambda stored: {"tensor": stored}), list(tensors.items()), found.metadata, found.role


# ── any state ─────────────────────────────────────────────────────────────────────────────────────────────────────


def tensors():
    """A pool to draw from: some share memory, some differ in one thing only."""
    base = torch.arange(6.0)
    return [
        base, base.view(6), base.view(2, 3), base[:3], base[3:], base.clone(), base.double(), base.bfloat16(),
        torch.complex(base, base), torch.complex(base, base).conj(), torch.zeros(0), torch.tensor(3.0),
        np.arange(6.0), np.arange(6.0, dtype=np.float32), np.arange(3), np.zeros((0, 2)),
    ]  # fmt: skip


PLAIN = (
    st.none() | st.booleans() | st.integers(-3, 3) | st.floats(width=16) | st.sampled_from(["", "a", "$b"])
    | st.binary(max_size=2) | st.complex_numbers(max_magnitude=2)
)  # fmt: skip
TENSOR = st.integers(0, len(tensors()) - 1).map(lambda number: ("tensor", number))
KEY = st.sampled_from(["a", "b", "a.b", "0", 0, 1])


def containers(inner):
    few = st.lists(inner, max_size=3)
    return st.one_of(
        few.map(lambda items: ("list", items)),
        few.map(lambda items: ("tuple", items)),
        few.map(lambda items: ("deque", items)),
        st.lists(st.tuples(KEY, inner), max_size=4, unique_by=lambda item: item[0]).map(lambda pairs: ("dict", pairs)),
        st.lists(st.tuples(KEY, inner), max_size=3, unique_by=lambda item: item[0]).map(lambda pairs: ("order", pairs)),
        st.sampled_from([("set", [1, 2]), ("set", []), ("count", "aab"), ("bytes", b"xy")]),
    )


RECIPE = st.recursive(PLAIN.map(lambda value: ("plain", value)) | TENSOR | TENSOR, containers, max_leaves=8)


def made(recipe, pool):
    """Return the state that a recipe tells of."""
    kind, inside = recipe
    if kind in ("plain", "tensor"):
        return pool[inside] if kind == "tensor" else inside
    if kind in ("dict", "order"):
        return {"dict": dict, "order": OrderedDict}[kind]((key, made(item, pool)) for key, item in inside)
    if kind in ("set", "count", "bytes"):
        return {"set": set, "count": Counter, "bytes": bytearray}[kind](inside)
    items = [made(item, pool) for item in inside]
    return {"list": list, "tuple": tuple, "deque": lambda found: deque(found, maxlen=5)}[kind](items)


def changed(data, recipe):
    """Return a recipe that differs in one place, or not at all."""
    kind, inside = recipe
    if kind in ("plain", "tensor", "set", "count", "bytes") or not inside or data.draw(st.integers(0, 4)) == 0:
        return data.draw(st.sampled_from([recipe, recipe, data.draw(RECIPE), data.draw(TENSOR)]))
    where, inside = data.draw(st.integers(0, len(inside) - 1)), list(inside)
    keyed = kind in ("dict", "order")
    item = changed(data, inside[where][1] if keyed else inside[where])
    inside[where] = (inside[where][0], item) if keyed else item
    return kind, inside


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_a_capture_is_what_a_first_one_would_be(data):
    """Whatever changed since (values, keys, tensors, ties, dtypes, the kind of a thing), nothing of before is left."""
    pool, recipes = tensors(), [data.draw(RECIPE), data.draw(RECIPE)]
    holder = Holder(None)
    again = Capturing("held", lambda: value_of(holder))
    snapshots = Snapshots({"held": holder})
    for _ in range(data.draw(st.integers(2, 6))):
        holder.state = {"x": made(recipes[0], pool), "y": made(recipes[1], pool)} | PADS[data.draw(st.booleans())]
        assert captured(again) == captured(Capturing("held", lambda: value_of(holder)))
        assert written(snapshots) == written(Snapshots({"held": holder}))
        what = data.draw(st.sampled_from(["state", "values", "tensor"]))
        if what == "values":
            for tensor in pool:
                tensor[...] = 7
        elif what == "tensor":
            number = data.draw(st.integers(0, len(pool) - 1))
            pool[number] = data.draw(st.sampled_from([tensors()[number], *pool]))
        else:
            which = data.draw(st.integers(0, 1))
            recipes[which] = changed(data, recipes[which])


def test_what_was_captured_does_not_change_with_the_state():
    """Plain values are those of the capture, though the typed state is worked out later, by another thread."""
    state = {"tensor": torch.zeros(3), "list": [1, {"deep": [2]}], "set": {1}, "bytes": bytearray(b"x"), "text": "a"}
    capturing = Capturing("held", lambda: (state, "state", None))
    for _ in range(2):
        found = capturing.capture()
        expected = Capturing("held", lambda: (state, "state", None)).capture().state(lambda stored: stored)
        before = dict(state)
        state["list"][1]["deep"][0] += 1
        state["set"].add(9)
        state["bytes"].extend(b"y")
        state["more"] = 1
        assert found.state(lambda stored: stored) == expected
        del state["more"]
        assert list(state) == list(before)


@pytest.mark.parametrize("broken", [object(), lambda: None, torch.nn.Linear], ids=["object", "function", "class"])
def test_what_cannot_be_saved_is_named_at_any_capture(broken):
    """The first capture and a later one both say where it is; the next one, without it, works."""
    state = {"tensor": torch.zeros(3), "inner": {"list": [1, 2]}}
    capturing = Capturing("held", lambda: (state, "state", None))
    for _ in range(2):
        state["inner"]["list"][1] = broken
        with pytest.raises(UnsupportedStateError, match=r"held\.inner\.list\.1"):
            capturing.capture()
        state["inner"]["list"][1] = 2
        assert list(capturing.capture().sources) == ["tensor"]


def test_a_state_that_holds_itself_is_refused():
    """A loop in the state is an error that says so, also when the state had none before."""
    state = {"tensor": torch.zeros(3), "inner": []}
    capturing = Capturing("held", lambda: (state, "state", None))
    capturing.capture()
    state["inner"].append(state)
    with pytest.raises(UnsupportedStateError, match="refers to itself"):
        capturing.capture()


# ── what is kept alive ────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("make", [lambda: np.zeros(9), lambda: torch.zeros(9)], ids=["numpy", "torch"])
def test_replaced_tensors_are_let_go(make):
    """After the next capture nothing holds a tensor that was replaced, nor its memory."""
    state = {"one": make(), "two": make(), "same": make()}
    capturing = Capturing("held", lambda: (state, "state", None))
    capturing.capture()
    for _ in range(3):
        seen = [weakref.ref(state["one"]), weakref.ref(state["two"])]
        state["one"] = make()
        del state["two"]
        capturing.capture()
        gc.collect()
        assert [ref() for ref in seen] == [None, None]
        state["two"] = make()
        capturing.capture()


def test_what_never_changes_is_held_by_its_snapshot_alone():
    """Arrays that are made anew at each step, as those of JAX and TensorFlow are, die with the snapshot."""
    state = {"array": np.zeros(9)}
    capturing = Capturing("held", lambda: (state, "state", None))
    for _ in range(3):
        found = capturing.capture()
        seen = weakref.ref(state["array"])
        state["array"] = np.ones(9)
        gc.collect()
        assert seen() is not None  # the snapshot is still to be written
        del found
        gc.collect()
        assert seen() is None


@pytest.mark.parametrize(
    ("make", "most"), [(lambda: np.zeros(64), 4), (lambda: torch.zeros(64), 8)], ids=["numpy", "torch"]
)
def test_few_objects_are_kept_for_each_tensor(make, most):
    """Python's collector of garbage looks at every one of them, in the middle of training."""
    state = {f"layer.{number}.weight": make() for number in range(1_000)}
    snapshots, staging = Snapshots({"held": state}), Staging()
    snapshots.staged(staging, overlap=True)
    snapshots.forget()
    gc.collect()
    before = len(gc.get_objects())
    taken = snapshots.staged(staging, overlap=True)
    gc.collect()
    assert (len(gc.get_objects()) - before) / len(state) < most
    assert taken.files
    staging.release()
