"""Sparkline: a curve as one line of block characters. Pure."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

from msgspec import Struct

BLOCKS = "▁▂▃▄▅▆▇█"


class Sparkline(Struct, frozen=True, kw_only=True):
    """A curve, cut at its mark so that this can be shown in another style."""

    before: str
    mark: str
    """One block; empty if nothing is marked."""
    after: str


def sparkline(values: Sequence[float], width: int, mark: int | None, *, lowest: bool) -> Sparkline | None:
    """Draw values in at most `width` characters; None where fewer than two of them are finite.

    Args:
        values: one for each point; what is not finite is a space.
        width: characters. Where there are more values, a character stands for several: for the best of them.
        mark: the place of the value that is marked; it is drawn as it is.
        lowest: whether lower values are better.
    """
    finite = [value for value in values if math.isfinite(value)]
    if len(finite) < 2:  # noqa: PLR2004 - a point is no curve
        return None
    many = min(len(values), width)
    edges = [place * len(values) // many for place in range(many + 1)]
    best = min if lowest else max
    heights = [
        best((value for value in values[begin:end] if math.isfinite(value)), default=math.nan)
        for begin, end in itertools.pairwise(edges)
    ]
    at = None if mark is None else next(place for place in range(many) if mark < edges[place + 1])
    if mark is not None and at is not None:
        heights[at] = values[mark]
    low, high = min(finite), max(finite)
    text = "".join(_block(height, low, high) for height in heights)
    cut = len(text) if at is None else at
    return Sparkline(before=text[:cut], mark=text[cut : cut + 1], after=text[cut + 1 :])


def _block(height: float, low: float, high: float) -> str:
    if not math.isfinite(height):
        return " "
    if high - low == math.inf:
        height, low, high = height / 2, low / 2, high / 2
    share = (height - low) / (high - low) if high > low else 0.5
    return BLOCKS[min(len(BLOCKS) - 1, int(share * len(BLOCKS)))]
