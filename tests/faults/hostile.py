"""Hostile: checkpoints made by a stranger who means harm.

Whatever is done with them, no code of theirs runs, nothing outside of the run is read, written or deleted, memory and
time stay bounded, and each error is one of keepbest's. A case is one run that was made so, and all that is done to it.
"""

from __future__ import annotations

import random
import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import fsspec
from faults import forgeries, fuzz, objects, policies
from faults.confined import LIMITS, Found, Limits, try_all
from faults.stranger import VALUES, Forgery, honest_run, nodes, replaced
from faults.tally import Tally
from faults.tour import Grounds, command, read, train_on
from faults.traps import traps

from keepbest.storage.digest import digest

_GIANT = Limits(seconds=60.0, growth=2 << 30)
"""For files that are large themselves: what is made of them is some times as large."""


def measure(folder: Path, *, sample: bool, seed: int) -> Iterator[Tally]:
    """Try everything on every verb and call, then fuzz."""
    yield from scenarios(folder, sample=sample, seed=seed)
    yield from fuzz.measure(folder, sample=sample, seed=seed)


def scenarios(folder: Path, *, sample: bool, seed: int) -> Iterator[Tally]:
    """Try what is made on purpose; each in a child that has a deadline and little memory."""
    draw = random.Random(seed)
    base = honest_run()

    def some(cases: Sequence[Any], many: int) -> list[Any]:
        return draw.sample(list(cases), min(many, len(cases))) if sample else list(cases)

    for part in ("manifest", "state", "index", "journal"):
        cases = some([*_each_place(base, part)], 40)
        yield _tally(f"{part}: each value replaced by a hostile one", cases, _in_memory)
    for scenario, make, many in (
        ("headers, offsets, shapes and sizes that lie", forgeries.tensor_files, 20),
        ("tensors in the state file that are none", forgeries.inline_tensors, 10),
        ("names that lead out, or steer a terminal", forgeries.names, 30),
        ("versions of the format", forgeries.formats, 5),
    ):
        cases = some([*make(base)], many)
        yield _tally(scenario, cases, lambda case: _on_disk(folder / "case", case[1].write))
    cases = some([*forgeries.giants(base)], 5)
    yield _tally("nesting, numbers and archives without measure", cases, lambda case: _looked_at(folder, case), _GIANT)
    cases = some([*traps(base)], 25)
    yield _tally("links, pipes, devices and holes", cases, lambda case: _on_disk(folder / "case", case[1], by=Grounds))
    yield _tally("policy files", some(policies.CASES, 30), lambda case: policies.attempt(folder, case))
    yield _tally(
        "states that no object takes", some(objects.cases(base), 20), lambda case: objects.attempt(folder, case)
    )


def _tally(
    scenario: str, cases: Sequence[Any], attempt: Callable[[Any], list[Found]], limits: Limits = LIMITS
) -> Tally:
    tally = Tally(family="hostile", scenario=scenario)
    for case, found in try_all(cases, attempt, limits):
        tally.tried += 1
        for harm, what in found[:3]:
            tally.found(harm, f"{case[0]}: {what}")
    return tally


def _each_place(base: Forgery, part: str) -> Iterator[tuple[str, Forgery]]:
    tree = base.journal_tree() if part == "journal" else getattr(base, part)
    for path in nodes(tree):
        for number, value in enumerate(VALUES):
            made = replaced(tree, path, value)
            name = f"{part} {'.'.join(map(str, path))} is value {number}, {str(value)[:30]!r}"
            if part == "journal":
                yield name, base.with_journal_tree(made)
            else:
                yield name, base.but(**{part: made}, honest=part != "manifest" or path[:1] not in {(), ("artifacts",)})


def _in_memory(case: tuple[str, Forgery]) -> list[Found]:
    url = f"memory://hostile-{uuid.uuid4().hex}"
    memory = fsspec.filesystem("memory")
    for key, data in case[1].files().items():
        memory.pipe_file(f"{url}/{key}", data)
    found = read(url)
    if digest(case[0].encode())[-1] == "0":  # the command takes ten times as long: for one in sixteen
        found += command(url)
    memory.store.clear()
    return found


def _looked_at(folder: Path, case: tuple[str, Forgery]) -> list[Found]:
    """Read it, and let one verb of the command do so."""
    grounds = Grounds(folder / "case")
    case[1].write(grounds.run)
    grounds.seal()
    return read(grounds.url) + command(grounds.url, verbs=[["verify", grounds.url]]) + grounds.harm()


def _on_disk(folder: Path, make: Callable[[Any], None], *, by: type | None = None) -> list[Found]:
    grounds = Grounds(folder)
    make(grounds if by is Grounds else grounds.run)
    grounds.seal()
    found = read(grounds.url, grounds.out) + command(grounds.url, grounds.out) + train_on(grounds.url)
    return found + grounds.harm()
