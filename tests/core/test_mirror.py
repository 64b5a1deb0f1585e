"""Two tiers: what is saved comes to the mirror behind training, and from there back when the disk is lost."""

from __future__ import annotations

import logging
import multiprocessing
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
import time
import uuid
import warnings
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from contracts.faults import CHANGES, CountingBackend, Crash, CrashingBackend, WrappedBackend
from contracts.runs import SmallRun

import keepbest
from keepbest import Checkpointer, CheckpointPolicy
from keepbest.core.mirror import Mirror
from keepbest.core.mirroring import Mirroring
from keepbest.errors import (
    CheckpointNotFoundError,
    ConcurrentWriterError,
    ConfigError,
    DamagedError,
    DivergedError,
    MirrorFailedError,
    RunExistsError,
    SaveFailedError,
    StorageError,
    StorageFullError,
)
from keepbest.storage.backend import open_backend
from keepbest.storage.layout import checkpoint_of, commit_key, data_key
from keepbest.storage.run import Run
from keepbest.storage.run_writer import RunWriter

BY_LOSS = CheckpointPolicy(monitor="val_loss")
WARNS = CheckpointPolicy(monitor="val_loss", on_save_error="warn")


class Weights:
    """A Stateful with one array that is too large for the state file; each epoch adds 1."""

    def __init__(self):
        self.values = np.zeros(20_000)

    def state_dict(self):
        return {"values": self.values}

    def load_state_dict(self, state):
        self.values = state["values"]


WAYS = ["local to memory", "memory to local", "local to s3", "gcs to local"]


@pytest.fixture(params=[pytest.param(way, marks=[pytest.mark.bucket] * ("memory" not in way)) for way in WAYS])
def tiers(request, tmp_path):
    """The URLs of a run and of its mirror; nothing is there yet."""
    return tuple(place(kind, request, tmp_path) for kind in request.param.split(" to "))


def place(kind, request, tmp_path):
    if kind == "local":
        return str(tmp_path / "a run")
    return f"memory://test-{uuid.uuid4().hex}" if kind == "memory" else request.getfixturevalue(f"{kind}_url")


def train(tiers, losses, policy=BY_LOSS, upto=None, **settings):
    """Run a loop over `losses`, one for each epoch; returns the epochs that were run and the weights."""
    weights, epochs = Weights(), []
    with Checkpointer(tiers[0], policy, mirror=tiers[1], weights=weights, **settings) as ckpt:
        for epoch in ckpt.epochs(len(losses) if upto is None else upto):
            weights.values = weights.values + 1
            epochs.append(epoch)
            ckpt.log(val_loss=losses[epoch])
    return epochs, weights


def kept(url):
    return [(found.epoch, found.metrics["val_loss"]) for found in keepbest.open_run(url).checkpoints()]


def lose(url):
    """The disk is gone."""
    if "://" in url:
        backend = open_backend(url)
        backend.delete([entry.key for entry in backend.list("")])
    else:
        shutil.rmtree(url)


def through(ckpt, wrap):
    """Put a wrapper around the mirror's backend from now on; returns it."""
    run = ckpt._saves._mirror._run
    run.backend = wrap(run.backend)
    return run.backend


class Gate(WrappedBackend):
    """Lets uploads begin, and holds each back until it is opened. Knows what was begun and what was written."""

    def __init__(self, inner):
        super().__init__(inner)
        self.opened = threading.Event()
        self.waiting = threading.Event()
        self.begun = []

    def _call(self, name, *args):
        if name == "put":
            checkpoint = checkpoint_of(args[0])
            if checkpoint not in self.begun:
                self.begun.append(checkpoint)
            self.waiting.set()
            assert self.opened.wait(30)
        return super()._call(name, *args)


class Failing(WrappedBackend):
    """Refuses every change while it is told to."""

    failing = True

    def _call(self, name, *args):
        if self.failing and name in CHANGES:
            raise StorageError(self.url, "no answer (a test).")
        return super()._call(name, *args)


# ── up ────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("mode", ["sync", "async"])
def test_the_mirror_has_what_the_run_has(tiers, mode):
    """After a training both places hold the same checkpoints and the same history, and each is whole."""
    train(tiers, [3.0, 1.0, 2.0, 4.0], mode=mode)
    assert kept(tiers[0]) == kept(tiers[1]) == [(1, 1.0), (3, 4.0)]
    run, mirror = (keepbest.open_run(url) for url in tiers)
    assert [found.info for found in run.checkpoints()] == [found.info for found in mirror.checkpoints()]
    assert mirror.history()["val_loss"] == run.history()["val_loss"] == [3.0, 1.0, 2.0, 4.0]
    assert (mirror.best.epoch, mirror.latest.epoch) == (1, 3)
    assert mirror.best.load("weights")["values"][0] == 2.0
    assert mirror.verify().ok


def test_rows_after_the_last_checkpoint_come_too(tiers):
    """What was logged since the last save is in the mirror's history when the Checkpointer is closed."""
    policy = CheckpointPolicy(monitor="val_loss", every_n_epochs=None, at_end=False)
    with Checkpointer(tiers[0], policy, mirror=tiers[1], weights=Weights()) as ckpt:
        for loss in (1.0, 2.0, 3.0):
            ckpt.log(val_loss=loss)
            ckpt.wait()
            settle(ckpt)
    assert kept(tiers[1]) == [(0, 1.0)]
    assert keepbest.open_run(tiers[1]).history()["val_loss"] == [1.0, 2.0, 3.0]


def test_a_checkpoint_comes_with_its_history(tiers):
    """The rows that led to a checkpoint are in the mirror as soon as it is, whatever becomes of the program."""
    with Checkpointer(tiers[0], BY_LOSS, mirror=tiers[1], weights=Weights()) as ckpt:
        for number, loss in enumerate((3.0, 1.0, 2.0)):
            ckpt.log(val_loss=loss)
            ckpt.wait()
            settle(ckpt)
            mirror = keepbest.open_run(tiers[1])
            assert (mirror.latest.epoch, len(mirror.history()["val_loss"])) == (number, number + 1)


