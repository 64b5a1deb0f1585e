"""Network: a proxy before real servers of buckets strikes the requests of a story: late, cut off, refused, altered.

The story: a training resumes, saves and retires, a reader loads, gc runs. Whatever becomes of it, what was told to be
saved is there, what is listed is whole, it ends in time, the next training works, and gc leaves nothing behind.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
import queue
import random
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from contracts import servers
from contracts.proxy import FaultProxy
from contracts.stores import PART, Store
from faults import strikes
from faults.strikes import DEADLINE, GROUPS, Strike
from faults.tally import Tally

from keepbest import Checkpointer, CheckpointPolicy
from keepbest.errors import KeepbestError
from keepbest.storage.backend import open_backend
from keepbest.storage.checkpoint import Checkpoint
from keepbest.storage.journal import Mark
from keepbest.storage.layout import JOURNAL, segments_prefix
from keepbest.storage.run import Run

FACTOR = 4
"""A story in which the store fails once, or for good, ends within so many deadlines."""
_THREADS = 5
"""Stories at once: more would only wait for one another, as a story takes more of the processor than of the network."""
_SHARE = 0.34
_HUNG = 60.0
"""Seconds after which nobody waits for a story any more."""
_NAMES = {"s3fs": "S3 through s3fs", "obstore": "S3 through obstore", "gcs": "GCS"}
_POLICY = CheckpointPolicy(keep_last=1, at_end=False, on_sigterm=False)
_LARGE_REQUESTS = ("uploads", "uploadId=", "partNumber=", "/upload/", "/compose", ".tmp-", "model.safetensors")


class Model:
    """One array, all of one value."""

    def __init__(self, floats: int) -> None:
        self.weight = np.zeros(floats, np.float32)

    def state_dict(self) -> dict[str, Any]:
        """Return the array."""
        return {"weight": self.weight}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take it."""
        self.weight = state["weight"]


@dataclass(slots=True, kw_only=True)
class Told:
    """What a story told the user."""

    saved: bool = False
    seconds: float = 0.0
    raw: list[str] = field(default_factory=list)
    """What was raised that is none of our errors."""
    wrong: list[str] = field(default_factory=list)
    """Loaded, and not what was saved."""


