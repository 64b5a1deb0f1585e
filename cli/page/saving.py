"""Saving: what saves cost a training, from the notes of those that ended well. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from msgspec import Struct

from ...storage.history import Row
from ...storage.notes import Began, Note, Saved, SaveFailed

_LONGEST = 1e15
"""Seconds that are added up of one span; more is of no training, and a sum of such may be too large for a float."""


class Save(Struct, frozen=True, kw_only=True):
    """One save that ended well."""

    checkpoint: str
    sequence: int
    nbytes: int
    blocked: float
    """Seconds for which training was held; finite, at least 0."""
    seconds: float
    """From the call to durable; finite, at least 0."""


class Saving(Struct, frozen=True, kw_only=True):
    """All saves of a run."""

    saves: tuple[Save, ...]
    """In the order in which they ended."""
    failed: int
    training: float
    """Seconds, of all processes, each from its first entry in the journal to its last."""

    @property
    def nbytes(self) -> int:
        """Bytes written."""
        return sum(save.nbytes for save in self.saves)

    @property
    def blocked(self) -> float:
        """Seconds for which training was held, all saves together."""
        return math.fsum(save.blocked for save in self.saves)

    @property
    def seconds(self) -> float:
        """Seconds until durable, all saves together."""
        return math.fsum(save.seconds for save in self.saves)

    @property
    def share(self) -> float | None:
        """The part of training time for which saves held it; None where no time passed."""
        return self.blocked / self.training if self.training > 0 else None


def saving(entries: Sequence[Row | Note]) -> Saving:
    """Return what the saves of a run cost."""
    return Saving(
        saves=tuple(
            Save(
                checkpoint=entry.checkpoint,
                sequence=entry.sequence,
                nbytes=entry.nbytes,
                blocked=_span(entry.blocked),
                seconds=_span(entry.seconds),
            )
            for entry in entries
            if isinstance(entry, Saved)
        ),
        failed=sum(isinstance(entry, SaveFailed) for entry in entries),
        training=math.fsum(_span(end - begin) for begin, end in _processes(entries)),
    )


def _processes(entries: Iterable[Row | Note]) -> list[tuple[float, float]]:
    """Return the first and the last moment of each process, in seconds since 1970."""
    found: list[tuple[float, float]] = []
    fresh = True
    for entry in entries:
        fresh = fresh or isinstance(entry, Began)
        if not math.isfinite(entry.time):
            continue
        if fresh:
            found.append((entry.time, entry.time))
            fresh = False
        else:
            begin, end = found[-1]
            found[-1] = (min(begin, entry.time), max(end, entry.time))
    return found


def _span(seconds: float) -> float:
    """Return a span as it is added up: a stranger's note may hold any number."""
    return min(seconds, _LONGEST) if math.isfinite(seconds) and seconds > 0 else 0.0
