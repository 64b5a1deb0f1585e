"""Workloads: trainings on NumPy arrays that are recorded, and what must be true of them whenever the power goes.

What a workload saves follows from the number of the save alone, so that a reader knows it without having been there.
It says what it was promised, as soon as it was: the names that are listed, the rows that are kept, what is published.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from contracts.faults import Crash, CrashingBackend
from contracts.runs import SmallRun, weights

from keepbest import Checkpointer, CheckpointPolicy, open_run
from keepbest.storage.backend import open_backend
from keepbest.storage.commit import BytesDraft
from keepbest.storage.run import Run
from keepbest.storage.run_writer import RunWriter

from .recording import mark_file

Say = Callable[..., None]


def main(args: list[str]) -> None:
    """Do the workloads with these names, each in its folder, and mark what each says."""
    root = Path(args[0])
    with said(root) as say:
        for name in args[1:]:
            WORKLOADS[name].perform(root / name, functools.partial(say, name))


@contextlib.contextmanager
def said(root: Path):
    """Yield what marks the recording of the workload with a name."""
    marks = os.open(mark_file(root), os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o666)
    try:
        yield lambda name, **facts: os.write(marks, json.dumps({"of": name, **facts}).encode())
    finally:
        os.close(marks)


@functools.cache
def moving(number: int, *, large: bool) -> np.ndarray:
    """Return what training changes: other values for each number."""
    return np.random.default_rng(number).integers(0, 255, 800_000 if large else 70_000, np.uint8)


class Net:
    """A model whose arrays follow from its number. What is frozen is long enough to be worth leaving in place."""

    def __init__(self, *, large: bool, number: int = 0) -> None:
        self.large, self.number = large, number

    def state_dict(self) -> dict[str, Any]:
        frozen = np.arange(100_000 if self.large else 100, dtype=np.uint32).view(np.uint8)
        return {"frozen": frozen, "moving": moving(self.number, large=self.large), "number": self.number}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.number = state["number"]
        assert not list(differences(state, self.state_dict()))


def differences(one: Any, other: Any) -> list[str]:
    """Return where two states of a `Net` differ."""
    if one.keys() != other.keys():
        return ["keys"]
    return [
        key
        for key, value in one.items()
        if (value.tobytes() != other[key].tobytes() if isinstance(value, np.ndarray) else value != other[key])
    ]


def names_of(url: Path) -> list[str]:
    """Return the names of the checkpoints that a run lists."""
    return [found.name for found in Run(open_backend(str(url))).checkpoints()]


@dataclass(frozen=True, slots=True, kw_only=True)
class Training:
    """A loop with a Checkpointer, from its first save into an empty folder to `close`."""

    losses: Sequence[float]
    """One epoch each."""
    large: bool = True
    """Files of a megabyte, which are written directly, and over those of older checkpoints."""
    steps: int = 0
    """Rows of single steps before each epoch's."""
    frozen: bool = False
    """With a second object that never changes, so that its file becomes a link."""
    published: bool = False
    """The best is published after every other epoch."""
    mirrored: bool = False
    policy: dict[str, Any] = field(default_factory=dict)
    run: str = "run"
    """The folder of the run."""

    object = "net"

    def open(self, folder: Path, net: Net) -> Checkpointer:
        """Return what training opens."""
        policy = CheckpointPolicy(monitor="val_loss", mode="min", **self.policy)
        objects = {"net": net, **({"base": Net(large=True)} if self.frozen else {})}
        mirror = str(folder / "mirror") if self.mirrored else None
        return Checkpointer(folder / self.run, policy, mirror=mirror, **objects)

    def perform(self, folder: Path, say: Say) -> None:
        net = Net(large=self.large)
        ckpt = self.open(folder, net)
        rows = durable = 0
        published = None
        for loss in self.losses:
            net.number += 1
            for _ in range(self.steps):
                ckpt.log_step(loss=float(rows))
                rows += 1
            saved = ckpt.log(val_loss=loss).saved
            rows += 1
            ckpt.wait()
            durable = rows if saved else durable
            while net.number % 2 and ckpt.mirror_pending:  # the next time it goes on during the next save
                time.sleep(0.001)
            say(rows=durable, published=published, **self._facts(folder, ckpt))
            if self.published and net.number % 2:
                best = ckpt.run.best
                ckpt.run.publish(best, "net.safetensors", str(folder / "out" / "net.safetensors"))
                published = best.epoch + 1
                say(rows=durable, published=published, **self._facts(folder, ckpt))
        ckpt.close()
        say(rows=rows, published=published, **self._facts(folder, ckpt))

    def _facts(self, folder: Path, ckpt: Checkpointer) -> dict[str, Any]:
        facts: dict[str, Any] = {"listed": names_of(folder / self.run)}
        if self.mirrored and not ckpt.mirror_pending:
            facts["mirror"] = names_of(folder / "mirror")
        return facts

    def rows(self) -> list[tuple[str, float]]:
        """Return the rows of the whole training: name and value."""
        found: list[tuple[str, float]] = []
        for loss in self.losses:
            found += [("loss", float(len(found) + number)) for number in range(self.steps)]
            found.append(("val_loss", loss))
        return found

    def wrong(self, checkpoint: Any) -> list[str]:
        """Return in what a listed checkpoint is not what was saved."""
        number = checkpoint.epoch + 1
        wrong = differences(checkpoint.load("net"), Net(large=self.large, number=number).state_dict())
        if self.frozen:
            wrong += differences(checkpoint.load("base"), Net(large=True).state_dict())
        return wrong

    def go_on(self, folder: Path) -> str:
        """Resume, save once more, and return the name of what was saved."""
        listed = open_run(folder / self.run) if (folder / self.run / "commits").exists() else None
        latest = listed.latest if listed is not None and listed.checkpoints() else None
        net = Net(large=self.large)
        ckpt = self.open(folder, net)
        with contextlib.closing(ckpt):
            position = ckpt.resume()
            expected = 0 if latest is None else latest.epoch + 1
            assert (position.next_epoch if position else 0) == net.number == expected, "resumed from elsewhere"
            rows = len(ckpt.history.rows)
            assert rows == expected * (self.steps + 1), f"resumed with {rows} rows, saved at epoch {expected}"
            net.number += 1
            ckpt.log(val_loss=0.001)
        found = open_run(folder / self.run)
        history = [row.metrics for row in found.history().rows]
        assert len(history) == rows + 1, "rows were lost by going on"
        assert history[-1] == {"val_loss": 0.001}, "the new row was lost"
        return found.best.name


