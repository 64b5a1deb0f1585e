"""Journal: every logged row, appended to `metrics.jsonl`, and read back as the history that led to a checkpoint.

In a bucket, where nothing can be appended to, it lies in pieces (`segments.py`).

Each line belongs to a branch (a training that started, resumed or went back) and has its number in it. A branch's first
line says which row of which other branch it continues. So a file that two trainings wrote to, that a crash cut short,
or that holds the rows of a future that was abandoned still gives the exact history of any checkpoint.
"""

from __future__ import annotations

import contextlib
import json
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from pydantic_core import to_json

from ..errors import ObjectNotFoundError, StorageError
from .backend import Appender, Backend
from .history import History, Row
from .jsonfloat import floats_to_json
from .layout import JOURNAL
from .segments import read_appended

_KINDS: dict[str, Literal["epoch", "step"]] = {"epoch": "epoch", "step": "step"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """A place in the journal: after the first `rows` rows of `branch`."""

    branch: str
    rows: int


class Journal:
    """Appends rows of one branch. Cost of a row: one small JSON text and one append."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._appender: Appender | None = None
        self._start_branch(None)

    def continue_from(self, mark: Mark | None) -> None:
        """Begin a new branch whose rows follow `mark` (None: the beginning)."""
        self._start_branch(mark)

    @property
    def mark(self) -> Mark:
        """Return the place after the last row."""
        if self._rows == 0 and self._parent is not None:
            return self._parent
        return Mark(branch=self._branch, rows=self._rows)

    def append(self, row: Row) -> None:
        """Append one row, which is durable after `Backend.settle`.

        Locally it survives the death of the process at once; in a bucket some seconds later (`segments.DELAY`).
        """
        line: dict[str, Any] = {"branch": self._branch, "row": self._rows}
        if self._rows == 0 and self._parent is not None:
            line["from"] = {"branch": self._parent.branch, "rows": self._parent.rows}
        line["kind"] = row.kind
        line["epoch"] = row.epoch
        line["step"] = row.step
        line["time"] = row.time
        line["metrics"] = floats_to_json(row.metrics)
        try:
            if self._appender is None:
                self._appender = self._backend.append(JOURNAL)
                if self._backend.capabilities.appends and _ends_torn(self._backend):
                    # A crash cut the last line short; a new line keeps it from swallowing ours.
                    self._appender.write(b"\n")
            self._appender.write(to_json(line) + b"\n")
        except StorageError:
            with contextlib.suppress(StorageError):
                self.close()  # the line may be torn: opened anew, the journal is looked at again
            raise
        self._rows += 1

    def close(self) -> None:
        """Release the file."""
        appender, self._appender = self._appender, None
        if appender is not None:
            appender.close()

    def _start_branch(self, parent: Mark | None) -> None:
        self._branch = uuid.uuid4().hex[:12]
        self._rows = 0
        self._parent = parent


def read_history(backend: Backend, mark: Mark | None = None) -> History:
    """Return the history that led to `mark` (None: to the row logged last).

    Lines that a crash cut short are passed over. Cost: one read of the journal.
    """
    text = read_appended(backend, JOURNAL)
    branches: dict[str, dict[int, Row]] = {}
    parents: dict[str, Mark] = {}
    for line in text.split(b"\n"):
        parsed = _parse(line)
        if parsed is None:
            continue
        place, parent, row = parsed
        branches[place.branch] = rows_of = branches.pop(place.branch, {})  # the branch written to last stands last
        rows_of[place.rows] = row
        if parent is not None:
            parents[place.branch] = parent
    rows: list[Row] = []
    seen: set[str] = set()
    end = mark or _last(branches, parents)
    while end is not None and end.branch not in seen:
        seen.add(end.branch)  # a journal someone altered must not send us round in circles
        branch = branches.get(end.branch, {})
        rows.extend(branch[number] for number in sorted(branch, reverse=True) if number < end.rows)
        end = parents.get(end.branch)
    return History(reversed(rows))


def _last(branches: Mapping[str, Mapping[int, Row]], parents: Mapping[str, Mark]) -> Mark | None:
    """Return the place after the row logged last.

    It is one of a branch that no other continues. Of several the newest, and only of equally new ones the one that
    stands last: segments, and what a run was copied from, stand in an order of their own.
    """
    continued = {parent.branch for branch, parent in parents.items() if parent.branch != branch}
    ends = {branch: max(rows) for branch, rows in branches.items() if branch not in continued}
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


def _parse(line: bytes) -> tuple[Mark, Mark | None, Row] | None:
    """Return a row, the place before it and the place its branch began at; None for a line that was cut short."""
    try:
        parsed = json.loads(line)
        row = Row(
            kind=_KINDS[parsed["kind"]],
            epoch=int(parsed["epoch"]),
            step=int(parsed["step"]),
            time=float(parsed["time"]),
            metrics={name: float(value) for name, value in parsed["metrics"].items()},
        )
        return _mark(parsed["branch"], parsed["row"]), _parent(parsed.get("from")), row
    except (ValueError, LookupError, TypeError, AttributeError, OverflowError, RecursionError):
        return None


def _parent(found: Mapping[str, Any] | None) -> Mark | None:
    return None if found is None else _mark(found["branch"], found["rows"])


def _mark(branch: Any, rows: Any) -> Mark:
    return Mark(branch=str(branch), rows=int(rows))
