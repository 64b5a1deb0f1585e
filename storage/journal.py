"""Journal: every logged row, appended to `metrics.jsonl`, and read back as the history that led to a checkpoint.

Between the rows stand notes (`notes.py`). In a bucket, where nothing can be appended to, it lies in pieces
(`segments.py`).

Each line belongs to a branch (a training that started, resumed or went back) and has its number in it. A branch's first
line says which row of which other branch it continues. So a file that two trainings wrote to, that a crash cut short,
or that holds the rows of a future that was abandoned still gives the exact history of any checkpoint.
"""

from __future__ import annotations

import contextlib
import math
import uuid
from collections.abc import Mapping
from typing import Any, Literal

import msgspec
from msgspec import Struct

from ..errors import ObjectNotFoundError, StorageError
from .backend import Appender, Backend
from .history import History, Row
from .jsonfloat import floats_to_json
from .layout import JOURNAL
from .notes import Note, is_of_newer_kind, note_from_json, note_to_json
from .segments import read_appended

_NOTE_AT, _NOTE = len('{"branch":"0123456789ab",'), b'"rows":'

_KINDS: dict[str, Literal["epoch", "step"]] = {"epoch": "epoch", "step": "step"}
_TURNS = ("began", "back")
"""Notes after which training does not follow on the row logged last."""
_ENDS_OF_NUMBERS = b"+-.Ee"
"""What a number that is cut short may end in, and none that is whole."""


class Mark(Struct, frozen=True, kw_only=True):
    """A place in the journal: after the first `rows` rows of `branch`."""

    branch: str
    rows: int


class Lost(Struct, frozen=True, kw_only=True):
    """What of a journal was written and cannot be told any more; false if it is nothing.

    Not counted is what a crash or a full disk leaves, and the end that a training is just writing: the beginning of a
    line that goes no further, wherever it stands, with zeros behind it or not, and empty lines. Whoever goes on writes
    the entry once more, or goes back to a checkpoint before it; where neither happened, a row is missing. Nor are notes
    of a kind that only a newer keepbest knows. Other rubbish is, also where a power failure left it in place of what
    was not durable yet: it cannot be told from damage.
    """

    lines: int = 0
    """Lines that are no row and no note."""
    first_line: int | None = None
    """The first of them, counted from 1."""
    rows: int = 0
    """Rows that are missing on the way that is told, at least: what came after them has their numbers."""
    first_row: Mark | None = None
    """The place before the first of them."""

    def __bool__(self) -> bool:
        return bool(self.lines or self.rows)


NOTHING_LOST = Lost()


class Reading(Struct, frozen=True, kw_only=True):
    """What a journal says, and what it does not say any more."""

    entries: list[Row | Note]
    lost: Lost


