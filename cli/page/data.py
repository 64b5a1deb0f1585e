"""Data: everything the page says about some runs, as plain values. `page.py` makes HTML of it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypedDict

from msgspec import Struct

from ...storage.notes import Began, Note
from .. import explaining, words
from ..account import Account
from ..explaining import Section
from . import tables
from .charts import ChartJson, Charts, best_place, charts
from .events import EventsJson, events
from .saving import Saving, saving
from .source import Source, read
from .tables import Table
from .text import labels, seconds, shown

MOST_CHECKPOINTS = 400
"""Lines of the tables of checkpoints, of all runs together; the best are added."""
_FEWEST = 20
"""Lines of one such table, however many runs there are."""
_MOST_DAMAGED = 20

_LONGEST = 2000
"""Characters of a sentence."""


class RunJson(TypedDict):
    """A run, as far as the charts need it."""

    name: str
    events: EventsJson


class PageJson(TypedDict):
    """What the page's script reads."""

    runs: list[RunJson]
    charts: list[ChartJson]


class RunPart(Struct, frozen=True, kw_only=True):
    """What the page says about one run."""

    label: str
    facts: tuple[tuple[str, str], ...]
    story: tuple[Section, ...]
    """What happened, and the policy, as `keepbest explain` tells it."""
    checkpoints: Table
    cost: tuple[tuple[str, str], ...]
    """What saving cost, in figures; empty: no save is noted."""
    cost_unknown: str
    """Why there are no such figures."""
    saves: Table
    damaged: tuple[str, ...]
    """What cannot be read."""


class Page(Struct, frozen=True, kw_only=True):
    """All that the page says."""

    title: str
    runs: Table | None
    """Side by side; None for one."""
    names: tuple[str, ...]
    """Short, one for each run."""
    charts: Charts
    parts: tuple[RunPart, ...]
    json: PageJson


def read_all(urls: Sequence[str], storage_options: Mapping[str, Any]) -> list[Source]:
    """Read runs.

    Raises:
        NotARunError: one of the URLs holds no run.
    """
    most = _most(len(urls))
    return [read(url, storage_options, most=most) for url in urls]


def page_of(sources: Sequence[Source]) -> Page:
    """Return what the page says about runs."""
    names = labels([source.url for source in sources])
    found, most = charts(sources, names), _most(len(sources))
    return Page(
        title=f"{names[0]}: keepbest report" if len(names) == 1 else f"{len(names):,} runs: keepbest report",
        runs=tables.runs(sources, names) if len(sources) > 1 else None,
        names=tuple(names),
        charts=found,
        parts=tuple(_part(source, name, most) for source, name in zip(sources, names, strict=True)),
        json=PageJson(
            runs=[RunJson(name=name, events=events(source)) for source, name in zip(sources, names, strict=True)],
            charts=[chart.json for chart in found.charts],
        ),
    )


def _most(runs: int) -> int:
    """Return how many lines the tables of one run may have."""
    return max(_FEWEST, MOST_CHECKPOINTS // runs)


def _part(source: Source, label: str, most: int) -> RunPart:
    cost = saving(source.entries)
    return RunPart(
        label=label,
        facts=tuple((name, value) for name, value in _facts(source) if value),
        story=tuple(_story(source)),
        checkpoints=tables.checkpoints(source),
        cost=tuple(_cost(cost)) if cost.saves else (),
        cost_unknown="No save has ended yet."
        if source.rows < len(source.entries)
        else "This run has no decision notes, so what saving cost is not known.",
        saves=tables.saves(cost, most=most),
        damaged=tuple(
            f"Checkpoint number {sequence} cannot be read: {shown(str(error))}"
            for sequence, error in source.listing.damaged[:_MOST_DAMAGED]
        ),
    )


def _facts(source: Source) -> list[tuple[str, str]]:
    held = source.listing.checkpoints
    notes: list[Note] = [entry for entry in source.entries if isinstance(entry, Began)]
    latest = next((info for info in held if info.sequence == source.marks.latest), None)
    hosts = dict.fromkeys(shown(note.host) for note in notes if isinstance(note, Began) and note.host)
    nbytes = sum(info.nbytes for info in held)
    return [
        ("URL", shown(source.url)),
        *((f"best by {shown(name)}", _best(source, name)) for name in source.modes),
        ("latest", "" if latest is None else f"{shown(latest.name)}, {words.moment(latest.time)}"),
        ("checkpoints", f"{len(held):,}, {words.size(nbytes)}"),
        ("hosts", ", ".join(list(hosts)[:10])),
        ("ended", tables.ended(source.entries)),
    ]


def _best(source: Source, metric: str) -> str:
    sequence = source.marks.best.get(metric)
    info = next((info for info in source.listing.checkpoints if info.sequence == sequence), None)
    if info is None:
        epoch = best_place(source, metric, "epoch")
        return "" if epoch is None else f"epoch {epoch:,.0f}; no checkpoint of it is held"
    value = info.metrics.get(metric)
    score = info.score(metric)
    ranked = "" if score is None or score.value in {None, value} else f", ranked by {words.number(score.value or 0.0)}"
    at = f"step {info.step:,}" if info.epoch is None else f"epoch {info.epoch + 1:,}"
    return f"{'' if value is None else words.number(value)} at {at}{ranked}: {shown(info.name)}"


def _story(source: Source) -> Iterator[Section]:
    """Yield what happened, in sentences whose times are moments: a page is read later than it is made."""
    account = Account(source.url, source.entries, source.listing.checkpoints, source.lost)
    for section in explaining.story(account, now=-math.inf):
        yield Section(title=section.title, sentences=tuple(shown(sentence, _LONGEST) for sentence in section.sentences))


def _cost(cost: Saving) -> list[tuple[str, str]]:
    count = len(cost.saves)
    slowest = max(save.seconds for save in cost.saves)
    longest = max(save.blocked for save in cost.saves)
    speed = cost.nbytes / cost.seconds if cost.seconds > 0 else math.inf
    rate = f", {words.size(int(speed))}/s" if math.isfinite(speed) else ""
    share = (
        "" if cost.share is None else f"{cost.share:.2%} of {seconds(cost.training)} from the first entry to the last"
    )
    return [
        ("saves", f"{count:,}, {words.size(cost.nbytes)}" + (f"; {cost.failed:,} failed" if cost.failed else "")),
        (
            "training blocked",
            f"{seconds(cost.blocked)} in all, {seconds(cost.blocked / count)} a save, {seconds(longest)} at most",
        ),
        ("share of training time", share),
        (
            "until durable",
            f"{seconds(cost.seconds)} in all, {seconds(cost.seconds / count)} a save, {seconds(slowest)} at most{rate}",
        ),
    ]
