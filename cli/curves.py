"""Curves: one panel as lines of text, drawn by plotext, which is touched only here.

plotext has one figure for the whole process. Each drawing takes it empty and leaves it empty, one at a time. Names
never get there: what it draws are lines, marks and numbers, so nothing in it could steer the terminal.
"""

from __future__ import annotations

import contextlib
import math
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import plotext

from .panels import Curve, Panel

_ALONE = threading.Lock()


@dataclass(frozen=True, slots=True, kw_only=True)
class Pens:
    """What lines and marks are drawn with: each differs from the others without colours, too."""

    curve: str
    """As plotext names it."""
    training: str
    best: str
    saved: str
    frame: Mapping[int, int | str]
    """What stands for the characters of plotext's frame."""


FINE = Pens(curve="braille", training="·", best="●", saved="○", frame={})
COARSE = Pens(curve="*", training=".", best="@", saved="o", frame=str.maketrans("│─┌┐└┘├┤┬┴┼", "|-+++++++++"))
"""For an output that has nothing but ASCII."""

SAMPLES = {"braille": "⣀⡠⠊", "·": "···", "*": "***", ".": "..."}
"""How a line looks, for a legend."""

CURVE, TRAINING, BEST = "bright_blue", "yellow", "bold bright_green"
"""Colours, as rich names them."""
_PLOTEXT_COLOURS = {CURVE: "blue+", TRAINING: "orange", BEST: "green+"}

_LARGEST, _SMALLEST, _FINEST, _FINEST_LOGARITHM = 8e307, 1e-300, 1e-290, 1e-6
"""Larger values are drawn as this one, as the distance of two floats may be none; so are smaller ones by logarithm; and
what is closer together is one value, as there are no numbers to mark it with."""
_FARTHEST = 2**53
"""Epochs and steps that are drawn; a stranger's journal may hold larger ones than a float can."""

_Point = tuple[float, float]


def draw(  # noqa: PLR0913 - what a drawing depends on
    panel: Panel, pens: Pens, *, width: int, height: int, logarithmic: bool, over_steps: bool
) -> list[str]:
    """Return one panel as `height` lines of `width` columns, with colours; empty if there is no value to draw.

    Values that are not finite, and with `logarithmic` those that are not above 0, are gaps.
    """
    shift = 0 if over_steps else 1  # people count epochs from 1
    lines = [
        (_points(curve, 2 * width, shift, logarithmic=logarithmic), pen, colour)
        for curve, pen, colour in (
            (panel.training, pens.training, TRAINING),
            (panel.curve, pens.curve, CURVE),  # the last one lies on top
        )
        if curve is not None
    ]
    drawn = [point for points, _, _ in lines for point in points if point is not None]
    if not drawn:
        return []
    marked = [(mark, pens.saved, "") for mark in panel.saved]
    marked += [] if panel.best is None else [(panel.best, pens.best, BEST)]
    placed = [(_scaled(mark.x + shift, mark.y, logarithmic=logarithmic), pen, colour) for mark, pen, colour in marked]
    marks = [(place, pen, colour) for place, pen, colour in placed if place is not None]
    drawn += [place for place, _, _ in marks]
    left, right = _limits([x for x, _ in drawn], least=0.5)
    low, high = _limits([y for _, y in drawn], least=0.0, finest=_FINEST_LOGARITHM if logarithmic else _FINEST)
    with _figure(width, height) as figure:
        for points, pen, colour in lines:
            _line(figure, points, pen, colour)
        for (x, y), pen, colour in marks:
            figure.draw(figure.signal([x], [y], marker=_marker(pen, colour)))
        figure.ruler("x", "lower").lim(left, right).ticks(*_whole_ticks(left, right, width // 10))
        ticks = _logarithmic_ticks if logarithmic else _ticks
        figure.ruler("y", "left").lim(low, high).ticks(*ticks(low, high, max(2, height // 4)))
        figure.label("step" if over_steps else "epoch", "x")
        text: str = figure.build().string()
    return text.translate(pens.frame).splitlines()


@contextlib.contextmanager
def _figure(width: int, height: int) -> Iterator[Any]:
    """Give plotext's figure, empty, without colours of its own and of this size, whatever the terminal's."""
    with _ALONE:
        try:
            plotext.terminal.limit(False, False)
            plotext.figure.clear().theme("colorless").plot_size(width, height)
            yield plotext.figure
        finally:
            plotext.terminal.limit()
            plotext.figure.clear().theme("default")


def _marker(pen: str, colour: str) -> plotext.marker:
    return plotext.marker(pen, plotext.pixel(foreground=_PLOTEXT_COLOURS.get(colour)))


def _line(figure: Any, points: Sequence[_Point | None], pen: str, colour: str) -> None:
    drawn = [point for point in points if point is not None]
    if not drawn:
        return
    signal = figure.signal([x for x, _ in drawn], [y for _, y in drawn], marker=_marker(pen, colour))
    signal.lines()
    number = 0
    for before, point in zip([None, *points], points, strict=False):
        if point is not None:
            if before is None:
                signal.line(number, False)
            number += 1
    figure.draw(signal)


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


def _ticks(low: float, high: float, most: int) -> tuple[list[float], list[str]]:
    """Return at most so many round numbers between two, and how they are written."""
    step = _round_step((high - low) / most)
    places = [number * step for number in range(math.ceil(low / step), math.floor(high / step) + 1)]
    return places, _labels(places, step)


def _whole_ticks(low: float, high: float, most: int) -> tuple[list[float], list[str]]:
    step = max(1.0, _round_step((high - low) / most))
    places = [number * step for number in range(math.ceil(low / step), math.floor(high / step) + 1)]
    return places, [f"{place:.0f}" for place in places]


def _logarithmic_ticks(low: float, high: float, most: int) -> tuple[list[float], list[str]]:
    """As `_ticks`, for the values whose logarithms lie between `low` and `high`."""
    exponents = range(math.ceil(low), math.floor(high) + 1)
    if len(exponents) >= 2:  # noqa: PLR2004 - from two on they say that the scale is one of powers
        kept = [exponent for exponent in exponents if exponent % math.ceil(len(exponents) / most) == 0]
        return [float(exponent) for exponent in kept], [f"1e{exponent}" for exponent in kept]
    places, labels = _ticks(10**low, 10**high, most)
    return [math.log10(place) for place in places], labels


def _round_step(least: float) -> float:
    """Return the lowest of 1, 2 and 5, times a power of ten, that is not below `least`."""
    power = 10.0 ** math.floor(math.log10(least))
    return next(times * power for times in (1, 2, 5, 10) if times * power >= least * 0.999999)


def _labels(places: Sequence[float], step: float) -> list[str]:
    """Write numbers that are `step` apart with as many digits as tell them apart."""
    largest = max(map(abs, places), default=0.0)
    digits = -math.floor(math.log10(step))
    if digits <= 5 and largest < 1e6:  # noqa: PLR2004 - else it is shorter with an exponent
        return [f"{place:.{max(0, digits)}f}" for place in places]
    significant = max(0, math.floor(math.log10(largest)) + digits) if largest else 0
    return [f"{place:.{significant}e}".replace("e+0", "e").replace("e-0", "e-").replace("e+", "e") for place in places]
