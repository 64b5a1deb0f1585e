"""Aftermath: looks at a run after its training was killed, goes on with it as a user would, and says what is wrong."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from faults.children import ask
from faults.tally import Tally
from faults.trainings import MONITOR, Plan, loss, mirror_of, published_of

from keepbest.errors import KeepbestError
from keepbest.storage.backend import open_backend
from keepbest.storage.checkpoint import Checkpoint
from keepbest.storage.layout import BEST_HINT, BEST_LINK, JOURNAL, commit_key, data_key, segments_prefix
from keepbest.storage.notes import Began
from keepbest.storage.run import Run

Finding = tuple[str, str]
"""A name of `HARMS`, and what was seen."""


class Promises:
    """What a training said before it was killed, and those before it in the same run."""

    def __init__(self, said: Sequence[str], *, earlier: Sequence[str] = ()) -> None:
        every = [*earlier, *said]
        self.saved = epochs_said("saved", every)
        """The epochs that are saved."""
        self.rows = max([*epochs_said("row", said), *self.saved], default=-1)
        """The last epoch whose row is in the journal; -1: none."""
        self.published = max(epochs_said("published", every), default=-1)
        """The last epoch that was published; -1: none."""
        self._closed = every[: len(every) - every[::-1].index("closed")] if "closed" in every else []

    @property
    def last(self) -> int:
        """The last epoch that is saved; -1: none."""
        return max(self.saved, default=-1)

    def in_mirror(self) -> Promises:
        """Return what the second tier owes: all that there was when the training was closed last."""
        return Promises(self._closed)


def epochs_said(word: str, said: Sequence[str]) -> list[int]:
    """Return the epochs that lines such as "saved 3" name."""
    return [int(line.split()[1]) for line in said if line.split()[:1] == [word]]


def look(job: Callable[[], list[Finding]], tally: Tally, where: str) -> None:
    """Have a forked child look for findings, and tell them: each kind of harm once, for it was one fault."""
    try:
        found = ask(job)
    except TimeoutError as error:
        found = [("hung", f"looking at it: {error}")]
    except RuntimeError as error:
        found = [("broken", f"looking at it: {error}")]
    for harm in dict.fromkeys(harm for harm, _ in found):
        tally.found(harm, f"{where}: " + "; ".join(what for kind, what in found if kind == harm))


def findings(
    plan: Plan, url: str, promises: Promises, *, bucket: Callable[[], tuple[list[str], list[str]]] | None = None
) -> list[Finding]:
    """Look at the run and its second tier, resume, train on, collect garbage, and look again.

    Args:
        plan: the training.
        url: the run.
        promises: what was said to be there.
        bucket: returns the keys of a run that is no folder, and of its unfinished uploads, not by our own code.
    """
    if plan.loses_disk:
        shutil.rmtree(url, ignore_errors=True)
        promises = promises.in_mirror()
    found = [] if plan.loses_disk else list(_whole(plan, url, promises))
    if plan.mirror:
        found += [(harm, f"mirror: {what}") for harm, what in _whole(plan, mirror_of(url), promises.in_mirror())]
    if plan.publish:
        found += _published(plan, url, promises)
    try:
        found += _go_on(plan, url)
    except Exception as error:  # noqa: BLE001 - whatever stops the training is a finding
        return [*found, ("broken", f"{type(error).__name__}: {error}")]
    for place in [url, *([mirror_of(url)] if plan.mirror else [])]:
        found += _tidy(plan, place, bucket or (lambda place=place: (_files(place), [])))
    if plan.publish:
        published = published_of(url)
        found += [("orphaned", f"beside what was published: {name}") for name in _others(published)]
    return found


def _whole(plan: Plan, url: str, promises: Promises) -> Iterator[Finding]:
    """Look at every checkpoint: whole, bit for bit what its epoch had, and all there that was promised."""
    run = _run(plan, url)
    held = run.listing()
    yield from (("torn", f"commit {sequence}: {error}") for sequence, error in held.damaged)
    report = run.verify()
    yield from (("torn", problem.message) for problem in report.problems)
    checkpoints = [Checkpoint(run.backend, one) for one in held.checkpoints]
    for checkpoint in checkpoints:
        yield from _exact(plan, checkpoint)
    newest = max((one.epoch or 0 for one in checkpoints if one.complete), default=-1)
    if newest < promises.last:
        yield "lost", f"epoch {promises.last} was said to be saved, the newest complete one is of epoch {newest}"
    elif promises.saved:
        wanted = min(map(loss, promises.saved))
        best = float(run.best.metrics[MONITOR])
        if best > wanted:
            yield "lost", f"the best has {best}, and one with {wanted} was said to be saved"
    known = promises.last if plan.options else promises.rows  # a bucket has rows for sure when they are saved
    missing = set(range(known + 1)) - {row.epoch for row in run.history().rows}
    if missing:
        yield "lost", f"the rows of epochs {sorted(missing)} were logged and are gone"


def _exact(plan: Plan, checkpoint: Checkpoint) -> Iterator[Finding]:
    try:
        values = plan.found(checkpoint.load("model"))
    except KeepbestError as error:
        yield "torn", f"{checkpoint.name}: {error}"
        return
    epoch = checkpoint.epoch
    assert epoch is not None
    if not np.array_equal(values, plan.expected(epoch)):
        yield "unnoticed", f"{checkpoint.name} does not hold what epoch {epoch} had"


def _published(plan: Plan, url: str, promises: Promises) -> Iterator[Finding]:
    """Look at what was published: some epoch's weights, whole, and no older than what was said."""
    from safetensors.numpy import load_file

    path = published_of(url)
    if not path.exists():
        if promises.published >= 0:
            yield "lost", f"{path.name} was published and is gone"
        return
    try:
        values = load_file(path)["values"]
    except Exception as error:  # noqa: BLE001 - safetensors' own
        yield "torn", f"{path.name}: {error}"
        return
    epoch = round(float(values[0]) / 8192)
    if not np.array_equal(values, plan.expected(epoch)):
        yield "unnoticed", f"{path.name} is no epoch's"
    elif epoch < promises.published:
        yield "lost", f"{path.name} is of epoch {epoch}, and {promises.published} was published"


