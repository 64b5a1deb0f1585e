"""Save to and load from a bucket on this machine, side by side with what people use today.

`python benchmarks/buckets.py [--quick] [--turns N] [--only s3|gs|connections] [FOLDER]`: FOLDER is for the servers.
One state at a time; for each, the cases take turns (A B C A B C …), each in a process and a bucket of its own, after a
small upload and download that are not counted. Every download is compared with what was sent.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import bucket_connections
from bucket_clients import CLIENTS, KEEPBEST, RAW, Client
from bucket_cost import Cost, Stopwatch, in_child
from bucket_servers import SCHEMES, Place, bucket, started
from bucket_state import GB, MB, State, many_tensors, one_file
from claim import claim
from measure import console, verdict
from rich.table import Table

ABOVE = 256 * MB
"""Bytes of memory above the state that a save may take."""

WITHIN = 1.1
"""Times the fastest client's time."""

SLOW = 1.5
"""A case that took this many times the fastest upload of 1 GB has said what it has to say: it gets no second turn."""

SERVERS = {"s3": "S3 (SeaweedFS)", "gs": "GCS (fake-gcs-server)"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """One state, and how often it is saved and loaded."""

    scheme: str
    size: int
    """Bytes."""
    many: bool
    """False: one file."""
    turns: int
    repeats: int = 1
    """Uploads and downloads in each turn."""

    @property
    def title(self) -> str:
        """What stands above its table."""
        size = f"{self.size // GB} GB" if self.size >= GB else f"{self.size // MB} MB"
        runs = self.turns * self.repeats
        return f"{SERVERS[self.scheme]}, {size}, {'200 tensors' if self.many else 'one file'}, {runs} repetition" + (
            "s" if runs > 1 else ""
        )


def rounds(scheme: str, *, turns: int | None, quick: bool) -> list[Round]:
    """Return what is measured. Of 1 GB, which takes nearly all of the time, a client far behind has but one turn."""
    plan = ((64 * MB, 2, 1),) if quick else ((MB, 2, 3), (64 * MB, 2, 1), (GB, 3, 1))
    return [
        Round(scheme=scheme, size=size, many=many, turns=turns or usual, repeats=repeats)
        for size, usual, repeats in plan
        for many in (False, True)
    ]


@dataclass(slots=True)
class Costs:
    """Of one case, every repetition of it."""

    up: list[Cost] = field(default_factory=list)
    down: list[Cost] = field(default_factory=list)
    error: str | None = None


def measure(server: Any, this: Round) -> dict[str, Costs]:
    """Let the cases take turns; one that fails gets no other."""
    state = many_tensors(this.size) if this.many else one_file(this.size)
    warm = many_tensors(MB) if this.many else one_file(MB)
    costs = {name: Costs() for name in CLIENTS[this.scheme]}
    for turn, (name, made) in itertools.product(range(this.turns), CLIENTS[this.scheme].items()):
        if costs[name].error is not None or (this.size >= GB and is_slow(name, costs)):
            continue
        show(f"{this.title}, turn {turn + 1}: {name}")
        with bucket(this.scheme, server) as place:
            try:
                for way in ("up", "down"):
                    work = functools.partial(timed, made, place, server.pid, way, state, warm, this.repeats)
                    getattr(costs[name], way).extend(in_child(work))
            except RuntimeError as error:
                costs[name].error = str(error)
    show("")
    return costs


def is_slow(name: str, costs: Mapping[str, Costs]) -> bool:
    """Return whether a case has had a turn and was far behind in it."""
    fastest = min((median(cost.up, "seconds") for cost in costs.values() if cost.up), default=0)
    return bool(costs[name].up) and name != KEEPBEST and median(costs[name].up, "seconds") > SLOW * fastest


def timed(  # noqa: PLR0913, PLR0917 - one turn has these facts
    made: type[Client], place: Place, server_pid: int, way: str, state: State, warm: State, repeats: int
) -> list[Cost]:
    """Make a client, use it once, then return what each upload or download costs: one turn, in its own process."""
    client = made(place)
    client.prepare(f"warm-{way}", warm)
    client.upload(f"warm-{way}", warm)
    warm.check(client.download(f"warm-{way}", warm))
    watch = Stopwatch(server_pid)
    work = uploaded if way == "up" else downloaded
    return [work(client, watch, f"state-{number}", state) for number in range(repeats)]


def uploaded(client: Client, watch: Stopwatch, key: str, state: State) -> Cost:
    """Return the cost of an upload."""
    client.prepare(key, state)
    claim(2 * state.size)
    watch.start()
    client.upload(key, state)
    return watch.stop()


def downloaded(client: Client, watch: Stopwatch, key: str, state: State) -> Cost:
    """Return the cost of a download, less the memory of the state that was downloaded."""
    claim(2 * state.size)
    watch.start()
    found = client.download(key, state)
    cost = watch.stop()
    state.check(found)
    return Cost(seconds=cost.seconds, cpu=cost.cpu, server_cpu=cost.server_cpu, memory=cost.memory - state.size)


def report(this: Round, costs: Mapping[str, Costs]) -> None:
    """Print a table of medians; the ratio is of the time, to keepbest's."""
    table = Table(title=this.title, title_justify="left")
    table.add_column("case")
    for way in ("upload", "download"):
        for column in (f"{way}\nMB/s", "ratio of\nthe time", "CPU\ns/GB", "server\ns/GB", "memory\nMB"):
            table.add_column(column, justify="right")
    base = costs[KEEPBEST]
    for name, cost in costs.items():
        if cost.error is None:
            once = " (1 turn)" if len(cost.up) < len(base.up) else ""
            table.add_row(name + once, *cells(this, cost.up, base.up), *cells(this, cost.down, base.down))
    console.print(table)
    for name, cost in costs.items():
        if cost.error is not None:
            console.print(f"✗ {name} failed: {cost.error}", style="red", highlight=False)


def cells(this: Round, costs: list[Cost], base: list[Cost]) -> Iterator[str]:
    """Return a row's half."""
    seconds = median(costs, "seconds")
    yield f"{this.size / MB / seconds:.3g}" if this.size / MB / seconds < 100 else f"{this.size / MB / seconds:.0f}"
    yield f"{seconds / median(base, 'seconds'):.2f}×" if base else "–"
    yield f"{median(costs, 'cpu') / this.size * GB:.2f}"
    yield f"{median(costs, 'server_cpu') / this.size * GB:.1f}" if this.size >= 64 * MB else "–"
    yield f"{median(costs, 'memory') / MB:.0f}"


def median(costs: list[Cost], what: str) -> float:
    """Return the median of one field."""
    return statistics.median(getattr(cost, what) for cost in costs)


def judge(scheme: str, many: Mapping[str, Costs], one: Mapping[str, Costs]) -> bool:
    """Print whether what the project promises of 1 GB holds: `many` tensors, and `one` file for the raw transfers."""
    if many[KEEPBEST].error is not None or one[KEEPBEST].error is not None:
        return False
    others = {name: cost for name, cost in many.items() if cost.down and not made_here(name)}
    raw = {name: cost for name, cost in one.items() if cost.down and name in RAW and not made_here(name)}
    held = []
    name, seconds = fastest(others, "up")
    ratio = median(many[KEEPBEST].up, "seconds") / seconds
    promise = f"{scheme}://: a save, from tensors to committed, takes less time than any other's"
    held.append(verdict(promise, held=ratio < 1, figure=f"{ratio:.2f}× {name}"))
    for what, way in (("save", "up"), ("load", "down")):
        name, seconds = fastest(raw, way)
        ratio = median(getattr(one[KEEPBEST], way), "seconds") / seconds
        promise = f"{scheme}://: a {what} takes at most {WITHIN}× the fastest client's transfer of the same bytes"
        held.append(verdict(promise, held=ratio <= WITHIN, figure=f"{ratio:.2f}× {name}"))
    above = median(many[KEEPBEST].up, "memory")
    promise = f'{scheme}://: a save with mode="sync" takes under {ABOVE // MB} MB of memory above the state'
    held.append(verdict(promise, held=above < ABOVE, figure=f"{above / MB:.0f} MB"))
    return all(held)


def made_here(name: str) -> bool:
    """Return whether a case is keepbest's."""
    return name.startswith("keepbest")


def fastest(costs: Mapping[str, Costs], way: str) -> tuple[str, float]:
    """Return the case with the smallest median, and its seconds."""
    seconds = {name: median(getattr(cost, way), "seconds") for name, cost in costs.items()}
    name = min(seconds, key=lambda name: seconds[name])
    return name, seconds[name]


def show(text: str) -> None:
    """Say in a terminal what is being measured; the next table overwrites it."""
    if sys.stderr.isatty():
        print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)


