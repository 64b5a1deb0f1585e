"""Racers: what the processes of a race do, each until its time is up, and what they say on the pipe in the end."""

from __future__ import annotations

import contextlib
import json
import random
import struct
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from contracts.runs import SmallRun
from faults.children import Voice

import keepbest
from keepbest.errors import ConcurrentWriterError, KeepbestError
from keepbest.storage.backend import open_backend

KEPT = 3
"""Checkpoints that each writer keeps of those that it knows."""
HELD = 4
"""Checkpoints whose tensors a reader holds on to, mapped, and looks at again."""


class Race:
    """One run, and how its processes reach it."""

    def __init__(
        self,
        url: str,
        *,
        seconds: float,
        floats: int = 12,
        options: Mapping[str, Any] | None = None,
        clock: float = 0.0,
    ) -> None:
        """Take note of the place.

        Args:
            url: of the run.
            seconds: how long the race takes.
            floats: of the model.
            options: `storage_options`.
            clock: hours by which the clocks of writers jump, back and forth.
        """
        self.url = url
        self.seconds = seconds
        self.options = dict(options or {})
        self._floats = floats
        self._clock = clock
        self.published = f"{url}-published.safetensors"

    def arrays(self, token: int) -> dict[str, np.ndarray]:
        """Return the model of a token: the same value in every place."""
        return {"weight": np.full(self._floats, token, np.float64)}

    def write(self, voice: Voice, who: int, *, publish: bool = False) -> None:
        """Commit one checkpoint after the other, and retire older ones; whoever loses looks at the run again."""
        if self._clock:
            jump(self._clock * 3600, seed=who)
        tokens = iter(range(who * 1_000_000, (who + 1) * 1_000_000))
        won: list[tuple[int, int]] = []
        told: list[int] = []
        lost = 0
        for _ in self._turns(voice):
            run = SmallRun(open_backend(self.url, self.options))
            with contextlib.suppress(ConcurrentWriterError):
                for _ in self._until_the_end():
                    token = next(tokens)
                    lost += 1  # unless it is won
                    told += [token - 1]
                    sequence = run.save(float(token), arrays=self.arrays(token)).sequence
                    lost -= 1
                    told.pop()
                    won.append((sequence, token))
                    run.writer.retire([found.sequence for found in run.writer.checkpoints[:-KEPT]])
                    run.writer.refresh_hints()
                    if publish:
                        newest = keepbest.open_run(self.url).latest
                        keepbest.open_run(self.url).publish(newest, "model.safetensors", self.published)
            run.writer.close()
        voice.say(json.dumps({"won": won, "lost": lost, "told": told}))

    def read(self, voice: Voice) -> None:
        """Load all that is listed, and hold on to some of it."""
        loads, gone, harm = 0, 0, list[str]()
        held: deque[tuple[int, np.ndarray]] = deque(maxlen=HELD)
        for _ in self._turns(voice):
            run = keepbest.open_run(self.url, storage_options=self.options)
            for checkpoint in run.checkpoints():
                token = int(checkpoint.metrics["val_loss"])
                loads += 1
                try:
                    weight = checkpoint.load("model")["weight"]
                except KeepbestError as error:
                    gone += 1
                    harm += self._unless_retired(checkpoint.sequence, error)
                    continue
                held.append((token, weight))
            harm += [f"{token} reads {found[0]}" for token, found in held if not np.all(found == token)]
            if held:
                held[-1][1][:] += 0.5  # one's own to change
                held.pop()
        voice.say(json.dumps({"loads": loads, "gone": gone, "harm": harm}))

    def read_published(self, voice: Voice) -> None:
        """Read the published file, as somebody does who does not know keepbest."""
        loads, harm, seen = 0, list[str](), 0.0
        for _ in self._turns(voice):
            with contextlib.suppress(FileNotFoundError), Path(self.published).open("rb") as file:
                (length,) = struct.unpack("<Q", file.read(8))
                file.seek(8 + length)
                values = np.frombuffer(file.read(), np.float64)
                loads += 1
                if len(values) != self._floats or not np.all(values == values[0]):
                    harm.append(f"the published file is torn: {len(values)} values from {values[:1]}")
                elif values[0] < seen:
                    harm.append(f"the published file went back from {seen} to {values[0]}")
                else:
                    seen = float(values[0])
        voice.say(json.dumps({"loads": loads, "gone": 0, "harm": harm}))

    def collect(self, voice: Voice, *, ahead: float = 0.0) -> None:
        """Collect garbage all the time, with the usual grace, by a clock that is so many seconds ahead."""
        if ahead:
            jump(ahead, jumping=False)
        rounds, removed = 0, list[str]()
        for _ in self._turns(voice):
            rounds += 1
            removed += [gone.name for gone in keepbest.open_run(self.url, storage_options=self.options).gc().removed]
        voice.say(json.dumps({"rounds": rounds, "removed": removed}))

    def _unless_retired(self, sequence: int, error: KeepbestError) -> Iterator[str]:
        """Yield what is wrong if a checkpoint that could not be loaded is still there, and still cannot."""
        for checkpoint in keepbest.open_run(self.url, storage_options=self.options).checkpoints():
            if checkpoint.sequence == sequence:
                try:
                    checkpoint.load("model")
                except KeepbestError as again:
                    listed = keepbest.open_run(self.url, storage_options=self.options).checkpoints()
                    if sequence in {found.sequence for found in listed}:
                        yield f"{checkpoint.name} is listed, and does not load: {error}; then {again}"

    def _turns(self, voice: Voice) -> Iterator[None]:
        keepbest.open_run(self.url, storage_options=self.options).checkpoints()  # to have it all imported and connected
        voice.ready()
        self._end = time.monotonic() + self.seconds
        yield from self._until_the_end()

    def _until_the_end(self) -> Iterator[None]:
        while time.monotonic() < self._end:
            yield


def jump(seconds: float, *, seed: int = 0, jumping: bool = True) -> None:
    """Put the clock of this process wrong: by so much, or now by this and now by that, up to so much, either way."""
    dice, true, true_ns = random.Random(seed), time.time, time.time_ns
    wrong: Callable[[], float] = (lambda: dice.uniform(-seconds, seconds)) if jumping else (lambda: seconds)
    time.time = lambda: true() + wrong()
    time.time_ns = lambda: true_ns() + int(wrong() * 1e9)


def words(error: BaseException) -> str:
    """Return an error with its place."""
    return "".join(traceback.format_exception(error))[-600:]