def test_each_tier_keeps_the_best_by_each_monitor(tiers):
    """With two monitors the mirror has the best by each, and after the loss of the disk they are there again."""
    policy = CheckpointPolicy(monitor=["val_loss", "val_acc"])
    with Checkpointer(tiers[0], policy, mirror=tiers[1], weights=Weights()) as ckpt:
        for loss, accuracy in [(1.0, 0.5), (2.0, 0.9), (3.0, 0.1), (4.0, 0.2)]:
            ckpt.log(val_loss=loss, val_acc=accuracy)
    lose(tiers[0])
    with Checkpointer(tiers[0], policy, mirror=tiers[1], weights=Weights()) as ckpt:
        ckpt.resume()
    for url in tiers:
        run = keepbest.open_run(url)
        assert [found.epoch for found in run.checkpoints()] == [0, 1, 3]
        assert (run.best.epoch, run.best_by("val_acc").epoch) == (0, 1)


def test_a_slow_mirror_delays_nothing(tiers):
    """While an upload hangs, saves are durable on the first tier as ever, and what is only there is shown."""
    with Checkpointer(tiers[0], BY_LOSS, mirror=tiers[1], weights=Weights(), mode="sync") as ckpt:
        gate = through(ckpt, Gate)
        ckpt.log(val_loss=2.0)
        assert gate.waiting.wait(30)
        ckpt.log(val_loss=1.0)
        ckpt.save().result()
        names = [found.name for found in keepbest.open_run(tiers[0]).checkpoints()]
        assert ckpt.mirror_pending == tuple(reversed(names[1:]))  # the first is under way, and no longer wanted
        gate.opened.set()
    assert ckpt.mirror_pending == ()
    assert keepbest.open_run(tiers[1]).verify().ok


def test_the_newest_upload_supersedes_older_ones(tiers):
    """Of what was saved while an upload hung, only what is still kept is uploaded, the newest first."""
    with Checkpointer(tiers[0], BY_LOSS, mirror=tiers[1], weights=Weights(), mode="sync") as ckpt:
        gate = through(ckpt, Gate)
        ckpt.log(val_loss=5.0)
        assert gate.waiting.wait(30)
        for loss in (4.0, 1.0, 2.0, 3.0):
            ckpt.log(val_loss=loss)
        gate.opened.set()
    names = {found.epoch: found.name for found in keepbest.open_run(tiers[1]).checkpoints()}
    assert gate.begun[1:] == [names[4], names[2]]
    assert len(gate.begun) == 3
    assert kept(tiers[0]) == kept(tiers[1]) == [(2, 1.0), (4, 3.0)]


def test_an_upload_that_has_begun_is_finished(tiers, caplog):
    """Retention leaves what is being uploaded until it is there: else a slow mirror would never get anything."""
    caplog.set_level(logging.INFO)
    with Checkpointer(tiers[0], BY_LOSS, mirror=tiers[1], weights=Weights(), mode="sync") as ckpt:
        gate = through(ckpt, Gate)
        ckpt.log(val_loss=5.0)
        assert gate.waiting.wait(30)
        ckpt.log(val_loss=4.0)
        ckpt.log(val_loss=3.0)
        assert [epoch for epoch, _ in kept(tiers[0])] == [0, 2]
        gate.opened.set()
    committed = [record.getMessage() for record in caplog.records if "checkpoint.committed" in record.getMessage()]
    assert f"checkpoint.committed run={ckpt._saves._mirror.url} sequence=1 name={gate.begun[0]}" in committed
    assert kept(tiers[0]) == kept(tiers[1]) == [(2, 3.0)]


def test_the_best_goes_up_though_newer_ones_wait(tiers):
    """A best that was skipped in favour of newer ones is uploaded when nothing newer is left."""
    policy = CheckpointPolicy(monitor="val_loss", keep_best=2)
    with Checkpointer(tiers[0], policy, mirror=tiers[1], weights=Weights(), mode="sync") as ckpt:
        gate = through(ckpt, Gate)
        for loss in (9.0, 1.0, 2.0, 3.0):
            ckpt.log(val_loss=loss)
        gate.opened.set()
    assert kept(tiers[1]) == [(1, 1.0), (2, 2.0), (3, 3.0)]


def test_the_weights_of_the_best_are_sent_once(tiers):
    """With best_contents="weights" the same file in two checkpoints costs one upload."""
    torch = pytest.importorskip("torch")
    policy = CheckpointPolicy(monitor="val_loss", best_contents="weights")
    model = torch.nn.Linear(100, 100)
    with Checkpointer(tiers[0], policy, mirror=tiers[1], model=model, weights=Weights()) as ckpt:
        counted = through(ckpt, CountingBackend)
        ckpt.log(val_loss=1.0)
    assert counted.calls["copy"] == 1
    mirror = keepbest.open_run(tiers[1])
    assert [found.complete for found in mirror.checkpoints()] == [False, True]
    assert mirror.verify().ok


def test_uploads_and_what_comes_back_can_be_watched(tiers):
    """Progress is told of both ways, checkpoint by checkpoint, up to the last byte."""
    told = []
    with keepbest.on_progress(told.append):
        train(tiers, [1.0, 2.0])
        lose(tiers[0])
        train(tiers, [1.0, 2.0, 3.0])
    ended = [made for made in told if made.action == "mirror" and made.finished]
    names = {found.name for found in keepbest.open_run(tiers[1]).checkpoints()}
    assert names <= {made.subject for made in ended}
    assert len(ended) >= 4
    assert all(made.done == made.total > 100_000 for made in ended)


# ── back ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_training_outlives_its_disk(tiers, caplog):
    """Without the disk, training goes on from the mirror and ends with what an uninterrupted one ends with."""
    losses = [5.0, 1.0, 3.0, 2.0, 4.0]
    train(tiers, losses, upto=3)
    held = kept(tiers[0])
    lose(tiers[0])
    epochs, weights = train(tiers, losses)
    assert epochs == [3, 4]
    assert weights.values[0] == 5.0
    assert held == [(1, 1.0), (2, 3.0)]
    assert kept(tiers[0]) == kept(tiers[1]) == [(1, 1.0), (4, 4.0)]
    assert keepbest.open_run(tiers[0]).history()["val_loss"] == losses
    assert keepbest.open_run(tiers[1]).history()["val_loss"] == losses
    assert [found.sequence for found in keepbest.open_run(tiers[0]).checkpoints()] == [2, 5]
    said = [record.getMessage() for record in caplog.records if "bringing back" in record.getMessage()]
    assert len(said) == 1
    assert f"from {tiers[1]}" in said[0] or tiers[1] in said[0]


