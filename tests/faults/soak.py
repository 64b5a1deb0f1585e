"""Soak: thousands of saves to stores that refuse at times, in processes that are killed: nothing is lost or grows."""

from __future__ import annotations

import itertools
import json
import math
import os
import random
import signal
import statistics
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from contracts.faults import CountingBackend
from contracts.servers import STRAY_VARIABLES, S3Server
from faults import endurance
from faults.children import fork
from faults.comparing import HarmError, check, check_no_orphans
from faults.endurance import BEST, LAST, MILESTONE, ROWS, STEPS, loss, val_loss
from faults.reference import Commit, Place, Rules, keeps, latest, ranking
from faults.tally import Tally

from keepbest.storage.backend import open_backend
from keepbest.storage.listing import UNINDEXED
from keepbest.storage.run import Run

DEADLINE = 240
"""Seconds that a process may take."""
MOST_LIVES = 60
RULES = Rules(monitors=("val_loss",), keep_best=BEST, keep_last=LAST, keep_every=MILESTONE)
ROW_BYTES, ROW_MEMORY, SLACK = 400, 1024, 16 << 20
"""What a row may take in the journal and in memory, and what a process may grow by beside that."""


@dataclass(kw_only=True)
class Soak:
    """One run, what its ledger says, and what was found wrong."""

    tally: Tally
    url: str
    ledger: Path
    saves: int
    calls: tuple
    """From the least to the most calls to the store until a process is killed."""
    every: int
    """Changes from one refusal to the next, about."""
    in_one_process: bool = False
    """What is stored does not outlive the process."""
    facts: dict = field(default_factory=dict)


