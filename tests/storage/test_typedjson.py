"""Typed JSON: plain data comes back as it was, type by type, and what cannot come back is refused by name."""

from __future__ import annotations

import json
import math
from collections import Counter, OrderedDict, defaultdict, deque, namedtuple
from enum import IntEnum

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keepbest.errors import UnsupportedStateError
from keepbest.storage import typedjson

TEXT = st.text(max_size=6) | st.sampled_from(["$", "$float", "$dict", "$tuple", "", "a.b"])
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | TEXT
    | st.binary(max_size=6)
    | st.complex_numbers()
    | st.integers(2**63, 2**130)
)
KEYS = TEXT | st.integers() | st.floats(allow_nan=False) | st.booleans() | st.none() | st.tuples(st.integers(), TEXT)
HASHABLE = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | TEXT | st.binary(max_size=4),
    lambda inner: st.lists(inner, max_size=3).map(tuple) | st.frozensets(inner, max_size=3),
    max_leaves=4,
)
PLAIN = st.recursive(
    SCALARS
    | st.sets(HASHABLE, max_size=3)
    | st.frozensets(HASHABLE, max_size=3)
    | st.binary(max_size=4).map(bytearray),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.lists(inner, max_size=3).map(deque)
        | st.lists(inner, max_size=3).map(lambda items: deque(items, maxlen=5))
        | st.dictionaries(KEYS, inner, max_size=3)
        | st.dictionaries(KEYS, inner, max_size=3).map(OrderedDict)
        | st.dictionaries(KEYS, st.integers(), max_size=3).map(Counter)
    ),
    max_leaves=12,
)


def no_tensor(_path, _value):
    return None


def through_json(value):
    """Return what comes back of `value` after it was text."""
    text = json.dumps(typedjson.encode(value, "state", no_tensor), allow_nan=False)
    return typedjson.decode(json.loads(text, parse_constant=pytest.fail), pytest.fail)


def exactly(value):
    """Return something that is equal only for values equal in every type, order and bit."""
    kind = type(value).__name__
    if isinstance(value, dict):
        return kind, [(exactly(key), exactly(item)) for key, item in value.items()]
    if isinstance(value, deque):
        return kind, value.maxlen, [exactly(item) for item in value]
    if isinstance(value, list | tuple):
        return kind, [exactly(item) for item in value]
    if isinstance(value, set | frozenset):
        return kind, sorted((exactly(item) for item in value), key=repr)
    return kind, repr(value)


@settings(max_examples=300)
@given(PLAIN)
def test_plain_data_comes_back_as_it_was(value):
    """Any nesting of plain data is the same after saving and loading: types, order, keys, NaN, -0.0, everything."""
    assert exactly(through_json(value)) == exactly(value)


@pytest.mark.parametrize(
    "value",
    [
        pytest.param({1: "int", "1": "text"}, id="int-and-text-keys"),
        pytest.param({True: 1, 2: 0.5, None: (), (1, "a"): {}}, id="keys-of-every-kind"),
        pytest.param({"$float": "nan"}, id="a-key-like-a-tag"),
        pytest.param({"$numpy": {"name": "w"}}, id="a-key-like-a-tensor"),
        pytest.param([math.nan, math.inf, -math.inf, -0.0, 5e-324], id="floats"),
        pytest.param(complex(math.nan, -0.0), id="complex"),
        pytest.param(2**4000, id="large-int"),
        pytest.param("\ud800 \0 \u2028", id="surrogate"),
        pytest.param(deque([1, 2], maxlen=2), id="deque"),
        pytest.param(OrderedDict([("b", 1), ("a", 2)]), id="ordered"),
        pytest.param({frozenset(("a", (1, b"x"))), 1.5, None}, id="set"),
        pytest.param([True, 1, 1.0], id="bool-int-float"),
    ],
)
def test_data_that_json_would_change(value):
    """What JSON alone would turn into something else comes back as it was."""
    assert exactly(through_json(value)) == exactly(value)


Point = namedtuple("Point", "x y")  # noqa: PYI024 - the old form is what torchvision and friends have


class Colour(IntEnum):
    RED = 1