class Journal:
    """Appends rows of one branch. Cost of a row: one small JSON text and one append."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._appender: Appender | None = None
        self._rows: int
        self._start_branch(None)

    def continue_from(self, mark: Mark | None) -> None:
        """Begin a new branch whose rows follow `mark` (None: the beginning)."""
        self._start_branch(mark)

    @property
    def mark(self) -> Mark:
        """Return the place after the last row."""
        return self._place(self._rows)

    def append(self, *entries: Row | Note) -> None:
        """Append rows and notes, which are durable after `Backend.settle`: all of them, or this raises.

        Locally they survive the death of the process at once; in a bucket some seconds later (`segments.DELAY`).
        """
        rows = self._rows
        lines: list[dict[str, Any]] = []
        for entry in entries:
            if isinstance(entry, Row):
                lines.append(self._row_to_json(entry, rows))
                rows += 1
            else:
                place = self._place(rows)
                lines.append({"branch": place.branch, "rows": place.rows, **note_to_json(entry)})
        text = b"".join(msgspec.json.encode(line) + b"\n" for line in lines)
        try:
            if self._appender is None:
                self._appender = self._backend.append(JOURNAL)
                if self._backend.capabilities.appends and _ends_torn(self._backend):
                    # A crash cut the last line short; a new line keeps it from swallowing ours.
                    self._appender.write(b"\n")
            self._appender.write(text)
        except StorageError:
            with contextlib.suppress(StorageError):
                self.close()  # the line may be torn: opened anew, the journal is looked at again
            raise
        self._rows = rows

    def close(self) -> None:
        """Release the file."""
        appender, self._appender = self._appender, None
        if appender is not None:
            appender.close()

    def _place(self, rows: int) -> Mark:
        return self._parent if rows == 0 and self._parent is not None else Mark(branch=self._branch, rows=rows)

    def _row_to_json(self, row: Row, number: int) -> dict[str, Any]:
        line: dict[str, Any] = {"branch": self._branch, "row": number}
        if number == 0 and self._parent is not None:
            line["from"] = {"branch": self._parent.branch, "rows": self._parent.rows}
        line["kind"] = row.kind
        line["epoch"] = row.epoch
        line["step"] = row.step
        line["time"] = row.time
        line["metrics"] = floats_to_json(row.metrics)
        return line

    def _start_branch(self, parent: Mark | None) -> None:
        self._branch = uuid.uuid4().hex[:12]
        self._rows = 0
        self._parent = parent


def read_history(backend: Backend, mark: Mark | None = None) -> History:
    """Return the history that led to `mark` (None: to the row logged last).

    Lines that a crash cut short are passed over. Cost: one read of the journal.
    """
    lines = _Lines(read_appended(backend, JOURNAL))
    return History(entry for entry in lines.path(mark) if isinstance(entry, Row))


def read_entries(backend: Backend, mark: Mark | None = None) -> list[Row | Note]:
    """Return the rows that led to `mark` (None: to where training stands) and the notes between them, in their order.

    What stands at `mark` is included: the decision about its row, and what became of it. Cost: as `read_history`.
    """
    return read_journal(backend, mark).entries


def read_journal(backend: Backend, mark: Mark | None = None) -> Reading:
    """Return what `read_entries` returns, and what is lost of it. Cost: as `read_history`."""
    lines = _Lines(read_appended(backend, JOURNAL), with_notes=True)
    entries = lines.path(mark)
    return Reading(entries=entries, lost=lines.lost())


class _Lines:
    """What the lines of a journal say."""

    def __init__(self, text: bytes, *, with_notes: bool = False) -> None:
        self._branches: dict[str, dict[int, Row]] = {}
        self._parents: dict[str, Mark] = {}
        self._notes: dict[Mark, list[Note]] = {}
        self._with_notes = with_notes
        self._unreadable: list[int] = []
        self._missing: list[tuple[int, Mark]] = []
        """How many rows each stretch of the way lacks, and the place before the first of them."""
        for number, line in enumerate(text.split(b"\n"), start=1):
            if not with_notes and line[_NOTE_AT : _NOTE_AT + len(_NOTE)] == _NOTE:
                continue  # as we write them; they are passed over unread, whoever resumes has no use for them
            if not self._enter(line):
                self._unreadable.append(number)

    def lost(self) -> Lost:
        """Return what cannot be told; the rows are those of the way that was asked for last."""
        return Lost(
            lines=len(self._unreadable),
            first_line=next(iter(self._unreadable), None),
            rows=sum(many for many, _ in self._missing),
            first_row=self._missing[-1][1] if self._missing else None,  # the way is gone from its end
        )

    def path(self, mark: Mark | None) -> list[Row | Note]:
        """Return what led to `mark`, in order."""
        self._missing.clear()
        found: list[Row | Note] = []
        seen: set[str] = set()
        end = mark or self._last()
        while end is not None and end.branch not in seen:
            seen.add(end.branch)  # a journal someone altered must not send us round in circles
            rows = self._branches.get(end.branch, {})
            found.extend(reversed(self._notes.get(end, ())))
            numbers = sorted((number for number in rows if 0 <= number < end.rows), reverse=True)
            if len(numbers) < end.rows:
                first = next(number for number in range(end.rows) if number not in rows)
                self._missing.append((end.rows - len(numbers), Mark(branch=end.branch, rows=first)))
            for number in numbers:
                found.append(rows[number])
                found.extend(reversed(self._notes.get(Mark(branch=end.branch, rows=number), ())))
            end = self._parents.get(end.branch)
        found.reverse()
        return found

    def _last(self) -> Mark | None:
        """Return where training stands: after the row logged last, or where it went on from since."""
        last = _last(self._branches, self._parents)
        if last is None:
            return next(reversed(self._notes), None)
        logged = self._branches[last.branch][last.rows - 1].time
        turns = ((mark, note) for mark, notes in self._notes.items() for note in notes if note.kind in _TURNS)
        since = [(note.time, mark) for mark, note in turns if note.time > logged and mark.branch in self._branches]
        return max(since, key=lambda turn: turn[0])[1] if since else last

    def _enter(self, line: bytes) -> bool:
        """Take in what a line says; False if it was an entry once, and cannot be read."""
        parsed = _load(line)
        if parsed is None:
            return _is_cut_short(line)
        if "row" in parsed:
            return self._enter_row(parsed)
        return not self._with_notes or self._enter_note(parsed)

    def _enter_row(self, parsed: Mapping[str, Any]) -> bool:
        found = _parse(parsed)
        if found is None:
            return False
        place, parent, row = found
        branches = self._branches
        branches[place.branch] = rows_of = branches.pop(place.branch, {})  # the branch written to last stands last
        rows_of[place.rows] = row
        if parent is not None:
            self._parents[place.branch] = parent
        return True

    def _enter_note(self, parsed: Mapping[str, Any]) -> bool:
        note = note_from_json(parsed)
        branch, rows = parsed.get("branch"), parsed.get("rows")
        if note is None or not isinstance(branch, str) or not isinstance(rows, int):
            return is_of_newer_kind(parsed)
        notes = self._notes.setdefault(Mark(branch=branch, rows=rows), [])
        if not (notes and alike(note, notes[-1])):  # else written once more, as the first time seemed to have failed
            notes.append(note)
        return True


def alike(one: Row | Note, other: Row | Note) -> bool:
    """Return whether two entries say the same; NaN, which equals nothing, is like NaN."""
    return one == other or (one.kind == other.kind and repr(one) == repr(other))


def _last(branches: Mapping[str, Mapping[int, Row]], parents: Mapping[str, Mark]) -> Mark | None:
    """Return the place after the row logged last.

    It is one of a branch that no other continues, or that went on all the same: a second process took it up and was
    refused, and the first trained on. Of several the newest, and only of equally new ones the one that stands last:
    segments, and what a run was copied from, stand in an order of their own.
    """
    written = {branch: place for place, branch in enumerate(branches)}
    last = {branch: max(rows) for branch, rows in branches.items()}

    def went_on(branch: str, rows: int, child: str) -> bool:
        if not {branch, child} <= last.keys() or last[branch] < rows or written[branch] < written[child]:
            return False
        return branches[branch][last[branch]].time > branches[child][last[child]].time

    continued = {
        parent.branch
        for child, parent in parents.items()
        if parent.branch != child and not went_on(parent.branch, parent.rows, child)
    }
    ends = {branch: row for branch, row in last.items() if branch not in continued}
    if not ends:
        return None
    newest = max(reversed(ends), key=lambda branch: branches[branch][ends[branch]].time)
    return Mark(branch=newest, rows=ends[newest] + 1)


def _ends_torn(backend: Backend) -> bool:
    try:
        size = backend.head(JOURNAL).size
    except ObjectNotFoundError:  # nothing was appended yet, where appending is what creates it
        return False
    return size > 0 and bytes(backend.read_ranges(JOURNAL, [(size - 1, size)])[0]) != b"\n"


def _load(line: bytes) -> dict[str, Any] | None:
    """Return what a line says; None for one that was cut short."""
    try:
        parsed = msgspec.json.decode(line)
    except (msgspec.DecodeError, RecursionError):
        return None
    return parsed if isinstance(parsed, dict) else None


def _is_cut_short(line: bytes) -> bool:
    """Say whether a line that cannot be read is the beginning of one, or empty."""
    beginning = line.rstrip(b"\0 \t\r")  # a file system may put zeros where it grew and nothing was written yet
    if not beginning.startswith(b"{"):
        return not beginning
    try:
        msgspec.json.decode(beginning.rstrip(_ENDS_OF_NUMBERS))
    except msgspec.DecodeError as error:
        return "truncated" in str(error)
    except RecursionError:
        return False
    return beginning != line


def _parse(parsed: Mapping[str, Any]) -> tuple[Mark, Mark | None, Row] | None:
    """Return a row, the place before it and the place its branch began at; None for a line that is no row."""
    try:
        row = Row(
            kind=_KINDS[parsed["kind"]],
            epoch=int(parsed["epoch"]),
            step=int(parsed["step"]),
            time=float(parsed["time"]),
            metrics={name: float(value) for name, value in parsed["metrics"].items()},
        )
        place = _mark(parsed["branch"], parsed["row"]), _parent(parsed.get("from"))
    except (ValueError, LookupError, TypeError, AttributeError, OverflowError):
        return None
    return (*place, row) if math.isfinite(row.time) else None  # as `Moment` of a note


def _parent(found: Mapping[str, Any] | None) -> Mark | None:
    return None if found is None else _mark(found["branch"], found["rows"])


def _mark(branch: Any, rows: Any) -> Mark:
    return Mark(branch=str(branch), rows=int(rows))
