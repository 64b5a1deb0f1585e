"""`make faults`: try hard to lose a checkpoint, and say what was lost.

Each family of faults is a module here, with a function `measure(folder, *, sample, seed)` that yields one `Tally` for
each scenario as soon as it is done. Each runs in a process of its own, two at a time.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]
sys.path[0] = str(TESTS)  # and not this folder, whose modules have names like others'

from faults import report  # noqa: E402
from faults.tally import Tally  # noqa: E402

FAMILIES = {
    "kill": "SIGKILL before and after every system call and request, and at random moments",
    "power": "power loss: what was not synced is dropped or reordered",
    "damage": "bits flipped, bytes changed, files cut short or swapped",
    "network": "a proxy that delays, resets, refuses, loses, cuts and corrupts",
    "resources": "no space, no quota, no files, no memory, a read-only or failing disk",
    "races": "writers, readers and gc on one run; clocks that jump",
    "model": "random histories of a run, beside a reference of dicts",
    "soak": "thousands of saves with random faults",
    "hostile": "checkpoints made by a stranger who means harm",
    "peers": "the same on other libraries",
}
LIMIT = 1500
"""Seconds after which a family counts as hung."""


def main() -> int:
    """Run what the command line names; returns 1 if any harm was found in keepbest."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sample", action="store_true", help="a part of each family, chosen by the seed")
    parser.add_argument("--only", action="append", choices=FAMILIES, help="this family; may be given again")
    parser.add_argument("--seed", type=int, default=0, help="of all that is random (default: 0)")
    parser.add_argument(
        "--write-docs",
        action="store_true",
        help="write docs/faults.json and the tables of docs/faults.md; with --only, the rows of that family",
    )
    parser.add_argument("--child", choices=FAMILIES, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        _be_child(given.child, sample=given.sample, seed=given.seed)
        return 0
    if given.sample and given.write_docs:
        parser.error("--write-docs is for whole families: leave --sample out.")
    begin = time.monotonic()
    families = given.only or list(FAMILIES)
    with ThreadPoolExecutor(2) as workers:
        rows = [row for rows in workers.map(lambda one: list(_child(one, given)), families) for row in rows]
    report.show(rows, seconds=time.monotonic() - begin)
    if given.write_docs:
        report.write_docs(rows, command=" ".join(["python tests/faults/run.py", *sys.argv[1:]]))
    return 0 if all(row.harmless for row in rows if row.subject == "keepbest") else 1


def _child(family: str, given: argparse.Namespace) -> Iterator[Tally]:
    """Run one family in a process of its own, and read its rows as they come."""
    command = [sys.executable, __file__, "--child", family, "--seed", str(given.seed), *(["--sample"] * given.sample)]
    with tempfile.TemporaryFile("w+") as said:
        child = subprocess.Popen(command, stdout=said, env=os.environ | {"PYTHONUNBUFFERED": "1"})
        try:
            code = child.wait(LIMIT)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
            code = None
        said.seek(0)
        rows = [Tally.from_json(json.loads(line)) for line in said if line.startswith("{")]
    yield from rows
    if code != 0:
        ended = Tally(family=family, scenario="the suite itself", tried=1)
        ended.found("hung" if code is None else "broken", f"it ended with {code} after {len(rows)} scenarios")
        yield ended


def _be_child(family: str, *, sample: bool, seed: int) -> None:
    module = importlib.import_module(f"faults.{family}")
    with tempfile.TemporaryDirectory(prefix=f"keepbest-{family}-", ignore_cleanup_errors=True) as folder:
        for row in module.measure(Path(folder), sample=sample, seed=seed):
            sys.stdout.write(json.dumps(row.to_json()) + "\n")


if __name__ == "__main__":
    sys.exit(main())
