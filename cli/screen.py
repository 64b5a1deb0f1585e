"""Screen: what people see: lines and tables, with colours where a terminal reads.

Every text is escaped here, so no verb can forget to. No text is ever cut: a table too wide for the terminal loses the
columns that its verb calls dispensable, and says which; where no terminal reads, it keeps them all.

A terminal is what says that it is one, and whatever reads where FORCE_COLOR is set. There are no colours where NO_COLOR
is set (https://no-color.org) or FORCE_COLOR is 0, and where TERM says that the terminal has none.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterable, Sequence

import click
from msgspec import Struct

from ..storage.printable import printable
from . import output

_GAP = "  "

_OFF = {"0", "false", "none"}
"""What FORCE_COLOR is set to against colours; plotille takes it so as well."""

_SINGLE = dict.fromkeys(map(ord, "⣀⡠⠊·●○"))
"""Letters of our own beyond ASCII that take one column each."""

PLAIN_WIDTH = 80
"""Columns where no terminal reads."""


class Column(Struct, frozen=True, kw_only=True):
    """A column of a table."""

    title: str
    number: bool = False
    """Numbers stand at the right."""
    drop: int | None = None
    """Where the terminal is narrow, columns go in this order, the lowest first; None: never."""


class Row(Struct, frozen=True, kw_only=True):
    """A row of a table."""

    cells: Sequence[str]
    """One for each column."""
    style: str = ""
    """A colour as click names it, "bold", "dim", or several of them: "bold red"."""


def line(text: str = "", style: str = "") -> None:
    """Print one line, as long as it is."""
    spans([(text, style)])


def spans(parts: Iterable[tuple[str, str]]) -> None:
    """Print one line of several texts, each with its style, as long as it is."""
    output.write("".join(_styled(printable(text), style) for text, style in parts) + "\n")


def drawing(lines: Iterable[str]) -> None:
    """Print what a library drew: its lines may have sequences for colours in them, and nothing of a stranger's."""
    text = "\n".join(lines)
    output.write((text if _has_colours() else click.unstyle(text)) + "\n")


def cells(text: str) -> int:
    """Return how many columns `text` takes, as it is printed."""
    return _width(printable(text))


def is_terminal() -> bool:
    """Say whether a terminal reads; the size that it says is then honoured."""
    forced = os.environ.get("FORCE_COLOR", "")
    return (forced != "" and forced.lower() not in _OFF) or (sys.stdout is not None and sys.stdout.isatty())


def width() -> int:
    """Return the terminal's columns, or COLUMNS; `PLAIN_WIDTH` where no terminal reads."""
    if not is_terminal():
        return PLAIN_WIDTH
    said = os.environ.get("COLUMNS", "")
    sizes = [int(said)] if said.isdecimal() and int(said) else []
    for stream in (1, 0, 2):  # behind `| less -R` the others still are the terminal
        with contextlib.suppress(OSError):
            sizes.append(os.get_terminal_size(stream).columns)
    return next(filter(None, sizes), PLAIN_WIDTH)


def can_show(text: str) -> bool:
    """Say whether the output's encoding has every character of `text`."""
    try:
        text.encode(getattr(sys.stdout, "encoding", None) or "utf-8")
    except (UnicodeError, LookupError):
        return False
    return True


def table(columns: Sequence[Column], rows: Iterable[Row]) -> None:
    """Print a table. Cost: microseconds a row; runs have thousands."""
    held = list(rows)
    texts = [
        [printable(column.title) for column in columns],
        *([printable(cell) for cell in row.cells] for row in held),
    ]
    taken = [list(map(_width, cells)) for cells in texts]
    widths = list(map(max, zip(*taken, strict=True)))
    kept = _kept(columns, widths, width() if is_terminal() else None)
    lines = []
    for style, cells, own in zip(["bold", *(row.style for row in held)], texts, taken, strict=True):
        padding = [" " * (width - cell) for width, cell in zip(widths, own, strict=True)]
        padded = [padding[at] + cells[at] if columns[at].number else cells[at] + padding[at] for at in kept]
        lines.append(_styled(_GAP.join(padded).rstrip(), style))
    output.write("\n".join(lines) + "\n")
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


def _styled(text: str, style: str) -> str:
    if not style or not _has_colours():
        return text
    words = style.split()
    colour = next((word for word in words if word not in {"bold", "dim"}), None)
    return click.style(text, fg=colour, bold="bold" in words or None, dim="dim" in words or None)


def _has_colours() -> bool:
    if os.environ.get("NO_COLOR") or os.environ.get("FORCE_COLOR", "").lower() in _OFF:
        return False
    return is_terminal() and os.environ.get("TERM", "").lower() not in {"dumb", "unknown"}


def _width(text: str) -> int:
    if text.isascii() or text.translate(_SINGLE).isascii():
        return len(text)
    try:
        from rich.cells import cell_len  # noqa: PLC0415 - few names have other letters
    except ModuleNotFoundError:
        return len(text)
    return cell_len(text)


def _kept(columns: Sequence[Column], widths: Sequence[int], room: int | None) -> list[int]:
    """Return the places of the columns that fit into `room` cells; None: all do."""
    kept = list(range(len(columns)))
    while room is not None and sum(widths[at] for at in kept) + len(_GAP) * (len(kept) - 1) > room:
        going = [(drop, at) for at in kept if (drop := columns[at].drop) is not None]
        if not going:
            break
        kept.remove(min(going)[1])
    return kept
