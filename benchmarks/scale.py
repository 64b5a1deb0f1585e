"""How cost grows with the number of tensors in a state; and what `import keepbest` costs.

A program of its own: `python benchmarks/scale.py FOLDER`.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from pathlib import Path

import torch
from measure import human, interleaved, main, report, verdict

import keepbest
from keepbest import Checkpointer, CheckpointPolicy


def many_tensors(folder: Path) -> bool:
    """Save and load 25,000, 50,000 and 100,000 tensors of 16 floats: time for each must stay the same."""
    costs: dict[int, dict[str, float]] = {}
    for count in (25_000, 50_000, 100_000):
        state = {f"layer.{number}.weight": torch.full((4, 4), float(number)) for number in range(count)}
        url = str(folder / f"tensors-{count}")
        with Checkpointer(url, CheckpointPolicy(), weights=state) as ckpt:
            begin = time.perf_counter()
            handle = ckpt.save()
            blocked = time.perf_counter() - begin
            handle.result()
            saved = time.perf_counter() - begin
        begin = time.perf_counter()
        loaded = keepbest.open_run(url).latest.load("weights", framework="torch")
        costs[count] = {"snapshot": blocked, "save": saved, "load": time.perf_counter() - begin}
        if not torch.equal(loaded[f"layer.{count - 1}.weight"], state[f"layer.{count - 1}.weight"]):
            raise SystemExit("what was loaded is not what was saved")
        del handle, loaded, state, ckpt  # else the next round is timed with letting go of them
    report(
        "Many small tensors, seconds for all of them",
        {f"{count:,} tensors, {what}": [cost] for count, row in costs.items() for what, cost in row.items()},
        baseline="25,000 tensors, snapshot",
    )
    growth = max(costs[100_000][what] / costs[25_000][what] for what in ("snapshot", "save", "load"))
    return verdict("4× the tensors cost no more than 6× the time", held=growth <= 6, figure=f"{growth:.1f}×")


def import_time() -> bool:
    """Time `import keepbest` as a whole process, against an interpreter that imports nothing."""
    cases = {
        "python -c pass": lambda: subprocess.run([sys.executable, "-c", "pass"], check=True),
        "python -c 'import keepbest'": lambda: subprocess.run([sys.executable, "-c", "import keepbest"], check=True),
    }
    seconds = interleaved(cases, repetitions=15)
    report("Import", seconds, baseline="python -c pass")
    cost = statistics.median(seconds["python -c 'import keepbest'"])
    return verdict("import keepbest takes under 0.2 s, the interpreter included", held=cost < 0.2, figure=human(cost))


def run(folder: Path) -> bool:
    return all([many_tensors(folder), import_time()])


if __name__ == "__main__":
    main(run, __doc__)