def measure(folder: Path, *, sample: bool, seed: int) -> Iterator[Tally]:
    """Soak a run on the disk, one in memory, and one in a bucket."""
    part = 20 if sample else 1
    yield on_the_disk(folder, saves=5000 // part, seed=seed)
    yield in_memory(folder, saves=2000 // part, seed=seed)
    with S3Server() as server:
        for name in STRAY_VARIABLES:
            os.environ.pop(name, None)
        os.environ |= server.environment
        yield in_a_bucket(f"s3://{server.make_bucket()}/soak", folder, saves=200 // min(part, 4), seed=seed)


def on_the_disk(folder: Path, *, saves: int, seed: int = 0) -> Tally:
    """Kill a process every few hundred saves; at times soon after its start."""
    url = str(folder / f"soak-{uuid.uuid4().hex}")
    return _soak("the disk", url, folder, seed, saves=saves, calls=(saves // 2, saves * 2), every=60)


def in_memory(folder: Path, *, saves: int, seed: int = 0) -> Tally:
    """Refuse only: what is in memory dies with its process."""
    url = f"memory://soak-{uuid.uuid4().hex}"
    return _soak("memory", url, folder, seed, saves=saves, calls=(0, 0), every=40, in_one_process=True)


def in_a_bucket(url: str, folder: Path, *, saves: int, seed: int = 0) -> Tally:
    """As on the disk, with fewer saves."""
    return _soak("a bucket (S3)", url, folder, seed, saves=saves, calls=(60 + saves, 60 + 3 * saves), every=20)


def _soak(where, url, folder, seed, **settings):
    rows = settings["saves"] * ROWS
    tally = Tally(family="soak", scenario=f"{rows:,} logs and {settings['saves']:,} saves to {where}")
    soak = Soak(tally=tally, url=url, ledger=folder / f"ledger-{uuid.uuid4().hex}", **settings)
    soak.ledger.touch()
    if soak.in_one_process:
        soak.facts |= _in_child(tally, lambda: _live_and_look(soak, seed)) or {}
    else:
        _live_often(soak, random.Random(seed))
    _judge_ledger(soak)
    return tally


# ── lives ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def _live_often(soak, chance):
    """Let one process after the other train until it is killed, then a long one, then one on a store that works."""
    done = lives = 0
    most = int(0.7 * soak.saves)
    while done < most and lives < MOST_LIVES:
        lives += 1
        calls = chance.randint(5, 99) if lives % 4 == 3 else chance.randint(*soak.calls)
        mode = "async" if chance.random() < 0.4 else "sync"
        done = _live(soak, chance.random(), epochs=most, mode=mode, calls=calls)
        if done is None:
            return
    for epochs, every in ((soak.saves - 4, soak.every), (soak.saves, None)):
        if _live(soak, chance.random(), epochs=epochs, mode="sync", calls=None, every=every) is None:
            return


def _live(soak, seed, *, epochs, mode, calls, every=0):  # noqa: PLR0913 - each is named
    """Let a process train, look at the run, and return how many epochs are saved; None if something went wrong."""
    plan = {"epochs": epochs, "mode": mode, "every": soak.every if every == 0 else every, "calls": calls, "seed": seed}
    ended = _in_child(soak.tally, lambda: endurance.live(soak.url, soak.ledger, **plan), kill=calls is not None)
    soak.tally.tried += ended == "killed"
    found = ended and _in_child(soak.tally, lambda: _look(soak, ended=epochs == soak.saves))
    soak.facts |= found or {}
    return found and found["epochs"]


def _live_and_look(soak, seed):
    for epochs, every in ((soak.saves - 4, soak.every), (soak.saves, None)):
        endurance.live(soak.url, soak.ledger, epochs=epochs, mode="sync", every=every, calls=None, seed=seed)
    return _look(soak, ended=True)


def _in_child(tally, call, *, kill=False):
    """Fork, call, and return what the child returned, "killed" if it was, or None if it went wrong in another way."""
    reading, writing = os.pipe()
    child = fork()
    if child == 0:
        _be_child(call, writing)
    os.close(writing)
    until = time.monotonic() + DEADLINE
    with os.fdopen(reading) as pipe:
        while os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
            if time.monotonic() > until:
                os.kill(child, signal.SIGKILL)
                os.waitpid(child, 0)
                tally.found("hung", f"a process did not end within {DEADLINE} s")
                return None
            time.sleep(0.01)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        said = pipe.read()
    if status == -signal.SIGKILL and kill:
        return "killed"
    answer = json.loads(said) if said else {"harm": ["broken", f"a process ended with {status}"]}
    if "harm" in answer:
        tally.found(*answer["harm"])
        return None
    return answer["returned"] or "ended"


def _be_child(call, writing):
    """Never return: what follows in the parent's program is not for a child."""
    try:
        try:
            answer = {"returned": call()}
        except BaseException as error:  # noqa: BLE001 - the parent has it
            answer = {"harm": [getattr(error, "kind", "broken"), f"{type(error).__name__}: {error}"]}
        os.write(writing, json.dumps(answer).encode())
    finally:
        os._exit(0)


# ── what must be there ────────────────────────────────────────────────────────────────────────────────────────────


def _look(soak, *, ended):
    """Compare the run with the ledger, as another process sees it; at the end, collect garbage and count files too."""
    counting = CountingBackend(open_backend(soak.url))
    begin = time.perf_counter()
    listed = {found.sequence: found.epoch for found in Run(counting).checkpoints()}
    seconds, reads = time.perf_counter() - begin, counting.calls["read"]
    check(reads <= UNINDEXED + 2, "broken", f"a listing of {len(listed)} checkpoints took {reads} reads")
    run = Run(open_backend(soak.url))
    committed = dict(_ledger(soak, "committed"))
    missed = sorted(set(listed) - set(committed))
    check(missed in ([], [max(listed)]), "lost", f"{missed} are listed, and nobody committed them")
    committed |= {number: listed[number] for number in missed}
    if not committed:
        return {"epochs": 0}
    held = {number: _commit(epoch) for number, epoch in committed.items()}
    kept = keeps(held, RULES)
    check(kept <= set(listed), "lost", f"{sorted(kept - set(listed))} are gone, of {sorted(listed)}")
    check(run.latest.sequence == latest(held), "lost", f"the latest is {run.latest}")
    best = next(iter(ranking(held, "val_loss")), None)
    check(best is None or run.best.sequence == best, "lost", f"the best is {run.best}, not number {best}")
    _check_history(run, run.latest.epoch)
    report = run.verify()
    check(report.ok, "torn", str(report))
    for checkpoint in (run.latest, run.best):
        values = {float(value) for tensor in checkpoint.load("weights").values() for value in tensor.flat}
        check(values == {checkpoint.epoch + 1}, "torn", f"{checkpoint} holds {values}")
    facts = {"epochs": run.latest.epoch + 1, "listing ms": round(1e3 * seconds, 1), "reads": reads}
    return facts | (_look_at_the_end(run, kept, set(listed)) if ended else {})


def _commit(epoch):
    value = val_loss(epoch)
    place = Place(next_epoch=epoch + 1, step=(epoch + 1) * STEPS)
    values = {"val_loss": None if math.isnan(value) else value}
    return Commit(parent=None, place=place, metrics={}, values=values, complete=True, state=None, rows=(), standing={})


def _check_history(run, epoch):
    rows = run.history().rows[: (epoch + 1) * ROWS]
    check(len(rows) == (epoch + 1) * ROWS, "lost", f"the history has {len(rows)} rows of {(epoch + 1) * ROWS}")
    for number, row in enumerate(rows):
        at, place = divmod(number, ROWS)
        step = at * STEPS + min(place + 1, STEPS)
        wanted = repr({"loss": loss(step)} if place < STEPS else {"val_loss": val_loss(at)})
        right = (row.epoch, row.step, repr(row.metrics)) == (at, step, wanted)
        check(right, "lost", f"row {number} of the history is {row}, not {wanted} of epoch {at}")


def _look_at_the_end(run, kept, listed):
    check(listed == kept, "orphaned", f"{sorted(listed - kept)} are listed, and nothing wants to keep them")
    run.gc(grace=0)
    check_no_orphans(run)
    check(not run.backend.unfinished(""), "uploads", f"{run.backend.unfinished('')}")
    entries = run.backend.list("")
    journal = sum(entry.size for entry in entries if entry.key.startswith("metrics"))
    others = [entry.key for entry in entries if not entry.key.startswith(("checkpoints/", "metrics"))]
    check(len(others) <= len(kept) + 2, "orphaned", f"beside {len(kept)} checkpoints there are {others}")
    index = sum(entry.size for entry in entries if "index" in entry.key)
    rows = len(run.history().rows)
    check(journal <= ROW_BYTES * rows, "broken", f"the journal takes {journal / rows:.0f} bytes a row")
    return {"files": len(entries), "checkpoints": len(kept), "journal": round(journal / rows), "index": index}


# ── what must not grow ────────────────────────────────────────────────────────────────────────────────────────────


def _judge_ledger(soak):
    tally = soak.tally
    tally.tried += len(_ledger(soak, "refused"))
    for kind, what in _ledger(soak, "harm"):
        tally.found(kind, what)
    for _, samples in itertools.groupby(_ledger(soak, "sampled"), key=lambda sample: sample[0]):
        first, *_, last = [*samples] * 2
        try:
            _check_growth(first, last)
        except HarmError as harm:
            tally.found(harm.kind, str(harm))
    saved = [micros for (micros,) in _ledger(soak, "saved")]
    tenth = max(1, len(saved) // 10)
    first, last = (statistics.median(part) / 1e3 for part in (saved[:tenth], saved[-tenth:]))
    facts = ", ".join(f"{name} {value}" for name, value in soak.facts.items())
    tally.remark = f"a save takes {first:.1f} ms at first, {last:.1f} at last; {facts}"


def _ledger(soak, kind):
    lines = map(json.loads, soak.ledger.read_text().splitlines())
    return [facts for found, *facts in lines if found == kind]


def _check_growth(first, last):
    _, rows, memory, threads, files = (now - then for now, then in zip(last, first, strict=True))
    check(threads <= 2, "broken", f"{threads} threads more after {rows} rows")
    check(files <= 4, "broken", f"{files} open files more after {rows} rows")
    check(memory <= SLACK + ROW_MEMORY * rows, "broken", f"{memory:,} bytes of memory more after {rows} rows")