def test_only_what_is_needed_comes_back(tiers):
    """The latest, the best and the history come back; the rest stays in the mirror, and is neither lost nor resent."""
    policy = CheckpointPolicy(monitor="val_loss", keep_best=3)
    losses = [1.0, 2.0, 3.0, 9.0, 8.0, 7.0]
    train(tiers, losses, policy, upto=4)
    lose(tiers[0])
    weights = Weights()
    with Checkpointer(tiers[0], policy, mirror=tiers[1], weights=weights) as ckpt:
        counted = through(ckpt, CountingBackend)
        for epoch in ckpt.epochs(6):
            if epoch == 4:
                assert [found for found, _ in kept(tiers[0])] == [0, 3]
            weights.values = weights.values + 1
            ckpt.log(val_loss=losses[epoch])
            ckpt.wait()
            settle(ckpt)
    assert kept(tiers[1]) == [(0, 1.0), (1, 2.0), (2, 3.0), (5, 7.0)]
    assert counted.calls["put"] == 2 * 2  # two checkpoints of two files


def test_patience_and_the_best_survive_the_disk(tiers):
    """Monitors go on as if nothing had been lost."""
    policy = CheckpointPolicy(monitor="val_loss", patience=3)
    losses = [1.0, 2.0, 2.0, 2.0, 2.0]
    train(tiers, losses, policy, upto=3)
    lose(tiers[0])
    assert train(tiers, losses, policy)[0] == [3]


def test_another_machine_may_have_gone_on(tiers, tmp_path):
    """Where the mirror is ahead of the disk, training goes on from its newest; no number is given out twice."""
    losses = [5.0, 4.0, 3.0, 2.0, 1.0, 0.5]
    train(tiers, losses, upto=2)
    elsewhere = str(tmp_path / "elsewhere")
    train((elsewhere, tiers[1]), losses, upto=4)
    epochs, weights = train(tiers, losses)
    assert epochs == [4, 5]
    assert weights.values[0] == 6.0
    assert keepbest.open_run(tiers[0]).history()["val_loss"] == losses
    assert keepbest.open_run(tiers[1]).history()["val_loss"] == losses
    assert kept(tiers[0]) == kept(tiers[1]) == [(5, 0.5)]


def test_a_branch_from_a_disk_that_lags_collides_with_nothing(tiers, tmp_path):
    """Who goes on from an older checkpoint of a disk that is behind its mirror gets numbers that are new to both."""
    losses = [5.0, 4.0, 3.0, 2.0]
    train(tiers, losses, upto=2)
    train((str(tmp_path / "elsewhere"), tiers[1]), losses)
    with Checkpointer(tiers[0], BY_LOSS, mirror=tiers[1], weights=Weights()) as ckpt:
        assert ckpt.restore("epoch-002").epoch == 1
        ckpt.log(val_loss=1.0)
    for url in tiers:
        run = keepbest.open_run(url)
        assert (run.latest.sequence, run.latest.info.parent, run.best.metrics) == (5, 2, {"val_loss": 1.0})
        assert run.history()["val_loss"] == [5.0, 4.0, 1.0]


def test_a_finished_run_elsewhere_keeps_its_history(tiers, tmp_path):
    """A disk with rows that never reached the mirror does not spoil the history of the training that went on there."""
    losses = [5.0, 4.0, 3.0]
    train(tiers, losses, upto=1)
    train((tiers[0], f"memory://test-{uuid.uuid4().hex}"), [5.0, 9.0], upto=2)  # its rows never came to the mirror
    backend = open_backend(tiers[0])
    backend.delete([commit_key(2)])  # nor is its checkpoint there
    train((str(tmp_path / "elsewhere"), tiers[1]), losses)
    assert train(tiers, losses)[0] == []
    assert keepbest.open_run(tiers[1]).history()["val_loss"] == losses


def test_two_trainings_that_went_different_ways_are_refused(tiers, tmp_path):
    """If disk and mirror each went on, resuming names both, and writes to neither."""
    train(tiers, [5.0], upto=1)
    train((tiers[0], f"memory://test-{uuid.uuid4().hex}"), [5.0, 4.0])
    train((str(tmp_path / "elsewhere"), tiers[1]), [5.0, 3.0])
    before = [{entry.key: entry.size for entry in open_backend(url).list("")} for url in tiers]
    ours, theirs = (keepbest.open_run(url).latest.name for url in tiers)
    with Checkpointer(tiers[0], BY_LOSS, mirror=tiers[1], weights=Weights()) as ckpt:
        for call in (ckpt.resume, lambda: next(ckpt.epochs(5)), lambda: ckpt.restore("best")):
            with pytest.raises(DivergedError, match=f"number 2 is {ours} here, and {theirs} there"):
                call()
        with pytest.raises(RunExistsError):
            ckpt.log(val_loss=1.0)
    assert [{entry.key: entry.size for entry in open_backend(url).list("")} for url in tiers] == before


def test_the_mirror_of_another_run_is_refused(tiers):
    """A mirror that holds another run is never mixed with this one, nor are its checkpoints retired."""
    other = f"memory://test-{uuid.uuid4().hex}"
    train((tiers[0], other), [3.0, 2.0, 1.0])
    train((f"memory://test-{uuid.uuid4().hex}", tiers[1]), [1.5, 1.0])
    before = kept(tiers[1])
    with pytest.raises(DivergedError, match="have nothing in common"):
        train(tiers, [3.0, 2.0, 1.0, 0.5])
    assert kept(tiers[1]) == before


def test_a_run_without_rows_lags_behind_as_well(tiers):
    """Also where nothing was ever logged, a mirror that has other numbers than the disk is known to be its own."""
    policy = CheckpointPolicy(at_end=False, on_save_error="warn")
    with Checkpointer(tiers[0], policy, mirror=tiers[1], weights=Weights(), mode="sync") as ckpt:
        ckpt.save()
        ckpt._saves._saver.mirroring.finish()
        through(ckpt, Failing)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            ckpt.save()
            ckpt.close()
    assert [[found.sequence for found in keepbest.open_run(url).checkpoints()] for url in tiers] == [[2], [1]]
    with Checkpointer(tiers[0], policy, mirror=tiers[1], weights=Weights()) as ckpt:
        assert ckpt.resume() is not None
    assert [found.sequence for found in keepbest.open_run(tiers[1]).checkpoints()] == [2]