class Place:
    """A run behind a proxy of its own, and what was saved there last."""

    def __init__(self, client: str, server: Any, bucket: str, *, floats: int) -> None:
        self.proxy = FaultProxy(server.url)
        who: dict[str, Any] = {"token": "anon"}
        if client != "gcs":
            admin = server.identity("admin")
            who = {"key": admin.access, "secret": admin.secret, "client": client}
        asked = {"endpoint_url": self.proxy.url, "part_size": PART, "deadline": DEADLINE, **who}
        self.store = Store(client, server, self.proxy, bucket, asked)
        self._direct = asked | {"endpoint_url": server.url, "deadline": 30.0}
        self._floats = floats
        self.seconds = 0.0
        """Of the last story."""
        self._saved = 0
        """The value that was saved last, for sure."""
        self._values = itertools.count(1)
        self._run = Run(open_backend(self.store.url, self._direct))
        self.repair()

    def repair(self) -> None:
        """Train one epoch without faults, and keep the history short: each training reads all of it."""
        rows = self._run.backend.list(segments_prefix(JOURNAL))
        self._run.backend.delete([entry.key for entry in rows])
        value = next(self._values)
        _train(self.store.url, self._direct, value, self._floats)
        self._saved = value

    def count(self) -> list[Any]:
        """Return the requests of a story without faults."""
        self.proxy.clear()
        told = self.tell(gc=True)
        if not told.saved or told.raw or told.wrong:
            raise RuntimeError(f"a story without faults failed: {told}")
        self._saved = self._value
        records: list[Any] = self.proxy.records()
        return records

    def tell(self, *, gc: bool) -> Told:
        """Let the story happen."""
        self._value = value = next(self._values)
        told, begin = Told(), time.monotonic()
        with _noting(told):
            _train(self.store.url, self.store.options, value, self._floats)
            told.saved = True
        with _noting(told):
            latest = self.store.read().latest
            loaded = latest.load("model")["weight"]
            if not np.array_equal(loaded, np.full(self._floats, latest.metrics["loss"], np.float32)):
                told.wrong.append(f"{latest.name} loaded as {loaded[:3]}")
        if gc:
            with _noting(told):
                self.store.read().gc(grace=0)
        told.seconds = self.seconds = time.monotonic() - begin
        return told

    def try_out(self, strike: Strike) -> tuple[bool, list[tuple[str, str]]]:
        """Return whether the strike did something, and what harm came of it, as (kind, words)."""
        self.proxy.clear()
        rule = strike.arm(self.store)
        told = self.tell(gc=strike.name != "late")  # with no grace, gc may not run while something is on its way
        struck = strike.struck(self.store, rule)
        if strike.name == "late":
            self._wait_for_late()
        self.proxy.clear()
        found = [("broken", words) for words in told.raw] + [("unnoticed", words) for words in told.wrong]
        if told.seconds > FACTOR * DEADLINE:
            found.append(("hung", f"{told.seconds:.1f} s"))
        return struck, found + list(self._harm(told))

    def _wait_for_late(self) -> None:
        until = time.monotonic() + 3 * strikes.LATE
        while any(record.end is None for record in self.proxy.records()) and time.monotonic() < until:
            time.sleep(0.05)

    def _harm(self, told: Told) -> Iterator[tuple[str, str]]:
        """Look at what is there, without a proxy between; then train one more epoch, and collect garbage."""
        before = self._saved
        yield from self._look({self._value} if told.saved else {self._value, before}, "then")
        try:
            self.repair()
        except Exception as error:  # noqa: BLE001 - whatever it is, training cannot go on
            yield "broken", f"the next training: {_words(error)}"
            return
        yield from self._look({self._saved}, "after the next training")
        report = self._run.gc(grace=0)
        listed = {found.name for found in self._run.listing().checkpoints}
        stray = [key for key in self.store.names() if _is_stray(key, listed)]
        if stray:
            yield "orphaned", f"{stray[:3]} after {report}"
        if self.store.is_s3 and self.store.uploads():
            yield "uploads", str(self.store.uploads()[:3])

    def _look(self, owed: set[int], when: str) -> Iterator[tuple[str, str]]:
        """Compare what is listed with what it says it is; one of the values `owed` must be there."""
        run, listing = self._run, self._run.listing()
        if listing.damaged:
            yield "torn", f"{when}: {listing.damaged[0][1]}"
        found = [Checkpoint(run.backend, info) for info in listing.checkpoints]
        values = [int(one.metrics["loss"]) for one in found]
        if not owed & set(values):
            yield "lost", f"{when}: {values} listed, and none of {sorted(owed)}"
        for one, value in zip(found, values, strict=True):
            try:
                whole = np.array_equal(one.load("model")["weight"], np.full(self._floats, value, np.float32))
                journal = one.state().training["journal"]
                rows = run.history_at(Mark(branch=journal["branch"], rows=journal["rows"])).rows
            except KeepbestError as error:
                yield "torn", f"{when}: {_words(error)}"
                continue
            if not whole:
                yield "torn", f"{when}: {one.name} is not what was saved"
            if not rows or rows[-1].metrics.get("loss") != value:
                yield "lost", f"{when}: the rows of {one.name}"


def _train(url: str, options: Mapping[str, Any], value: int, floats: int) -> None:
    model = Model(floats)
    ckpt = Checkpointer(url, _POLICY, storage_options=options, model=model)
    try:
        ckpt.resume()
        model.weight = np.full(floats, value, np.float32)
        ckpt.log(loss=float(value))
        ckpt.wait()
    finally:
        with contextlib.suppress(KeepbestError):
            ckpt.close(save=False)


@contextlib.contextmanager
def _noting(told: Told) -> Iterator[None]:
    """Pass over our own errors; note all others."""
    try:
        yield
    except KeepbestError:
        pass
    except Exception as error:  # noqa: BLE001 - told as harm
        told.raw.append(_words(error))


def _words(error: BaseException) -> str:
    where = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__}: {error!s:.300} ({Path(where.filename).name}:{where.lineno})"


def _is_stray(key: str, listed: set[str]) -> bool:
    folder, _, rest = key.partition("/checkpoints/")
    return "/.tmp-" in key or bool(rest and folder and rest.partition("/")[0] not in listed)


# ── many stories at once ─────────────────────────────────────────────────────────────────────────────────────────


