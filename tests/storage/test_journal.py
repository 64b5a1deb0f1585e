"""The journal: every logged row, and the exact history of any checkpoint, whatever happened to the file."""

from __future__ import annotations

import json
import math
import time
from typing import ClassVar

import pytest
from contracts.faults import WrappedBackend
from hypothesis import given, settings
from hypothesis import strategies as st

from keepbest.errors import UnreachableError
from keepbest.storage import segments
from keepbest.storage.backend import open_backend
from keepbest.storage.history import Row
from keepbest.storage.journal import Journal, Mark, read_history
from keepbest.storage.layout import JOURNAL, segment_key
from keepbest.storage.segments import read_appended


def row(number, *, kind="epoch", **metrics):
    return Row(
        kind=kind, epoch=number, step=10 * number, time=1.7e9 + number, metrics=metrics or {"loss": float(number)}
    )


def write(journal, numbers):
    for number in numbers:
        journal.append(row(number))


def history_of(backend, mark=None):
    """Read what was settled: in a bucket rows wait a moment for others."""
    backend.settle()
    return read_history(backend, mark)


def epochs(history):
    return [found.epoch for found in history.rows]


# ── rows ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_rows_are_read_back(backend):
    """Every row comes back as it was logged: NaN, infinities and metrics of any name."""
    rows = [row(0, **{"loss": math.inf, 'größe "x"\n': -math.inf}), row(1, kind="step", loss=0.1), row(2, loss=1e-320)]
    journal = Journal(backend)
    for one in rows:
        journal.append(one)
    journal.close()
    assert history_of(backend).rows == rows
    journal.append(row(3, loss=math.nan))
    assert math.isnan(history_of(backend)["loss"][-1])
    for line in read_appended(backend, JOURNAL).splitlines():
        json.loads(line, parse_constant=pytest.fail)


def test_columns_are_those_of_keras(backend):
    """Epochs fill the columns, each with when it was; single steps stand apart."""
    journal = Journal(backend)
    for one in (row(0, loss=3.0), row(0, kind="step", loss=9.0), row(1, loss=2.0, val_loss=4.0), row(2, val_loss=5.0)):
        journal.append(one)
    history = history_of(backend)
    assert dict(history) == {"loss": [3.0, 2.0], "val_loss": [4.0, 5.0]}
    assert (history.epochs["val_loss"], history.steps["val_loss"]) == ([1, 2], [10, 20])
    assert [found.metrics for found in history.steps_log] == [{"loss": 9.0}]
    assert "3 epochs of loss, val_loss" in repr(history)


def test_a_run_without_a_journal_has_an_empty_history(backend):
    """Nothing was logged: nothing is there, and that is no error."""
    assert len(history_of(backend)) == 0
    assert history_of(backend, Mark(branch="x", rows=3)).rows == []


# ── branches ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_resuming_continues_the_history(backend):
    """Rows of a training that was resumed twice are one history."""
    first = Journal(backend)
    write(first, [0, 1])
    second = Journal(backend)
    second.continue_from(first.mark)
    assert second.mark == first.mark
    write(second, [2])
    third = Journal(backend)
    third.continue_from(second.mark)
    write(third, [3])
    assert epochs(history_of(backend)) == [0, 1, 2, 3]
    assert epochs(history_of(backend, second.mark)) == [0, 1, 2]


def test_going_back_abandons_the_future(backend):
    """After going back to an older checkpoint, the history is the way over it; the abandoned way is still known."""
    journal = Journal(backend)
    write(journal, [0, 1])
    checkpoint = journal.mark
    write(journal, [2, 3])
    abandoned = journal.mark
    journal.continue_from(checkpoint)
    write(journal, [12, 13])
    assert epochs(history_of(backend)) == [0, 1, 12, 13]
    assert epochs(history_of(backend, checkpoint)) == [0, 1]
    assert epochs(history_of(backend, abandoned)) == [0, 1, 2, 3]
    journal.continue_from(None)
    write(journal, [20])
    assert epochs(history_of(backend)) == [20]


