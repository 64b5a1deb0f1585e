"""What is lost of a journal: damage is counted, and what a crash leaves is not."""

from __future__ import annotations

import pytest

from keepbest.storage.backend import open_backend
from keepbest.storage.history import Row
from keepbest.storage.journal import Journal, Lost, Mark, read_journal
from keepbest.storage.layout import JOURNAL
from keepbest.storage.notes import Began, Saved
from keepbest.storage.segments import SegmentAppender

AT = {"time": 1.7e9, "epoch": 0, "step": 3}


def row(epoch):
    return Row(kind="epoch", epoch=epoch, step=10 * epoch, time=1.7e9 + epoch, metrics={"löss": -1.5e-07 * epoch})


@pytest.fixture
def backend(memory_url):
    return open_backend(memory_url)


@pytest.fixture
def journal(backend):
    """A journal of five lines: the note of a beginning, and four rows."""
    written = Journal(backend)
    written.append(Began(checkpoint=None, policy={"keep_best": 1}, host="h", **AT), *map(row, range(4)))
    return written


def lines(backend):
    return backend.read(JOURNAL).split(b"\n")[:-1]


def lost(backend, *changed):
    """Put lines in place of the journal's, and return what is lost then."""
    if changed:
        backend.replace(JOURNAL, b"".join(line + b"\n" for line in changed))
    return read_journal(backend).lost


def test_nothing_is_lost_of_a_whole_journal(backend, journal):
    """Of rows and notes as they were written nothing is said to be lost, nor where there is no journal."""
    assert not lost(backend)
    backend.delete([JOURNAL])
    assert lost(backend) == Lost()


def test_a_line_that_cannot_be_read_is_counted(backend, journal):
    """A row that somebody altered is a line that cannot be read, and a row that is missing; both say where."""
    held = lines(backend)
    held[2] = held[2].replace(b'"kind"', b'"kind')
    assert lost(backend, *held) == Lost(
        lines=1, first_line=3, rows=1, first_row=Mark(branch=journal.mark.branch, rows=1)
    )


@pytest.mark.parametrize(
    "line",
    [
        b"null", b"[1]", b"{}", b"junk", b'"branch"', b'{"branch":"a","row":0}', b'{"branch":"a"}x',
        b'{"branch":"a","rows":1,"kind":"saved"}', b'{"branch":1,"rows":1,"kind":"began","time":0,"epoch":0,"step":0}',
        b'{"branch":"a","rows":1,"kind":7}', b"[" * 100_000,
    ],
)  # fmt: skip
def test_what_is_neither_row_nor_note_is_counted(backend, journal, line):
    """Whatever stands in a line that makes no sense, it is one line that cannot be read, and takes no row away."""
    held = lines(backend)
    assert lost(backend, *held[:3], line, *held[3:]) == Lost(lines=1, first_line=4)


def test_rows_that_are_gone_are_counted(backend, journal):
    """Rows that somebody took out are missing, as those behind them have their numbers; the first is named."""
    held = lines(backend)
    assert lost(backend, *held[:2], held[4]) == Lost(rows=2, first_row=Mark(branch=journal.mark.branch, rows=1))
    assert lost(backend, held[4]) == Lost(rows=3, first_row=Mark(branch=journal.mark.branch, rows=0))


def test_a_branch_that_is_gone_is_missed_by_the_one_that_continues_it(backend, journal):
    """What a training was resumed from is missing, if nothing of it is left, whether or not it has logged since."""
    resumed, before = Journal(backend), journal.mark
    resumed.continue_from(before)
    resumed.append(Began(checkpoint="epoch-004_abcdef", **AT))
    assert lost(backend, *lines(backend)[5:]) == Lost(rows=4, first_row=Mark(branch=before.branch, rows=0))
    resumed.append(row(4))
    assert lost(backend) == Lost(rows=4, first_row=Mark(branch=before.branch, rows=0))


def test_numbers_without_end_cost_nothing(backend, journal):
    """A row or a branch that claims trillions of rows before it takes neither memory nor time."""
    held = lines(backend)
    assert lost(backend, *held[:4], held[4].replace(b'"row":3', b'"row":%d' % 10**15)).rows == 10**15 - 3
    origin = b'"row":0,"from":{"branch":"b","rows":%d}' % 10**15
    assert lost(backend, held[1].replace(b'"row":0', origin)).rows == 10**15


def test_what_is_off_the_way_is_not_missed(backend, journal):
    """Rows of a future that training left are not told, so they are not missed."""
    journal.continue_from(Mark(branch=journal.mark.branch, rows=1))
    journal.append(row(11))
    held = lines(backend)
    assert not lost(backend, *held[:2], *held[3:])


def test_a_line_cut_anywhere_is_what_a_crash_leaves(backend, journal):
    """The end that a training is writing, and what a crash left of it before the next one, are not damage."""
    whole = backend.read(JOURNAL)
    mark = journal.mark
    journal.append(Saved(checkpoint="epoch-004_é", sequence=4, nbytes=1, blocked=1.5e-07, seconds=0.1, **AT), row(4))
    text = backend.read(JOURNAL)
    for end in range(len(whole), len(text)):
        for zeros in (b"", b"\0" * 9):
            backend.replace(JOURNAL, text[:end] + zeros)
            assert not lost(backend), text[len(whole) : end]
            resumed = Journal(backend)
            resumed.continue_from(mark)
            resumed.append(row(4))
            resumed.close()
            assert not lost(backend), text[len(whole) : end]


def test_a_line_that_was_cut_short_and_not_made_up_for_is_a_missing_row(backend, journal):
    """Where nobody wrote the row once more, and later ones are there, that it was cut short is no excuse."""
    held = lines(backend)
    held[2] = held[2][:-4]
    assert lost(backend, *held) == Lost(rows=1, first_row=Mark(branch=journal.mark.branch, rows=1))


def test_empty_lines_and_notes_of_the_future_are_no_damage(backend, journal):
    """Lines that a resume or an editor put in, and notes that only a newer keepbest knows, are passed over."""
    held = lines(backend)
    newer = b'{"branch":"a","rows":1,"kind":"of the future","moon":"full"}'
    assert not lost(backend, *held[:3], b"", b"\r", newer, *held[3:])


def test_a_torn_file_that_goes_on_in_pieces_is_no_damage(backend, journal):
    """A run that was copied to a bucket with its last line cut short goes on there, and nothing is amiss."""
    backend.replace(JOURNAL, backend.read(JOURNAL) + b'{"branch":"')
    segment = SegmentAppender(backend, JOURNAL)
    other = Journal(open_backend("memory://test-journal-lost"))
    other.continue_from(journal.mark)
    other.append(row(4))
    segment.write(open_backend("memory://test-journal-lost").read(JOURNAL))
    segment.close()
    assert not lost(backend)
    assert [entry.epoch for entry in read_journal(backend).entries if isinstance(entry, Row)] == [0, 1, 2, 3, 4]
