"""Frame: what stands around a drawing of characters: its border, with ticks, and the numbers beside them. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from msgspec import Struct


class Frame(Struct, frozen=True, kw_only=True):
    """The characters of a border."""

    across: str
    down: str
    corners: tuple[str, str, str, str]
    """Of the top, left and right; then those below."""
    left: str
    """A tick at the left."""
    below: str
    """A tick below."""


FINE = Frame(across="─", down="│", corners=("┌", "┐", "└", "┘"), left="┤", below="┬")
COARSE = Frame(across="-", down="|", corners=("+", "+", "+", "+"), left="+", below="+")
"""For an output that has nothing but ASCII."""


def framed(  # noqa: PLR0913 - what stands on its four sides
    lines: Sequence[str], columns: int, frame: Frame, *, left: Mapping[int, str], below: Mapping[int, str], margin: int
) -> Iterator[str]:
    """Yield the lines of a drawing, so many columns each, in a frame.

    Args:
        lines: what may have sequences for colours in it.
        columns: how many each line takes without those.
        frame: its characters.
        left: line → the number beside it.
        below: column → the number below it; one that would touch the one before is left out.
        margin: columns for the numbers at the left.
    """
    top_left, top_right, bottom_left, bottom_right = frame.corners
    yield " " * margin + top_left + frame.across * columns + top_right
    for number, line in enumerate(lines):
        border = frame.left if number in left else frame.down
        yield left.get(number, "").rjust(margin) + border + line + frame.down
    bottom = "".join(frame.below if column in below else frame.across for column in range(columns))
    yield " " * margin + bottom_left + bottom + bottom_right
    yield _numbers({margin + 1 + column: label for column, label in below.items()}, margin + columns + 2)


def _numbers(places: Mapping[int, str], width: int) -> str:
    """Return a line of so many columns with each text around its place, as far as it fits."""
    line = ""
    for place, text in sorted(places.items()):
        begin = max(0, min(place - len(text) // 2, width - len(text)))
        if begin > len(line) or not line:
            line = line.ljust(begin) + text
    return line.ljust(width)