def test_rows_after_the_last_checkpoint_are_passed_over_on_resume(backend):
    """What a crash lost of training is logged again, and stands in the history once."""
    crashed = Journal(backend)
    write(crashed, [0, 1])
    checkpoint = crashed.mark
    write(crashed, [2])
    resumed = Journal(backend)
    resumed.continue_from(checkpoint)
    write(resumed, [2, 3])
    assert epochs(history_of(backend)) == [0, 1, 2, 3]


def test_two_trainings_that_write_at_once_stay_apart(backend):
    """Two writers' rows alternate in the file, and each history is whole."""
    one, other = Journal(backend), Journal(backend)
    for number in range(5):
        write(one, [number])
        write(other, [100 + number])
    assert epochs(history_of(backend, one.mark)) == list(range(5))
    assert epochs(history_of(backend, other.mark)) == list(range(100, 105))


def test_a_training_that_goes_on_is_the_history_though_another_took_it_up(backend):
    """A second process that goes on from a checkpoint, logs a row and is refused, hides nothing of the first."""
    first = Journal(backend)
    write(first, [0, 1])
    checkpoint = first.mark
    backend.settle()
    refused = Journal(backend)
    refused.continue_from(checkpoint)
    write(first, [2])
    write(refused, [2])
    backend.settle()
    time.sleep(0 if backend.capabilities.appends else 1.1)  # stores say to the second when an object was written
    write(first, [3, 4])
    assert epochs(history_of(backend)) == [0, 1, 2, 3, 4]
    assert history_of(backend).rows[-1] == row(4)


# ── crashes ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_line_cut_anywhere_costs_no_other_line(memory_url):
    """Wherever a crash cuts the file, whole lines are read, and rows logged afterwards are not swallowed."""
    backend = open_backend(memory_url)
    journal = Journal(backend)
    write(journal, [0, 1])
    mark = journal.mark
    whole_lines = len(backend.read(JOURNAL))
    write(journal, [2])
    data = backend.read(JOURNAL)
    for end in range(whole_lines, len(data)):
        backend.replace(JOURNAL, data[:end])
        resumed = Journal(backend)
        resumed.continue_from(mark)
        write(resumed, [12, 13])
        assert epochs(history_of(backend)) == [0, 1, 12, 13]
        resumed.close()


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 255))
def test_an_altered_byte_costs_two_rows_at_most(place, flip):
    """Flip any byte of the journal: reading gives a history, with all rows but the altered ones as they were."""
    backend = open_backend("memory://test-journal")
    backend.delete([JOURNAL])
    journal = Journal(backend)
    write(journal, range(5))
    data = bytearray(backend.read(JOURNAL))
    data[place % len(data)] ^= flip
    backend.replace(JOURNAL, bytes(data))
    found = history_of(backend, journal.mark).rows
    # Two: the end of a line, which joins it with the next; or a row's number, which puts it in another's place.
    assert sum(row(number) in found for number in range(5)) >= 3


@pytest.mark.parametrize(
    "line",
    [
        b"null",
        b"[1]",
        b"{}",
        b'{"branch":"a","row":0}',
        b'{"branch":"a","row":99999999999999,"kind":"epoch","epoch":0,"step":0,"time":0,"metrics":{}}',
        b'{"branch":"a","row":1,"kind":"week","epoch":0,"step":0,"time":0,"metrics":{}}',
        b'{"branch":"a","row":1,"kind":"epoch","epoch":0,"step":0,"time":0,"metrics":[]}',
        b'{"branch":"a","row":1,"kind":"epoch","epoch":0,"step":0,"time":0,"metrics":{"a":null}}',
        b'{"branch":"a","row":1,"kind":"epoch","epoch":1e999,"step":0,"time":0,"metrics":{}}',
        b'{"branch":"a","row":0,"from":{"branch":"a","rows":9},"kind":"epoch","epoch":0,"step":0,"time":0,"metrics":{}}',
        b'{"branch":"a","row":0,"from":7,"kind":"epoch","epoch":0,"step":0,"time":0,"metrics":{}}',
    ],
)
def test_a_line_that_makes_no_sense_is_passed_over(backend, line):
    """A line that somebody altered raises nothing, and takes neither memory nor time without end."""
    journal = Journal(backend)
    write(journal, [0, 1])
    appender = backend.append(JOURNAL)
    appender.write(line + b"\n")
    appender.close()
    history_of(backend)
    assert epochs(history_of(backend, journal.mark)) == [0, 1]


