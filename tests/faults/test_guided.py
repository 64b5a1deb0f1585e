"""What libFuzzer makes of a parser's inputs, and that coverage guides it."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from faults import fuzz

PLANTED = """
import sys
from pathlib import Path
import atheris
sys.path.insert(0, {tests!r})
from faults import guided
from faults.targets import Target

@atheris.instrument_func
def read(data, folder):
    {doors}
        raise RuntimeError("found behind {count} doors")

guided.fuzz(Target(corpus=lambda: [b"[12345678]"], read=read, cases=0), 100_000, 1, Path({folder!r}))
"""
FAULTS = Path(fuzz.__file__).parent
DOORS = 8
"""Each lets one byte in eight through."""


def run(*words):
    return subprocess.run([sys.executable, *words], capture_output=True, text=True, check=False, timeout=300)


@pytest.mark.slow
@pytest.mark.parametrize("target", ["manifests", "journals", "signatures"])
def test_parsers_bear_what_reaches_further(target):
    """What is built on inputs that reached new code gives a result or an error of keepbest's, and nothing else."""
    done = run(FAULTS / "guided.py", "--cases", "2000", "--target", target)
    assert done.returncode == 0, done.stdout[-3000:]
    assert int(re.search(r"cases, ([\d,]+) edges", done.stdout)[1].replace(",", "")) >= 10


@pytest.mark.slow
def test_coverage_guides_the_fuzzer(tmp_path):
    """What chance alone meets once in sixteen million cases is found in a hundred thousand: each door is kept open."""
    doors = "\n    ".join(
        f"{'    ' * number}if len(data) > {number} and data[{number}] & 7 == 5:" for number in range(DOORS)
    )
    raises = f"{doors}\n{'    ' * (DOORS - 1)}"
    script = tmp_path / "planted.py"
    tests, folder = str(FAULTS.parent), str(tmp_path)
    script.write_text(PLANTED.format(tests=tests, folder=folder, doors=raises, count=DOORS))
    done = run(script)
    assert done.returncode != 0
    assert f"found behind {DOORS} doors" in done.stdout + done.stderr
