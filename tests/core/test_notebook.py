"""The notes of a training: what a run can tell later of what was decided, saved, resumed and ended."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from contracts.stateful import Weights

import keepbest
from keepbest import Checkpointer, CheckpointPolicy, Measured
from keepbest.errors import SaveFailedError, StorageError, UnsupportedStateError
from keepbest.storage.history import Row

POLICY = CheckpointPolicy(monitor="val_loss", keep_best=1, keep_last=1, patience=2)
LOSSES = [0.5, 0.3, 0.4, 0.45, 0.2]


def train(url, losses=LOSSES, policy=POLICY, **settings):
    with Checkpointer(url, policy, model=Weights(), **settings) as ckpt:
        for epoch in ckpt.epochs(len(losses)):
            ckpt.log(val_loss=losses[epoch], train_loss=losses[epoch] / 2)


def journal(url):
    return keepbest.open_run(url).journal()


def kinds(entries):
    return [entry.kind for entry in entries]


def only(entries, kind):
    return [entry for entry in entries if entry.kind == kind]


@pytest.mark.parametrize("mode", ["sync", "async"])
def test_every_check_is_noted(tmp_path, mode):
    """Each epoch has its decision behind its row, with what the monitor made of it; saves and the end are told."""
    train(tmp_path, mode=mode)
    entries = journal(tmp_path)
    assert kinds(entries)[:3] == ["began", "epoch", "decided"]
    decided = only(entries, "decided")
    assert [note.epoch for note in decided] == [0, 1, 2, 3]
    assert [note.checks[0].improved for note in decided] == [True, True, False, False]
    assert [note.checks[0].wait for note in decided] == [0, 0, 1, 2]
    assert [note.stop for note in decided] == [False, False, False, True]
    assert decided[1].reasons == ("epoch", "improvement")
    assert decided[2].checks[0].patience == 2
    assert entries[-1].kind == "ended"
    assert entries[-1].cause == "stopped"
    began = entries[0]
    assert (began.checkpoint, began.policy["patience"]) == (None, 2)
    assert CheckpointPolicy.model_validate(began.policy) == POLICY
    saved = only(entries, "saved")
    assert [note.checkpoint for note in saved] == [note.checkpoint for note in decided]
    assert [note.sequence for note in saved] == [1, 2, 3, 4]
    assert saved[1].retired == (decided[0].checkpoint,)
    assert saved[3].retired == (decided[2].checkpoint,)
    for note in saved:
        assert 0 < note.blocked <= note.seconds + 1
        assert note.nbytes > 0


def test_the_decision_is_written_with_its_row(tmp_path):
    """Between the row and what was decided about it nothing can be lost: they are one write."""
    with Checkpointer(tmp_path, POLICY, model=Weights()) as ckpt:
        for _epoch in ckpt.epochs(1):
            ckpt.log(val_loss=0.5)
            assert kinds(journal(tmp_path))[:3] == ["began", "epoch", "decided"]


def test_the_age_of_a_value_is_noted(tmp_path):
    """A value that says when it was measured is noted with its age in steps."""
    with Checkpointer(tmp_path, CheckpointPolicy(monitor="val_loss"), model=Weights()) as ckpt:
        for _ in range(7):
            ckpt.log_step()
        ckpt.log(val_loss=Measured(0.5, step=4))
    (check,) = only(journal(tmp_path), "decided")[0].checks
    assert (check.value, check.judged, check.age, check.eligible) == (0.5, None, 3, False)
    assert "stale" in check.reason


def test_the_beginning_is_written_before_an_epoch_ends(tmp_path):
    """Who follows a run need not wait for a row: the note alone is a run already."""
    with Checkpointer(tmp_path, POLICY, model=Weights()) as ckpt:
        epochs = ckpt.epochs(2)
        assert not ckpt.run.exists()
        next(epochs)
        assert kinds(journal(tmp_path)) == ["began"]
        ckpt.log(val_loss=0.5)
        next(epochs)
        assert kinds(journal(tmp_path)).count("began") == 1


def test_the_journal_ends_where_training_went_on_from(tmp_path):
    """As soon as training goes on from a checkpoint, the rows behind that are of a branch that was left."""
    policy = CheckpointPolicy(every_n_epochs=2, at_end=False, keep_all=True)
    with Checkpointer(tmp_path, policy, model=Weights()) as ckpt:
        for _epoch in ckpt.epochs(3):
            ckpt.log(loss=1.0)
    assert [entry.epoch for entry in journal(tmp_path) if isinstance(entry, Row)] == [0, 1, 2]
    latest = keepbest.open_run(tmp_path).latest.name
    with Checkpointer(tmp_path, policy, model=Weights()) as ckpt:
        epochs = ckpt.epochs(6)
        next(epochs)
        *before, last = journal(tmp_path)
        assert (last.kind, last.checkpoint) == ("began", latest)
        assert [entry.epoch for entry in before if isinstance(entry, Row)] == [0, 1]
        assert [row.epoch for row in keepbest.open_run(tmp_path).history().rows] == [0, 1, 2]
        ckpt.log(loss=0.5)
        next(epochs)
        ckpt.log(loss=0.4)
        ckpt.restore(1)
        next(epochs)
        *before, last = journal(tmp_path)
        assert (last.kind, last.checkpoint) == ("back", latest)
        assert [entry.epoch for entry in before if isinstance(entry, Row)] == [0, 1]
        ckpt.log(loss=0.3)
        assert [entry.epoch for entry in journal(tmp_path) if isinstance(entry, Row)] == [0, 1, 2]
        epochs.close()


def test_an_error_of_a_path_that_is_no_text_is_noted(tmp_path):
    """Its bytes are written out; no row and no note after it is lost."""
    bad = os.fsdecode(b"caf\xe9")
    broken = CheckpointPolicy(on_save_error="warn")
    with Checkpointer(tmp_path, broken, model=Weights()) as ckpt:
        ckpt.log(loss=1.0)
        ckpt.wait()
        ckpt._training.notes.failed(ckpt.position, "one", StorageError(bad, "cannot be written"))
        ckpt.log(loss=0.5)
    failed = only(journal(tmp_path), "failed")
    assert "caf\\udce9" in failed[0].error
    assert [entry.epoch for entry in journal(tmp_path) if isinstance(entry, Row)] == [0, 1]


def test_resuming_and_going_back_are_noted(tmp_path):
    """A new process says what it continues; going back within one, too; who only looks leaves no note."""
    policy = CheckpointPolicy(monitor="val_loss", keep_all=True)
    train(tmp_path, [0.5, 0.3], policy)
    first = journal(tmp_path)
    with Checkpointer(tmp_path, policy, model=Weights()) as ckpt:
        ckpt.resume()
        ckpt.restore("best")
    assert journal(tmp_path) == first
    with Checkpointer(tmp_path, policy, model=Weights()) as ckpt:
        epochs = ckpt.epochs(4)
        next(epochs)
        ckpt.log(val_loss=0.6)
        next(epochs)
        ckpt.restore(1)
        ckpt.log(val_loss=0.1, epoch=1)
        epochs.close()
    entries = journal(tmp_path)
    names = {found.sequence: found.name for found in keepbest.open_run(tmp_path).checkpoints()}
    assert [note.checkpoint for note in only(entries, "back")] == [names[1]]
    assert [entry.epoch for entry in entries if isinstance(entry, Row)] == [0, 1]
    train(tmp_path, [0.5, 0.1, 0.3], policy)
    assert [note.checkpoint for note in only(journal(tmp_path), "began")][-1] == names[4]


@pytest.mark.parametrize("mode", ["sync", "async"])
def test_a_failed_save_is_noted(tmp_path, mode):
    """A save that failed has a note that says why, behind the row that it was for."""
    folder = tmp_path / "checkpoints"
    with Checkpointer(tmp_path, CheckpointPolicy(), mode=mode, model=Weights()) as ckpt:
        ckpt.log(loss=3.0)
        ckpt.wait()
        folder.rename(tmp_path / "aside")
        folder.write_text("a file where a folder must be")
        with pytest.raises(SaveFailedError):
            ckpt.log(loss=2.0)
            ckpt.wait()
        folder.unlink()
        (tmp_path / "aside").rename(folder)
        ckpt.log(loss=1.0)
    entries = journal(tmp_path)
    (failed,) = only(entries, "failed")
    assert failed.checkpoint == only(entries, "decided")[1].checkpoint
    assert "Error: " in failed.error
    assert kinds(entries).index("failed") > kinds(entries).index("saved")
    assert [note.epoch for note in only(entries, "saved")] == [0, 2]


def test_saves_between_epochs_are_noted_where_they_were_due(tmp_path):
    """Of steps, only those at which a checkpoint was saved have a decision, behind the row of that step."""
    policy = CheckpointPolicy(every_n_steps=2, every_n_epochs=None, at_end=False)
    with Checkpointer(tmp_path, policy, mode="sync", model=Weights()) as ckpt:
        for number in range(4):
            ckpt.log_step(loss=float(number))
    entries = [entry for entry in journal(tmp_path) if entry.kind in ("step", "decided")]
    assert [(entry.kind, entry.step) for entry in entries] == [
        ("step", 1),
        ("step", 2),
        ("decided", 2),
        ("step", 3),
        ("step", 4),
        ("decided", 4),
    ]


def test_how_it_ended_is_noted(tmp_path):
    """Complete, broken off by an exception, closed by a loop of one's own: the last note says which."""
    train(tmp_path / "whole", [0.5, 0.4])
    assert journal(tmp_path / "whole")[-1].cause == "complete"
    with pytest.raises(ZeroDivisionError), Checkpointer(tmp_path / "broken", model=Weights()) as ckpt:
        ckpt.log(loss=1.0)
        1 / 0  # noqa: B018
    ended = journal(tmp_path / "broken")[-1]
    assert (ended.cause, ended.error) == ("exception", "ZeroDivisionError")
    with Checkpointer(tmp_path / "own", model=Weights()) as ckpt:
        ckpt.log(loss=1.0)
    assert journal(tmp_path / "own")[-1].cause == "closed"
    ckpt = Checkpointer(tmp_path / "let go", model=Weights())
    ckpt.log(loss=1.0)
    ckpt.close(save=False)
    ended = journal(tmp_path / "let go")[-1]
    assert (ended.cause, ended.error) == ("exception", None)