@pytest.mark.parametrize("moment", ["-inf", "inf", "nan"])
def test_a_row_of_no_moment_is_passed_over(backend, moment):
    """Whoever tells when a row was logged may rely on a finite time, as with notes."""
    journal = Journal(backend)
    write(journal, [0, 1])
    line = {"branch": journal.mark.branch, "row": 2, "kind": "epoch", "epoch": 2, "step": 20, "metrics": {}}
    appender = backend.append(JOURNAL)
    appender.write(json.dumps({**line, "time": moment}).encode() + b"\n")
    appender.close()
    assert epochs(history_of(backend)) == [0, 1]


def test_closing_twice_is_harmless(backend):
    """A journal that was never written to, or is closed already, can be closed."""
    journal = Journal(backend)
    journal.close()
    write(journal, [0])
    journal.close()
    journal.close()
    write(journal, [1])
    assert epochs(history_of(backend)) == [0, 1]


def test_logging_goes_on_after_a_disk_that_failed(backend):
    """When a row could not be written, nor the file closed, the next row is written once the disk works again."""
    from contracts.faults import WrappedBackend

    from keepbest.errors import StorageError

    class Failing:
        def write(self, data):
            raise StorageError("metrics.jsonl", "Input/output error (a test).")

        close = sync = lambda self: self.write(b"")

    class FailsOnce(WrappedBackend):
        broken = True

        def _call(self, name, *args):
            if name == "append" and self.broken:
                self.broken = False
                return Failing()
            return super()._call(name, *args)

    journal = Journal(FailsOnce(backend))
    with pytest.raises(StorageError, match="Input/output"):
        journal.append(row(0))
    write(journal, [0, 1])
    assert epochs(history_of(backend)) == [0, 1]


def test_a_torn_line_swallows_no_row_however_often_writing_fails(tmp_path):
    """A full disk cuts a line short and takes not even a new line: once it has space again, no row is lost."""
    from contracts.faults import WrappedBackend

    from keepbest.errors import StorageError

    class Full(WrappedBackend):
        room: ClassVar = [7, 0]
        """Bytes that it takes of each write, until it has space again."""

        def _call(self, name, *args):
            found = super()._call(name, *args)
            if name != "append":
                return found
            self.appender = found
            return self

        def write(self, data):
            room = self.room.pop(0) if self.room else len(data)
            self.appender.write(data[:room])
            if room < len(data):
                raise StorageError("metrics.jsonl", "no space is left (a test).")

        def close(self):
            self.appender.close()

    backend = open_backend(str(tmp_path))
    journal = Journal(Full(backend))
    for _ in range(2):
        with pytest.raises(StorageError, match="no space"):
            journal.append(row(0))
    write(journal, [0, 1])
    journal.close()
    assert epochs(history_of(backend)) == [0, 1]


# ── cost ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_cost_of_a_row_does_not_grow(backend):
    """A training of 50,000 rows writes each once and reads nothing back but the end of the file, once."""
    from contracts.faults import WrappedBackend

    class Counting(WrappedBackend):
        """Counts the bytes that pass."""

        read = written = 0

        def _call(self, name, *args):
            found = super()._call(name, *args)
            if name == "append":
                return CountingAppender(found, self)
            if name == "read_ranges":
                self.read_bytes += sum(map(len, found))
            return found

        read_bytes = 0

    class CountingAppender:
        def __init__(self, inner, counts):
            self.inner, self.counts = inner, counts
            self.close = inner.close

        def write(self, data):
            self.counts.written += len(data)
            self.inner.write(data)

    counting = Counting(backend)
    journal = Journal(counting)
    for number in range(50_000):
        journal.append(row(number, kind="step"))
    journal.close()
    data = read_appended(backend, JOURNAL)
    assert counting.written == len(data)
    assert counting.read_bytes <= 1
    assert len(data) < 50_000 * 150
    assert [found.epoch for found in history_of(backend).rows] == list(range(50_000))


