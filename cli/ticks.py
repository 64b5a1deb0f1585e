"""Ticks: round numbers between two values, and how they are written beside an axis. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence

_LEAST = 2
"""A single number says nothing of a scale."""

Ticks = list[tuple[float, str]]
"""Where each stands, lowest first, and its label."""


def ticks(low: float, high: float, most: int) -> Ticks:
    """Return about `most` round numbers between two: two at least, and none that would be written as another is."""
    step = _round_step((high - low) / most)
    while len(places := _places(low, high, step)) < _LEAST:
        step = _round_step(step * 0.4)
    told: dict[str, float] = {}
    for place, label in zip(places, _labels(places, step), strict=True):
        told.setdefault(label, place)
    return [(place, label) for label, place in told.items()]


def whole_ticks(low: float, high: float, most: int) -> Ticks:
    """As `ticks`, of whole numbers only."""
    return [(place, f"{place:.0f}") for place in _places(low, high, max(1.0, _round_step((high - low) / most)))]


def logarithmic_ticks(low: float, high: float, most: int) -> Ticks:
    """As `ticks`, for the values whose logarithms to the base 10 lie between `low` and `high`; they stand at those."""
    exponents = range(math.ceil(low), math.floor(high) + 1)
    if len(exponents) >= _LEAST:  # they say that the scale is one of powers
        kept = exponents[:: -math.ceil(len(exponents) / most)]
        return [(float(exponent), f"1e{exponent}") for exponent in reversed(kept)]
    return [(math.log10(place), label) for place, label in ticks(10**low, 10**high, most)]


def _places(low: float, high: float, step: float) -> list[float]:
    return [number * step for number in range(math.ceil(low / step), math.floor(high / step) + 1)]


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