def test_the_end_stands_behind_the_last_steps(tmp_path):
    """Steps that waited to be written when training was broken off come before the note that it was."""
    with pytest.raises(KeyboardInterrupt), Checkpointer(tmp_path, model=Weights()) as ckpt:
        ckpt.log(loss=1.0)
        ckpt.log_step(loss=0.5)
        raise KeyboardInterrupt
    assert kinds(journal(tmp_path))[-2:] == ["step", "ended"]


def test_a_loop_that_is_left_is_noted_with_its_epoch(tmp_path):
    """Who leaves the loop over `epochs(n)` has noted in which epoch that was, and how many were planned."""
    with Checkpointer(tmp_path, model=Weights()) as ckpt:
        for epoch in ckpt.epochs(10):
            ckpt.log(loss=1.0)
            if epoch == 4:
                break
    end = journal(tmp_path)[-1]
    assert (end.cause, end.within, end.planned) == ("closed", 4, 10)


def test_an_epoch_of_a_loop_that_was_left_before_is_not_noted(tmp_path):
    """Training that went on after its loop was left did not end in that loop's epoch."""
    with Checkpointer(tmp_path, model=Weights()) as ckpt:
        for _epoch in ckpt.epochs(10):
            break
        ckpt.log(loss=1.0)
        ckpt.log(loss=1.0)
    assert (journal(tmp_path)[-1].within, journal(tmp_path)[-1].planned) == (None, None)


