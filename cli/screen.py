"""Screen: what people see. Tables and lines through rich, which is imported when the first one is printed.

Every text is escaped here, so no verb can forget to. No text is ever cut: a table too wide for the terminal loses the
columns that its verb calls dispensable, and says which; where no terminal reads, it keeps them all.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..storage.printable import printable

if TYPE_CHECKING:
    from rich.console import Console

_GAP = "  "

PLAIN_WIDTH = 80
"""Columns where no terminal reads."""


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


def spans(parts: Iterable[tuple[str, str]]) -> None:
    """Print one line of several texts, each with its style, as long as it is."""
    from rich.text import Text  # noqa: PLC0415 - see the top

    _console().print(Text.assemble(*((printable(text), style) for text, style in parts)), soft_wrap=True)


def drawing(lines: Iterable[str]) -> None:
    """Print what a library drew. Of the sequences in it only colours reach the terminal, if it is to have them."""
    from rich.text import Text  # noqa: PLC0415 - see the top

    _console().print(Text.from_ansi("\n".join(lines)), soft_wrap=True)


def cells(text: str) -> int:
    """Return how many columns `text` takes, as it is printed."""
    from rich.cells import cell_len  # noqa: PLC0415 - see the top

    return cell_len(printable(text))


def is_terminal() -> bool:
    """Say whether a terminal reads; colours and sizes that it says are then honoured."""
    return _console().is_terminal


def width() -> int:
    """Return the terminal's columns; `PLAIN_WIDTH` where none reads."""
    console = _console()
    return console.width if console.is_terminal else PLAIN_WIDTH


def can_show(text: str) -> bool:
    """Say whether the output's encoding has every character of `text`."""
    try:
        text.encode(getattr(sys.stdout, "encoding", None) or "utf-8")
    except (UnicodeError, LookupError):
        return False
    return True


def table(columns: Sequence[Column], rows: Iterable[Row]) -> None:
    """Print a table.

    Laid out here and only coloured by rich: its own tables take over a millisecond a row, and runs have thousands.
    """
    from rich.cells import cell_len  # noqa: PLC0415 - see the top
    from rich.text import Text  # noqa: PLC0415

    console, held = _console(), list(rows)
    texts = [
        [printable(column.title) for column in columns],
        *([printable(cell) for cell in row.cells] for row in held),
    ]
    widths = [max(map(cell_len, cells)) for cells in zip(*texts, strict=True)]
    kept = _kept(columns, widths, console.width if console.is_terminal else None)
    drawn = Text()
    for style, cells in zip(["bold", *(row.style for row in held)], texts, strict=True):
        padding = [" " * (width - cell_len(cell)) for width, cell in zip(widths, cells, strict=True)]
        padded = [padding[at] + cells[at] if columns[at].number else cells[at] + padding[at] for at in kept]
        drawn.append(_GAP.join(padded).rstrip() + "\n", style=style)
    console.print(drawn, soft_wrap=True, end="")
    if len(kept) < len(columns):
        line(
            f"Too narrow for: {', '.join(column.title for at, column in enumerate(columns) if at not in kept)}.", "dim"
        )


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


def _kept(columns: Sequence[Column], widths: Sequence[int], room: int | None) -> list[int]:
    """Return the places of the columns that fit into `room` cells; None: all do."""
    kept = list(range(len(columns)))
    while room is not None and sum(widths[at] for at in kept) + len(_GAP) * (len(kept) - 1) > room:
        going = [(drop, at) for at in kept if (drop := columns[at].drop) is not None]
        if not going:
            break
        kept.remove(min(going)[1])
    return kept
