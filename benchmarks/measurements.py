"""What is measured of one saver on one training; each method is one turn and returns samples by name."""

from __future__ import annotations

import itertools
import statistics
import time
from pathlib import Path

import cost
from models import Training
from savers import Saver
from steps import overhead_of

Samples = dict[str, list[float]]
"""Seconds or bytes, by the name of what was measured."""

BLOCK, DENSE_BLOCK = 10, 5
"""Steps that are timed together: saving the first of them, or each."""

MANY = 200
"""Saves that must not make the peak grow."""


class Measurements:
    """Belongs to a process of its own. The state changes before each save, so that none can be left out."""

    def __init__(self, training: Training, saver: Saver) -> None:
        self._training = training
        self._saver = saver
        training.watch()
        training.step()
        training.rest()
        cost.forget_peak()
        self._held = cost.resident()
        for _ in range(2):  # the second one finds a file to recycle, and memory that was used before
            self.save()

    def save(self) -> Samples:
        """Save while nothing else happens, and wait until that is durable."""
        self._training.step()
        self._training.rest()
        watch = cost.Stopwatch()
        self._saver.save()
        returned = watch.lap()
        self._saver.finish()
        found = watch.stop()
        self._saver.tidy()
        return {
            "call": [returned],
            "total": [found.seconds],
            "cpu": [found.cpu],
            "written": [float(found.written)],
        }

    def size(self) -> Samples:
        """Say how large the state is."""
        return {"nbytes": [float(self._training.nbytes)]}

    def memory(self) -> Samples:
        """Save as `save` does: how far the peak rises above what was held before the first save."""
        self._training.step()
        self._training.rest()
        cost.forget_peak()
        self._saver.save()
        self._saver.finish()
        self._saver.tidy()
        return {"memory": [float(cost.peak() - self._held)]}

    def restore(self) -> Samples:
        """Read the newest checkpoint back from the disk, not from the page cache."""
        cost.forget_pages(self._saver.folder)
        watch = cost.Stopwatch()
        self._saver.restore()
        return {"restore": [watch.stop().seconds]}

    def blocked(self) -> Samples:
        """Save within a training: how long the call holds it, and how long the next update waits for a copy.

        A save before it, which is not measured, warms up what the other cases' turns have let go cold.
        """
        self.save()
        begin = time.perf_counter()
        self._training.step()
        step = time.perf_counter() - begin
        begin = time.perf_counter()
        self._saver.save()
        call = time.perf_counter() - begin
        wait = self._training.step(self._saver.fence)
        self._saver.finish()
        self._saver.tidy()
        return {"blocked": [call + wait], "wait": [wait], "step": [step]}

    def overhead(self) -> Samples:
        """Train ten steps without saving, and ten of which the first is saved."""
        return overhead_of(self._block(BLOCK, every=None), self._block(BLOCK, every=BLOCK))

    def every_step(self) -> Samples:
        """Train some steps without saving, and as many of which each is saved, one save after the other."""
        return {
            "plain_1": [statistics.mean(self._block(DENSE_BLOCK, every=None))],
            "every_1": [statistics.mean(self._block(DENSE_BLOCK, every=1))],
        }

    def many_saves(self) -> Samples:
        """Save 200 times while training goes on: how far the peak rises above that of as many steps without.

        That is the last turn: the saver is closed, so that its memory is given back. The process is `weighed`.
        """
        cost.forget_peak()
        self._steps(MANY, every=1)
        saving = cost.peak()
        self._saver.close()
        cost.forget_peak()
        self._steps(MANY, every=None)
        return {"peak_200": [float(saving - cost.peak())]}

    def _block(self, count: int, *, every: int | None) -> list[float]:
        """Return the seconds of each step of a block; what is still being written after it is not waited for."""
        seconds = self._steps(count, every=every)
        if every is not None:
            self._saver.finish()
            self._saver.tidy()
        return seconds

    def _steps(self, count: int, *, every: int | None) -> list[float]:
        saving, moments = False, [time.perf_counter()]
        for number in range(count):
            self._training.step(self._saver.fence if saving else lambda: None)
            if every is not None and number % every == 0:
                if saving:
                    self._saver.join()
                self._saver.save()
                saving = True
            moments.append(time.perf_counter())
        return [after - before for before, after in itertools.pairwise(moments)]


def prepared(saver: str, model: str, folder: Path) -> Measurements:
    """Build and warm up: the two have names in `cases`."""
    from cases import SAVERS, class_of
    from models import MODELS

    training = MODELS[model]()
    return Measurements(training, class_of(SAVERS[saver])(training, folder))


def weighed(saver: str, model: str, folder: Path) -> Measurements:
    """Do so in a process that keeps no freed memory: what was made before would lie in the heap, and go on to."""
    cost.keep_no_freed_memory()
    return prepared(saver, model, folder)
