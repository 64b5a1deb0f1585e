"""Notes: what stands between the rows, and that no reader of rows is ever confused by it."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keepbest.storage.backend import open_backend
from keepbest.storage.history import Row
from keepbest.storage.journal import Journal, Mark, read_entries, read_history
from keepbest.storage.layout import JOURNAL
from keepbest.storage.notes import (
    Began,
    Check,
    Decided,
    Ended,
    Saved,
    SaveFailed,
    WentBack,
    note_from_json,
    note_to_json,
)
from keepbest.storage.segments import read_appended

AT = {"time": 1.7e9, "epoch": 2, "step": 30}


def check(**fields):
    usual = {
        "monitor": "val_loss",
        "mode": "min",
        "value": 0.5,
        "judged": 0.5,
        "best": 0.4,
        "best_epoch": 1,
        "wait": 1,
        "improved": False,
        "stop": False,
        "eligible": True,
        "reason": "because",
    }
    return Check(**{**usual, **fields})


NOTES = [
    Began(checkpoint=None, policy={"monitor": "val_loss"}, host="here", versions={"keepbest": "0"}, **AT),
    Decided(event="epoch", checkpoint="a", reasons=("epoch",), checks=(check(), check(value=math.inf, age=3)), **AT),
    Decided(event="step", checkpoint=None, reasons=("step",), busy=True, **AT),
    Saved(checkpoint="a", sequence=1, nbytes=10, blocked=0.001, seconds=0.1, retired=("b",), **AT),
    SaveFailed(checkpoint="b", error="StorageFullError: full", **AT),
    WentBack(checkpoint="a", **AT),
    Ended(cause="exception", error="ValueError", text="no", within=3, planned=5, **AT),
]


def row(number):
    return Row(kind="epoch", epoch=number, step=10 * number, time=1.7e9 + number, metrics={"loss": float(number)})


def entries_of(backend, mark=None):
    backend.settle()
    return read_entries(backend, mark)


@pytest.mark.parametrize("note", NOTES, ids=lambda note: note.kind)
def test_a_note_comes_back_as_it_was(note):
    """Every kind of note survives its line of JSON, infinities included."""
    line = json.loads(json.dumps(note_to_json(note), allow_nan=False))
    assert note_from_json(line) == note


def test_notes_stand_between_the_rows(backend):
    """Rows and notes come back in the order they were written, and the history has the rows alone."""
    journal = Journal(backend)
    journal.append(NOTES[0], row(0), NOTES[1])
    journal.append(NOTES[3])
    journal.append(row(1), NOTES[6])
    journal.close()
    assert entries_of(backend) == [NOTES[0], row(0), NOTES[1], NOTES[3], row(1), NOTES[6]]
    assert read_history(backend).rows == [row(0), row(1)]
    assert journal.mark.rows == 2
    for line in read_appended(backend, JOURNAL).splitlines():
        json.loads(line, parse_constant=pytest.fail)


def test_notes_follow_the_way_that_training_took(backend):
    """Notes of a future that was abandoned are not on the way to the last row; those of the place it left are."""
    first = Journal(backend)
    first.append(NOTES[0], row(0), NOTES[1])
    mark = first.mark
    first.append(NOTES[3], row(1), NOTES[4])
    second = Journal(backend)
    second.continue_from(mark)
    second.append(NOTES[5], row(11), NOTES[2])
    assert entries_of(backend) == [NOTES[0], row(0), NOTES[1], NOTES[3], NOTES[5], row(11), NOTES[2]]
    assert entries_of(backend, mark) == [NOTES[0], row(0), NOTES[1], NOTES[3], NOTES[5]]


def test_a_run_that_logged_nothing_has_its_notes(backend):
    """A process that began and ended without a row is still told of."""
    journal = Journal(backend)
    journal.append(NOTES[0], NOTES[6])
    journal.close()
    assert entries_of(backend) == [NOTES[0], NOTES[6]]
    assert read_history(backend).rows == []


def test_a_note_written_again_counts_once(backend):
    """A line whose writing seemed to fail, and that is there twice, is one note."""
    journal = Journal(backend)
    journal.append(row(0), NOTES[3])
    journal.append(NOTES[3])
    journal.close()
    assert entries_of(backend) == [row(0), NOTES[3]]


def test_a_note_with_nan_that_is_written_again_counts_once(backend):
    """NaN, which equals nothing, does not make two notes of one."""
    note = Decided(event="epoch", checkpoint=None, checks=(check(value=math.nan),), **AT)
    journal = Journal(backend)
    journal.append(row(0), note)
    journal.append(note)
    journal.close()
    assert list(map(repr, entries_of(backend))) == [repr(row(0)), repr(note)]


def test_a_newer_kind_of_note_is_passed_over():
    """What a newer keepbest notes, or adds to a note, confuses nobody."""
    backend = open_backend("memory://newer-notes")
    appender = backend.append(JOURNAL)
    branch = {"branch": "0123456789ab"}
    lines = [
        {**branch, "rows": 0, "kind": "dreamt", "of": "sheep"},
        {**branch, "rows": 0, **note_to_json(NOTES[5]), "more": [1]},
        {**branch, "rows": 0, "kind": ["back"]},
        {"branch": 5, "rows": 0, **note_to_json(NOTES[5])},
        {**branch, "rows": "many", **note_to_json(NOTES[5])},
        [],
    ]
    appender.write(b"".join(json.dumps(line).encode() + b"\n" for line in lines))
    appender.close()
    assert read_entries(backend) == [NOTES[5]]
    assert read_history(backend).rows == []


def test_marks_without_rows_have_their_notes(backend):
    """The place before the first row is one like any other."""
    journal = Journal(backend)
    journal.append(NOTES[0])
    journal.close()
    assert entries_of(backend, Mark(branch=journal.mark.branch, rows=0)) == [NOTES[0]]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)
FIELDS = sorted({name for note in NOTES for name in note_to_json(note)})


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(NOTES), st.dictionaries(st.sampled_from(FIELDS), JSON))
def test_whatever_a_stranger_writes_is_a_note_or_none(note, altered):
    """A line that is altered anywhere is a note with sound fields, or passed over; it is no error."""
    found = note_from_json({**note_to_json(note), **altered})
    assert found is None or note_from_json(note_to_json(found)) is not None