@dataclass(frozen=True, slots=True, kw_only=True)
class Small:
    """Checkpoints without a Checkpointer, by a writer and, after that was killed, by another."""

    older: int = 0
    """Checkpoints that have long been there."""
    saves: int = 2
    at: int | None = None
    """The call at which the first writer is killed."""
    moment: str = "before"
    orphans: bool = False
    """With what a crash left, which is collected."""
    run: str = "a/b/run"

    object = "model"
    published = mirrored = False

    def perform(self, folder: Path, say: Say) -> None:
        url = str(folder / self.run)
        if self.older:
            run = SmallRun(open_backend(url))
            for number in range(self.older):
                run.save(0.5 + number)
            run.writer.refresh_hints()
            say(listed=names_of(folder / self.run), settled=True)
        if self.at is not None:
            with contextlib.suppress(Crash):
                self._save(CrashingBackend(open_backend(url), self.at, self.moment), folder, say)
        self._save(open_backend(url), folder, say)
        if self.orphans:
            self._collect(folder, say)

    def _save(self, backend: Any, folder: Path, say: Say) -> None:
        run = SmallRun(backend)
        for number in range(self.saves):
            run.save(0.4 - number / 10)
            say(listed=names_of(folder / self.run))
        going = [found.sequence for found in run.writer.checkpoints[1:-1]][-2:]
        run.writer.retire(going)
        say(listed=names_of(folder / self.run))
        run.writer.refresh_hints()
        say(listed=names_of(folder / self.run))

    def _collect(self, folder: Path, say: Say) -> None:
        backend = open_backend(str(folder / self.run))
        for number in range(2):
            RunWriter(backend).write(f"epoch-00{number}_abcde{number}", [BytesDraft(file="x", data=b"x" * 5000)])
        Run(backend).gc(grace=0)
        say(listed=names_of(folder / self.run))

    def rows(self) -> list[tuple[str, float]]:
        """It logs none."""
        return []

    def wrong(self, checkpoint: Any) -> list[str]:
        """Return in what a listed checkpoint is not what was saved."""
        expected, found = weights(checkpoint.epoch + 1), checkpoint.load("model")
        same = expected.keys() == found.keys() and all(found[key].tobytes() == expected[key].tobytes() for key in found)
        return [] if same else ["model"]

    def go_on(self, folder: Path) -> str:
        """Save once more, and return the name of what was saved."""
        return SmallRun(open_backend(str(folder / self.run))).save(0.001).name


KEEP_ALL = {"keep_all": True}
WORKLOADS: dict[str, Training | Small] = {
    "first save": Training(losses=[0.5, 0.4], run="deep/er/run"),
    "files written over": Training(losses=[0.5, 0.6, 0.4, 0.7]),
    "files linked": Training(losses=[0.5, 0.6, 0.4, 0.7], frozen=True, large=False),
    "published": Training(losses=[0.5, 0.4, 0.3, 0.35], published=True),
    "journal": Training(
        losses=[0.5, 0.6, 0.4, 0.45, 0.3], steps=3, large=False, policy={"every_n_epochs": 3, "on_improvement": False}
    ),
    "mirror": Training(losses=[0.5, 0.6, 0.4], mirrored=True, large=False),
    "index": Small(older=63, saves=2),
    "gc": Small(older=2, orphans=True),
    **{
        f"killed {moment} call {at} with {older}": Small(at=at, moment=moment, older=older)
        for at in range(25)
        for moment in ("before", "during", "after")
        for older in (0, 3)
    },
}
"""Name → what is recorded. Those whose names begin with "killed" are one scenario."""
