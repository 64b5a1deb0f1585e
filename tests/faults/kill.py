"""Kill: SIGKILL at every system call of a save and of what follows it, at random moments, and at every request.

What each killed training had said to be saved must be there afterwards, bit for bit; what is listed must be whole; the
training must go on; and nothing may be left behind that nothing names.
"""

from __future__ import annotations

import random
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from contracts.servers import GcsServer, S3Server
from faults import hosts, kills
from faults.aftermath import Promises, findings, look
from faults.ptrace import Moment
from faults.tally import Tally
from faults.trainings import KIB, Plan, train, warm_up

LAST_ONE = {"keep_last": 1}
EVERY_FOURTH = {"every_n_epochs": 4, "on_improvement": False, "at_end": False}
WEIGHTS_ONLY = {"best_contents": "weights"}
LARGE = 1200 * KIB
"""Bytes that are written past the page cache, and over a spare file."""
PLANS = (
    Plan(name="resume, save", policy={"keep_all": True}),
    Plan(name="resume, save a new best, retire two", policy=LAST_ONE, earlier=6),
    Plan(name="first save into an empty folder", policy=LAST_ONE, earlier=0),
    Plan(name="save over a spare file, retire", policy=LAST_ONE, nbytes=LARGE, earlier=1, warm=4),
    Plan(name="the same, mode sync", policy=LAST_ONE, nbytes=LARGE, earlier=1, warm=4, mode="sync"),
    Plan(name="save, link what has not changed, retire", policy=LAST_ONE, frozen=LARGE, earlier=1, warm=2),
    Plan(name="save and publish, twice, retire", policy=LAST_ONE, publish=True, window=2),
    Plan(name="log rows, no save", policy=EVERY_FOURTH, earlier=4, window=3),
    Plan(name="save, retire, copy to a second tier", policy=LAST_ONE, mirror=True, earlier=3),
    Plan(name="the same, and the first tier is lost", policy=LAST_ONE, mirror=True, earlier=3, loses_disk=True),
    Plan(name="save, write the index of 64", policy={"keep_all": True}, nbytes=KIB, earlier=63),
    Plan(name="save the best as weights only, retire", policy=LAST_ONE | WEIGHTS_ONLY, torch=True, earlier=6),
)
AT_RANDOM = (
    Plan(name="resume, then a save every epoch", policy=LAST_ONE, earlier=0),
    Plan(name="the same, over spare files", policy={"keep_last": 2}, nbytes=LARGE, earlier=0),
)


def measure(folder: Path, *, sample: bool, seed: int) -> Iterator[Tally]:
    """Kill at every call, at random moments, at every request; a sample takes a dozen of each."""
    with kills.in_memory(folder) as place:
        for plan in AT_RANDOM:
            yield at_random_moments(plan, place, times=40 if sample else 500, seed=seed)
        for plan in PLANS:  # the one with PyTorch is the last
            yield at_every_call(plan, place, most=12 if sample else None, seed=seed)
    for kind in (S3Server, GcsServer):
        with kind() as server:
            yield from at_every_request(server, most=6 if sample else None, seed=seed)


def at_every_call(plan: Plan, folder: Path, *, most: int | None, seed: int) -> Tally:
    """Kill before, halfway through, and after every call that changes a file; `most` moments of them, if given."""
    warm_up(torch=plan.torch)
    tally = Tally(family="kill", scenario=f"at a system call: {plan.name}")
    base, place = folder / "base", folder / "trial"
    earlier = _prepare(plan, base)
    url = str(place / "run")

    def trial(number: int, moment: Moment) -> kills.End:
        shutil.copytree(base, place, symlinks=True)
        end = kills.at_call(_job(plan, url, warm=plan.warm, window=plan.window), str(place), number, moment)
        where = f"{moment} call {number} ({end.calls[-1]})" if number else "not killed"
        kills.tell(end, tally, where)
        look(lambda: findings(plan, url, Promises(end.said, earlier=earlier)), tally, where)
        shutil.rmtree(place)
        return end

    calls = trial(0, "before").calls
    for number, moment in kills.moments(calls, most=most, seed=seed):
        tally.tried += trial(number, moment).killed
    tally.remark = f"{len(calls)} calls that change something"
    shutil.rmtree(base)
    return tally


def _prepare(plan: Plan, base: Path) -> list[str]:
    """Train what a process before the killed one has trained; return what it said."""
    base.mkdir()
    if not plan.earlier:
        return []
    end = kills.to_the_end(_job(plan, str(base / "run"), warm=0, window=plan.earlier))
    if end.failed:
        raise RuntimeError("\n".join(end.said))
    return end.said


def at_random_moments(plan: Plan, folder: Path, *, times: int, seed: int) -> Tally:
    """Kill a training that saves and saves, after a random time; again and again in the same run."""
    warm_up()
    tally = Tally(family="kill", scenario=f"at a random moment: {plan.name}")
    chance = random.Random(seed)
    place, earlier = folder / "random", list[str]()
    url = str(place / "run")
    for number in range(times):
        if number % 20 == 0:
            shutil.rmtree(place, ignore_errors=True)
            earlier = []
        end = kills.after_seconds(_job(plan, url, warm=0, window=1 << 20), chance.uniform(0.0, 0.1))
        tally.tried += end.killed
        kills.tell(end, tally, f"kill {number}")
        promises = Promises(end.said, earlier=earlier)
        look(lambda promises=promises: findings(plan, url, promises), tally, f"kill {number}")
        earlier += end.said
    shutil.rmtree(place)
    return tally


CLIENTS = {"s3": ("s3fs", "obstore"), "gcs": ("gcs",)}


def at_every_request(
    server: S3Server | GcsServer, *, most: int | None, seed: int, clients: Sequence[str] = ()
) -> Iterator[Tally]:
    """Kill before every request is heard and after it was answered, for `clients` or all of this kind of server."""
    for client in clients or CLIENTS[server.kind]:
        arguments = [client, server.url, server.make_bucket(), str(seed), *([] if most is None else [str(most)])]
        yield from hosts.rows_of("faults.requests", *arguments, environment=server.environment)


def _job(plan: Plan, url: str, *, warm: int, window: int) -> kills.Job:
    return lambda voice: train(plan, url, voice, warm=warm, window=window)
