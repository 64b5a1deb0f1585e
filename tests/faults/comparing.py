"""Comparing: what a run says of itself, beside what the reference says of it."""

from __future__ import annotations

from faults.process import loaded
from faults.reference import latest, ranking, shown

from keepbest.errors import CheckpointNotFoundError
from keepbest.storage.layout import checkpoint_of, temporary_of


class HarmError(AssertionError):
    """The run is not what the reference says; `kind` is one of `tally.HARMS`."""

    def __init__(self, kind, what):
        self.kind = kind
        super().__init__(what)


def check(held, kind, what):
    """Raise `HarmError` unless it holds."""
    if not held:
        raise HarmError(kind, what)


def rows_of(history):
    """Return the rows of a history as the reference has them."""
    return tuple((row.kind, row.epoch, row.step, shown(row.metrics)) for row in history.rows)


def check_facts(checkpoint, commit):
    """Compare the light record of a checkpoint."""
    info = checkpoint.info
    found = info.parent, info.epoch, info.step, info.complete, shown(info.metrics)
    wanted = commit.parent, commit.place.epoch, commit.place.step, commit.complete, shown(commit.metrics)
    check(found == wanted, "torn", f"{checkpoint.name} says {found}, not {wanted}")
    scores = {score.monitor: score.value for score in info.scores}
    wanted = {name: commit.values.get(name) for name in scores}
    check(scores == wanted, "torn", f"{checkpoint.name} ranks by {scores}, not {wanted}")


def check_content(run, known):
    """Read every byte of a run, and load every object as somebody who never saw the training."""
    report = run.verify()
    check(report.ok, "torn", str(report))
    for checkpoint in run.checkpoints():
        for name, value in loaded(checkpoint).items():
            wanted = getattr(known[checkpoint.sequence].state, name)
            check(value == wanted, "torn", f"{checkpoint.name} holds another {name}")


def check_pointers(run, listed, monitors):
    """Compare the latest, and the best by each monitor."""
    wanted = {"latest": latest(listed)}
    for monitor in monitors:
        wanted[monitor] = next(iter(ranking(listed, monitor)), None)
    if monitors:
        wanted["best"] = wanted[monitors[0]]
    for what, number in wanted.items():
        try:
            found = (run.best_by(what) if what in monitors else run.get(what)).sequence
        except CheckpointNotFoundError:
            found = None
        check(found == number, "lost", f"{what} is {found}, not {number}")


def check_restored(process, commit):
    """Compare what the objects of a process hold with what the checkpoint had."""
    if commit.complete:
        check(process.state == commit.state, "torn", f"{process.state} was restored, not {commit.state}")
    else:
        check(process.state.model == commit.state.model, "torn", "other weights were restored")


def check_knowledge(process):
    """Compare what a process thinks with what it must."""
    knows, ckpt = process.knows, process.ckpt
    place = ckpt.position.next_epoch, ckpt.position.step, ckpt.position.steps_in_epoch
    check(place == (knows.place.next_epoch, knows.place.step, knows.place.inside), "broken", f"it stands at {place}")
    standing = {monitor.key: (monitor.best, monitor.wait) for monitor in ckpt.monitors}
    check(standing == knows.standing, "lost", f"the monitors stand at {standing}, not {knows.standing}")
    check(rows_of(ckpt.history) == knows.rows, "lost", f"it knows {rows_of(ckpt.history)}, not {knows.rows}")


def check_no_orphans(run):
    """Look for what no commit names."""
    named = {found.name for found in run.checkpoints()}
    for entry in run.backend.list(""):
        orphaned = temporary_of(entry.key) is not None or checkpoint_of(entry.key) not in {None, *named}
        check(not orphaned, "orphaned", f"after gc there is {entry.key}")