@pytest.mark.parametrize(
    ("value", "path"),
    [
        pytest.param({"a": [{"fn": math.sin}]}, "state.a.0.fn", id="function"),
        pytest.param({"a": {"b": object()}}, "state.a.b", id="object"),
        pytest.param([1, (2, Point(1, 2))], "state.1.1", id="namedtuple"),
        pytest.param({"table": defaultdict(list)}, "state.table", id="defaultdict"),
        pytest.param({3: range(3)}, "state.3", id="range"),
        pytest.param({"a": slice(1)}, "state.a", id="slice"),
        pytest.param({"a": {(1, math.sin): 1}}, "state.a", id="function-in-a-key"),
    ],
)
def test_what_is_not_plain_is_refused_by_name(value, path):
    """A value that would not come back as it was is an error that says where it stands and what to do."""
    with pytest.raises(UnsupportedStateError, match="state_dict") as caught:
        typedjson.encode(value, "state", no_tensor)
    assert caught.value.path.startswith(path)


@pytest.mark.parametrize(
    ("value", "says"),
    [
        pytest.param({np.int64(7): 1}, "Save int(…) of it instead.", id="int-as-a-key"),
        pytest.param({np.float64(7): 1}, "Save float(…) of it instead.", id="float-as-a-key"),
        pytest.param({np.str_("x"): 1}, "Save str(…) of it instead.", id="str-as-a-key"),
        pytest.param({np.bool_(1): 1}, "Save bool(…) of it instead.", id="bool-as-a-key"),
        pytest.param({np.str_("x")}, "Save str(…) of it instead.", id="str-in-a-set"),
        pytest.param(np.str_("x"), "Save str(…) of it instead.", id="str"),
        pytest.param(np.bytes_(b"x"), "Save bytes(…) of it instead.", id="bytes"),
        pytest.param(Colour.RED, "Save its .value instead.", id="enum"),
        pytest.param({Colour.RED: 1}, "Save its .value instead.", id="enum-as-a-key"),
        pytest.param({b"x": 1}, "Keys may be str, int, float, bool, None, and tuples", id="bytes-as-a-key"),
    ],
)
def test_a_scalar_of_another_type_is_told_with_the_plain_one(value, says):
    """Nobody can give a number or a key a state_dict(): the error says how it becomes plain."""
    with pytest.raises(UnsupportedStateError) as caught:
        typedjson.encode({"a": value}, "state", no_tensor)
    assert caught.value.path.startswith("state.a")
    assert says in str(caught.value)
    assert "state_dict" not in str(caught.value)


HUGE = 10**4300


@pytest.mark.parametrize(
    ("value", "path"),
    [
        pytest.param({"a": [1, HUGE]}, r"state\.a\.1", id="a value"),
        pytest.param({"a": -HUGE}, r"state\.a", id="a negative one"),
        pytest.param({"a": {HUGE: 1}}, r"state\.a", id="a key"),
        pytest.param({"a": {(1, HUGE): 1}}, r"state\.a", id="in a key"),
        pytest.param({"a": {1, HUGE}}, r"state\.a", id="in a set"),
    ],
)
def test_an_int_that_json_cannot_hold_is_named(value, path):
    """An int with more digits than Python reads back from text is refused with its place, not with a raw ValueError."""
    with pytest.raises(UnsupportedStateError, match=f"^cannot save {path}: .* has too many digits"):
        typedjson.encode(value, "state", lambda _path, _value: None)


def test_the_longest_ints_come_back():
    """An int of thousands of digits that JSON can hold is kept exactly."""
    state = {"a": 10**4299, "b": -(10**4299)}
    encoded = json.loads(json.dumps(typedjson.encode(state, "state", lambda _path, _value: None)))
    assert typedjson.decode(encoded, lambda _tag, _payload: None) == state


@pytest.mark.parametrize(
    "value",
    [
        pytest.param({"seen": {np.int64(3)}}, id="set"),
        pytest.param({"seen": frozenset((1, (2, np.int64(3))))}, id="tuple-in-a-set"),
        pytest.param({(1, np.int64(3)): 1}, id="key"),
    ],
)
def test_a_tensor_in_a_set_is_refused_when_it_is_saved(value):
    """An array scalar in a set or a key could be saved and never be loaded: it is refused at once, by name."""
    with pytest.raises(UnsupportedStateError, match="numpy.int64 cannot be in a set, or in the key of a dict"):
        typedjson.encode(value, "state", lambda _path, _value: ("numpy", "x"))


