"""Resources: no space, quota, descriptors, memory or threads, a disk that fails or is read-only; one call at a time.

A training saves and retires, and a reader publishes and loads, while one system call fails; or under a real limit: a
full disk, and the limits of a process. What was told to be saved is there, whoever was not told can believe that it
is, training goes on where the policy says so, the next save works, and nothing is left behind.
"""

from __future__ import annotations

import contextlib
import gc
import json
import logging
import os
import random
import resource
import shutil
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from contracts import disks
from faults.children import Child, Voice
from faults.refusing import END, ERRORS, Refusal, Refuser
from faults.tally import Tally

import keepbest
from keepbest import Checkpointer, CheckpointPolicy
from keepbest.errors import KeepbestError, SaveFailedError

KIB, MIB = 1 << 10, 1 << 20
_SIZES = {"model": 1280 * KIB, "head": 96 * KIB}
"""Bytes: one file is large enough to be written past the page cache, and over a spare one; the other is not."""
_WARM = 3
_DEADLINE = 30


class Arrays:
    """One array, all of one value."""

    def __init__(self, nbytes: int) -> None:
        self._nbytes = nbytes
        self.become(0)

    def become(self, value: float) -> None:
        """Train."""
        self.weight = np.full(self._nbytes // 4, value, np.float32)

    def state_dict(self) -> dict[str, Any]:
        """Return the array."""
        return {"weight": self.weight}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take it."""
        self.weight = state["weight"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """How the training is set up."""

    on_save_error: Literal["raise", "warn"] = "raise"
    mode: Literal["async", "sync"] = "async"

    def __str__(self) -> str:
        return f"on_save_error={self.on_save_error!r}, mode={self.mode!r}"


SETTINGS = (Setting(), Setting(on_save_error="warn"), Setting(mode="sync"))


class Story:
    """A training in a process of its own. What it says on the pipe is one JSON object."""

    def __init__(self, folder: Path, setting: Setting) -> None:
        self.url = str(folder / "run")
        self._published = str(folder / "published.safetensors")
        self._setting = setting
        self._told: list[str] = []
        self._harm: list[tuple[str, str]] = []

    def run(self, voice: Voice, limits: Callable[[], Callable[[], None]] | None = None) -> None:
        """Train three epochs, a fourth with what `limits` sets until what it returns is called, and a fifth."""
        warnings.simplefilter("always")
        descriptors = _descriptors()
        with warnings.catch_warnings(record=True):
            self._open()
            for value in range(1, _WARM + 1):
                self._epoch(value)
            self._read()
        voice.ready()
        lift = limits() if limits is not None else lambda: None
        try:
            claimed = self._struck_epoch()
            self._struck_read()
        finally:
            lift()
        Path(self.url, END).exists()
        self._look({4} if claimed else {3, 4}, rows=4 if claimed else 3)
        self._go_on()
        if (left := _descriptors() - descriptors) > 0:
            self._harm.append(("broken", f"{left} descriptors stay open"))
        voice.say(json.dumps({"harm": self._harm, "told": self._told}))

    def _open(self) -> None:
        self._objects = {name: Arrays(nbytes) for name, nbytes in _SIZES.items()}
        policy = CheckpointPolicy(
            keep_last=1, at_end=False, on_sigterm=False, on_save_error=self._setting.on_save_error
        )
        self._ckpt = Checkpointer(self.url, policy, mode=self._setting.mode, **self._objects)

    def _epoch(self, value: int) -> None:
        for one in self._objects.values():
            one.become(value)
        self._ckpt.log(loss=float(value))
        self._ckpt.wait()

    def _read(self) -> None:
        run = keepbest.open_run(self.url)
        latest = run.latest
        run.publish(latest, "model.safetensors", self._published)
        for name in _SIZES:
            if not np.all(latest.load(name)["weight"] == latest.metrics["loss"]):
                self._harm.append(("unnoticed", f"{latest.name} loaded, and is not what was saved"))
        if not run.verify().ok:
            self._told.append("verify")

    def _struck_epoch(self) -> bool:
        """Return whether all that the user was told says that the epoch is saved."""
        told: list[BaseException | warnings.WarningMessage] = []
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            try:
                self._epoch(4)
            except Exception as error:  # noqa: BLE001 - judged below
                told.append(error)
                if isinstance(error, KeepbestError) and self._setting.on_save_error == "warn":
                    self._harm.append(("broken", f"the policy says to go on, and it raised {_words(error)}"))
        told += warned
        self._judge(told)
        failed = [one for one in told if isinstance(one, Exception) or str(one.message).startswith("saving ")]
        return not failed

    def _struck_read(self) -> None:
        told: list[BaseException | warnings.WarningMessage] = []
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            try:
                self._read()
            except Exception as error:  # noqa: BLE001 - as above
                told.append(error)
        self._judge([*told, *warned])

    def _judge(self, told: list[BaseException | warnings.WarningMessage]) -> None:
        """An error must be one of ours; but for memory, of which Python itself says what it is.

        Only the words are kept: an error holds on to what was open where it was raised.
        """
        for one in told:
            self._told.append(_words(one))
            error = one if isinstance(one, BaseException) else None
            if error is not None and not isinstance(error, KeepbestError | MemoryError):
                self._harm.append(("unnoticed", f"not one of our errors: {_words(error)}"))
            if isinstance(error, SaveFailedError) and not str(error.__cause__):
                self._harm.append(("unnoticed", f"it does not say why: {_words(error)}"))

    def _look(self, owed: set[int], *, rows: int) -> None:
        """Compare what is listed with what it says it is."""
        run = keepbest.open_run(self.url)
        found = run.checkpoints()
        if run.listing().damaged:
            self._harm.append(("torn", str(run.listing().damaged[0][1])))
        values = [int(one.metrics["loss"]) for one in found]
        if not owed & set(values):
            self._harm.append(("lost", f"{values} listed, and none of {sorted(owed)}"))
        for one, value in zip(found, values, strict=True):
            try:
                whole = all(np.all(one.load(name)["weight"] == value) for name in _SIZES)
            except KeepbestError as error:
                self._harm.append(("torn", str(error)))
            else:
                if not whole:
                    self._harm.append(("torn", f"{one.name} is not what was saved"))
        logged = {int(row.metrics["loss"]) for row in run.history().rows}
        if not logged >= set(range(1, rows + 1)):
            self._harm.append(("lost", f"rows: {sorted(logged)} of {rows}"))

    def _go_on(self) -> None:
        """Train one epoch more, without faults."""
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            try:
                self._epoch(5)
                self._ckpt.close()
            except Exception as error:  # noqa: BLE001 - whatever it is, training cannot go on
                self._harm.append(("broken", f"the next save: {_words(error)}"))
            else:
                self._look({5}, rows=5)
        for one in warned:
            if str(one.message).startswith("saving "):
                self._harm.append(("broken", f"the next save: {one.message}"))
        del self._ckpt


def _descriptors() -> int:
    gc.collect()
    return len(os.listdir("/proc/self/fd"))


def _words(what: BaseException | warnings.WarningMessage) -> str:
    if not isinstance(what, BaseException):
        return f"{what.category.__name__}: {what.message!s:.400}"
    where = traceback.extract_tb(what.__traceback__)[-1:]
    place = f" ({Path(where[0].filename).name}:{where[0].lineno})" if where else ""
    return f"{type(what).__name__}: {what!s:.400}{place}"


def warm_up(folder: Path) -> None:
    """Live a whole life in this process: it imports all that there is to import, and opens what stays open."""
    folder.mkdir()
    with warnings.catch_warnings(record=True):
        for setting in SETTINGS:
            story = Story(folder, setting)
            story._open()
            story._epoch(1)
            story._read()
            story._ckpt.close()
            shutil.rmtree(story.url)
    shutil.rmtree(folder)


# ── one system call fails ────────────────────────────────────────────────────────────────────────────────────────


def counted(folder: Path, setting: Setting) -> dict[str, int]:
    """Return how often each call is made in a story without faults."""
    warm_up(folder)
    counts, _, harm, _ = _refuse(folder, setting, None)
    if harm:
        raise RuntimeError(f"a story without faults: {harm}")
    return counts


def refusals(counts: Mapping[str, int], setting: Setting) -> Iterator[Refusal]:
    """Yield an error at each call; at the same call another one in each setting, where there are several."""
    turn = SETTINGS.index(setting)
    for call, count in counts.items():
        errors = ERRORS[call]
        for number in range(1, count + 1):
            yield Refusal(call=call, number=number, error=errors[(number + turn) % len(errors)])


def _refuse(
    folder: Path, setting: Setting, refusal: Refusal | None
) -> tuple[dict[str, int], str | None, list[tuple[str, str]], list[str]]:
    """Return the calls by name, what the one that failed was about, the harm, and what the user was told."""
    folder.mkdir()
    story = Story(folder, setting)
    with Child(story.run, deadline=_DEADLINE) as child:
        if not child.wait_until_ready():
            return {}, None, [("broken", f"before anything failed: {child.said}")], []
        tracer = Refuser(child.pid, str(folder), refusal)
        tracer.attach()
        child.go()
        child.status = tracer.run().status
        child.wait()
        harm, told = _heard(child)
    harm += list(_left(story.url))
    shutil.rmtree(folder)
    return tracer.counts, tracer.refused, harm, told


def _heard(child: Child) -> tuple[list[tuple[str, str]], list[str]]:
    if child.hung:
        return [("hung", f"no end within {_DEADLINE} s: {child.said}")], []
    if child.status != 0:
        return [("broken", f"the process ended with {child.status}: {child.said[-12:]}")], []
    said = json.loads(child.said[-1])
    return [(kind, words) for kind, words in said["harm"]], said["told"]


def _left(url: str) -> Iterator[tuple[str, str]]:
    """Look at what the process left, and collect garbage."""
    run = keepbest.open_run(url)
    report = run.verify()
    if not report.ok:
        yield "torn", str(report)
    run.gc(grace=0)
    listed = {found.name for found in run.checkpoints()}
    for path in Path(url).rglob("*"):
        below = path.relative_to(url).parts
        if ".tmp-" in path.name or (len(below) > 1 and below[0] == "checkpoints" and below[1] not in listed):
            yield "orphaned", str(path)


def refuse(folder: Path, setting: Setting, *, share: float, seed: int) -> Tally:
    """Let calls fail, one for each story."""
    planned = list(refusals(counted(folder / "counted", setting), setting))
    chosen = random.Random(seed).sample(planned, max(1, round(share * len(planned))))
    row = Tally(
        family="resources", scenario=f"one system call fails while a training saves and a reader reads: {setting}"
    )
    silent = 0
    for number, refusal in enumerate(chosen):
        _, about, harm, told = _refuse(folder / str(number), setting, refusal)
        row.tried += about is not None
        silent += not told
        for kind, words in harm:
            row.found(kind, f"{refusal} ({about}): {words}")
    row.remark = f"of {len(planned)} calls; {silent} were got over in silence"
    return row


# ── real limits ──────────────────────────────────────────────────────────────────────────────────────────────────


def _limited(kind: int, value: Callable[[], int]) -> Callable[[], Callable[[], None]]:
    def set_limit() -> Callable[[], None]:
        soft, hard = resource.getrlimit(kind)
        resource.setrlimit(kind, (value(), hard))
        return lambda: resource.setrlimit(kind, (soft, hard))

    return set_limit


def _address_space() -> int:
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()


def _highest_descriptor() -> int:
    return max(int(name) for name in os.listdir("/proc/self/fd"))


LIMITS: dict[str, list[Callable[[], Callable[[], None]]]] = {
    "descriptors, by RLIMIT_NOFILE": [
        _limited(resource.RLIMIT_NOFILE, lambda more=more: _highest_descriptor() + more) for more in range(1, 12)
    ],
    "sizes of files, by RLIMIT_FSIZE": [
        _limited(resource.RLIMIT_FSIZE, lambda most=most: most)
        for most in (0, 1, 300, 1000, 4096, 10_000, 65_536, 100_000, MIB, 1280 * KIB, 1284 * KIB)
    ],
    "memory, by RLIMIT_AS": [
        _limited(resource.RLIMIT_AS, lambda more=more: _address_space() + more)
        for more in (0, 64 * KIB, 256 * KIB, MIB, 2 * MIB, 3 * MIB, 4 * MIB, 6 * MIB, 8 * MIB, 12 * MIB, 20 * MIB)
    ],
}


def limit(folder: Path, what: str, *, share: float, seed: int) -> Tally:
    """Let stories happen under one kind of limit."""
    row = Tally(family="resources", scenario=f"too little of {what}")
    cases = [(setting, number) for setting in SETTINGS for number in range(len(LIMITS[what]))]
    for setting, number in random.Random(seed).sample(cases, max(1, round(share * len(cases)))):
        place = folder / f"limit-{number}"
        harm = _story(place, setting, LIMITS[what][number])
        row.tried += 1
        for kind, words in harm:
            row.found(kind, f"{setting}, number {number}: {words}")
        shutil.rmtree(place)
    return row


def _story(folder: Path, setting: Setting, limits: Callable[[], Callable[[], None]]) -> list[tuple[str, str]]:
    folder.mkdir()
    story = Story(folder, setting)
    with Child(lambda voice: story.run(voice, limits), deadline=_DEADLINE) as child:
        child.wait_until_ready()
        child.go()
        child.wait()
        harm, _ = _heard(child)
    return harm + list(_left(story.url))


def fill(folder: Path, *, share: float, seed: int) -> Tally:
    """Let stories happen on a disk on which less and less is free."""
    row = Tally(family="resources", scenario="a disk fills up while a training saves and a reader reads")
    free = [
        4 * KIB * pages for pages in (0, 1, 2, 3, 5, 8, 12, 16, 20, 24, 25, 26, 28, 32, 48, 80, 160, 320, 344, 350, 400)
    ]
    cases = [(setting, left) for setting in SETTINGS for left in free]
    with disks.small(folder / "disk", "8m") as disk:
        for number, (setting, left) in enumerate(random.Random(seed).sample(cases, max(1, round(share * len(cases))))):
            place = disk / str(number)
            harm = _story(place, setting, lambda left=left: _filled(disk / "filler", left))
            row.tried += 1
            for kind, words in harm:
                row.found(kind, f"{setting}, {left} bytes free: {words}")
            shutil.rmtree(place)
    return row


def _filled(filler: Path, left: int) -> Callable[[], None]:
    """Fill the disk but for so many bytes."""
    with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(4 * KIB))
    os.truncate(filler, max(0, filler.stat().st_size - left))
    return filler.unlink


def measure(folder: Path, *, sample: bool, seed: int) -> Iterator[Tally]:
    """Refuse each call, then give too little of everything."""
    logging.disable(logging.WARNING)  # what could not be tidied up is told a thousand times
    share = 0.1 if sample else 1.0
    for number, setting in enumerate(SETTINGS):
        place = folder / f"setting-{number}"
        place.mkdir()
        yield refuse(place, setting, share=share, seed=seed)
    for what in LIMITS:
        yield limit(folder, what, share=share, seed=seed)
    try:
        yield fill(folder, share=share, seed=seed)
    except pytest.skip.Exception as reason:
        sys.stderr.write(f"resources: {reason}\n")
