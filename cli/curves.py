"""Curves: one panel as lines of text, drawn on plotille's canvas, which is touched only here.

Names never get there: what is drawn are lines, marks and numbers, so nothing in it could steer the terminal.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise

from msgspec import Struct
from plotille import Canvas

from . import frame
from .panels import Curve, Mark, Panel
from .ticks import logarithmic_ticks, ticks, whole_ticks


class Pens(Struct, frozen=True, kw_only=True):
    """What lines and marks are drawn with: each differs from the others without colours, too."""

    curve: str
    """A character, or `DOTS`."""
    training: str
    best: str
    saved: str
    frame: frame.Frame


DOTS = "braille"
"""Lines of the dots that braille writes, eight to a character."""

FINE = Pens(curve=DOTS, training="·", best="●", saved="○", frame=frame.FINE)
COARSE = Pens(curve="*", training=".", best="@", saved="o", frame=frame.COARSE)
"""For an output that has nothing but ASCII."""

SAMPLES = {DOTS: "⣀⡠⠊", "·": "···", "*": "***", ".": "..."}
"""How a line looks, for a legend."""

CURVE, TRAINING, BEST = "bright_blue", "yellow", "bold bright_green"
"""As `screen` takes them; plotille knows the same colours, and nothing bold."""

_LARGEST, _SMALLEST, _FINEST, _FINEST_LOGARITHM = 8e307, 1e-300, 1e-290, 1e-6
"""Larger values are drawn as this one, as the distance of two floats may be none; so are smaller ones by logarithm; and
what is closer together is one value, as there are no numbers to mark it with."""
_FARTHEST = 2**53
"""Epochs and steps that are drawn; a stranger's journal may hold larger ones than a float can."""
_ACROSS, _UP = 2, 4
"""Dots of a character."""
_NO_DOTS = "\u2800"
"""The character of braille where nothing is drawn, which is no space."""

_Point = tuple[float, float]
_Colour = str | None
_Dot = tuple[int, int]
"""From the left and from below, from 0."""