def test_a_mirror_from_before_the_first_row_lags_behind_as_well(tiers):
    """A mirror that has only what was saved before anything was logged is known to be the run's own."""
    policy = CheckpointPolicy(on_save_error="warn")
    with Checkpointer(tiers[0], policy, mirror=tiers[1], weights=Weights(), mode="sync") as ckpt:
        ckpt.save()
    with Checkpointer(tiers[0], policy, mirror=tiers[1], weights=Weights(), mode="sync") as ckpt:
        through(ckpt, Failing)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            ckpt.resume()
            ckpt.log(val_loss=1.0)
            ckpt.close()
    assert [[found.sequence for found in keepbest.open_run(url).checkpoints()] for url in tiers] == [[2], [1]]
    with Checkpointer(tiers[0], policy, mirror=tiers[1], weights=Weights()) as ckpt:
        assert ckpt.resume() is not None
    assert [found.sequence for found in keepbest.open_run(tiers[1]).checkpoints()] == [2]


@pytest.mark.parametrize("call", ["log", "log_step", "save"])
def test_a_mirror_that_holds_checkpoints_is_not_written_to_by_accident(tiers, call):
    """Saving without having resumed is refused also if only the mirror holds the run, and the error says where."""
    train(tiers, [1.0])
    lose(tiers[0])
    with Checkpointer(tiers[0], BY_LOSS, mirror=tiers[1], weights=Weights()) as ckpt:
        with pytest.raises(RunExistsError, match="already holds checkpoints") as caught:
            getattr(ckpt, call)(**({} if call == "save" else {"val_loss": 2.0}))
        assert caught.value.url == tiers[1]
    assert kept(tiers[1]) == [(0, 1.0)]


def test_a_restore_comes_from_the_mirror(tiers):
    """On a lost disk restore finds the best, the latest, and what only the mirror has by its name."""
    policy = CheckpointPolicy(monitor="val_loss", keep_all=True)
    train(tiers, [3.0, 1.0, 2.0, 4.0], policy)
    names = [found.name for found in keepbest.open_run(tiers[1]).checkpoints()]
    lose(tiers[0])
    weights = Weights()
    with Checkpointer(tiers[0], policy, mirror=tiers[1], weights=weights) as ckpt:
        assert (ckpt.restore("best").name, weights.values[0]) == (names[1], 2.0)
        assert ckpt.restore(names[2][:9]).name == names[2]
        assert ckpt.restore(4).name == names[3]
        assert ckpt.restore("latest").name == names[3]
        with pytest.raises(CheckpointNotFoundError, match="epoch-009"):
            ckpt.restore("epoch-009")
        ckpt.restore("best")
        ckpt.log(val_loss=0.5)
        assert ckpt.restore("epoch-001").name == names[0]  # also after training went on
    assert [found.sequence for found in keepbest.open_run(tiers[1]).checkpoints()] == [1, 2, 3, 4, 5]
    assert keepbest.open_run(tiers[1]).latest.metrics == {"val_loss": 0.5}


def test_to_look_changes_nothing(tiers):
    """Who only restores from a run changes neither it nor the mirror."""
    losses = [3.0, 1.0, 2.0]
    train(tiers, losses, CheckpointPolicy(monitor="val_loss", keep_all=True))
    before = [{entry.key: entry.size for entry in open_backend(url).list("")} for url in tiers]
    with Checkpointer(tiers[0], BY_LOSS, mirror=tiers[1], weights=Weights()) as ckpt:
        ckpt.restore("best")
        assert ckpt.mirror_pending == ()
    assert [{entry.key: entry.size for entry in open_backend(url).list("")} for url in tiers] == before


def test_a_mirror_added_later_gets_what_is_there(tiers):
    """A run that had no mirror is copied to one when it goes on, also if there is nothing left to train."""
    with Checkpointer(tiers[0], BY_LOSS, weights=Weights()) as ckpt:
        for loss in (3.0, 1.0, 2.0):
            ckpt.log(val_loss=loss)
    assert train(tiers, [3.0, 1.0, 2.0])[0] == []
    assert kept(tiers[1]) == [(1, 1.0), (2, 2.0)]
    assert keepbest.open_run(tiers[1]).history()["val_loss"] == [3.0, 1.0, 2.0]


def test_a_damaged_mirror_is_not_passed_over(tiers):
    """If the newest cannot be read in the mirror, training does not silently go on from an older one."""
    train(tiers, [1.0, 2.0, 3.0])
    lose(tiers[0])
    backend = open_backend(tiers[1])
    latest = keepbest.open_run(tiers[1]).latest
    whole = backend.read(commit_key(latest.sequence))
    backend.replace(commit_key(latest.sequence), whole[:-9])
    with Checkpointer(tiers[0], BY_LOSS, mirror=tiers[1], weights=Weights()) as ckpt:
        with pytest.raises(DamagedError, match=commit_key(latest.sequence)):
            ckpt.resume()
    backend.replace(commit_key(latest.sequence), whole)
    key = data_key(latest.name, "weights.safetensors")
    data = backend.read(key)
    backend.replace(key, data[:-1] + b"!")
    weights = Weights()
    with Checkpointer(tiers[0], BY_LOSS, mirror=tiers[1], weights=weights) as ckpt:
        with pytest.raises(DamagedError, match=r"weights\.safetensors"):
            ckpt.resume()
        assert ckpt.restore("best").epoch == 0  # an older one can be had
        assert ckpt.log(val_loss=0.5).saved
    assert [found.sequence for found in Run(open_backend(tiers[0])).checkpoints()] == [4]


