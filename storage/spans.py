"""Spans: ranges of an object that are read together, and the memory of each range within what was read."""

from __future__ import annotations

import bisect
from collections.abc import Sequence

_GAP = 256 << 10
"""Ranges that are no farther apart are read together: a request costs more than these bytes."""


def coalesce(ranges: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return the spans to read, in order, that cover all ranges that are not empty."""
    spans: list[tuple[int, int]] = []
    for begin, end in sorted(span for span in ranges if span[1] > span[0]):
        if spans and begin <= spans[-1][1] + _GAP:
            spans[-1] = (spans[-1][0], max(end, spans[-1][1]))
        else:
            spans.append((begin, end))
    return spans


def view(
    spans: Sequence[tuple[int, int]], held: Sequence[memoryview], begin: int, end: int, last: int | None
) -> memoryview:
    """Return the memory of one range out of that of the span that covers it.

    Args:
        spans: from `coalesce`.
        held: what was read of each.
        begin: of the range.
        end: of the range, exclusive.
        last: where the object ends, if that is known to be before the end of a span.
    """
    if last is not None:
        end = min(end, last)
    if end <= begin:
        return memoryview(bytearray())
    number = bisect.bisect_right(spans, begin, key=lambda span: span[0]) - 1
    first = spans[number][0]
    return held[number][begin - first : end - first]
