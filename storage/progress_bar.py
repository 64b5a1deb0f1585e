"""Progress bar: what a terminal shows of operations under way. The only file outside of the command that needs rich.

The bars stand below the line that the cursor is in, which may hold another program's bar (tqdm, Keras), and are gone
when they are done: what came of an operation is for those to say who began it.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import TextIO

from rich.console import Console
from rich.control import Control
from rich.file_proxy import FileProxy
from rich.filesize import decimal, pick_unit_and_suffix
from rich.progress import BarColumn, TaskID, TextColumn
from rich.progress import Progress as RichProgress
from rich.segment import ControlType
from rich.table import Column

from .printable import printable
from .progress_task import Progress

_WIDE, _NARROW = 100, 70
"""Columns of a terminal that has room for a long bar, and of one that has none for a short one."""


class Bars:
    """Bars in the terminal behind `stream`. Used by one thread."""

    def __init__(self, stream: TextIO) -> None:
        self._console = _Console(file=stream, force_jupyter=False)
        # With a live display of the user's own, rich has put a proxy in the stream's place: the two would fight.
        self._usable = self._console.is_interactive and not isinstance(stream, FileProxy)
        self._drawn: RichProgress | None = None
        self._rows: dict[int, TaskID] = {}

    def draw(self, shown: Sequence[Progress]) -> None:
        """Show exactly these, the oldest first."""
        if not shown or not self._usable:
            self.close()
            return
        if self._drawn is None:
            self._drawn = self._begin()
        for gone in self._rows.keys() - {progress.id for progress in shown}:
            self._drawn.remove_task(self._rows.pop(gone))
        for progress in shown:
            if progress.id not in self._rows:
                self._rows[progress.id] = self._drawn.add_task(title(progress), total=progress.total, facts="")
            row, said = self._rows[progress.id], facts(progress, short=self._console.width < _NARROW)
            self._drawn.update(row, completed=progress.done, total=progress.total, facts=said)
        self._drawn.refresh()

    def close(self) -> None:
        """Erase them; the cursor is back in its line."""
        if self._drawn is None:
            return
        drawn, self._drawn, self._rows = self._drawn, None, {}
        drawn.stop()
        self._console.control(Control((ControlType.CURSOR_UP, 1)))

    def _begin(self) -> RichProgress:
        self._console.line()
        name = Column(ratio=1, no_wrap=True, overflow="ellipsis")
        width = self._console.width
        drawn = RichProgress(
            TextColumn("{task.description}", markup=False, table_column=name),
            *([BarColumn(bar_width=20 if width >= _WIDE else 10)] if width >= _NARROW else []),
            TextColumn("{task.fields[facts]}", markup=False),
            console=self._console,
            expand=True,
            auto_refresh=False,
            transient=True,
            redirect_stdout=False,  # rich would send it to the stream of the bars
            redirect_stderr=False,
        )
        drawn.start()
        return drawn


class _Console(Console):
    def show_cursor(self, show: bool = True) -> bool:  # noqa: ARG002, FBT001, FBT002 - rich's signature
        """Leave it: a process that is killed could not bring it back."""
        return False


def title(progress: Progress) -> str:
    """Return what is done to what; names come from runs that strangers wrote, so nothing in it steers a terminal."""
    return printable(f"{progress.action} {progress.subject}")


def facts(progress: Progress, *, short: bool = False) -> str:
    """Return " 42% 1.4/3.4 GB 120.3 MB/s 0:00:17", the time that is left at the end; or only the outer two.

    What is not known yet is left out.
    """
    inner = [] if short else [_amount(progress), _rate(progress)]
    return " ".join(fact for fact in (_percent(progress), *inner, _left(progress)) if fact)


def _percent(progress: Progress) -> str:
    return f"{100 * progress.done // progress.total:3d}%" if progress.total else ""


def _amount(progress: Progress) -> str:
    counts = [progress.done] if progress.total is None else [progress.done, progress.total]
    size, unit = 1, "objects"
    if progress.unit == "bytes":
        size, unit = pick_unit_and_suffix(counts[-1], ["bytes", "kB", "MB", "GB", "TB", "PB"], 1000)
    return f"{'/'.join(f'{count / size:,.{0 if size == 1 else 1}f}' for count in counts)} {unit}"


def _rate(progress: Progress) -> str:
    """The mean since it began."""
    if not progress.done or progress.seconds <= 0:
        return ""
    rate = progress.done / progress.seconds
    return f"{decimal(int(rate))}/s" if progress.unit == "bytes" else f"{rate:,.0f}/s"


def _left(progress: Progress) -> str:
    if progress.total is None or not progress.done:
        return ""
    seconds = progress.seconds * (progress.total - progress.done) / progress.done
    return str(timedelta(seconds=round(seconds)))
