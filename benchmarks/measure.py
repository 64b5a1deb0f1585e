"""Measuring: cases side by side in one run, interleaved, medians with their spread, and ratios to one of them."""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from rich.console import Console
from rich.table import Table

console = Console(width=140, record=True)


def interleaved(
    cases: Mapping[str, Callable[[], object]], *, repetitions: int, warmup: int = 2
) -> dict[str, list[float]]:
    """Run the cases in turn, A B C A B C …, and return the seconds of each run; the warm-up is not counted."""
    seconds: dict[str, list[float]] = {name: [] for name in cases}
    for number in range(warmup + repetitions):
        for name, case in cases.items():
            begin = time.perf_counter()
            case()
            if number >= warmup:
                seconds[name].append(time.perf_counter() - begin)
    return seconds


def report(title: str, seconds: Mapping[str, list[float]], *, baseline: str) -> dict[str, float]:
    """Print a table and return the median of each case, in seconds."""
    medians = {name: statistics.median(runs) for name, runs in seconds.items()}
    table = Table(title=title, title_justify="left")
    for column in ("case", "median", "fastest", "slowest", f"ratio to {baseline}"):
        table.add_column(column, justify="left" if column == "case" else "right")
    for name, runs in seconds.items():
        ratio = medians[name] / medians[baseline]
        table.add_row(name, human(medians[name]), human(min(runs)), human(max(runs)), f"{ratio:.2f}×")
    console.print(table)
    return medians


def verdict(promise: str, *, held: bool, figure: str) -> bool:
    """Print whether a promise of the project holds in this run."""
    console.print(f"{'✓' if held else '✗'} {promise}: {figure}", style="green" if held else "red", highlight=False)
    return held


def human(seconds: float) -> str:
    """Return a time with three digits."""
    for unit, factor in (("s", 1.0), ("ms", 1e3), ("µs", 1e6)):
        if seconds * factor >= 1:
            return f"{seconds * factor:.3g} {unit}"
    return f"{seconds * 1e9:.3g} ns"


def main(run: Callable[[Path], bool], doc: str | None) -> None:
    """Run a benchmark in the folder that the command line names; the exit code says whether its promises held."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="where to write what is measured")
    folder = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    raise SystemExit(0 if run(folder) else 1)
