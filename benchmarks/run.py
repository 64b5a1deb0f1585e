"""Run the benchmarks of saving to a disk: `python benchmarks/run.py [--quick] [--only PART] [--write-docs] [FOLDER]`.

FOLDER says which disk is measured (default: here). Those of buckets are a program of their own, `buckets.py`: they
start servers.
"""

from __future__ import annotations

import argparse
import functools
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import cases

if TYPE_CHECKING:
    import local


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path, default=Path(), help="on the disk to be measured")
    parser.add_argument("--quick", action="store_true", help="fewer cases and two turns: about a minute")
    parser.add_argument("--only", help="parts whose title contains this; no verdicts")
    parser.add_argument("--write-docs", action="store_true", help="write docs/benchmarks.{json,svg}, and the tables")
    asked = parser.parse_args()
    if asked.write_docs and (asked.quick or asked.only):
        parser.error("--write-docs is for all of it, without --quick and --only")
    cases.check_installed()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that the folder is deleted then, too
    with tempfile.TemporaryDirectory(prefix="keepbest-bench-", dir=asked.folder) as folder:
        return run(Path(folder).resolve(), quick=asked.quick, only=asked.only, write_docs=asked.write_docs)


def run(folder: Path, *, quick: bool, only: str | None, write_docs: bool) -> int:
    """Measure, print, judge."""
    import documents
    import machine
    from judgement import judge
    from measure import console

    if write_docs:
        documents.halves()  # rather now than after ten minutes
    facts = machine.describe(folder)
    for name, fact in facts.items():
        console.print(f"{name}: {fact}", highlight=False)
    console.print(f"load before: {machine.load()}", highlight=False)
    begin = time.monotonic()
    parts = _measured(folder, quick=quick, only=only)
    held = [not part.failed for part in parts.values()]
    if only is None:
        held.append(judge(parts))
        if not quick:
            held.append(_small_things(folder))
    console.print(f"measured in {time.monotonic() - begin:.0f} s; load after: {machine.load()}", highlight=False)
    if write_docs:
        documents.write(parts, facts, shlex.join(["python", *sys.argv]))
    return 0 if all(held) else 1


def _measured(folder: Path, *, quick: bool, only: str | None) -> dict[str, local.Found]:
    """Return what was found in each part, by title; its table is printed as soon as all of it is there."""
    import local
    import tables

    work: list[tuple[str, Callable[[Path], local.Found]]] = [
        (part.title, functools.partial(local.measure, part)) for part in local.plan(quick=quick)
    ]
    work.append((local.KERAS_PART, functools.partial(local.measure_keras, quick=quick)))
    work = [(title, measure) for title, measure in work if only is None or only in title]
    parts: dict[str, local.Found] = {}
    for number, (title, measure) in enumerate(work):
        found = parts.setdefault(title, local.Found(title=title, results={}))
        found.add(measure(folder / f"part-{number}"))
        if all(later != title for later, _ in work[number + 1 :]):
            tables.show(found)
    return parts


def _small_things(folder: Path) -> bool:
    """Run what is measured in one process: what a small checkpoint costs, calls that save nothing, and growth."""
    from measure import console

    held = []
    for program in ("small_save.py", "small_log.py", "scale.py", "listing.py", "command.py"):
        place = folder / program
        place.mkdir()
        command = [sys.executable, str(Path(__file__).with_name(program)), str(place)]
        done = subprocess.run(command, check=False, stdout=subprocess.PIPE, text=True)
        console.print(done.stdout, end="", markup=False, highlight=False, soft_wrap=True)
        held.append(done.returncode == 0)
    return all(held)


if __name__ == "__main__":
    raise SystemExit(main())
