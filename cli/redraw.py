"""Redraw: facts and lines in the terminal, drawn again in their place. Needs rich, so imported when it is used."""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType
from typing import Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from ..storage.printable import printable

Pair = tuple[str, str]
"""A name and what it stands for; or a time and what happened then."""


class Redraw:
    """Draws on standard output, in the place where it drew before. What was drawn last stays when the block ends."""

    def __init__(self) -> None:
        self._console = _Console(markup=False, emoji=False, highlight=False)
        self._live = Live(
            console=self._console,
            auto_refresh=False,
            redirect_stdout=False,
            redirect_stderr=False,
            vertical_overflow="visible",
        )

    @property
    def possible(self) -> bool:
        """Standard output is a terminal that can be drawn in, as rich finds."""
        return self._console.is_terminal and not self._console.is_dumb_terminal

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._live.stop()

    def draw(self, title: str, facts: Sequence[Pair], lines: Sequence[Pair]) -> None:
        """Show these. What is too wide is wrapped, never cut; of `lines` the last that there is room for stay."""
        head: list[RenderableType] = [Text(printable(title), style="bold", overflow="fold"), _grid(facts, style="dim")]
        drawn = Group(*head)
        for first in range(len(lines) + 1):
            below: list[RenderableType] = [Text(), _grid(lines[first:], style="dim")] if lines[first:] else []
            drawn = Group(*head, *below)
            if len(self._console.render_lines(drawn, pad=False)) < self._console.height:
                break
        self._live.update(drawn, refresh=True)


def _grid(pairs: Sequence[Pair], *, style: str) -> Table:
    grid = Table.grid(padding=(0, 2))
    grid.add_column(no_wrap=True, style=style)
    grid.add_column(overflow="fold")
    for name, value in pairs:
        grid.add_row(Text(printable(name)), Text(printable(value)))
    return grid


class _Console(Console):
    def show_cursor(self, show: bool = True) -> bool:  # noqa: ARG002, FBT001, FBT002 - rich's signature
        """Leave it: a process that is killed could not bring it back."""
        return False
