"""Model: random histories of a run, beside a reference that says what must be listed, best, kept and restored."""

from __future__ import annotations

import traceback
import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from faults.machine import RunMachine
from faults.process import silence_the_dead
from faults.tally import Tally
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis.stateful import run_state_machine_as_test


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """Where the runs lie, and how they are written."""

    place: str
    mode: str
    mirrored: bool = False
    examples: int
    """Histories in a full run."""

    def __str__(self):
        return f"a run {self.place}, {self.mode}{', with a mirror' if self.mirrored else ''}"


SCENARIOS = (
    Scenario(place="in memory", mode="sync", examples=40),
    Scenario(place="in memory", mode="async", examples=40),
    Scenario(place="on the disk", mode="sync", examples=40),
    Scenario(place="on the disk", mode="async", examples=40),
    Scenario(place="in memory", mode="async", mirrored=True, examples=20),
    Scenario(place="on the disk", mode="async", mirrored=True, examples=20),
)
STEPS = 40
"""Rules that one history has at most."""


def measure(folder: Path, *, sample: bool, seed: int) -> Iterator[Tally]:
    """Draw histories in each scenario; a fault is a death at some call, or between two."""
    for scenario in SCENARIOS:
        yield live_through(scenario, folder, examples=max(4, scenario.examples // 8) if sample else None, seed=seed)


def live_through(scenario: Scenario, folder: Path, *, examples: int | None = None, seed: int = 0) -> Tally:
    """Draw histories in one scenario, and have what goes wrong shrunk to its least."""
    counts = Counter()
    inside = {
        "folder": folder if scenario.place == "on the disk" else None,
        "mode": scenario.mode,
        "mirrored": scenario.mirrored,
        "counts": counts,
    }
    machine = type("Machine", (RunMachine,), inside)
    tally = Tally(family="model", scenario=str(scenario))
    try:
        _run(machine, scenario.examples if examples is None else examples, seed)
    except Exception as caught:  # noqa: BLE001 - the report has it
        error = caught.exceptions[0] if isinstance(caught, ExceptionGroup) else caught
        kind = getattr(error, "kind", "broken")
        told = [f"{type(error).__name__}: {error}", *traceback.format_tb(error.__traceback__)[-2:]]
        tally.found(kind, "\n".join([*told, *getattr(error, "__notes__", ())]))
    tally.tried = counts["deaths"]
    tally.remark = f"{counts['steps']:,} steps, {counts['saves']:,} saves, {counts['rivals']:,} rivals"
    return tally


def _run(machine, examples, number):
    profile = settings(
        max_examples=examples,
        stateful_step_count=STEPS,
        database=None,
        deadline=None,
        phases=[Phase.generate, Phase.shrink],
        report_multiple_bugs=False,
        suppress_health_check=list(HealthCheck),
    )
    undo = silence_the_dead()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.filterwarnings("error", message=".*has lost rows")
            run_state_machine_as_test(seed(number)(machine), settings=profile)
    finally:
        undo()