class UnspeakableError(Exception):
    """Its text cannot be had."""

    def __str__(self):
        raise ValueError


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (RuntimeError("CUDA is out of memory.\nTry less."), "CUDA is out of memory."),
        (
            ValueError("no answer of https://me:secret@host/x?sig=secret, twice"),
            "no answer of https://me@host/x?…, twice",
        ),
        (ValueError("x" * 1000), "x" * 199 + "…"),
        (OSError("a\udcffb"), "a\\udcffb"),
        (MemoryError(), ""),
        (UnspeakableError(), ""),
    ],
    ids=["lines", "passwords", "long", "no-text", "nothing", "unspeakable"],
)
def test_what_an_exception_said_is_noted(tmp_path, error, text):
    """Of the exception that ended training stand its class, the first line of its text, and the epoch."""
    with pytest.raises(type(error)), Checkpointer(tmp_path, model=Weights()) as ckpt:
        for epoch in ckpt.epochs(5):
            if epoch == 2:
                raise error
            ckpt.log(loss=1.0)
    end = journal(tmp_path)[-1]
    assert (end.cause, end.error, end.text, end.within, end.planned) == ("exception", type(error).__name__, text, 2, 5)


def test_a_save_that_could_not_begin_is_noted(tmp_path):
    """A state that cannot be saved any more: the decision to save is followed by why nothing came of it."""
    weights = {"w": 1.0}
    with Checkpointer(tmp_path, CheckpointPolicy(at_end=False), weights=weights) as ckpt:
        ckpt.log(loss=2.0)
        ckpt.wait()
        weights["f"] = lambda: 0
        with pytest.raises(UnsupportedStateError):
            ckpt.log(loss=1.0)
    entries = journal(tmp_path)
    (failed,) = only(entries, "failed")
    assert failed.checkpoint == only(entries, "decided")[1].checkpoint
    assert failed.error.startswith("UnsupportedStateError: ")


def test_a_signal_is_noted(tmp_path):
    """A training that SIGTERM ended says so."""
    program = """
import os, signal, sys
from keepbest import Checkpointer
class Nothing:
    def state_dict(self): return {}
    def load_state_dict(self, state): pass
with Checkpointer(sys.argv[1], model=Nothing()) as ckpt:
    for epoch in ckpt.epochs(3):
        if epoch == 1:
            os.kill(os.getpid(), signal.SIGTERM)
        ckpt.log(loss=1.0)
"""
    assert subprocess.run([sys.executable, "-c", program, tmp_path], check=False).returncode == 143
    entries = journal(tmp_path)
    assert (entries[-1].kind, entries[-1].cause, entries[-1].epoch) == ("ended", "signal", 1)
    assert len(only(entries, "ended")) == 1