def test_numbers_of_the_mirror_are_not_given_out_again(tiers):
    """Also if the mirror's newest number is not brought back, the next save has a higher one."""
    torch = pytest.importorskip("torch")
    policy = CheckpointPolicy(monitor="val_loss", best_contents="weights")
    objects = {"model": torch.nn.Linear(100, 100), "weights": Weights()}
    with Checkpointer(tiers[0], policy, mirror=tiers[1], **objects) as ckpt:
        ckpt.log(val_loss=2.0)
        ckpt.log(val_loss=1.0)
    backend = open_backend(tiers[1])
    backend.delete([commit_key(4)])  # the complete one is lost; its weights, number 3, stay
    lose(tiers[0])
    with Checkpointer(tiers[0], policy, mirror=tiers[1], **objects) as ckpt:
        with pytest.warns(UserWarning, match="holds only weights"):
            assert ckpt.resume() is None
        ckpt.log(val_loss=0.5)
    assert [found.sequence for found in keepbest.open_run(tiers[1]).checkpoints()] == [4, 5]


# ── what goes wrong ───────────────────────────────────────────────────────────────────────────────────────────────


def test_a_failing_mirror_is_told_once_and_at_the_end(tiers):
    """Training goes on; one warning says so; close names what never reached the mirror, and where it is safe."""
    ckpt = Checkpointer(tiers[0], BY_LOSS, mirror=tiers[1], weights=Weights(), mode="sync")
    through(ckpt, Failing)
    with pytest.warns(UserWarning, match="is not up to date.*no answer.*Training goes on") as warned:
        for loss in (3.0, 1.0, 2.0, 4.0):
            ckpt.log(val_loss=loss)
            settle(ckpt)
        with pytest.raises(MirrorFailedError, match="did not reach the mirror.*no answer.*are safe in") as caught:
            ckpt.close()
    assert len(warned) == 1
    names = {found.name for found in keepbest.open_run(tiers[0]).checkpoints()}
    assert set(caught.value.checkpoints) == names
    assert (caught.value.url, caught.value.mirror) == (open_backend(tiers[0]).url, open_backend(tiers[1]).url)
    assert isinstance(caught.value.__cause__, StorageError)
    assert not isinstance(caught.value, SaveFailedError)
    assert kept(tiers[0]) == [(1, 1.0), (3, 4.0)]
    assert train(tiers, [3.0, 1.0, 2.0, 4.0])[0] == []  # as the error says: starting again copies what is missing
    assert kept(tiers[1]) == [(1, 1.0), (3, 4.0)]


def settle(ckpt):
    """Wait until the mirror's thread has nothing to do, without giving it another try."""
    mirroring = ckpt._saves._saver.mirroring
    with mirroring._state:
        assert mirroring._state.wait_for(lambda: mirroring._thread is None, 30)


def test_a_mirror_that_recovers_gets_everything(tiers):
    """What failed is tried again after each save; a second outage is told again, a row of failures once."""
    with Checkpointer(tiers[0], BY_LOSS, mirror=tiers[1], weights=Weights(), mode="sync") as ckpt:
        failing = through(ckpt, Failing)
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            for number, loss in enumerate((1.0, 5.0, 4.0, 3.0, 2.0, 6.0, 7.0)):
                failing.failing = number in {0, 1, 2, 5}
                ckpt.log(val_loss=loss)
                settle(ckpt)
                if number == 3:
                    assert kept(tiers[1]) == [(0, 1.0), (3, 3.0)]
        assert len(warned) == 2
    assert kept(tiers[1]) == [(0, 1.0), (6, 7.0)]
    assert keepbest.open_run(tiers[1]).history()["val_loss"] == [1.0, 5.0, 4.0, 3.0, 2.0, 6.0, 7.0]


def test_a_failure_at_the_end_is_tried_once_more(tiers):
    """An upload that failed after the last save is tried again by close."""
    with Checkpointer(tiers[0], WARNS, mirror=tiers[1], weights=Weights(), mode="sync") as ckpt:
        failing = through(ckpt, Failing)
        with pytest.warns(UserWarning, match="is not up to date"):
            ckpt.log(val_loss=1.0)
            settle(ckpt)
            failing.failing = False
            ckpt.close()
    assert kept(tiers[1]) == [(0, 1.0)]


def test_a_missing_mirror_may_be_a_warning(tiers):
    """With on_save_error="warn" a training whose mirror failed ends with a warning, not with an error."""
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        with Checkpointer(tiers[0], WARNS, mirror=tiers[1], weights=Weights()) as ckpt:
            through(ckpt, Failing)
            ckpt.log(val_loss=1.0)
    assert sorted("did not reach the mirror" in str(warning.message) for warning in warned) == [False, True]
    assert kept(tiers[0]) == [(0, 1.0)]


def test_an_exception_is_not_hidden_by_the_mirror(tiers):
    """What ended training is what the user sees; what the mirror lacks is a note on it."""
    with pytest.raises(ZeroDivisionError) as caught:
        with Checkpointer(tiers[0], BY_LOSS, mirror=tiers[1], weights=Weights()) as ckpt:
            through(ckpt, Failing)
            with pytest.warns(UserWarning, match="is not up to date"):
                ckpt.log(val_loss=1.0)
                ckpt.wait()
                settle(ckpt)
                ckpt.wait()
            raise ZeroDivisionError
    assert "did not reach the mirror" in caught.value.__notes__[0]


def test_an_exception_waits_for_the_mirror(tiers):
    """A training that an exception ends has its checkpoints in the mirror."""
    policy = CheckpointPolicy(monitor="val_loss", on_exception=True)
    with pytest.raises(ZeroDivisionError):
        with Checkpointer(tiers[0], policy, mirror=tiers[1], weights=Weights()) as ckpt:
            ckpt.log(val_loss=1.0)
            ckpt.log_step(loss=0.1)
            raise ZeroDivisionError
    assert keepbest.open_run(tiers[1]).latest.info.reasons == ("exception",)


def test_another_writer_in_the_mirror_ends_the_mirroring(tiers):
    """Where another training commits our number to the mirror, that is told, nothing of it is touched, and we stop."""
    ckpt = Checkpointer(tiers[0], BY_LOSS, mirror=tiers[1], weights=Weights(), mode="sync")
    theirs = SmallRun(open_backend(tiers[1])).save(0.5)
    with pytest.warns(UserWarning, match=f"another writer.*{theirs.name}.*Nothing more is copied") as warned:
        for loss in (3.0, 2.0, 1.0):
            ckpt.log(val_loss=loss)
            settle(ckpt)
        with pytest.raises(MirrorFailedError) as caught:
            ckpt.close()
    assert len(warned) == 1
    assert isinstance(caught.value.__cause__, ConcurrentWriterError)
    assert [found.name for found in keepbest.open_run(tiers[1]).checkpoints()] == [theirs.name]
    assert kept(tiers[0]) == [(2, 1.0)]


