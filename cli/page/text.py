"""Text: how strangers' text and spans of time are written on the page. Pure."""

from __future__ import annotations

import math

from ...storage.printable import printable
from .. import words

_LONGEST = 300
"""Characters. Names that people gave are shorter; a stranger's may be as long as a file."""


def shown(text: str, most: int = _LONGEST) -> str:
    """Return text that came from a run as it may be shown; the page escapes what HTML would read otherwise."""
    cut = text if len(text) <= most else f"{text[:most]}…"
    return printable(cut)


def seconds(span: float) -> str:
    """Return a span of time with three digits: "12.3 ms", "4.56 s", "3 min 20 s", "2 h 5 min"."""
    if not math.isfinite(span) or span < 0:
        return words.number(span)
    if span < 1:
        return f"{span * 1000:.3g} ms"
    if span < 60:  # noqa: PLR2004 - seconds of a minute
        return f"{span:.3g} s"
    unit, large, small = (60.0, "min", "s") if span < 3600 else (3600.0, "h", "min")  # noqa: PLR2004 - of an hour
    rest = int(span % unit * 60 / unit)
    return f"{int(span / unit):,} {large}" + (f" {rest} {small}" if rest else "")


def labels(urls: list[str]) -> list[str]:
    """Return a short name for each run: the last part of its URL, or all of it where that would not tell them apart."""
    short = [url.rstrip("/").rpartition("/")[2] or url for url in urls]
    return [shown(name if short.count(name) == 1 else url) for name, url in zip(short, urls, strict=True)]
