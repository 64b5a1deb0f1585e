"""Guided: the same parsers, given what libFuzzer makes, which builds on whatever reached code that nothing had reached.

`python tests/faults/guided.py --cases 1000000` divides as many among all, and `make fuzz` does that; `--target` fuzzes
one. What it finds is a bug; `--input FILE` runs the case again that it says it has written.
"""

from __future__ import annotations

import argparse
import contextlib
import random
import re
import shutil
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])  # and not this folder, whose modules have names like others'

import atheris

with atheris.instrument_imports(include=["keepbest"]):
    from faults.fuzz import divided
    from faults.mutations import mutated
    from faults.targets import TARGETS, Target

    from keepbest.errors import KeepbestError

_LONGEST = 64 << 10
"""Bytes of a case."""
_SECONDS = 60
"""For one case, after which it hangs; the machine may be busy."""
_MEMORY = 4096
"""MiB that a process may take."""
_DONE = re.compile(r"^#(\d+)\s+DONE\s+cov: (\d+)", re.MULTILINE)


def main() -> int:
    """Fuzz all targets, one after the other, each in a process of its own, as libFuzzer ends with it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=100_000, help="of all targets together, divided as in the suite")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--target", action="append", choices=TARGETS)
    parser.add_argument("--input", type=Path, help="run this case, of one target, in this process")
    parser.add_argument("--within", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    names = given.target or list(TARGETS)
    if given.input is not None:
        TARGETS[names[0]].read(given.input.read_bytes(), given.input.parent)
        return 0
    if given.within is not None:
        fuzz(TARGETS[names[0]], given.cases, given.seed, given.within)
    tried, harmless = 0, True
    for name, cases in divided(given.cases, names).items():
        folder = tempfile.mkdtemp(prefix="keepbest-fuzz-")  # stays if it holds what was found
        words = ["--within", folder, "--target", name, f"--cases={max(1, cases)}", f"--seed={given.seed}"]
        command = [sys.executable, __file__, *words]
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
        found = _DONE.search(done.stdout)
        if done.returncode or found is None:
            harmless = False
            sys.stdout.write(f"{name}: {done.stdout[-3000:]}\n")
        else:
            shutil.rmtree(folder)
            tried += int(found[1])
            sys.stdout.write(f"{name}: {int(found[1]):,} cases, {int(found[2]):,} edges of keepbest's code reached\n")
        sys.stdout.flush()
    sys.stdout.write(f"{tried:,} cases\n")
    return 0 if harmless else 1


def fuzz(target: Target, cases: int, seed: int, folder: Path) -> None:
    """Hand this process over to libFuzzer, which does not return. What it finds is written to the folder."""
    warnings.simplefilter("ignore")
    corpus, beside = folder / "corpus", folder / "beside"
    for made in (corpus, beside):
        made.mkdir()
    honest = target.corpus()
    for number, data in enumerate(honest):
        (corpus / str(number)).write_bytes(data)

    def one(data: bytes) -> None:
        with contextlib.suppress(KeepbestError):
            target.read(data, beside)

    def mutate(data: bytes, longest: int, number: int) -> bytes:
        """By turns what libFuzzer makes of bytes, and what this suite makes of a tree."""
        draw = random.Random(number)
        made = mutated(draw, [bytes(data), *honest]) if draw.random() < 0.5 else atheris.Mutate(data, longest)
        return made[:longest]

    limits = [f"-runs={cases}", f"-seed={seed}", f"-max_len={_LONGEST}", f"-timeout={_SECONDS}"]
    places = [f"-rss_limit_mb={_MEMORY}", f"-artifact_prefix={folder}/", str(corpus)]
    atheris.Setup([sys.argv[0], *limits, *places], one, custom_mutator=mutate)
    atheris.Fuzz()


if __name__ == "__main__":
    sys.exit(main())
