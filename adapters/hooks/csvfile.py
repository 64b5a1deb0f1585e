"""CSV: one file of rows that a spreadsheet opens and that grows while training does. Needs no library."""

from __future__ import annotations

import csv
import os
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import IO

from ...errors import ConfigError
from ...storage.history import Row
from ...storage.notes import Began, Decided, Note, Saved, SaveFailed, WentBack
from .entries import place_of, values_of

_FACTS = ("kind", "epoch", "step", "time", "checkpoint", "reasons")


class CSV:
    """Writes each row to a CSV file.

    Columns: `kind` ("epoch" or "step"), `epoch` (from 0), `step`, `time` (seconds since 1970), `checkpoint` (what is
    saved at this row, else empty), `reasons` (why, separated by blanks), then the metrics in the order they were first
    logged. What a row did not log is empty; NaN and infinity are `nan`, `inf`, `-inf`. A metric that is called like one
    of the six is called `metric_epoch` and so on.

    A run that resumes continues the file: rows that were logged after the checkpoint it continues are dropped. A run
    that begins anew begins the file anew, and what was there is kept beside it as `….old`.

    Cost: less than 0.1 ms a row, written and flushed. The first row with a new metric has the file rewritten.

    Args:
        path: the file, in a folder that is made if it is not there.

    Raises:
        ConfigError: the path is a folder or a URL, or the file is not one of this hook's.

    Example:
        >>> Checkpointer("runs/7", policy, model=model, hooks=[CSV("runs/7.csv")])
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        if "://" in os.fspath(path):
            raise ConfigError(f"CSV({os.fspath(path)!r}): the file lies on a disk, and this is a URL.")
        self.path = Path(path)
        self._columns: list[str] = list(_FACTS)
        self._file: IO[str] | None = None
        self._held: Row | None = None
        """The row logged last: whether a checkpoint is saved at it is said right after it."""
        try:
            self._columns, _ = self._read()
            self.path.parent.mkdir(parents=True, exist_ok=True)
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"CSV({os.fspath(path)!r}) cannot be written: {error}") from error

    def __call__(self, entry: Row | Note, /) -> None:
        """Take one entry.

        Raises:
            OSError: the file cannot be written.
        """
        if isinstance(entry, Saved | SaveFailed):  # of an earlier row: it may come before the decision about this one
            return
        held, self._held = self._held, None
        if held is not None:
            at_it = isinstance(entry, Decided) and entry.checkpoint is not None and entry.step == held.step
            self._append(held, entry if at_it else None)
        if isinstance(entry, Row):
            self._held = entry
        elif isinstance(entry, Began) and entry.checkpoint is None:
            self._begin_anew()
        elif isinstance(entry, Began | WentBack) and entry.checkpoint is not None:
            self._continue_from(entry.checkpoint)

    def close(self) -> None:
        """Write what waits and close the file."""
        held, self._held = self._held, None
        if held is not None:
            self._append(held, None)
        self._let_go()

    def _append(self, row: Row, decided: Row | Note | None) -> None:
        facts: dict[str, object] = {"kind": row.kind, "epoch": row.epoch, "step": row.step, "time": row.time}
        if isinstance(decided, Decided):
            facts |= {"checkpoint": decided.checkpoint, "reasons": " ".join(decided.reasons)}
        line = facts | values_of(row, apart=False, taken=_FACTS)
        new = [name for name in line if name not in self._columns]
        if new or self._file is None:
            _, lines = self._read()
            self._let_go()
            self._columns += new
            if new or not lines:
                self._rewrite(lines)
            self._file = self.path.open("a", encoding="utf-8", newline="")
        csv.writer(self._file, lineterminator="\n").writerow([line.get(name, "") for name in self._columns])
        self._file.flush()

    def _begin_anew(self) -> None:
        """Nothing of what is there led to where training stands."""
        self._let_go()
        if self.path.exists():
            self.path.replace(self.path.with_name(self.path.name + ".old"))
        self._columns = list(_FACTS)
        self._rewrite([])

    def _continue_from(self, checkpoint: str) -> None:
        """Drop the rows that did not lead to `checkpoint`."""
        self._let_go()
        self._columns, lines = self._read()
        self._rewrite(_leading_to(checkpoint, self._columns, lines))

    def _read(self) -> tuple[list[str], list[list[str]]]:
        """Return the columns and the whole lines of the file; a line that a crash cut short is none."""
        if not self.path.exists():
            return list(_FACTS), []
        text = self.path.read_text(encoding="utf-8")
        if not text:
            return list(_FACTS), []
        columns, *lines = [*csv.reader(text[: text.rfind("\n") + 1].splitlines(keepends=True))] or [[]]
        if tuple(columns[: len(_FACTS)]) != _FACTS:
            raise ConfigError(
                f"{self.path} is not a file that this hook wrote: it does not begin with the columns "
                f"{','.join(_FACTS)}. Give another path; nothing was changed."
            )
        return columns, [line for line in lines if len(line) == len(columns)]

    def _rewrite(self, lines: Iterable[list[str]]) -> None:
        """Replace the file in one step: who looks sees the old one or the new one."""
        with tempfile.NamedTemporaryFile(
            "w", encoding="utf-8", newline="", dir=self.path.parent, prefix=f".{self.path.name}.", delete=False
        ) as file:
            try:
                writer = csv.writer(file, lineterminator="\n")
                writer.writerow(self._columns)
                writer.writerows(line + [""] * (len(self._columns) - len(line)) for line in lines)
                file.flush()
                Path(file.name).chmod(self.path.stat().st_mode if self.path.exists() else 0o666 & ~_umask())
                Path(file.name).replace(self.path)
            except BaseException:
                Path(file.name).unlink(missing_ok=True)
                raise

    def _let_go(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            file.close()


def _leading_to(checkpoint: str, columns: list[str], lines: list[list[str]]) -> list[list[str]]:
    """Return the lines up to the one at which `checkpoint` was saved, or else those that its name lets stand."""
    at, epoch, step = (columns.index(name) for name in ("checkpoint", "epoch", "step"))
    for number, line in enumerate(lines):
        if line[at] == checkpoint:
            return lines[: number + 1]
    place = place_of(checkpoint)
    if place is None:
        return lines
    return [line for line in lines if place.includes(int(line[epoch]), int(line[step]))]


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
