"""Hosts: a module of the suite in a fresh Python, which prints its rows; for what must not share imports."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from faults.tally import Tally

TESTS = Path(__file__).resolve().parents[1]


def rows_of(module: str, *arguments: str, environment: Mapping[str, str] | None = None) -> Iterator[Tally]:
    """Run `python -m module arguments…` and yield what it prints.

    Raises:
        RuntimeError: it failed; has the end of what it said on stderr.
    """
    path = os.pathsep.join(filter(None, [str(TESTS), os.environ.get("PYTHONPATH")]))
    variables = {**os.environ, "PYTHONPATH": path, "PYTHONUNBUFFERED": "1", **(environment or {})}
    command = [sys.executable, "-m", module, *arguments]
    with (
        tempfile.TemporaryFile("w+") as errors,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True, env=variables) as running,
    ):
        for line in running.stdout or ():
            if line.startswith("{"):
                yield Tally.from_json(json.loads(line))
        if running.wait() != 0:
            errors.seek(0)
            raise RuntimeError(f"{module} {' '.join(arguments)}: {errors.read()[-2000:]}")


def say(row: Tally) -> None:
    """Print a row, for `rows_of`."""
    sys.stdout.write(json.dumps(row.to_json()) + "\n")
    sys.stdout.flush()