def test_what_is_damaged_on_the_disk_does_not_block_the_rest(tiers):
    """A checkpoint that cannot be read is named and never committed in the mirror; the others come through."""
    weights = Weights()
    with Checkpointer(tiers[0], BY_LOSS, mirror=tiers[1], weights=weights, mode="sync") as ckpt:
        gate = through(ckpt, Gate)
        for loss in (5.0, 1.0, 2.0):
            weights.values = weights.values + 1
            ckpt.log(val_loss=loss)
            assert gate.waiting.wait(30)
        latest = keepbest.open_run(tiers[0]).latest
        key = data_key(latest.name, "weights.safetensors")
        backend = open_backend(tiers[0])
        data = backend.read(key)
        backend.delete([key])
        backend.put(key, [data[:-1], b"!"])
        with pytest.warns(UserWarning, match=rf"{latest.name} cannot be copied.*weights\.safetensors"):
            gate.opened.set()
            with pytest.raises(MirrorFailedError) as caught:
                ckpt.close()
    assert caught.value.checkpoints == (latest.name,)
    assert kept(tiers[1]) == [(1, 1.0)]
    assert keepbest.open_run(tiers[1]).verify().ok


def test_what_somebody_deleted_is_dropped_quietly(tiers):
    """A checkpoint that is gone from the disk by another hand is no error of the mirror."""
    with Checkpointer(tiers[0], BY_LOSS, mirror=tiers[1], weights=Weights(), mode="sync") as ckpt:
        gate = through(ckpt, Gate)
        ckpt.log(val_loss=5.0)
        assert gate.waiting.wait(30)
        ckpt.log(val_loss=1.0)
        ckpt.log(val_loss=2.0)
        open_backend(tiers[0]).delete([commit_key(2)])
        gate.opened.set()
    assert [found.sequence for found in keepbest.open_run(tiers[1]).checkpoints()] == [3]


def test_an_upload_that_cannot_tidy_up_goes_on(tiers):
    """Where the mirror takes uploads but deletes nothing, everything still comes there, and one warning says so."""

    class Undeleting(WrappedBackend):
        def _call(self, name, *args):
            if name == "delete" and list(args[0]):
                raise StorageError(self.url, "cannot delete (a test).")
            return super()._call(name, *args)

    with Checkpointer(tiers[0], BY_LOSS, mirror=tiers[1], weights=Weights(), mode="sync") as ckpt:
        through(ckpt, Undeleting)
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            for loss in (3.0, 1.0, 2.0, 4.0):
                ckpt.log(val_loss=loss)
                settle(ckpt)
            ckpt.close()
    assert len(warned) == 1
    assert [epoch for epoch, _ in kept(tiers[1])] == [0, 1, 2, 3]


def test_an_unusable_mirror_is_noticed_before_training(tmp_path):
    """A mirror that cannot be written to is an error when the Checkpointer is made."""
    (tmp_path / "file").write_text("")
    with pytest.raises(keepbest.KeepbestError, match="file"):
        Checkpointer(str(tmp_path / "run"), mirror=str(tmp_path / "file" / "mirror"), weights=Weights())


def test_the_disk_must_hold_one_more_for_the_upload(tmp_path, monkeypatch):
    """As what is being uploaded stays until it is there, a mirror asks for the space of one more checkpoint."""
    free = 5 * Weights().values.nbytes // 2
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=free))
    Checkpointer(str(tmp_path / "run"), weights=Weights()).close()
    with pytest.raises(StorageFullError, match="no space is left"):
        Checkpointer(str(tmp_path / "run"), mirror=f"memory://test-{uuid.uuid4().hex}", weights=Weights())


