"""Errors carry their facts, say what to do, and survive the way to another process."""

from __future__ import annotations

import pickle

import pytest

from keepbest.errors import (
    CheckpointNotFoundError,
    ConcurrentWriterError,
    DamagedFileError,
    KeepbestError,
    KeyFileError,
    MissingMetricError,
    ObjectNotFoundError,
    RunExistsError,
    SaveFailedError,
    StateMismatchError,
    StorageFullError,
    StoragePermissionError,
    UnsupportedStateError,
    UntrustedError,
)


@pytest.mark.parametrize(
    ("error", "builtin", "facts", "words"),
    [
        (MissingMetricError("v", ["a"], epoch=2), KeyError, {"metric": "v", "logged": ("a",)}, "in epoch 3"),
        (UnsupportedStateError("m.x", object()), TypeError, {"path": "m.x"}, "state_dict()"),
        (StateMismatchError("c", ["p1", "p2"]), ValueError, {"problems": ("p1", "p2")}, "nothing was restored"),
        (RunExistsError("u", "c"), FileExistsError, {"url": "u", "latest": "c"}, "resume()"),
        (CheckpointNotFoundError("bets", "u", ["best"]), LookupError, {"wanted": "bets"}, "Did you mean 'best'"),
        (ConcurrentWriterError("u", 7, "x"), KeepbestError, {"sequence": 7}, "stop one of them"),
        (DamagedFileError("f", "short", tensor="w"), ValueError, {"tensor": "w"}, "the tensor 'w' in f"),
        (ObjectNotFoundError("k"), FileNotFoundError, {"location": "k"}, "does not exist"),
        (StorageFullError("u", needed=5, free=2), OSError, {"needed": 5, "free": 2}, "5 bytes are needed"),
        (StoragePermissionError("u", "write"), PermissionError, {"action": "write"}, "cannot write"),
        (
            UntrustedError("f", "no", key="k", tensor="w"),
            ValueError,
            {"key": "k", "tensor": "w"},
            "is not trusted (k): no",
        ),
        (KeyFileError("f", "is no key"), ValueError, {"location": "f"}, "openssl genpkey"),
        (SaveFailedError("c", OSError("x")), KeepbestError, {"checkpoint": "c"}, "unharmed: x"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
def test_an_error_carries_its_facts(error, builtin, facts, words):
    """Each error is also the builtin people catch, its text says what to do, and pickling keeps both."""
    assert isinstance(error, builtin)
    assert words in str(error)
    for name, value in facts.items():
        assert getattr(error, name) == value
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), str(again)) == (type(error), str(error))
    assert all(getattr(again, name) == value for name, value in facts.items())