def draw(  # noqa: PLR0913 - what a drawing depends on
    panel: Panel, pens: Pens, *, width: int, height: int, logarithmic: bool, over_steps: bool
) -> list[str]:
    """Return one panel as `height` lines of `width` columns, with colours; empty if there is no value to draw.

    Values that are not finite, and with `logarithmic` those that are not above 0, are gaps.
    """
    shift = 0 if over_steps else 1  # people count epochs from 1
    lines: list[tuple[list[_Point | None], str, _Colour]] = [
        (_points(curve, _ACROSS * width, shift, logarithmic=logarithmic), pen, colour)
        for curve, pen, colour in (
            (panel.training, pens.training, TRAINING),
            (panel.curve, pens.curve, CURVE),  # the last one lies on top
        )
        if curve is not None
    ]
    drawn = [point for points, _, _ in lines for point in points if point is not None]
    if not drawn:
        return []
    marks = list(_marks(panel, pens, shift, logarithmic=logarithmic))
    drawn += [point for point, _, _ in marks]
    left, right = _limits([x for x, _ in drawn], least=0.5)
    low, high = _limits([y for _, y in drawn], least=0.0, finest=_FINEST_LOGARITHM if logarithmic else _FINEST)
    at_side = (logarithmic_ticks if logarithmic else ticks)(low, high, max(2, height // 4))
    below = whole_ticks(left, right, width // 10)
    margin = max((len(label) for _, label in at_side), default=0)
    columns, rows = width - margin - 2, height - 4  # but for the frame, the numbers below and the axis' name

    def dot(x: float, y: float) -> _Dot:
        return _place(x, left, right, _ACROSS * columns), _place(y, low, high, _UP * rows)

    canvas = Canvas(columns, rows, xmax=_ACROSS * columns, ymax=_UP * rows)
    for number, (points, pen, colour) in enumerate(lines):
        _line(canvas, [None if point is None else dot(*point) for point in points], pen, colour, first=number == 0)
    for point, pen, colour in marks:
        _mark(canvas, dot(*point), pen, colour)
    drawing = frame.framed(
        canvas.plot("\n").replace(_NO_DOTS, " ").splitlines(),
        columns,
        pens.frame,
        left={rows - 1 - dot(left, y)[1] // _UP: label for y, label in at_side},
        below={dot(x, low)[0] // _ACROSS: label for x, label in below},
        margin=margin,
    )
    return [*drawing, " " * margin + ("step" if over_steps else "epoch").center(width - margin)]


def _place(value: float, low: float, high: float, dots: int) -> int:
    """Return which of so many dots between two values is that of a third."""
    return round((value - low) / (high - low) * (dots - 1))


def _line(canvas: Canvas, dots: Sequence[_Dot | None], pen: str, colour: _Colour, *, first: bool) -> None:
    """Draw a line over what is there; nothing, if it is the first. None is a gap."""
    ends = [(before or dot, dot) for before, dot in pairwise([None, *dots]) if dot is not None]
    if pen == DOTS:
        for put in (True,) if first else (False, True):  # a dot that is taken away takes what covers it with it
            for before, dot in ends:
                canvas.line(*before, *dot, set_=put, color=colour)
        return
    for before, dot in ends:
        for x, y in _between(before, dot):
            canvas.text(x, y, pen, color=colour)


def _mark(canvas: Canvas, dot: _Dot, pen: str, colour: _Colour) -> None:
    for under in (TRAINING, CURVE):  # a character without a colour keeps the one of what it covers
        canvas.text(*dot, pen, set_=False, color=under)
    canvas.text(*dot, pen, color=colour)


def _between(begin: _Dot, end: _Dot) -> Iterator[_Dot]:
    """Yield a dot of each character on the way, both ends included."""
    (left, low), (right, high) = ((x // _ACROSS, y // _UP) for x, y in (begin, end))
    parts = max(abs(right - left), abs(high - low), 1)
    for part in range(parts + 1):
        yield _ACROSS * (left + round((right - left) * part / parts)), _UP * (low + round((high - low) * part / parts))


def _marks(panel: Panel, pens: Pens, shift: int, *, logarithmic: bool) -> Iterator[tuple[_Point, str, _Colour]]:
    """Yield where checkpoints stand, and with what in which colour they are drawn; the best, on top, is the last."""
    marked: list[tuple[Mark, str, _Colour]] = [(mark, pens.saved, None) for mark in panel.saved]
    if panel.best is not None:
        marked.append((panel.best, pens.best, BEST.removeprefix("bold ")))
    for mark, pen, colour in marked:
        point = _scaled(mark.x + shift, mark.y, logarithmic=logarithmic)
        if point is not None:
            yield point, pen, colour


def _points(curve: Curve, columns: int, shift: int, *, logarithmic: bool) -> list[_Point | None]:
    """Return where the values stand that `_places` says; None for a gap."""
    places = _places(curve.y, columns, logarithmic=logarithmic)
    return [
        None if place is None else _scaled(curve.x[place] + shift, curve.y[place], logarithmic=logarithmic)
        for place in places
    ]


def _places(values: Sequence[float], columns: int, *, logarithmic: bool) -> list[int | None]:
    """Return the places of the lowest and the highest value of each of so many columns, in order; of few values, all.

    None is a gap. It stays one where it fills a column, or where the values are few.
    """
    many = len(values)
    least = 0.0 if logarithmic else -math.inf
    if many <= 2 * columns:
        return [place if least < values[place] < math.inf else None for place in range(many)]
    found: list[int | None] = []
    for column in range(columns):
        inside = range(column * many // columns, (column + 1) * many // columns)
        held = [place for place in inside if least < values[place] < math.inf]
        ends = {min(held, key=values.__getitem__), max(held, key=values.__getitem__)} if held else ()
        found.extend(sorted(ends) or [None])
    return found


def _scaled(x: int, y: float, *, logarithmic: bool) -> _Point | None:
    if not 0 <= x <= _FARTHEST or not math.isfinite(y) or (logarithmic and y <= 0):
        return None
    y = max(-_LARGEST, min(_LARGEST, y))
    return float(x), math.log10(max(y, _SMALLEST)) if logarithmic else y


def _limits(values: Iterable[float], *, least: float, finest: float = _FINEST) -> tuple[float, float]:
    """Return the lowest and the highest value, further apart where they are one."""
    held = list(values)
    low, high = min(held), max(held)
    if finest < high - low < math.inf:
        return low, high
    apart = max(least, abs(high) * 0.05)
    return low - (apart if apart > finest else 1.0), high + (apart if apart > finest else 1.0)
