"""Words: how names, sizes, times and values are written for people. Pure; the clock comes in as an argument."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from datetime import datetime

from ..storage.printable import printable

_SIZES = ("bytes", "kB", "MB", "GB", "TB", "PB")
_AGES = (("s", 1.0), ("min", 60.0), ("h", 3600.0), ("d", 86400.0))
_TEN = 10.0
_ENDS = 5
"""Stretches of epochs that are named at either end, where there are more."""


def printable_lines(text: str) -> str:
    """Return `text` as `printable` does, with its line breaks kept."""
    return "\n".join(printable(line) for line in text.split("\n"))


def listed(parts: Sequence[str]) -> str:
    """Return "a, b and c"."""
    return " and ".join(filter(None, (", ".join(parts[:-1]), parts[-1]))) if parts else "nothing"


def size(nbytes: int) -> str:
    """Return bytes in the largest decimal unit: "12.3 MB"."""
    value, unit = float(nbytes), 0
    while value >= 999.5 and unit < len(_SIZES) - 1:  # noqa: PLR2004 - what would be rounded to 1000
        value, unit = value / 1000, unit + 1
    return f"{value:.3g} {_SIZES[unit]}" if unit else f"{nbytes} {_SIZES[0]}"


def span(seconds: float) -> str:
    """Return a span of time in its largest unit: "3 min"."""
    name, length = next((unit for unit in reversed(_AGES) if seconds >= unit[1]), _AGES[0])
    return f"{int(seconds / length)} {name}"


def age(time: float, now: float) -> str:
    """Return how long ago `time` was, or the moment itself where clocks disagree. Both in seconds since 1970."""
    return f"{span(now - time)} ago" if now >= time else moment(time)


def moment(time: float) -> str:
    """Return a moment (seconds since 1970) in local time: "2026-08-14 10:12:07 +0200"."""
    try:
        return datetime.fromtimestamp(time).astimezone().strftime("%Y-%m-%d %H:%M:%S %z")
    except (OverflowError, ValueError, OSError):  # a manifest may hold any number
        return f"{time} s after 1970"


def number(value: float) -> str:
    """Return a metric's value with six significant digits."""
    return f"{value:.6g}" if math.isfinite(value) else repr(value)


def smoothed(value: float | None) -> str:
    """Return what is said behind a value that was logged, if another one was judged in its place; else nothing."""
    return "" if value is None else f" (smoothed: {number(value)})"


def count(many: int, noun: str) -> str:
    """Return "1 checkpoint", "2 checkpoints"."""
    return f"{many:,} {noun}" if many == 1 else f"{many:,} {noun}s"


def epoch(number_from_0: int | None) -> str:
    """Return an epoch as people count them, from 1."""
    return "" if number_from_0 is None else str(number_from_0 + 1)


def epochs(numbers: Iterable[int]) -> str:
    """Return epochs, which ascend, as people count them: "1 to 4, 6 to 12"."""
    found: list[list[int]] = []
    for number in numbers:
        if found and number == found[-1][1] + 1:
            found[-1][1] = number
        else:
            found.append([number, number])
    texts = [str(first + 1) if first == last else f"{first + 1} to {last + 1}" for first, last in found]
    return ", ".join(texts if len(texts) <= 2 * _ENDS else [*texts[:_ENDS], "...", *texts[-_ENDS:]])