@pytest.mark.parametrize(
    ("url", "settings", "words"),
    [
        pytest.param("runs/7", {"mirror": "runs/7"}, "are one place", id="the same"),
        pytest.param("runs/7", {"mirror": "runs/../runs/7/mirror"}, "lies in the other", id="within"),
        pytest.param("memory://m/runs/7", {"mirror": "memory://m/runs"}, "lies in the other", id="around"),
        pytest.param("runs/7", {"mirror_options": {"anon": True}}, "without a mirror", id="options alone"),
        pytest.param("runs/7", {"mirror": "runs/8", "mirror_options": {"anon": True}}, "storage_options", id="options"),
        pytest.param("runs/7", {"mirror": "nowhere://x"}, "nowhere://", id="scheme"),
        pytest.param("runs/7", {"mirror": {"w": 1}}, "must be a non-empty text", id="an object"),
    ],
)
def test_a_wrong_mirror_is_refused(tmp_path, monkeypatch, url, settings, words):
    """A mirror that cannot survive the run, or is none, is refused before anything is written."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=words):
        Checkpointer(url, weights=Weights(), **settings)
    assert not list(tmp_path.iterdir())


# ── killed ────────────────────────────────────────────────────────────────────────────────────────────────────────


class TwoTiers:
    """A run with a slow mirror, without a thread: saves by the policy, and catches up when it is told to."""

    def __init__(self, tiers, policy=BY_LOSS):
        self.policy = policy
        self.first = SmallRun(open_backend(tiers[0]))
        self.mirror_url = tiers[1]

    def save(self, loss, **settings):
        self.first.save(loss, **settings)
        self.first.writer.retire(self.policy.retain(self.first.writer.checkpoints).retire)

    def catch_up(self, backend=None):
        mirror = Mirror(self.first.writer, backend or open_backend(self.mirror_url), self.policy)
        uploaded = []
        while lacks := mirror.lacks(self.first.writer.checkpoints):
            assert lacks[0].sequence not in uploaded
            uploaded.append(lacks[0].sequence)
            mirror.upload(lacks[0], lambda: None)
            mirror.tidy(self.first.writer.checkpoints)
        mirror.close()
        return uploaded


def test_nothing_is_uploaded_only_to_be_retired():
    """Where the space is limited, the mirror does not delete for the moment what it should have in the end."""
    policy = CheckpointPolicy(
        monitor="val_loss", keep_best=1, keep_last=2, keep_every_n_epochs=1, keep_max_bytes=6 * 100_000 + 10_000
    )
    made = TwoTiers((f"memory://test-{uuid.uuid4().hex}", f"memory://test-{uuid.uuid4().hex}"), policy)
    for number, (loss, size) in enumerate([(4.0, 2), (2.0, 1), (7.0, 2), (9.0, 3)]):
        made.save(loss, arrays={"w": np.full(size * 100_000, number, np.uint8)})
        if number == 0:
            assert made.catch_up() == [1]
    assert made.catch_up() == [4, 3, 2]
    assert [found.sequence for found in Run(open_backend(made.mirror_url)).checkpoints()] == [2, 3, 4]


def test_what_a_crash_left_in_the_mirror_is_cleared_away(monkeypatch):
    """Files of an upload that no process finished do not pile up in the mirror."""
    made = TwoTiers((f"memory://test-{uuid.uuid4().hex}", f"memory://test-{uuid.uuid4().hex}"))
    mirror = open_backend(made.mirror_url)
    mirror.put("checkpoints/epoch-001_aaaaaa/state.json", [b"{}"])
    made.save(1.0)
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 2 * 3600)
    made.catch_up()
    assert {checkpoint_of(entry.key) for entry in mirror.list("checkpoints/")} == {
        found.name for found in made.first.writer.checkpoints
    }


@pytest.mark.parametrize("moment", ["before", "during", "after"])
def test_killed_at_any_call_of_the_mirror(tmp_path, moment):
    """Wherever mirroring is killed, the mirror is whole and its best no worse; the next process completes it."""

    def fresh():
        return TwoTiers((str(tmp_path / uuid.uuid4().hex), f"memory://test-{uuid.uuid4().hex}"))

    def prepare():
        made = fresh()
        for loss in (3.0, 2.0, 5.0):
            made.save(loss)
        made.catch_up()
        for loss in (1.0, 4.0):  # a new best and a new latest, with the newest going up first
            made.save(loss)
        return made

    watched = prepare()
    backend = CrashingBackend(open_backend(watched.mirror_url), -1, moment)
    watched.catch_up(backend)
    assert {"put", "put_if_absent", "delete", "replace"} <= {name for name, _ in backend.trace}
    for at in range(len(backend.trace)):
        made = prepare()
        with pytest.raises(Crash):
            made.catch_up(CrashingBackend(open_backend(made.mirror_url), at, moment))
        mirror = Run(open_backend(made.mirror_url))
        assert mirror.verify().ok, (backend.trace[at], str(mirror.verify()))
        assert mirror.best.metrics["val_loss"] <= 2.0
        assert mirror.latest.sequence >= 3
        made.catch_up()
        assert {found.sequence for found in mirror.checkpoints()} >= {4, 5}
        made.save(6.0)  # what the kill kept from being retired goes with the next
        made.catch_up()
        assert [found.info for found in mirror.checkpoints()] == made.first.writer.checkpoints
        mirror.gc(grace=0)
        assert {checkpoint_of(entry.key) for entry in mirror.backend.list("checkpoints/")} == {
            found.name for found in mirror.checkpoints()
        }
        assert mirror.verify().ok


@pytest.mark.parametrize("moment", ["before", "during", "after"])
def test_killed_while_it_comes_back(tmp_path, moment):
    """Wherever bringing back is killed: what the disk lists is whole, and the next start brings back the rest."""
    made = TwoTiers((f"memory://test-{uuid.uuid4().hex}", f"memory://test-{uuid.uuid4().hex}"))
    for loss in (3.0, 1.0, 2.0):
        made.save(loss)
    made.catch_up()
    expected = made.first.writer.checkpoints
    mirror = open_backend(made.mirror_url)
    at = 0
    while True:
        disk = open_backend(str(tmp_path / f"{at}"))
        watched = CrashingBackend(disk, -1, moment)
        first = RunWriter(watched)
        watched.trace.clear()
        watched.at = at
        try:
            Mirror(first, mirror, BY_LOSS).bring_back()
        except Crash:
            run = Run(disk)
            assert run.verify().ok
            if run.listing().checkpoints:  # the latest comes first: nobody goes on from an older one
                assert run.latest.sequence == expected[-1].sequence
            again = RunWriter(disk)
            Mirror(again, mirror, BY_LOSS).bring_back()
            assert again.checkpoints == expected
            assert run.verify().ok
            assert again.next_sequence == 4
            at += 1
            continue
        assert at > 8
        return


def test_hurrying_makes_way_for_the_newest(tmp_path):
    """When the machine goes away, the upload of an older checkpoint is broken off in favour of the newest."""
    made = TwoTiers((str(tmp_path / "run"), f"memory://test-{uuid.uuid4().hex}"))
    made.first.save(1.0)
    gate = Gate(open_backend(made.mirror_url))
    mirroring = Mirroring(Mirror(made.first.writer, gate, BY_LOSS), [])
    mirroring.offer(made.first.writer.checkpoints)
    assert gate.waiting.wait(30)
    made.first.save(2.0)
    mirroring.offer(made.first.writer.checkpoints)
    threading.Timer(0.2, gate.opened.set).start()
    mirroring.finish(hurry=True)
    first, second = made.first.writer.checkpoints
    assert gate.begun == [first.name, second.name]
    assert [found.sequence for found in Run(open_backend(made.mirror_url)).checkpoints()] == [1, 2]
    committed = [key for key, _ in sorted(times(made.mirror_url).items(), key=lambda item: item[1])]
    assert committed == [commit_key(2), commit_key(1)]
    mirroring.close()


def test_closing_breaks_an_upload_off(tmp_path):
    """Who closes without having waited leaves nothing half-uploaded behind."""
    made = TwoTiers((str(tmp_path / "run"), f"memory://test-{uuid.uuid4().hex}"))
    made.first.save(1.0)
    gate = Gate(open_backend(made.mirror_url))
    mirroring = Mirroring(Mirror(made.first.writer, gate, BY_LOSS), [])
    mirroring.offer(made.first.writer.checkpoints)
    assert gate.waiting.wait(30)
    mirroring.close()
    gate.opened.set()
    with mirroring._state:
        assert mirroring._state.wait_for(lambda: mirroring._thread is None, 30)
    assert open_backend(made.mirror_url).list("checkpoints/") == []


def times(url):
    return {entry.key: entry.modified for entry in open_backend(url).list("commits/") if "index" not in entry.key}


# ── the end of the program ────────────────────────────────────────────────────────────────────────────────────────

PROGRAM = """
import os, signal, sys, threading, time
from concurrent.futures import ThreadPoolExecutor
import numpy as np
from keepbest import Checkpointer, CheckpointPolicy
from keepbest.storage.local import LocalBackend