def run(scheme: str, *, turns: int | None, quick: bool) -> bool:
    """Measure on one kind of server."""
    held, found = [], {}
    with started(scheme) as server:
        for this in rounds(scheme, turns=turns, quick=quick):
            costs = measure(server, this)
            report(this, costs)
            held.append(all(cost.error is None for cost in costs.values()))
            found[this.size, this.many] = costs
    if not quick:
        held.append(judge(scheme, found[GB, True], found[GB, False]))
    return all(held)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path, help="where the servers keep their files (default: TMPDIR)")
    parser.add_argument("--quick", action="store_true", help="64 MB only: under three minutes")
    parser.add_argument("--turns", type=int, help="how often the cases take turns (default: 2; with 1 GB 3)")
    parser.add_argument("--only", choices=[*SCHEMES, "connections"], help="one part")
    asked = parser.parse_args()
    if asked.folder is not None:
        tempfile.tempdir = os.environ["TMPDIR"] = str(asked.folder.resolve())
    packages = ("keepbest", "torch", "s3fs", "gcsfs", "boto3", "obstore")
    versions = ", ".join(f"{name} {version(name)}" for name in packages)
    console.print(f"{versions}, Python {platform.python_version()}, {os.cpu_count()} cores", highlight=False)
    begin = time.monotonic()
    parts = {scheme: functools.partial(run, scheme, turns=asked.turns, quick=asked.quick) for scheme in SCHEMES}
    parts["connections"] = functools.partial(bucket_connections.run, quick=asked.quick)
    held = [part() for name, part in parts.items() if asked.only in {None, name}]
    console.print(f"measured in {time.monotonic() - begin:.0f} s")
    return 0 if all(held) else 1


if __name__ == "__main__":
    raise SystemExit(main())
