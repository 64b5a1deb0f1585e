"""Screen: what people see. Tables and lines through rich, which is imported when the first one is printed.

Everything is escaped here, so no verb can forget to. No text is ever cut: a table too wide for the terminal loses the
columns that its verb calls dispensable, and says which; where no terminal reads, it keeps them all.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .words import printable

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

_UNBOUNDED = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """A column of a table."""

    title: str
    number: bool = False
    """Numbers stand at the right."""
    drop: int | None = None
    """Where the terminal is narrow, columns go in this order, the lowest first; None: never."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A row of a table."""

    cells: Sequence[str]
    """One for each column."""
    style: str = ""
    """As rich names them: "bold", "red"."""


def line(text: str = "", style: str = "") -> None:
    """Print one line, as long as it is."""
    from rich.text import Text  # noqa: PLC0415 - see the top

    _console().print(Text(printable(text), style=style), soft_wrap=True)


def table(columns: Sequence[Column], rows: Iterable[Row]) -> None:
    """Print a table."""
    console, kept, held = _console(), list(columns), list(rows)
    while True:
        drawn = _draw(columns, kept, held)
        width = console.measure(drawn, options=console.options.update(max_width=_UNBOUNDED)).maximum
        going = [column for column in kept if column.drop is not None]
        if width <= console.width or not console.is_terminal or not going:
            break
        kept.remove(min(going, key=lambda column: column.drop or 0))
    console.width = max(width, console.width)  # what is still too wide is for the terminal to wrap, not for us to cut
    console.print(drawn)
    if len(kept) < len(columns):
        missing = [column.title for column in columns if column not in kept]
        line(f"Too narrow for: {', '.join(missing)}.", "dim")


def facts(pairs: Iterable[tuple[str, str]]) -> None:
    """Print names and values, one pair a line."""
    held = [(name, value) for name, value in pairs if value]
    width = max((len(printable(name)) for name, _ in held), default=0)
    for name, value in held:
        line(f"  {printable(name).ljust(width)}  {value}")


def _console() -> Console:
    from rich.console import Console  # noqa: PLC0415 - see the top

    # No markup, no emoji, no highlighting: a checkpoint's name is text, whatever brackets it has.
    return Console(markup=False, emoji=False, highlight=False)


def _draw(columns: Sequence[Column], kept: Sequence[Column], rows: Sequence[Row]) -> Table:
    from rich.table import Table  # noqa: PLC0415 - see the top
    from rich.text import Text  # noqa: PLC0415

    drawn = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for column in kept:
        drawn.add_column(Text(printable(column.title)), justify="right" if column.number else "left", no_wrap=True)
    places = [number for number, column in enumerate(columns) if column in kept]
    for row in rows:
        drawn.add_row(*(Text(printable(row.cells[place])) for place in places), style=row.style)
    return drawn
