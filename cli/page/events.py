"""Events: where in training saves, resumptions and ends lie, as marks on the charts' axes. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TypedDict

from msgspec import Struct

from ...storage.history import Row
from ...storage.notes import Began, Decided, Ended, Note, Saved, SaveFailed, WentBack
from .curves import FARTHEST
from .source import Source
from .text import shown

_MOST = 300
"""Marks of a kind on an axis; closer ones become one."""


class MarksJson(TypedDict):
    """The marks on one axis."""

    saved: list[float]
    """Where checkpoints were taken that are there."""
    retired: list[float]
    """Where checkpoints were taken that were deleted since."""
    failed: list[float]
    """Where saves failed."""
    lines: list[tuple[float, str]]
    """Where training resumed, went back, or was ended before its time, and which of them it was."""


class EventsJson(TypedDict):
    """The marks of one run."""

    epoch: MarksJson
    step: MarksJson


class _Place(Struct, frozen=True, kw_only=True):
    """Where something was, on either axis."""

    epoch: float
    """From 1; 0: before the first."""
    step: float


def events(source: Source) -> EventsJson:
    """Return the marks of a run."""
    held = {info.name for info in source.listing.checkpoints}
    notes = [entry for entry in source.entries if not isinstance(entry, Row)]
    saved = _placed((info.epoch, info.step) for info in source.listing.checkpoints)
    taken = {note.checkpoint: note for note in notes if isinstance(note, Decided)}  # saves end later than they begin
    retired = _taken((note for note in notes if isinstance(note, Saved) and note.checkpoint not in held), taken)
    failed = _taken((note for note in notes if isinstance(note, SaveFailed)), taken)
    lines = _lines(source)
    return EventsJson(
        epoch=MarksJson(
            saved=_apart([place.epoch for place in saved]),
            retired=_apart([place.epoch for place in retired]),
            failed=_apart([place.epoch for place in failed]),
            lines=[(place.epoch, text) for place, text in lines],
        ),
        step=MarksJson(
            saved=_apart([place.step for place in saved]),
            retired=_apart([place.step for place in retired]),
            failed=_apart([place.step for place in failed]),
            lines=[(place.step, text) for place, text in lines],
        ),
    )


def _lines(source: Source) -> list[tuple[_Place, str]]:
    """Return what cuts training: at the row logged last before it, or between that and the next where it goes on."""
    found = []
    epoch = step = 0
    for entry in source.entries:
        if isinstance(entry, Row):
            if 0 <= entry.epoch < FARTHEST and 0 <= entry.step < FARTHEST:
                epoch, step = entry.epoch + 1 if entry.kind == "epoch" else epoch, entry.step
        elif isinstance(entry, Began) and entry.checkpoint is not None:
            found.append((_Place(epoch=epoch + 0.5, step=step + 0.5), "resumed"))
        elif isinstance(entry, WentBack):
            found.append((_Place(epoch=epoch + 0.5, step=step + 0.5), "went back"))
        elif isinstance(entry, Ended) and entry.cause in {"stopped", "callback", "signal", "exception"}:
            what = shown(entry.error or "broken off") if entry.cause == "exception" else entry.cause
            found.append((_Place(epoch=epoch, step=step), what))
    return found[-_MOST:]


def _taken(ended: Iterable[Saved | SaveFailed], taken: Mapping[str | None, Decided]) -> list[_Place]:
    """Return where checkpoints were taken, of whose saves one knows how they ended."""
    notes: list[Note] = [taken.get(note.checkpoint, note) for note in ended]
    return _placed((note.epoch, note.step) for note in notes)


def _placed(places: Iterable[tuple[int | None, int]]) -> list[_Place]:
    return [
        _Place(epoch=0 if epoch is None else epoch + 1, step=step)
        for epoch, step in places
        if (epoch or 0) < FARTHEST and step < FARTHEST
    ]


def _apart(xs: Sequence[float]) -> list[float]:
    """Return places in order, without those that lie too close to the one before to be seen apart."""
    ordered = sorted(set(xs))
    least = (ordered[-1] - ordered[0]) / _MOST if len(ordered) > _MOST else 0
    kept: list[float] = []
    for x in ordered:
        if not kept or x - kept[-1] > least:
            kept.append(x)
    return kept