# ── segments ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("clock", [0, -(10**6)], ids=["same clock", "clock behind"])
def test_a_history_goes_on_where_the_run_was_copied_to(tmp_path, memory_url, clock):
    """Rows in pieces, from a bucket, and rows appended to a file later are one history, whatever the clocks say."""
    bucket, disk = open_backend(memory_url), open_backend(str(tmp_path / "run"))
    first = Journal(bucket)
    write(first, [0, 1])
    disk.replace(segment_key(JOURNAL, "0000000000000000001-abcdef01", 0), bucket.read(JOURNAL))
    second = Journal(disk)
    second.continue_from(first.mark)
    for number in (2, 3):
        second.append(Row(kind="epoch", epoch=number, step=0, time=1.7e9 + clock, metrics={"loss": 1.0}))
    assert epochs(history_of(disk)) == [0, 1, 2, 3]


def test_a_segment_is_set_anew_until_it_is_long(memory_url, monkeypatch):
    """Rows of many flushes stand in few segments, none is sent over and over, and none is lost between two."""
    monkeypatch.setattr(segments, "LONGEST", 1000)
    backend = open_backend(memory_url)
    appender = segments.SegmentAppender(backend, JOURNAL)
    rows = [b"%03d" % number + b"x" * 96 + b"\n" for number in range(50)]
    for one in rows:
        appender.write(one)
        appender.flush()
        appender.flush()
    found = [entry.size for entry in backend.list("metrics/")]
    assert len(found) == 5
    assert set(found) == {1000}
    assert read_appended(backend, JOURNAL) == b"".join(rows)


def test_rows_that_could_not_be_sent_are_sent_later(memory_url):
    """A store that fails once costs no row: what was not taken is in the next segment that is."""
    from contracts.faults import FailingBackend

    from keepbest.errors import StorageError

    backend = open_backend(memory_url)
    appender = segments.SegmentAppender(FailingBackend(backend, 1, after=False), JOURNAL)
    for number in range(3):
        appender.write(b"%d\n" % number)
        try:
            appender.flush()
        except StorageError:
            assert number == 1
            assert read_appended(backend, JOURNAL) == b"0\n"
    appender.close()
    assert read_appended(backend, JOURNAL) == b"0\n1\n2\n"


class LateBackend(WrappedBackend):
    """Its first request to replace something is given up, and arrives when it is told to."""

    late = None

    def _call(self, name, *args, **kwargs):
        if name == "replace" and self.late is None:
            self.late = args
            raise UnreachableError(self.url, "no answer (a test)")
        return super()._call(name, *args, **kwargs)


def test_rows_that_arrive_late_take_no_others_away(memory_url):
    """A request that was given up and arrives after the next one does not put the shorter segment in its place."""
    backend = LateBackend(open_backend(memory_url))
    appender = segments.SegmentAppender(backend, JOURNAL)
    appender.write(b"0\n")
    with pytest.raises(UnreachableError):
        appender.flush()
    appender.write(b"1\n")
    appender.flush()
    backend.inner.replace(*backend.late)
    assert read_appended(backend, JOURNAL).endswith(b"0\n1\n")


def test_rows_are_sent_without_being_asked_for(memory_url, monkeypatch):
    """Rows come to the bucket by themselves some moments later, so that a kill loses the last seconds at most."""
    monkeypatch.setattr(segments, "DELAY", 0.05)
    backend = open_backend(memory_url)
    appender = segments.SegmentAppender(backend, JOURNAL)
    appender.write(b"1\n")
    for _ in range(200):
        if read_appended(backend, JOURNAL) == b"1\n":
            break
        time.sleep(0.05)
    assert read_appended(backend, JOURNAL) == b"1\n"
    appender.close()