def sweep(  # noqa: PLR0913 - all but three by name
    client: str, server: Any, bucket: str, *, large: bool, share: float = 1.0, seed: int = 0, threads: int = _THREADS
) -> list[Tally]:
    """Try out a share of the strikes on one client, several at a time; they mostly wait.

    Args:
        client: "s3fs", "obstore" or "gcs".
        server: of its kind.
        bucket: there.
        large: the model takes three parts, and only the requests that move it are struck; else all are.
        share: of all, drawn by the seed.
        seed: see there.
        threads: how many stories go on at once.
    """
    floats = 11 * (1 << 18) if large else 25_000
    chosen = (lambda record: any(word in record.target for word in _LARGE_REQUESTS)) if large else (lambda _: True)
    with warnings.catch_warnings():  # for all threads
        warnings.simplefilter("ignore")
        first = Place(client, server, bucket, floats=floats)
        planned = list(strikes.strikes(first.count(), chosen=chosen))
        planned = sorted(random.Random(seed).sample(planned, max(1, round(share * len(planned)))), key=str)
        moved = "a file of three parts" if large else "resume, save, retire, load, gc"
        rows = {
            group: Tally(family="network", scenario=f"{_NAMES[client]}, {moved}: a request {group}") for group in GROUPS
        }
        slowest = _Pool(rows, lambda: Place(client, server, bucket, floats=floats)).run(planned, first, threads)
    for row in rows.values():
        row.remark = f"of {len(planned)} in all, the slowest story {slowest:.1f} s"
    return [row for row in rows.values() if row.tried]


class _Pool:
    """Threads, each with a place of its own; one that hangs is left to itself."""

    def __init__(self, rows: Mapping[str, Tally], make: Callable[[], Place]) -> None:
        self._rows, self._make = rows, make
        self._lock = threading.Lock()
        self._slowest = 0.0
        self._under_way: dict[int, tuple[float, Strike]] = {}

    def run(self, planned: Sequence[Strike], first: Place, threads: int) -> float:
        """Try all out; returns the seconds of the slowest story."""
        left: queue.SimpleQueue[Strike] = queue.SimpleQueue()
        for strike in planned:
            left.put(strike)
        places = [first, *(self._make() for _ in range(threads - 1))]
        workers = [threading.Thread(target=self._work, args=(left, place), daemon=True) for place in places]
        for worker in workers:
            worker.start()
        while any(worker.is_alive() for worker in workers):
            time.sleep(0.1)
            with self._lock:
                now = time.monotonic()
                hung = [one for one in self._under_way.values() if now - one[0] > _HUNG]
            if hung and len(hung) == sum(worker.is_alive() for worker in workers):
                for _, strike in hung:
                    self._row(strike).found("hung", str(strike))
                break
        for place in places:
            place.proxy.close()
        return self._slowest

    def _work(self, left: queue.SimpleQueue[Strike], place: Place) -> None:
        me = threading.get_ident()
        with contextlib.suppress(queue.Empty):
            while True:
                strike = left.get_nowait()
                begin = time.monotonic()
                with self._lock:
                    self._under_way[me] = begin, strike
                try:
                    struck, found = place.try_out(strike)
                except Exception as error:  # noqa: BLE001 - told as harm
                    struck, found = True, [("broken", f"the check itself: {_words(error)}")]
                with self._lock:
                    del self._under_way[me]
                    self._slowest = max(self._slowest, place.seconds)
                    row = self._row(strike)
                    row.tried += struck
                    for harm, words in found:
                        row.found(harm, f"{strike}: {words}")

    def _row(self, strike: Strike) -> Tally:
        return next(self._rows[group] for group, names in GROUPS.items() if strike.name in names)


@contextlib.contextmanager
def reached(server: Any) -> Iterator[None]:
    """Let the clients of this process find a server, and nothing else."""
    before = dict(os.environ)
    for name in servers.STRAY_VARIABLES:
        os.environ.pop(name, None)
    os.environ.update(server.environment)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def measure(folder: Path, *, sample: bool, seed: int) -> Iterator[Tally]:
    """Strike requests of small and large stories on S3 and GCS: a third of all strikes, drawn by the seed, or a sample.

    All of them take some forty minutes.
    """
    logging.disable(logging.WARNING)  # what could not be tidied up is told a thousand times
    for kind, clients in ((servers.S3Server, ("s3fs", "obstore")), (servers.GcsServer, ("gcs",))):
        with kind(folder) as server, reached(server):
            bucket = server.make_bucket()
            for client in clients:
                if client != "obstore":  # it carries large files, and leaves the rest to s3fs
                    yield from sweep(client, server, bucket, large=False, share=0.03 if sample else _SHARE, seed=seed)
                yield from sweep(client, server, bucket, large=True, share=0.05 if sample else _SHARE, seed=seed)
