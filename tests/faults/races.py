"""Races: writers, readers and gc on one run at the same time, on a disk and in buckets; and clocks that jump.

Each number is committed by exactly one; who loses is told. Readers see whole checkpoints, or are told that one is gone.
gc touches nothing that somebody writes. What a reader has open or mapped stays as it was.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from contracts import servers
from contracts.runs import SmallRun
from contracts.stores import MIB
from faults.children import Child, Voice, ask
from faults.network import reached
from faults.racers import KEPT, Race, jump
from faults.tally import Tally

import keepbest
from keepbest import Checkpointer, CheckpointPolicy
from keepbest.storage.backend import open_backend
from keepbest.storage.gc import GRACE

_SLACK = 60
"""Seconds that a race may take beyond its time before it counts as hung."""
_WRONG = 12.0
"""Hours by which the clocks of writers jump."""


def run_race(row: Tally, race: Race, racers: Mapping[str, Callable[[Voice], object]]) -> dict[str, list[Any]]:
    """Let processes race; returns what they said, by their kind: the name up to a space."""
    said: dict[str, list[Any]] = {}
    with contextlib.ExitStack() as stack:
        deadline = int(race.seconds + _SLACK)
        children = {name: stack.enter_context(Child(racer, deadline=deadline)) for name, racer in racers.items()}
        for child in children.values():
            child.wait_until_ready()
        for child in children.values():
            with contextlib.suppress(BrokenPipeError):
                child.go()
        for name, child in children.items():
            if child.wait() != 0:
                row.found("hung" if child.hung else "broken", f"{name}: {child.said[-8:]}")
                continue
            said.setdefault(name.partition(" ")[0], []).append(json.loads(child.said[-1]))
    return said


def judge(row: Tally, race: Race, said: Mapping[str, list[Any]]) -> None:
    """Compare what the processes said with one another, and with what is there in the end."""
    writers, readers, gcs = (said.get(kind, []) for kind in ("writer", "reader", "gc"))
    won = sorted(tuple(one) for writer in writers for one in writer["won"])
    for reader in readers:
        for words in reader["harm"]:
            row.found("torn", words)
    for collected in gcs:
        row.found("lost", f"gc removed {collected['removed'][:3]}", len(collected["removed"]))
    _judge_commits(row, won, {token for writer in writers for token in writer["told"]})
    _judge_end(row, race, won)
    lost, loads = sum(writer["lost"] for writer in writers), sum(reader["loads"] for reader in readers)
    row.tried += len(won) + lost + loads
    gone, rounds = sum(reader["gone"] for reader in readers), sum(collected["rounds"] for collected in gcs)
    row.remark = (
        f"{len(won)} commits won and {lost} lost, {loads} loads, {gone} of what had gone, {rounds} rounds of gc"
    )


def _judge_commits(row: Tally, won: list[tuple[int, int]], told: set[int]) -> None:
    """Each number has one winner; but one that a writer had and retired in the same moment may have a second.

    That one is told at its next commit.
    """
    counts = Counter(sequence for sequence, _ in won)
    for sequence, count in counts.items():
        winners = {token for number, token in won if number == sequence}
        if count > 1 and len(winners - told) > 1:
            row.found("lost", f"number {sequence} was won {count} times", count - 1)
    missing = set(range(1, max(counts, default=0) + 1)) - set(counts)
    row.found("broken", f"nobody won {sorted(missing)[:5]}", len(missing))


def _judge_end(row: Tally, race: Race, won: list[tuple[int, int]]) -> None:
    """What was won last is there, and all that is there is whole."""
    run = keepbest.open_run(race.url, storage_options=race.options)
    listed = {found.sequence: int(found.metrics["val_loss"]) for found in run.checkpoints()}
    for sequence, token in won[-KEPT:]:
        if listed.get(sequence) != token:
            row.found("lost", f"number {sequence} was won by {token}; listed: {listed}")
    # The pointer is a hint: of several writers a slow one may set it last, until the next save sets it right.
    wrong = [problem.message for problem in run.verify().problems if problem.part != "best"]
    row.found("torn", "; ".join(wrong), len(wrong))
    run.gc(grace=0)


def crowd(url: str, where: str, *, seconds: float, options: Mapping[str, Any] | None = None) -> Tally:
    """Let three writers, two readers and a gc be at one run."""
    row = Tally(family="races", scenario=f"three writers, two readers and gc, {where}")
    race = Race(url, seconds=seconds, options=options)
    _begin(race)
    racers: dict[str, Callable[[Voice], object]] = {
        **{f"writer {who}": partial(race.write, who=who) for who in (1, 2, 3)},
        **{f"reader {number}": race.read for number in (1, 2)},
        "gc": race.collect,
    }
    judge(row, race, _with_first(run_race(row, race, racers)))
    return row


def recycled(folder: Path, *, seconds: float) -> Tally:
    """Let readers hold what a writer retires and would like to write over; and what it publishes."""
    row = Tally(family="races", scenario="files are retired, recycled and published while they are read and mapped")
    race = Race(str(folder / "recycled"), seconds=seconds, floats=2 * MIB // 8)
    _begin(race)
    racers: dict[str, Callable[[Voice], object]] = {
        "writer 1": partial(race.write, who=1, publish=True),
        "reader 1": race.read,
        "reader 2": race.read,
        "reader 3": race.read_published,
    }
    judge(row, race, _with_first(run_race(row, race, racers)))
    return row


def clocks(folder: Path, *, seconds: float) -> Tally:
    """Let the clocks of writers jump by hours, and that of gc be wrong by almost its grace."""
    wrong = GRACE - 120
    row = Tally(
        family="races",
        scenario=f"clocks of writers jump by {_WRONG:.0f} hours, that of gc is {wrong / 60:.0f} minutes ahead",
    )
    race = Race(str(folder / "clocks"), seconds=seconds, clock=_WRONG)
    _begin(race)
    racers: dict[str, Callable[[Voice], object]] = {
        **{f"writer {who}": partial(race.write, who=who) for who in (1, 2)},
        "reader 1": race.read,
        "gc": partial(race.collect, ahead=wrong),
    }
    judge(row, race, _with_first(run_race(row, race, racers)))
    return row


def seconds_policy(folder: Path) -> Tally:
    """Count the saves of a policy by seconds while the clock jumps, and look at the order of what was logged."""
    row = Tally(family="races", scenario="a policy by seconds, and the history, while clocks jump by hours")
    for number, (every, took) in enumerate(((0.2, 1.1), (3600.0, 0.5))):
        url = str(folder / f"seconds-{number}")
        said = ask(partial(_train_by_seconds, url, every, took), deadline=_SLACK)
        row.tried += said["steps"]
        most = took / every + 1
        if not most / 2 - 1 <= said["saves"] <= most:
            row.found("broken", f"{said['saves']} saves in {took} s, one every {every} s")
        again = ask(partial(_train_by_seconds, url, every, 0.2), deadline=_SLACK)
        row.tried += again["steps"]
        if not again["ordered"]:
            row.found("lost", "the history of two trainings is out of order")
    return row


def _train_by_seconds(url: str, every: float, took: float) -> dict[str, Any]:
    jump(_WRONG * 3600)
    policy = CheckpointPolicy(every_n_epochs=None, every_n_seconds=every, at_end=True, keep_all=True, on_sigterm=False)
    with Checkpointer(url, policy, mode="sync", model={"weight": np.zeros(4)}) as ckpt:
        ckpt.resume()
        before = len(ckpt.run.checkpoints())
        end, steps = time.monotonic() + took, 0
        while time.monotonic() < end:
            ckpt.log_step(loss=1.0)
            steps += 1
            time.sleep(0.005)
        saves = len(ckpt.run.checkpoints()) - before
    rows = [row.step for row in keepbest.open_run(url).history().rows]
    return {"steps": steps, "saves": saves, "ordered": rows == list(range(1, len(rows) + 1))}


def _begin(race: Race) -> None:
    """Write the first checkpoint, so that there is a run."""
    ask(partial(_write_first, race), deadline=_SLACK)


def _write_first(race: Race) -> bool:
    run = SmallRun(open_backend(race.url, race.options))
    run.save(0.0, arrays=race.arrays(0))
    return True


def _with_first(said: dict[str, list[Any]]) -> dict[str, list[Any]]:
    return {**said, "writer": [*said.get("writer", ()), {"won": [(1, 0)], "lost": 0, "told": []}]}


def measure(folder: Path, *, sample: bool, seed: int) -> Iterator[Tally]:
    """Race on a disk and in buckets, then let clocks jump."""
    seconds = 2.0 if sample else 12.0
    yield crowd(str(folder / "crowd"), "on a disk", seconds=seconds)
    yield recycled(folder, seconds=seconds)
    yield clocks(folder, seconds=seconds)
    yield seconds_policy(folder)
    for kind, clients in ((servers.S3Server, ("s3fs", "obstore")), (servers.GcsServer, ("gcs",))):
        with kind(folder) as server, reached(server):
            bucket = server.make_bucket()
            for client in clients:
                yield crowd_in_bucket(client, server, bucket, seconds=seconds)


def crowd_in_bucket(client: str, server: Any, bucket: str, *, seconds: float) -> Tally:
    """As `crowd`, in a bucket."""
    importlib.import_module("gcsfs" if client == "gcs" else "s3fs")  # once, and not in every process
    name = f"race-{uuid.uuid4().hex[:8]}"
    if client == "gcs":
        options = {"endpoint_url": server.url, "token": "anon"}
        return crowd(f"gs://{bucket}/{name}", "on GCS", seconds=seconds, options=options)
    admin = server.identity("admin")
    options = {"endpoint_url": server.url, "key": admin.access, "secret": admin.secret, "client": client}
    return crowd(f"s3://{bucket}/{name}", f"on S3 through {client}", seconds=seconds, options=options)
