"""The picture in docs: how long each way to save holds training, and how long it takes to be durable."""

from __future__ import annotations

import statistics
from pathlib import Path

import matplotlib as mpl
from local import Found
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

mpl.rcParams["svg.fonttype"] = "none"
mpl.rcParams["svg.hashsalt"] = "keepbest"  # the same figures make the same file

PANELS = {"training is held, ms": ("blocked", "call"), "call to durable, ms": ("total",)}


def draw(found: Found, path: Path) -> None:
    """Draw the medians of one part as bars, with their spread, on logarithmic axes."""
    cases = sorted(found.results, key=lambda case: -statistics.median(_samples(found, case, ("blocked", "call"))))
    figure = Figure(figsize=(11, 0.35 * len(cases) + 1.2), layout="constrained")
    panels = figure.subplots(1, len(PANELS), sharey=True)
    for panel, (title, measures) in zip(panels, PANELS.items(), strict=True):
        for row, case in enumerate(cases):
            samples = [second * 1e3 for second in _samples(found, case, measures)]
            middle = statistics.median(samples)
            spread = [[middle - min(samples)], [max(samples) - middle]]
            panel.barh(row, middle, xerr=spread, color=_colour(case), ecolor="0.3", capsize=2)
            panel.annotate(
                f"{middle:.3g}" if middle < 100 else f"{middle:,.0f}",
                (max(samples), row),
                (4, 0),
                textcoords="offset points",
                va="center",
                size=8,
            )
        panel.set(title=title, xscale="log", yticks=range(len(cases)), yticklabels=cases)
        panel.xaxis.set_minor_formatter(NullFormatter())
        panel.margins(x=0.15)
        panel.spines[["top", "right"]].set_visible(False)
    figure.suptitle(f"{found.title}: medians, and the fastest and slowest repetition", x=0.01, ha="left", size=10)
    figure.savefig(path, metadata={"Date": None})


def _samples(found: Found, case: str, measures: tuple[str, ...]) -> list[float]:
    return next(found.of(case, measure) for measure in measures if found.of(case, measure))


def _colour(case: str) -> str:
    if case.startswith("keepbest"):
        return "tab:green"
    return "0.75" if case.startswith("floor") else "tab:blue"
