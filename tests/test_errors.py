"""Errors carry their facts, say what to do, and survive the way to another process."""

from __future__ import annotations

import inspect
import pickle
import re
import subprocess
import sys

import pytest
from contracts import documented

from keepbest import errors
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
    UnknownMetricError,
    UnsupportedStateError,
    UntrustedError,
)


@pytest.mark.parametrize(
    ("error", "builtin", "facts", "words"),
    [
        (MissingMetricError("v", ["a"], epoch=2), KeyError, {"metric": "v", "logged": ("a",)}, "in epoch 3"),
        (UnknownMetricError("v", ["a"]), KeyError, {"metric": "v", "known": ("a",)}, "no metric 'v'"),
        (UnsupportedStateError("m.x", object()), TypeError, {"path": "m.x"}, "state_dict()"),
        (StateMismatchError("c", ["p1", "p2"]), ValueError, {"problems": ("p1", "p2")}, "nothing was restored"),
        (RunExistsError("u", "c"), FileExistsError, {"url": "u", "latest": "c"}, "resume()"),
        (CheckpointNotFoundError("bets", "u", ["best"]), LookupError, {"wanted": "bets"}, "Did you mean 'best'"),
        (
            CheckpointNotFoundError("best", "u", ["a"]),
            LookupError,
            {"known": ("a",)},
            "by a metric; 'latest' is the newest",
        ),
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


KINDS = sorted(
    (kind for kind in vars(errors).values() if inspect.isclass(kind) and issubclass(kind, KeepbestError)),
    key=lambda kind: kind.__name__,
)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_an_error_says_where_it_lives_and_what_to_do(kind):
    """A traceback names the place that it is imported from, and its documentation when it comes and what helps."""
    assert kind.__module__ == "keepbest.errors"
    assert getattr(errors, kind.__name__) is kind
    if kind is not KeepbestError:
        first, when, what = inspect.getdoc(kind).split("\n\n")
        assert first.endswith(".")
        assert re.fullmatch(r"When: [a-z].+\.", when, re.DOTALL)
        assert re.fullmatch(r"Do: [A-Z].+\.", what, re.DOTALL)


def test_the_page_of_messages_is_up_to_date():
    """docs/messages.md has the texts of the sources: `python docs/messages.py --write` writes it anew."""
    script = documented.ROOT / "docs" / "messages.py"
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_page_of_messages_has_every_error():
    """Who looks an error up finds it with when it comes, what to do, and what it carries."""
    told = (documented.ROOT / "docs" / "messages.md").read_text()
    sections = {part.split()[0]: part for part in re.split(r"^#+ ", told, flags=re.MULTILINE)[1:]}
    for kind in KINDS:
        section = sections[kind.__name__]
        assert kind is KeepbestError or ("**When**" in section and "**What to do**" in section)
    assert "`needed: int | None`" in sections["StorageFullError"]
    assert "`location: str`" in sections["StorageFullError"]
    assert "was not logged" in sections["MissingMetricError"]
    assert "takes how many epochs the training has" in sections["ConfigError"]
    assert "StatefulDataLoader" in sections["Warnings"]