def nested(depth, wrap):
    """Return something in `depth` layers."""
    value = 0
    for _ in range(depth):
        value = wrap(value)
    return value


WRAPS = [
    pytest.param(lambda value: [value], id="list"),
    pytest.param(lambda value: {"a": value}, id="dict"),
    pytest.param(lambda value: {1: value}, id="int-keys"),
    pytest.param(lambda value: (value,), id="tuple"),
    pytest.param(lambda value: deque([value]), id="deque"),
    pytest.param(lambda value: OrderedDict(a=value), id="ordered"),
]


@pytest.mark.parametrize("wrap", WRAPS)
def test_deep_data_comes_back(wrap):
    """A hundred layers are no problem, even when the caller is deep down in a framework already."""

    def deep_down(frames):
        return through_json(nested(100, wrap)) if frames == 0 else deep_down(frames - 1)

    assert deep_down(300) == nested(100, wrap)


@pytest.mark.parametrize("wrap", WRAPS)
def test_data_without_end_is_refused(wrap):
    """What refers to itself, or is nested beyond reason, is an error that says so, not a crash of the interpreter."""
    with pytest.raises(UnsupportedStateError, match="refers to itself, or is nested too deeply"):
        typedjson.encode(nested(5000, wrap), "state", no_tensor)
    circle = []
    circle.append({"again": circle})
    with pytest.raises(UnsupportedStateError, match="refers to itself"):
        typedjson.encode(circle, "state", no_tensor)


def test_tensors_are_given_to_those_who_know_them():
    """A tensor is handed over with its path, and comes back from the tag and the reference that were kept for it."""
    asked = []

    def encoder(path, value):
        asked.append(path)
        return "numpy", {"id": int(value[0])}

    state = {"a": [np.array([7])], 5: (np.array([8]),)}
    encoded = json.loads(json.dumps(typedjson.encode(state, "model", encoder)))
    assert asked == ["model.a.0", "model.5.0"]
    assert typedjson.decode(encoded, lambda tag, payload: (tag, payload["id"])) == {
        "a": [("numpy", 7)],
        5: (("numpy", 8),),
    }


def test_tensors_are_found_with_their_paths():
    """Every tensor of a state can be named by the keys on the way to it, as the file that holds it names it."""
    state = {
        "w": np.array([0]),
        "nan": math.nan,
        "bytes": b"w",
        "$w": np.array([1]),
        "layers": [(np.array([2]), deque([np.array([3])]))],
        "by_id": OrderedDict({0: {"exp_avg": np.array([4])}}),
    }
    paths = {}

    def encoder(path, value):
        paths[path.partition(".")[2]] = int(value[0])
        return "numpy", int(value[0])

    encoded = typedjson.encode(state, "model", encoder)
    assert dict(typedjson.tensors_in(encoded)) == paths
    assert set(paths) == {"w", "$w", "layers.0.0", "layers.0.1.0", "by_id.0.exp_avg"}
    assert list(typedjson.tensors_in({"$numpy": "value"})) == [("value", "value")]


def test_what_holds_no_tensor_beside_tensors_is_found():
    """Each largest part without a tensor is named once, so that whoever keeps only tensors can say what is lost."""
    w = np.array([0])
    state = {"w": w, "lr": 0.1, "groups": [{"betas": (1, 2)}], "layers": ({3: w, "n": math.nan}, deque([b"x", w]))}
    encoded = typedjson.encode(state, "model", lambda _path, _value: ("numpy", "w"))
    assert list(typedjson.plain_in(encoded)) == ["lr", "groups", "layers.0.n", "layers.1.0"]
    assert list(typedjson.plain_in({"$numpy": "value"})) == []


def test_the_size_of_what_is_in_many_places_is_known_at_once():
    """It counts in each place, though it is looked at once; and no round of references is walked for ever."""
    nested = ["x" * 100]
    for _ in range(90):
        nested = (nested, nested)
    assert typedjson.size(nested, "it") > 2**90 * 100
    assert typedjson.size(["x" * 100] * 5, "it") > 500
    endless = {}
    endless["x"] = [endless]
    with pytest.raises(UnsupportedStateError, match="cannot save it: .* refers to itself"):
        typedjson.size(endless, "it")
