"""The figures as tables: medians, and below each the smallest and the largest of all repetitions."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from functools import partial

import steps
from local import Found
from measure import console, human
from rich.table import Table


def megabytes(nbytes: float) -> str:
    """Return bytes with their unit."""
    return f"{nbytes / 1e6:.0f} MB" if abs(nbytes) >= 1e7 else f"{nbytes / 1e6:.1f} MB"


COLUMNS: dict[str, tuple[tuple[str, ...], Callable[[float], str]]] = {
    "training\nis held": (("blocked", "call"), human),
    "call to\ndurable": (("total",), human),
    "CPU": (("cpu",), human),
    "written": (("written",), megabytes),
    "memory\nabove state": (("memory", "peak_200"), megabytes),
    "restore": (("restore",), human),
}
"""What is measured, by the heading; the first measure that a case has is shown."""

STEPS = {
    "saving every 10 steps, all of them": steps.BLOCKS,
    "saving every 10 steps, single ones": steps.STEPS,
    "saving every step": steps.DENSE,
}
"""Seconds of steps with saving and without, by what is said of them: the mean of blocks, or each by itself."""


def show(found: Found) -> None:
    """Print the tables of one part."""
    measured = {measure for samples in found.results.values() for measure in samples}
    columns = {head: way for head, way in COLUMNS.items() if measured.intersection(way[0])}
    shown = {measure for measures, _ in columns.values() for measure in measures}
    repetitions = max((len(found.of(case, one)) for case in found.results for one in shown), default=0)
    size = f", {megabytes(found.nbytes)}" if found.nbytes else ""
    table = Table(title=f"{found.title}{size}, up to {repetitions} repetitions", title_justify="left", show_lines=True)
    table.add_column("case")
    for head in columns:
        table.add_column(head, justify="right")
    for case in found.results:
        table.add_row(case, *(_cell(found, case, measures, unit) for measures, unit in columns.values()))
    console.print(table)
    _show_steps(found)
    for case, error in found.failed.items():
        console.print(f"✗ {case} failed: {error}", style="red", highlight=False)


def _show_steps(found: Found) -> None:
    table = Table(title=f"{found.title}: seconds for a step", title_justify="left", show_lines=True)
    for head in ("case", "", "without", "with", "longer by"):
        table.add_column(head, justify="left" if head in {"case", ""} else "right")
    for case in found.results:
        for what, compared in STEPS.items():
            if found.of(case, compared.saving):
                rise = steps.rise(partial(found.of, case), compared)
                cells = (_cell(found, case, (measure,), human) for measure in (compared.plain, compared.saving))
                table.add_row(case, what, *cells, f"{rise:+.1%}")
    if table.row_count:
        console.print(table)


def _cell(found: Found, case: str, measures: tuple[str, ...], unit: Callable[[float], str]) -> str:
    samples = next((found.of(case, measure) for measure in measures if found.of(case, measure)), None)
    if samples is None:
        return "–"
    middle, low, high = unit(statistics.median(samples)), unit(min(samples)), unit(max(samples))
    return middle if low == high else f"{middle}\n{low} – {high}"