url, mirror = sys.argv[1:3]
put, pool = LocalBackend.put, ThreadPoolExecutor(2)

def slow(self, key, chunks):
    if self.url == mirror:
        print("uploading", flush=True)
        time.sleep({seconds})
        return pool.submit(put, self, key, chunks).result()  # as a bucket's backend sends its parts
    return put(self, key, chunks)

LocalBackend.put = slow
weights = {{"w": np.zeros(20_000)}}
policy = CheckpointPolicy(monitor="val_loss", {policy})
ckpt = Checkpointer(url, policy, mirror=mirror, weights=weights)
{body}
"""


def run(tmp_path, body, seconds=0.3, policy=""):
    tiers = str(tmp_path / "run"), str(tmp_path / "mirror")
    script = PROGRAM.format(body=textwrap.dedent(body), seconds=seconds, policy=policy)
    done = subprocess.run(
        [sys.executable, "-c", script, *tiers], capture_output=True, text=True, timeout=60, check=False
    )
    return done, tiers


def test_a_program_that_ends_without_close_leaves_nothing_behind(tmp_path):
    """At the end of the interpreter the save in flight and the uploads come through, thread pools included."""
    done, tiers = run(tmp_path, "for loss in (3.0, 1.0, 2.0): ckpt.log(val_loss=loss)")
    assert (done.returncode, done.stderr) == (0, "")
    assert kept(tiers[0]) == kept(tiers[1]) == [(1, 1.0), (2, 2.0)]


def test_a_program_that_breaks_off_leaves_nothing_behind(tmp_path):
    """So they do if an exception ends it that nobody caught."""
    done, tiers = run(tmp_path, "ckpt.log(val_loss=1.0)\nraise ZeroDivisionError")
    assert done.returncode == 1
    assert "ZeroDivisionError" in done.stderr
    assert kept(tiers[1]) == [(0, 1.0)]


def test_preemption_waits_for_the_mirror(tmp_path):
    """After SIGTERM the checkpoint that it was for is in the mirror when the program exits with 143."""
    body = """
    with ckpt:
        for epoch in ckpt.epochs(5):
            if epoch == 2:
                os.kill(os.getpid(), signal.SIGTERM)
            ckpt.log_step(loss=0.1)
            ckpt.log(val_loss=1.0)
    """
    done, tiers = run(tmp_path, body)
    assert done.returncode == 128 + signal.SIGTERM, done.stderr
    latest = keepbest.open_run(tiers[1]).latest
    assert (latest.info.reasons, latest.epoch) == (("signal",), 2)
    assert latest.name == keepbest.open_run(tiers[0]).latest.name
    shutil.rmtree(tiers[0])
    body = """
    with ckpt:
        print(list(epoch for epoch in ckpt.epochs(5) if ckpt.log(val_loss=1.0)), flush=True)
    """
    done, tiers = run(tmp_path, body, seconds=0)
    assert "[2, 3, 4]" in done.stdout, done.stderr


def test_preemption_is_not_held_up_by_a_failing_mirror(tmp_path):
    """If the mirror fails then, the program still exits with 143, and says what is not there."""
    body = """
    from keepbest.errors import StorageError
    def refuse(self, key, chunks):
        if self.url == mirror:
            raise StorageError(self.url, "no answer (a test).")
        return put(self, key, chunks)
    LocalBackend.put = refuse
    with ckpt:
        for epoch in ckpt.epochs(5):
            os.kill(os.getpid(), signal.SIGTERM)
            ckpt.log(val_loss=1.0)
    """
    done, tiers = run(tmp_path, body)
    assert done.returncode == 128 + signal.SIGTERM
    assert "did not reach the mirror" in done.stderr
    assert kept(tiers[0]) == [(0, 1.0)]


@pytest.mark.parametrize("block", ["with ckpt:", "if True:"], ids=["with", "without"])
def test_a_second_signal_does_not_wait_for_the_mirror(tmp_path, block):
    """Whoever cannot wait sends it twice: the save is there, the mirror is left as it is."""
    body = f"""
    def again():
        time.sleep(1)
        os.kill(os.getpid(), signal.SIGTERM)
    {block}
        for epoch in ckpt.epochs(5):
            threading.Thread(target=again).start()
            os.kill(os.getpid(), signal.SIGTERM)
            ckpt.log(val_loss=1.0)
    """
    done, tiers = run(tmp_path, body, seconds=40)
    assert done.returncode == 128 + signal.SIGTERM, done.stderr
    assert kept(tiers[0]) == [(0, 1.0)]
    assert not list(Path(tiers[1]).rglob("commits/*.json"))


def test_a_failed_save_is_told_at_the_end_of_the_program(tmp_path):
    """A save that fails after the last call of keepbest is not passed over in silence."""
    body = """
    from keepbest.errors import StorageError
    def refuse(self, key, chunks):
        raise StorageError(self.url, "no answer (a test).")
    LocalBackend.put = refuse
    ckpt.log(val_loss=1.0)
    """
    done, _ = run(tmp_path, body)
    assert "saving epoch-001_" in done.stderr
    assert "no answer" in done.stderr


def test_a_forked_child_waits_for_nothing(tiers):
    """A worker that is forked while a save and an upload are under way ends without them."""
    with Checkpointer(tiers[0], BY_LOSS, mirror=tiers[1], weights=Weights()) as ckpt:
        gate = through(ckpt, Gate)
        ckpt.log(val_loss=2.0)
        assert gate.waiting.wait(30)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # newer Pythons warn of forks beside threads
            child = multiprocessing.get_context("fork").Process(target=int)
            child.start()
        child.join(20)
        ended = child.exitcode
        child.kill()
        gate.opened.set()
        assert ended == 0
