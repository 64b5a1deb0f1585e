"""Fuzz: every parser, given what once was valid; each gives a result or an error of keepbest's, and takes no time.

`python tests/faults/fuzz.py --cases 1000000` runs as many by hand; `--target` and `--batch` run one batch again.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Iterator
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])  # and not this folder, whose modules have names like others'

from faults.confined import Found, Limits, try_all
from faults.mutations import mutated
from faults.tally import Tally
from faults.targets import TARGETS, Target

from keepbest.errors import KeepbestError

BATCH = 500
"""Cases of one target that are tried before the parent hears of it."""
_SLOW = 2.0
"""Seconds of one case that count as hung; the machine may be busy."""
_LIMITS = Limits(seconds=60.0)


def measure(folder: Path, *, sample: bool, seed: int) -> Iterator[Tally]:
    """Fuzz every target: a million cases in all, or a few thousand for a sample."""
    for name, target in TARGETS.items():
        yield fuzzed(folder, name, BATCH if sample else target.cases, seed)


def fuzzed(folder: Path, name: str, cases: int, seed: int) -> Tally:
    """Fuzz one target."""
    target = TARGETS[name]
    tally = Tally(family="fuzz", scenario=name, remark="cases of a fuzzer, no faults")
    corpus = target.corpus()
    batches = range(max(1, cases // BATCH))
    for batch, found in try_all(
        batches, lambda batch: _batch(target, corpus, folder, f"{seed}-{name}-{batch}"), _LIMITS
    ):
        tally.tried += BATCH
        for harm, what in found[:5]:
            tally.found(harm, f"batch {batch}: {what}")
    return tally


def divided(cases: int, names: list[str]) -> dict[str, int]:
    """Divide cases among targets as they are in the suite."""
    whole = sum(TARGETS[name].cases for name in names)
    return {name: cases * TARGETS[name].cases // whole for name in names}


def _batch(target: Target, corpus: list[bytes], folder: Path, seed: str) -> list[Found]:
    draw = random.Random(seed)
    found: list[Found] = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for number in range(BATCH):
            data = mutated(draw, corpus)
            begin = time.perf_counter()
            try:
                target.read(data, folder)
            except KeepbestError:
                pass
            except Exception as error:  # noqa: BLE001 - whatever it is, it is what is looked for
                at = traceback.extract_tb(error.__traceback__)[-1]
                where = f"{Path(at.filename).name}:{at.lineno}"
                found.append(
                    ("broken", f"case {number}: {type(error).__name__}: {error!s:.200} at {where}: {data[:300]!r}")
                )
            took = time.perf_counter() - begin
            if took > _SLOW:
                found.append(("hung", f"case {number} took {took:.1f} s: {data[:300]!r}"))
    return found


def main() -> int:
    """Fuzz by hand, and say how fast it went."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=100_000, help="of all targets together, divided as in the suite")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--target", action="append", choices=TARGETS)
    parser.add_argument("--batch", type=int, help="run this one again, in this process")
    given = parser.parse_args()
    names = given.target or list(TARGETS)
    begin, tried, harmless = time.monotonic(), 0, True
    with tempfile.TemporaryDirectory(prefix="keepbest-fuzz-") as folder:
        if given.batch is not None:
            for name in names:
                target = TARGETS[name]
                seed = f"{given.seed}-{name}-{given.batch}"
                sys.stdout.write(f"{name}: {_batch(target, target.corpus(), Path(folder), seed)}\n")
            return 0
        for name, cases in divided(given.cases, names).items():
            start = time.monotonic()
            tally = fuzzed(Path(folder), name, cases, given.seed)
            took = time.monotonic() - start
            tried, harmless = tried + tally.tried, harmless and tally.harmless
            sys.stdout.write(f"{name}: {tally.tried:,} cases, {tally.tried / took:,.0f} a second\n")
            sys.stdout.writelines(f"  {finding}\n" for finding in tally.findings)
    took = time.monotonic() - begin
    sys.stdout.write(f"{tried:,} cases in {took:.0f} s: {tried / took:,.0f} a second\n")
    return 0 if harmless else 1


if __name__ == "__main__":
    sys.exit(main())
