"""Power: the power goes at any moment of a save, a retirement, a publication, a copy to the mirror.

Each workload is recorded once, call by call. Then the states are built that a file system may leave at each moment
(`replay.py`), and in each of them everything that was promised is looked at: what was said to be saved is listed, what
is listed is whole and loads bit for bit, rows that were made durable are there, what is published is an old version or
the new one, training resumes and saves again, and `gc` leaves no byte that nobody names.
"""

from __future__ import annotations

import itertools
import json
import os
import shutil
import tempfile
import time
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

import safetensors.numpy

from keepbest.errors import KeepbestError
from keepbest.storage.backend import open_backend
from keepbest.storage.layout import JOURNAL
from keepbest.storage.run import Run

from . import recording, replay
from .replay import State
from .tally import Tally
from .workloads import WORKLOADS, Net, Small, Training, differences

MOST = {"files written over": 800, "published": 800, "killed": 1200, "index": 60}
"""States of a scenario; of others 500."""
IN_SAMPLE = {"first save": 30, "files written over": 40, "published": 30, "journal": 20, "mirror": 20, "killed": 40}
DEADLINE = 30
"""Seconds that one state may take to look at."""

Harm = tuple[str, str]


def measure(folder: Path, *, sample: bool, seed: int) -> Iterator[Tally]:
    """Yield a tally for each kind of workload."""
    scenarios = {
        scenario: list(names)
        for scenario, names in itertools.groupby(WORKLOADS, lambda name: "killed" if "killed" in name else name)
        if not sample or scenario in IN_SAMPLE
    }
    if sample:
        scenarios["killed"] = scenarios["killed"][seed % 7 :: 7]
    if not recording.available():
        raise RuntimeError("strace is not installed, or may not trace here: the family 'power' needs it")
    names = [name for found in scenarios.values() for name in found]
    recorded = recording.record(folder / "recorded", "faults.workloads", names)
    for scenario, found in scenarios.items():
        tally = Tally(family="power", scenario=DESCRIPTIONS[scenario])
        most = IN_SAMPLE[scenario] if sample else MOST.get(scenario, 500)
        for name in found:
            chosen = replay.states(recorded.pop(name), seed=seed, most=max(1, most // len(found)))
            examine(chosen, WORKLOADS[name], tally, name)
        yield tally


DESCRIPTIONS = {
    "first save": "first saves into a folder that is not there",
    "files written over": "saves over the files of retired checkpoints",
    "files linked": "saves that link a file that did not change",
    "published": "the best is published now and then",
    "journal": "rows of steps and epochs, saved now and then",
    "mirror": "copies to a mirror",
    "index": "an index of the commits is written",
    "gc": "orphans are collected",
    "killed": "killed first, then gone on by another process, then the power goes",
}


def examine(states: Sequence[State], workload: Training | Small, tally: Tally, name: str) -> None:
    """Build each state and look at it; what is wrong goes to the tally."""
    with tempfile.TemporaryDirectory(prefix="keepbest-power-", dir=_memory()) as base:
        place = Path(base, "state")
        for state in states:
            state.make(place)
            tally.tried += 1
            begin = time.monotonic()
            for harm, what in look(state, workload, place):
                tally.found(harm, f"{name}, after {state.at} operations, {state.how}: {what}")
            if time.monotonic() - begin > DEADLINE:
                tally.found("hung", f"{name}, after {state.at} operations, {state.how}")
            shutil.rmtree(place)


def _memory() -> str | None:
    """Return a folder in memory, where fsync costs nothing; the states are no less true there."""
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


def look(state: State, workload: Training | Small, place: Path) -> Iterator[Harm]:
    """Yield what is wrong with one state: first as it is found, then with how it goes on."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = list(_look(state, workload, place))
        yield from found
        if not found:
            yield from _go_on(workload, place)


def _look(state: State, workload: Training | Small, place: Path) -> Iterator[Harm]:
    before, after = state.before, state.after
    promised, soon = _facts(before, "listed"), _facts(after, "listed")
    listed = yield from _listed(workload, place / workload.run)
    if lost := (promised & soon) - listed:
        yield "lost", f"{sorted(lost)} not listed"
    new = soon - promised
    if isinstance(workload, Training) and new and not listed & new and (lost := promised - listed):
        yield "lost", f"{sorted(lost)} retired before what replaces it was durable"
    yield from _rows(before, workload, place)
    if workload.published:
        yield from _published(before, after, workload, place)
    if workload.mirrored:
        copied = yield from _listed(workload, place / "mirror")
        if lost := (_facts(before, "mirror") & soon) - copied:
            yield "lost", f"{sorted(lost)} not listed in the mirror"


def _facts(said: object, name: str) -> set[str]:
    return set(said.get(name, ()))  # type: ignore[attr-defined]


def _listed(workload: Training | Small, url: Path) -> Iterator[Harm]:
    """Yield what is wrong with what a run lists; return the names."""
    if not url.exists():
        return set()
    run = Run(open_backend(str(url)))
    try:
        report = run.verify()
        # Rubbish where rows were not synced yet is told, rightly; those that were promised are looked at by themselves.
        if any(problem.part != "journal" for problem in report.problems):
            yield "torn", str(report)
            return set(report.whole)
        checkpoints = run.checkpoints()
        for checkpoint in checkpoints:
            if wrong := workload.wrong(checkpoint):
                yield "torn", f"{checkpoint.name} loads with other values: {wrong}"
    except Exception as error:  # noqa: BLE001 - whatever it is, nobody could read the run
        yield "lost", f"{url.name} cannot be read: {error!r}"
        return set()
    return {checkpoint.name for checkpoint in checkpoints}


def _rows(before: object, workload: Training | Small, place: Path) -> Iterator[Harm]:
    rows = before.get("rows", 0)  # type: ignore[attr-defined]
    if not rows:
        return
    found = [next(iter(row.metrics.items())) for row in Run(open_backend(str(place / workload.run))).history().rows]
    expected = workload.rows()
    if found[:rows] != expected[:rows]:
        yield "lost", f"{rows} rows were durable, and {len(found)} are there"
    if strange := [row for row in found if row not in expected]:
        yield "torn", f"rows that nobody logged: {strange}"


def _published(before: object, after: object, workload: Training | Small, place: Path) -> Iterator[Harm]:
    path = place / "out" / "net.safetensors"
    versions = [said.get("published") for said in (before, after)]  # type: ignore[attr-defined]
    if not path.exists():
        if versions[0] is not None:
            yield "lost", "what was published is gone"
        return
    try:
        arrays = safetensors.numpy.load(path.read_bytes())
    except Exception as error:  # noqa: BLE001 - a torn file can be anything
        yield "torn", f"what is published cannot be read: {error}"
        return
    for version in filter(None, versions):
        expected = Net(large=workload.large, number=version).state_dict()  # type: ignore[union-attr]
        if not differences(arrays, {name: expected[name] for name in arrays}):
            return
    yield "torn", f"what is published is none of the versions {versions}"


def _go_on(workload: Training | Small, place: Path) -> Iterator[Harm]:
    """Resume, save once more, collect garbage, and look at all of it again."""
    url = place / workload.run
    begun = _begun(url)
    try:
        saved = workload.go_on(place)
        for tier in [url, *([place / "mirror"] if workload.mirrored else [])]:
            Run(open_backend(str(tier))).gc(grace=0)
    except (KeepbestError, OSError, AssertionError, LookupError, ValueError, Warning) as error:
        yield "broken", f"training cannot go on: {error!r}"
        return
    listed = yield from _listed(workload, url)
    if saved not in listed:
        yield "lost", f"{saved} was saved after the power came back, and is not listed"
    if isinstance(workload, Training) and _begun(url) != begun + 1:
        yield "lost", "the note that training went on is not there: the line before, cut short, has swallowed it"
    for tier in [url, *([place / "mirror"] if workload.mirrored else [])]:
        if left := orphans(tier):
            yield "orphaned", f"after gc: {left}"
    beside = {path.name for path in (place / "out").glob("*")} - {"net.safetensors"}
    if beside:
        yield "orphaned", f"beside what is published: {sorted(beside)}"


def _begun(url: Path) -> int:
    """Return how many processes the journal says to have begun, on whatever branch."""
    lines = (url / JOURNAL).read_bytes().split(b"\n") if (url / JOURNAL).exists() else []
    return sum(map(_is_beginning, lines))


def _is_beginning(line: bytes) -> bool:
    try:
        return bool(json.loads(line)["kind"] == "began")
    except (ValueError, LookupError, TypeError):  # cut short, or with another behind it
        return False


def orphans(url: Path) -> list[str]:
    """Return the files and folders in a run that no commit names and that are no part of it otherwise."""
    run = Run(open_backend(str(url)))
    named = {"metrics.jsonl", "best", "commits", "checkpoints"}
    for checkpoint in run.checkpoints():
        named |= {f"commits/{checkpoint.sequence:08d}.json", f"checkpoints/{checkpoint.name}"}
        named |= {f"checkpoints/{checkpoint.name}/{file}" for file in checkpoint.manifest().artifacts}
    found = {str(path.relative_to(url)) for path in url.rglob("*")}
    return sorted(name for name in found - named if not name.startswith("commits/index-"))
