"""Listing a run of 10,000 checkpoints and as many rows of metrics, on a disk and in a bucket.

A program of its own: `python benchmarks/listing.py FOLDER`.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from pathlib import Path

from bucket_servers import bucket, started
from measure import console, human, interleaved, main, report, verdict

import keepbest
from keepbest.storage.backend import open_backend
from keepbest.storage.history import Row
from keepbest.storage.journal import Journal
from keepbest.storage.manifest import Manifest, Score
from keepbest.storage.run_writer import RunWriter

COUNT = 10_000
REPETITIONS = 7


def write(folder: Path) -> None:
    """Write the run as a training would, but for the files of its checkpoints."""
    backend = open_backend(folder)
    writer, journal = RunWriter(backend), Journal(backend)
    for number in range(1, COUNT + 1):
        metrics = {"train_loss": 1 / number, "val_loss": 2 / number}
        journal.append(Row(kind="epoch", epoch=number - 1, step=number, time=float(number), metrics=metrics))
        writer.commit(
            Manifest(
                sequence=number,
                write_id=f"{number:032x}",
                name=f"epoch-{number:05d}",
                step=number,
                epoch=number - 1,
                parent=number - 1 or None,
                time=float(number),
                reasons=("epoch",),
                complete=True,
                metrics=metrics,
                scores=(Score(monitor="val_loss", mode="min", value=2 / number),),
                artifacts={},
                host="benchmark",
                versions={},
            )
        )
        writer.refresh_hints()
    journal.close()


def copy(folder: Path, url: str) -> None:
    """Copy the run, object by object."""
    target = open_backend(url)
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            target.put(path.relative_to(folder).as_posix(), [path.read_bytes()])


def measure(where: str, url: str) -> float:
    """List it in all ways; returns the slowest median, in seconds."""
    command = [sys.executable, "-m", "keepbest", "ls", url]

    def checkpoints() -> None:
        if len(keepbest.open_run(url).checkpoints()) != COUNT:
            raise SystemExit("some checkpoints are missing")

    cases = {
        "open_run(url).checkpoints()": checkpoints,
        "open_run(url).best": lambda: keepbest.open_run(url).best,
        "keepbest ls, the whole process": lambda: subprocess.run(command, check=True, capture_output=True),
        "keepbest ls in a terminal": lambda: in_a_terminal(command),
    }
    medians = report(
        f"A run of {COUNT:,} checkpoints, {where}",
        interleaved(cases, repetitions=REPETITIONS),
        baseline="open_run(url).checkpoints()",
    )
    return max(medians.values())


def in_a_terminal(command: list[str]) -> None:
    """Run a command that writes to a terminal; there `ls` draws the curve of what was logged as well."""
    ours, theirs = os.openpty()
    with subprocess.Popen(command, stdout=theirs, stderr=theirs, stdin=subprocess.DEVNULL) as running:
        os.close(theirs)
        shown = b""
        with contextlib.suppress(OSError):  # the other end is closed
            while found := os.read(ours, 1 << 16):
                shown += found
        os.close(ours)
    if running.returncode or b"val_loss" not in shown:
        raise SystemExit(f"{' '.join(command)} said {shown[-500:]!r}")


def run(folder: Path) -> bool:
    """Write it, list it, copy it to an S3 server, and list it there."""
    there = folder / "checkpoints"
    begin = time.perf_counter()
    write(there)
    console.print(f"wrote {COUNT:,} commits in {time.perf_counter() - begin:.1f} s")
    slowest = measure("on a disk", str(there))
    held = [verdict("on a disk in under a second", held=slowest < 1, figure=human(slowest))]
    with started("s3") as server, bucket("s3", server) as place:
        copy(there, place.url("run"))
        slowest = measure("S3 (SeaweedFS)", place.url("run"))
    return all([*held, verdict("in S3 in under three", held=slowest < 3, figure=human(slowest))])


if __name__ == "__main__":
    main(run, __doc__)