def _go_on(plan: Plan, url: str) -> Iterator[Finding]:
    """Resume, bit for bit, and train one more epoch."""
    places = [url, *([mirror_of(url)] if plan.mirror else [])]
    held = [one for place in places for one in _run(plan, place).listing().checkpoints]
    newest = max((one.epoch or 0 for one in held if one.complete), default=-1)
    ckpt, objects = plan.open(url)
    with ckpt:
        position = ckpt.resume()
        source = None if position is None else ckpt.run.latest.name
        epoch = ckpt.position.next_epoch
        if position is not None and epoch != newest + 1:
            yield "broken", f"resumed at epoch {epoch}, the newest checkpoint is of epoch {newest}"
        if position is not None and not np.array_equal(_live(plan, objects), plan.expected(epoch - 1)):
            yield "unnoticed", f"resumed with other values than those of epoch {epoch - 1}"
        plan.become(objects, epoch)
        ckpt.log({MONITOR: loss(epoch)})
        ckpt.save().result()
        if plan.publish:
            published_of(url).parent.mkdir(exist_ok=True)
            ckpt.run.publish(ckpt.run.latest, "model.safetensors", str(published_of(url)))
    latest = _run(plan, url).latest
    if latest.epoch != epoch:
        yield "lost", f"epoch {epoch} was saved after resuming, the latest is {latest.name}"
    began = [entry for entry in _run(plan, url).journal() if isinstance(entry, Began)]
    if not began or began[-1].checkpoint != source:
        yield "lost", f"that training went on from {source or 'the beginning'} was noted and is gone"
    yield from _exact(plan, latest)


def _live(plan: Plan, objects: dict[str, Any]) -> np.ndarray:
    if plan.torch:
        return objects["model"].weight.detach().numpy().reshape(-1)
    return objects["model"].values


def _tidy(plan: Plan, url: str, there: Callable[[], tuple[list[str], list[str]]]) -> Iterator[Finding]:
    """Collect garbage; then nothing is there that nothing names, and all that is listed is whole."""
    run = _run(plan, url)
    run.gc(grace=0)
    names = _named(run)
    files, uploads = there()
    yield from (("orphaned", key) for key in files if key not in names and not _is_hint(key))
    yield from (("uploads", key) for key in uploads)
    yield from (("torn", f"after gc: {problem.message}") for problem in run.verify().problems)


def _named(run: Run) -> set[str]:
    """Return the keys that the run's commits name, and those of the commits."""
    names = {JOURNAL, BEST_LINK, BEST_HINT}
    for checkpoint in run.checkpoints():
        names.add(commit_key(checkpoint.sequence))
        names |= {data_key(checkpoint.name, file) for file in checkpoint.manifest().artifacts}
    return names


def _is_hint(key: str) -> bool:
    return key.startswith(("commits/index-", segments_prefix(JOURNAL)))


def _files(folder: str) -> list[str]:
    """Return what lies in a folder: files, links, and folders of checkpoints with nothing in them."""
    found = []
    for here, folders, files in os.walk(folder):
        inside = Path(here).relative_to(folder)
        found += [str(inside / name) for name in [*files, *(one for one in folders if Path(here, one).is_symlink())]]
        if not folders and not files and len(inside.parts) > 1:
            found.append(f"{inside}/")
    return found


def _others(published: Path) -> list[str]:
    with contextlib.suppress(FileNotFoundError):
        return [name for name in os.listdir(published.parent) if name != published.name]
    return []


def _run(plan: Plan, url: str) -> Run:
    return Run(open_backend(url, dict(plan.options)))
