"""The Checkpointer as a loop uses it, without any framework: order of calls, resume, branches, failures."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
import textwrap
import threading
import time
import warnings
from types import SimpleNamespace

import numpy as np
import pytest

import keepbest
from keepbest import Checkpointer, CheckpointPolicy, Measured
from keepbest.errors import (
    ClosedError,
    ConcurrentWriterError,
    ConfigError,
    DamagedFileError,
    DamagedManifestError,
    KeepbestError,
    MetricError,
    MetricValueError,
    MissingMetricError,
    NotARunError,
    PolicyError,
    RunExistsError,
    SaveFailedError,
    StateMismatchError,
    StorageError,
    StorageFullError,
    StoragePermissionError,
    TornStateError,
    UnsupportedStateError,
    UsageError,
)
from keepbest.storage.backend import open_backend


class Weights:
    """A Stateful with one array; each epoch adds 1."""

    def __init__(self, size=4):
        self.values = np.zeros(size)

    def state_dict(self):
        return {"values": self.values}

    def load_state_dict(self, state):
        self.values = state["values"]


BY_LOSS = CheckpointPolicy(monitor="val_loss")


def train(url, losses, policy=BY_LOSS, upto=None, **settings):
    """Run a loop over `losses`, one for each epoch; returns the decisions and the weights."""
    weights, decisions = Weights(), []
    with Checkpointer(url, policy, weights=weights, **settings) as ckpt:
        for epoch in ckpt.epochs(len(losses) if upto is None else upto):
            weights.values = weights.values + 1
            decisions.append(ckpt.log(val_loss=losses[epoch]))
    return decisions, weights


def kept(url):
    return [(found.epoch, found.metrics["val_loss"]) for found in keepbest.open_run(url).checkpoints()]


# ── the loop ──────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("mode", ["sync", "async"])
def test_the_best_and_the_last_are_kept(run_url, mode):
    """With the default policy, what remains of a training is its best checkpoint and its last one."""
    train(run_url, [3.0, 1.0, 2.0, 4.0], mode=mode)
    assert kept(run_url) == [(1, 1.0), (3, 4.0)]
    run = keepbest.open_run(run_url)
    assert (run.best.epoch, run.latest.epoch) == (1, 3)
    assert run.best.load("weights")["values"].tolist() == [2.0] * 4
    assert run.verify().ok


def test_epochs_continues_where_the_last_process_stopped(run_url):
    """A second process runs the epochs that are left, from the state in which the first one stopped."""
    losses = [5.0, 4.0, 3.0, 2.0, 1.0]
    train(run_url, losses, upto=2)
    decisions, weights = train(run_url, losses)
    assert len(decisions) == 3
    assert weights.values.tolist() == [5.0] * 4
    assert keepbest.open_run(run_url).history()["val_loss"] == losses


def test_a_finished_run_is_not_trained_again(run_url):
    """Started again after its end, a training runs no epoch and still has its last state."""
    train(run_url, [2.0, 1.0])
    decisions, weights = train(run_url, [2.0, 1.0])
    assert (decisions, weights.values.tolist()) == ([], [2.0] * 4)


def test_patience_ends_training_and_survives_a_restart(run_url):
    """Patience used up before an interruption is not given back after it."""
    policy = CheckpointPolicy(monitor="val_loss", patience=3)
    losses = [1.0, 2.0, 2.0, 2.0, 2.0, 2.0]
    train(run_url, losses, policy, upto=3)
    decisions, _ = train(run_url, losses, policy)
    assert [decision.stop for decision in decisions] == [True]
    assert train(run_url, losses, policy)[0] == []


def test_a_decision_says_what_and_why(run_url):
    """log returns whether it saved, what is best, whether to stop, and a sentence that says why."""
    policy = CheckpointPolicy(monitor="val_loss", every_n_epochs=None, patience=1)
    (first, second), _ = train(run_url, [2.0, 3.0], policy)
    assert (first.saved, first.improved, first.stop, first.value, first.best) == (True, True, False, 2.0, 2.0)
    assert (second.saved, second.improved, second.stop, second.value, second.best) == (False, False, True, 3.0, 2.0)
    assert second.reason.startswith("not saved; val_loss 3")
    assert second.reason.endswith("; training ends here")


def test_metric_names_may_hold_slashes(run_url):
    """Names that are no identifiers are given as a mapping, and appear as they are."""
    with Checkpointer(run_url, CheckpointPolicy(monitor="val/loss"), weights=Weights()) as ckpt:
        ckpt.log({"val/loss": 0.5}, lr=0.1)
    assert keepbest.open_run(run_url).best.metrics == {"val/loss": 0.5, "lr": 0.1}


def test_a_loop_may_count_for_itself(run_url):
    """Loops that own their iteration resume, log with their own numbers, and save when they want."""
    with Checkpointer(run_url, BY_LOSS, weights=Weights()) as ckpt:
        assert ckpt.resume() is None
        ckpt.log(val_loss=1.0, epoch=4, step=500)
        ckpt.log_step(loss=0.1)
        ckpt.save().result()
    with Checkpointer(run_url, BY_LOSS, weights=Weights()) as ckpt:
        position = ckpt.resume()
        assert (position.next_epoch, position.epoch, position.step, position.steps_in_epoch) == (5, 5, 501, 1)


def test_steps_are_saved_on_their_grid_without_ranking(run_url):
    """Checkpoints between epochs come at multiples of n steps, and an old metric does not rank them."""
    policy = CheckpointPolicy(monitor="val_loss", every_n_epochs=None, every_n_steps=3, keep_last=10, at_end=False)
    with Checkpointer(run_url, policy, weights=Weights()) as ckpt:
        for _ in ckpt.epochs(2):
            for _ in range(4):
                ckpt.log_step(loss=1.0)
            ckpt.log(val_loss=1.0)
    found = keepbest.open_run(run_url).checkpoints()
    assert [(checkpoint.step, checkpoint.scores[0].value) for checkpoint in found] == [(3, None), (4, 1.0), (6, None)]
    assert keepbest.open_run(run_url).best.step == 4


@pytest.mark.parametrize("on_improvement", [True, False])
def test_a_step_on_the_grid_that_ends_an_epoch_is_ranked(run_url, on_improvement):
    """What is saved at an epoch's last step is saved again with the epoch's metrics; a finished run is finished."""
    policy = CheckpointPolicy(
        monitor="val_loss", keep_best=2, every_n_epochs=None, every_n_steps=4, on_improvement=on_improvement
    )

    def train():
        with Checkpointer(run_url, policy, weights=Weights()) as ckpt:
            for epoch in ckpt.epochs(4):
                for _ in range(2):
                    ckpt.log_step(loss=1.0)
                ckpt.log(val_loss=[4.0, 1.0, 3.0, 2.0][epoch])
                yield epoch

    assert list(train()) == [0, 1, 2, 3]
    assert list(train()) == []
    found = keepbest.open_run(run_url).checkpoints()
    assert [(checkpoint.epoch, checkpoint.metrics) for checkpoint in found] == [
        (1, {"val_loss": 1.0}), (3, {"val_loss": 2.0})
    ]  # fmt: skip
    assert found[-1].complete


def test_an_epoch_that_ends_training_is_saved_though_its_last_step_was(run_url):
    """Saved at the last step, and the epoch closed since: the end saves that, so that nothing is trained again."""
    policy = CheckpointPolicy(every_n_epochs=None, every_n_steps=2)
    for trained in ([0, 1], []):
        with Checkpointer(run_url, policy, weights=Weights()) as ckpt:
            epochs = []
            for epoch in ckpt.epochs(2):
                epochs.append(epoch)
                for _ in range(2):
                    ckpt.log_step(loss=1.0)
                ckpt.log()
            assert epochs == trained
            assert (ckpt.position.next_epoch, ckpt.position.steps_in_epoch) == (2, 0)


def test_a_stale_value_does_not_rank(run_url):
    """A value that says it was measured earlier is recorded, and cannot make a checkpoint the best."""
    with Checkpointer(run_url, BY_LOSS, weights=Weights()) as ckpt:
        ckpt.log(val_loss=1.0, step=10)
        decision = ckpt.log(val_loss=Measured(0.1, step=10), step=20)
        assert not decision.improved
    assert keepbest.open_run(run_url).best.step == 10


def test_several_monitors_each_keep_their_best(run_url):
    """With two monitors the best by each stays; the primary one is `best`."""
    policy = CheckpointPolicy(monitor=["val_loss", "val_acc"])
    with Checkpointer(run_url, policy, weights=Weights()) as ckpt:
        for loss, accuracy in [(1.0, 0.5), (2.0, 0.9), (3.0, 0.1)]:
            ckpt.log(val_loss=loss, val_acc=accuracy)
    run = keepbest.open_run(run_url)
    assert [found.epoch for found in run.checkpoints()] == [0, 1, 2]
    assert (run.best.epoch, run.best_by("val_acc").epoch) == (0, 1)


def test_the_best_may_be_weights_only(run_url):
    """With best_contents="weights" the best keeps what inference needs, and the last one everything."""
    torch = pytest.importorskip("torch")
    model = torch.nn.Linear(2, 2)
    policy = CheckpointPolicy(monitor="val_loss", best_contents="weights")
    with Checkpointer(run_url, policy, model=model, weights=Weights(20_000)) as ckpt:
        for loss in (1.0, 2.0, 3.0):
            ckpt.log(val_loss=loss)
    run = keepbest.open_run(run_url)
    assert [(found.complete, found.epoch) for found in run.checkpoints()] == [(False, 0), (True, 2)]
    assert run.best.objects() == ["model"]
    assert run.best.load("model")["weight"].shape == (2, 2)
    assert run.latest.complete
    assert run.best.nbytes < run.latest.nbytes
    with Checkpointer(run_url, policy, model=model, weights=Weights()) as ckpt:
        ckpt.restore("best")
        assert ckpt.resume().next_epoch == 3


# ── going back ────────────────────────────────────────────────────────────────────────────────────────────────────


def test_restoring_the_best_at_the_end_changes_no_record(run_url):
    """After the loop, restore("best") sets the objects, and neither saves nor shortens the history."""
    weights = Weights()
    with Checkpointer(run_url, BY_LOSS, weights=weights) as ckpt:
        for epoch in ckpt.epochs(3):
            weights.values = weights.values + 1
            ckpt.log(val_loss=[1.0, 2.0, 3.0][epoch])
        assert ckpt.restore("best").epoch == 0
        assert weights.values.tolist() == [1.0] * 4
        assert ckpt.history["val_loss"] == [1.0, 2.0, 3.0]
    assert kept(run_url) == [(0, 1.0), (2, 3.0)]
    assert train(run_url, [1.0, 2.0, 3.0])[0] == []


def test_training_on_from_an_older_checkpoint_makes_a_branch(run_url):
    """Going back and training on collides with nothing: history, position and monitors are those of the older one."""
    train(run_url, [1.0, 2.0, 3.0])
    weights = Weights()
    with Checkpointer(run_url, BY_LOSS, weights=weights) as ckpt:
        ckpt.restore("best")
        for epoch in ckpt.epochs(3):
            weights.values = weights.values + 10
            ckpt.log(val_loss=0.5 + epoch)
        assert ckpt.history["val_loss"] == [1.0, 1.5, 2.5]
    run = keepbest.open_run(run_url)
    assert run.history()["val_loss"] == [1.0, 1.5, 2.5]
    assert run.latest.load("weights")["values"].tolist() == [21.0] * 4
    assert run.latest.epoch == 2
    assert len({found.name for found in run.checkpoints()}) == len(run.checkpoints())


def test_only_some_objects_are_restored(run_url):
    """restore(only=…) leaves the rest alone, and training does not go back."""
    first, second = Weights(), Weights()
    with Checkpointer(run_url, BY_LOSS, first=first, second=second) as ckpt:
        ckpt.log(val_loss=1.0)
        first.values, second.values = first.values + 1, second.values + 1
        ckpt.log(val_loss=2.0)
        ckpt.restore("best", only=["first"])
        assert (first.values[0], second.values[0]) == (0.0, 1.0)
        ckpt.log(val_loss=3.0)
        assert ckpt.history["val_loss"] == [1.0, 2.0, 3.0]
        with pytest.raises(UsageError, match="only='third'"):
            ckpt.restore("best", only=["third"])


def test_a_new_monitor_judges_the_history(run_url):
    """When the policy of a resumed run watches another metric, its best so far comes from the history."""
    with Checkpointer(run_url, BY_LOSS, weights=Weights()) as ckpt:
        for loss, accuracy in [(1.0, 0.9), (0.5, 0.2)]:
            ckpt.log(val_loss=loss, val_acc=accuracy)
    with Checkpointer(run_url, CheckpointPolicy(monitor="val_acc"), weights=Weights()) as ckpt:
        with pytest.warns(UserWarning, match="no longer monitors val_loss"):
            ckpt.resume()
        assert ckpt.monitors[0].best == 0.9


def test_a_metric_judged_the_other_way_is_refused(run_url):
    """A run whose best was the lowest value is not continued as if the highest were."""
    train(run_url, [1.0])
    weights = Weights()
    with Checkpointer(run_url, CheckpointPolicy(monitor="val_loss", mode="max"), weights=weights) as ckpt:
        with pytest.raises(ConfigError, match="val_loss"):
            ckpt.resume()
        assert weights.values.tolist() == [0.0] * 4


# ── wrong calls ───────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("call", ["log", "log_step", "save"])
def test_a_run_that_holds_checkpoints_is_not_written_to_by_accident(run_url, call):
    """Without resume, saving into an existing run is an error that names the choices."""
    train(run_url, [1.0])
    ckpt = Checkpointer(run_url, BY_LOSS, weights=Weights())
    with pytest.raises(RunExistsError, match=r"epochs\(n\).*resume\(\).*restore\('best'\).*another URL"):
        getattr(ckpt, call)(**({} if call == "save" else {"val_loss": 2.0}))
    ckpt.close()
    assert kept(run_url) == [(0, 1.0)]
    assert keepbest.open_run(run_url).history()["val_loss"] == [1.0]


def test_logging_twice_in_an_epoch_is_refused(run_url):
    """Inside epochs(), a second log in one pass is an error that says how to do it."""
    with Checkpointer(run_url, BY_LOSS, weights=Weights()) as ckpt:
        for _ in ckpt.epochs(1):
            ckpt.log(val_loss=1.0)
            with pytest.raises(UsageError, match="twice in epoch 1"):
                ckpt.log(val_loss=1.0)
    assert keepbest.open_run(run_url).history()["val_loss"] == [1.0]


def test_another_epoch_than_the_loops_is_refused(run_url):
    """Inside epochs(), a log that names another epoch is an error."""
    with Checkpointer(run_url, BY_LOSS, weights=Weights()) as ckpt:
        for epoch in ckpt.epochs(1):
            with pytest.raises(UsageError, match="epochs\\(\\) is at epoch 0"):
                ckpt.log(val_loss=1.0, epoch=epoch + 1)
            ckpt.log(val_loss=1.0, epoch=epoch)


def test_an_epoch_without_log_is_an_error_if_something_is_monitored(run_url):
    """Forgetting log is not passed over in silence."""
    with Checkpointer(run_url, BY_LOSS, weights=Weights()) as ckpt, pytest.raises(MissingMetricError, match="val_loss"):
        for _ in ckpt.epochs(1):
            pass


@pytest.mark.parametrize(
    ("metrics", "error", "words"),
    [
        pytest.param({"vall_loss": 1.0}, MissingMetricError, "Did you mean 'vall_loss'", id="misspelt"),
        pytest.param({}, MissingMetricError, "Logged: nothing", id="missing"),
        pytest.param({"val_loss": "0.5"}, MetricValueError, "val_loss", id="text"),
        pytest.param({"val_loss": None}, MetricValueError, "val_loss", id="none"),
        pytest.param({"val_loss": np.ones(3)}, MetricValueError, "reduce", id="vector"),
        pytest.param({"val_loss": 1.0, "other": "x"}, MetricValueError, "other", id="another metric"),
        pytest.param(0.5, MetricError, "by name", id="no name"),
    ],
)
def test_a_wrong_metric_is_named_and_harms_nothing(run_url, metrics, error, words):
    """An unusable metric is an error; the epoch can be logged again, rightly."""
    with Checkpointer(run_url, BY_LOSS, weights=Weights()) as ckpt:
        with pytest.raises(error, match=words):
            ckpt.log(metrics)
        ckpt.log(val_loss=1.0)
    assert keepbest.open_run(run_url).history()["val_loss"] == [1.0]
    assert kept(run_url) == [(0, 1.0)]


def test_nan_is_never_the_best(run_url):
    """A NaN is recorded and saved as the last, and never ranks."""
    with pytest.warns(UserWarning, match="'val_loss' is nan"):
        train(run_url, [float("nan"), 1.0, float("nan")])
    run = keepbest.open_run(run_url)
    assert (run.best.epoch, run.latest.epoch) == (1, 2)
    assert np.isnan(run.history()["val_loss"][2])


def test_a_closed_checkpointer_says_so(run_url):
    """Every call after close names itself and the run."""
    ckpt = Checkpointer(run_url, BY_LOSS, weights=Weights())
    ckpt.close()
    ckpt.close()
    for call in (lambda: ckpt.log(val_loss=1.0), lambda: ckpt.epochs(2), ckpt.save, ckpt.resume, ckpt.restore):
        with pytest.raises(ClosedError, match="closed"):
            call()


@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        pytest.param(lambda url: Checkpointer(url, mode="fast"), ConfigError, "mode='async'", id="mode"),
        pytest.param(lambda url: Checkpointer(url, rng={}), ConfigError, "'rng' is taken", id="reserved name"),
        pytest.param(lambda url: Checkpointer(url, **{"a/b": {}}), ConfigError, "a/b", id="name"),
        pytest.param(lambda url: Checkpointer(url, f=lambda: 1), UnsupportedStateError, "cannot save f", id="lambda"),
        pytest.param(lambda url: Checkpointer(url, f=Weights), UnsupportedStateError, "Weights itself", id="class"),
        pytest.param(lambda url: Checkpointer(url, "val_loss"), PolicyError, "not 'val_loss'", id="policy is a name"),
        pytest.param(
            lambda url: Checkpointer(url, {"monitr": "val_loss"}), PolicyError, "mean 'monitor'", id="policy's typo"
        ),
        pytest.param(lambda url: Checkpointer(url, d={"k": object()}), UnsupportedStateError, "d.k", id="inside"),
        pytest.param(lambda url: Checkpointer(""), ConfigError, "non-empty", id="empty url"),
        pytest.param(lambda url: Checkpointer("gopher://x"), ConfigError, "gopher", id="scheme"),
    ],
)
def test_wrong_settings_are_refused_at_construction(run_url, make, error, words):
    """What cannot work is an error before training begins, and a KeepbestError."""
    with pytest.raises(error, match=words) as caught:
        make(run_url)
    assert isinstance(caught.value, KeepbestError)


@pytest.mark.parametrize("n", [-1, 2.5, True, "3"])
def test_epochs_takes_a_whole_number(run_url, n):
    """epochs(n) refuses what is no number of epochs."""
    with Checkpointer(run_url, weights=Weights()) as ckpt, pytest.raises(ConfigError, match="whole number"):
        ckpt.epochs(n)


def test_a_checkpoint_with_less_than_was_saved_is_told_about(run_url):
    """Resuming with fewer objects than the checkpoint holds goes on, with one warning that names them."""
    with Checkpointer(run_url, weights=Weights(), other=Weights()) as ckpt:
        ckpt.save().result()
    with Checkpointer(run_url, weights=Weights()) as ckpt, pytest.warns(UserWarning, match="holds other"):
        ckpt.resume()


# ── the place ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_path_that_is_a_file_is_refused(tmp_path):
    """A URL that names a file, or leads through one, is a named error."""
    (tmp_path / "file").write_text("x")
    for path in (tmp_path / "file", tmp_path / "file" / "run"):
        with pytest.raises(NotARunError, match="file"):
            Checkpointer(str(path), weights=Weights())


def test_a_disk_without_space_is_noticed_at_the_start(tmp_path, monkeypatch):
    """If what the policy keeps cannot fit, training does not begin."""
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=100))
    with pytest.raises(StorageFullError, match="100 are free"):
        Checkpointer(str(tmp_path / "run"), BY_LOSS, weights=Weights(1000))


def test_two_trainings_on_one_run_cannot_both_commit(run_url):
    """The second to commit the same number gets an error that names the other; the first is unharmed."""
    one = Checkpointer(run_url, BY_LOSS, weights=Weights())
    two = Checkpointer(run_url, BY_LOSS, weights=Weights())
    one.log(val_loss=1.0)
    one.wait()
    two.log(val_loss=0.5)
    with pytest.raises(SaveFailedError, match="another writer") as caught:
        two.wait()
    assert isinstance(caught.value.__cause__, ConcurrentWriterError)
    one.close()
    with pytest.raises(SaveFailedError, match="another writer"):
        two.close()  # it still holds what was never saved
    assert kept(run_url) == [(0, 1.0)]
    assert keepbest.open_run(run_url).verify().ok
    assert keepbest.open_run(run_url).gc(grace=0, dry_run=True).removed == ()


def test_a_damaged_latest_checkpoint_is_not_passed_over(tmp_path):
    """Resuming from a damaged newest manifest is an error, nothing is changed, and an older one can be restored."""
    url = str(tmp_path / "run")
    train(url, [1.0, 2.0])
    manifest = tmp_path / "run" / "commits" / "00000002.json"
    manifest.write_bytes(manifest.read_bytes()[:-40])
    weights = Weights()
    with Checkpointer(url, BY_LOSS, weights=weights) as ckpt:
        with pytest.raises(DamagedManifestError):
            ckpt.resume()
        assert weights.values.tolist() == [0.0] * 4
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            ckpt.restore("best")
        assert ckpt.log(val_loss=0.5).saved
    assert keepbest.open_run(url).latest.sequence == 3


def test_when_the_latest_was_deleted_by_hand_the_error_says_when_to_restore_another(tmp_path):
    """An older one is restored before the loop, as the error says; the loop by itself begins with the latest."""
    url = str(tmp_path / "run")
    train(url, [1.0, 2.0])
    shutil.rmtree(tmp_path / "run" / "checkpoints" / keepbest.open_run(url).latest.name)
    with Checkpointer(url, BY_LOSS, weights=Weights()) as ckpt:
        with pytest.raises(DamagedFileError, match=r"restore\(number\).*called before ckpt\.epochs\(n\)"):
            next(ckpt.epochs(3))
        ckpt.restore("best")
        assert next(ckpt.epochs(3)) == 1


def test_a_resume_tells_of_checkpoints_that_were_deleted_by_hand(run_url):
    """One warning names them and their commits, as they keep places among the best; a whole run is resumed silently."""
    train(run_url, [1.0, 2.0])
    with warnings.catch_warnings(), Checkpointer(run_url, BY_LOSS, weights=Weights()) as ckpt:
        warnings.simplefilter("error")
        ckpt.resume()
    best = keepbest.open_run(run_url).best
    backend = open_backend(run_url)
    backend.delete([entry.key for entry in backend.list(f"checkpoints/{best.name}/")])
    with Checkpointer(run_url, BY_LOSS, weights=Weights()) as ckpt:
        with pytest.warns(UserWarning, match=f"{best.name}.*are gone.*delete commits/00000001.json") as caught:
            ckpt.resume()
        assert len(caught) == 1


def test_every_changed_byte_of_a_checkpoint_is_noticed(tmp_path):
    """Whichever byte of a checkpoint's files is altered, loading fails with a KeepbestError, and restores nothing."""
    url = str(tmp_path / "run")
    train(url, [1.0])
    files = [path for path in (tmp_path / "run" / "checkpoints").rglob("*") if path.is_file()]
    weights = Weights()
    with Checkpointer(url, BY_LOSS, weights=weights) as ckpt:
        for path in files:
            whole = path.read_bytes()
            for at in range(0, len(whole), max(1, len(whole) // 60)):
                path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
                with pytest.raises(KeepbestError, match=path.name):
                    ckpt.restore("latest")
            path.write_bytes(whole)
        assert weights.values.tolist() == [0.0] * 4
        ckpt.restore("latest")
        assert weights.values.tolist() == [1.0] * 4


# ── failing saves ─────────────────────────────────────────────────────────────────────────────────────────────────


class Breakable:
    """Puts a folder of the run out of order, and back."""

    def __init__(self, path):
        self.path = path

    def __enter__(self):
        self.path.mkdir(exist_ok=True, parents=True)
        self.path.rename(self.path.with_name("aside"))
        self.path.write_text("a file where a folder must be")

    def __exit__(self, *_):
        self.path.unlink()
        self.path.with_name("aside").rename(self.path)


@pytest.mark.parametrize("mode", ["sync", "async"])
def test_a_failed_save_is_told_at_the_next_call_and_harms_nothing(tmp_path, mode):
    """A failed save is told at the next call at the latest; the older checkpoint stays; the best is made good."""
    url, policy = str(tmp_path / "run"), CheckpointPolicy(monitor="val_loss", every_n_epochs=None)
    with Checkpointer(url, policy, weights=Weights(), mode=mode) as ckpt:
        ckpt.log(val_loss=3.0)
        ckpt.wait()
        with Breakable(tmp_path / "run" / "checkpoints"), pytest.raises(SaveFailedError) as caught:
            ckpt.log(val_loss=1.0)
            ckpt.wait()
        assert isinstance(caught.value.__cause__, StorageError | NotARunError)
        assert kept(url) == [(0, 3.0)]
        # 2.0 is worse than 1.0, which was never saved, and better than all that was.
        assert ckpt.log(val_loss=2.0).saved
        ckpt.wait()
        assert keepbest.open_run(url).best.metrics["val_loss"] == 2.0


def test_training_may_go_on_after_a_failed_save(tmp_path):
    """With on_save_error="warn" a failed save is a warning, and the next one is tried."""
    url = str(tmp_path / "run")
    policy = CheckpointPolicy(monitor="val_loss", on_save_error="warn")
    with Checkpointer(url, policy, weights=Weights()) as ckpt:
        with Breakable(tmp_path / "run" / "checkpoints"), pytest.warns(UserWarning, match="Training goes on"):
            ckpt.log(val_loss=3.0)
            ckpt.wait()
        ckpt.log(val_loss=2.0)
    assert kept(url) == [(1, 2.0)]


def test_a_failed_save_does_not_hide_what_ended_training(tmp_path):
    """When an exception leaves the with-block, a save that failed as well is a note on it."""
    url = str(tmp_path / "run")
    with pytest.raises(ZeroDivisionError) as caught, Checkpointer(url, BY_LOSS, weights=Weights()) as ckpt:
        with Breakable(tmp_path / "run" / "checkpoints"):
            ckpt.log(val_loss=1.0)
            ckpt._saves._writer.wait()
        raise ZeroDivisionError
    assert any("saving epoch-001" in note for note in caught.value.__notes__)


def test_an_exception_saves_if_the_policy_says_so(run_url):
    """With on_exception the state at an exception is saved, and marked as such."""
    policy = CheckpointPolicy(monitor="val_loss", on_exception=True)
    with pytest.raises(ZeroDivisionError), Checkpointer(run_url, policy, weights=Weights()) as ckpt:
        for _ in ckpt.epochs(2):
            ckpt.log_step(loss=1.0)
            raise ZeroDivisionError
    latest = keepbest.open_run(run_url).latest
    assert (latest.info.reasons, latest.step) == (("exception",), 1)


def test_a_program_that_never_closes_loses_nothing(tmp_path):
    """The interpreter waits for the save in flight when a program just ends."""
    script = textwrap.dedent(f"""
        import numpy as np
        from keepbest import Checkpointer
        ckpt = Checkpointer({str(tmp_path / "run")!r}, big={{"x": np.ones(4_000_000)}})
        ckpt.log(loss=1.0)
    """)
    subprocess.run([sys.executable, "-c", script], check=True)
    assert keepbest.open_run(str(tmp_path / "run")).latest.load("big")["x"].sum() == 4_000_000


def test_the_state_is_that_of_the_call(run_url):
    """What training changes after save() returned is not in the checkpoint."""
    weights = Weights(3_000_000)
    with Checkpointer(run_url, weights=weights) as ckpt:
        handle = ckpt.save()
        weights.values += 7
        handle.result()
        assert handle.done()
    assert not keepbest.open_run(run_url).latest.load("weights")["values"].any()


def test_nothing_grows_over_many_saves(tmp_path):
    """Two hundred saves leave as many threads, descriptors and files as two did."""
    url = str(tmp_path / "run")
    with Checkpointer(url, BY_LOSS, weights=Weights()) as ckpt:

        def footprint():
            ckpt.wait()
            files = sum(len(names) for _, _, names in os.walk(tmp_path))
            return threading.active_count(), len(os.listdir("/proc/self/fd")), files

        ckpt.log(val_loss=1.0)
        ckpt.log(val_loss=2.0)
        before = footprint()
        for _ in range(200):
            ckpt.log(val_loss=2.0)
        threads, descriptors, files = footprint()
        assert threads <= before[0]  # those of other tests may end meanwhile
        assert descriptors <= before[1]
        assert files <= before[2] + 2  # indexes come and go


def test_mismatching_plain_data_is_refused(run_url):
    """A dict is not restored from a list."""
    with Checkpointer(run_url, notes={"a": 1}) as ckpt:
        ckpt.save().result()
    with Checkpointer(run_url, notes=[1]) as ckpt, pytest.raises(StateMismatchError, match="notes: it is a list"):
        ckpt.resume()


def test_what_one_monitor_cannot_judge_counts_with_none(run_url):
    """With several monitors, a log that one of them refuses leaves the others as they were."""
    policy = CheckpointPolicy(monitor=["val_loss", "val_acc"])
    with Checkpointer(run_url, policy, weights=Weights()) as ckpt:
        with pytest.raises(MissingMetricError, match="val_acc"):
            ckpt.log(val_loss=0.1)
        assert ckpt.monitors[0].best is None
        assert ckpt.log(val_loss=0.5, val_acc=0.5).improved


@pytest.mark.parametrize("end", ["result", "cancel"])
def test_a_save_that_did_not_happen_is_made_good(tmp_path, end):
    """A failure that result() told, and a save that was cancelled, leave the state to be saved at the next chance."""
    url = str(tmp_path / "run")
    policy = CheckpointPolicy(monitor="val_loss", every_n_epochs=None)
    with Checkpointer(url, policy, weights=Weights()) as ckpt:
        ckpt.log(val_loss=3.0)
        ckpt.wait()
        if end == "result":
            with Breakable(tmp_path / "run" / "checkpoints"), pytest.raises(SaveFailedError):
                ckpt.save().result()
        else:
            release = threading.Event()
            ckpt._saves._writer._executor.submit(release.wait)
            assert ckpt.save().cancel()
            release.set()
        assert ckpt.log(val_loss=2.0).saved
    assert keepbest.open_run(url).best.metrics["val_loss"] == 2.0
    assert keepbest.open_run(url).verify().ok


@pytest.mark.parametrize(("hours", "left"), [(0, True), (2, False)], ids=["young", "old"])
def test_what_a_crash_left_is_cleared_away_at_the_resume(tmp_path, monkeypatch, hours, left):
    """Data that a killed process never committed does not pile up; what may be another's work in progress stays."""
    url = str(tmp_path / "run")
    train(url, [1.0])
    orphan = tmp_path / "run" / "checkpoints" / "epoch-002_aaaaaa"
    orphan.mkdir()
    (orphan / "state.json").write_text("{}")
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + hours * 3600)
    with Checkpointer(url, BY_LOSS, weights=Weights()) as ckpt:
        ckpt.resume()
    assert orphan.exists() == left
    assert kept(url) == [(0, 1.0)]


# ── going back within a loop ──────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("when", ["before log", "after log"])
def test_a_loop_may_go_back(run_url, when):
    """restore() in the body of epochs() makes the loop go on with the epoch after the checkpoint's."""
    seen, weights = [], Weights()
    with Checkpointer(run_url, BY_LOSS, weights=weights) as ckpt:
        for epoch in ckpt.epochs(4):
            seen.append(epoch)
            weights.values = weights.values + 1
            back = seen == [0, 1, 2]
            if back and when == "before log":
                ckpt.restore("best")
                continue
            ckpt.log(val_loss=float(epoch))
            if back:
                ckpt.restore("best")
        assert ckpt.history["val_loss"] == [0.0, 1.0, 2.0, 3.0]
    assert seen == [0, 1, 2, 1, 2, 3]
    assert keepbest.open_run(run_url).latest.load("weights")["values"].tolist() == [4.0] * 4


def test_restoring_at_the_end_of_the_last_epoch_ends_the_loop(run_url):
    """Who restores the best within the last epoch is not sent back to train from it again."""
    with Checkpointer(run_url, BY_LOSS, weights=Weights()) as ckpt:
        for epoch in ckpt.epochs(3):
            ckpt.log(val_loss=float(epoch))
            if epoch == 2:
                ckpt.restore("best")
    assert kept(run_url) == [(0, 0.0), (2, 2.0)]


@pytest.mark.parametrize("contents", ["everything", "weights"])
def test_what_training_left_is_saved_before_it_is_overwritten(run_url, contents):
    """A loop of one's own that ends with restore("best") still has its last state saved, and unmixed."""
    torch = pytest.importorskip("torch")
    model, weights = torch.nn.Linear(1, 1), Weights()
    policy = CheckpointPolicy(monitor="val_loss", every_n_epochs=None, best_contents=contents)
    with Checkpointer(run_url, policy, model=model, weights=weights) as ckpt:
        for loss in (1.0, 2.0, 3.0):
            torch.nn.init.constant_(model.weight, loss)
            weights.values = weights.values + 1
            ckpt.log(val_loss=loss)
        ckpt.restore("best")
        assert model.weight.item() == 1.0
    latest = keepbest.open_run(run_url).latest
    assert (latest.epoch, latest.info.reasons) == (2, ("end",))
    assert (latest.load("model")["weight"].item(), latest.load("weights")["values"][0]) == (3.0, 3.0)


def test_one_object_may_be_named_by_itself(run_url):
    """only= takes the name of one object as it stands."""
    first, second = Weights(), Weights()
    with Checkpointer(run_url, first=first, second=second) as ckpt:
        ckpt.log()
        first.values = second.values = np.ones(4)
        ckpt.restore("latest", only="first")
    assert (first.values[0], second.values[0]) == (0.0, 1.0)


def test_training_does_not_go_on_from_weights_alone(run_url):
    """Started with the weights of the best and nothing else, a training is told what to do instead."""
    torch = pytest.importorskip("torch")
    policy = CheckpointPolicy(monitor="val_loss", best_contents="weights")
    objects = {"model": torch.nn.Linear(1, 1), "weights": Weights()}
    with Checkpointer(run_url, policy, **objects) as ckpt:
        for loss in (1.0, 2.0):
            ckpt.log(val_loss=loss)
    with Checkpointer(run_url, policy, **objects) as ckpt:
        ckpt.restore("best")
        with pytest.raises(UsageError, match=r"Call resume\(\) before restore"):
            ckpt.log(val_loss=3.0)
        ckpt.resume()
        ckpt.restore("best")
        ckpt.log(val_loss=3.0)


# ── what breaks off ───────────────────────────────────────────────────────────────────────────────────────────────


def test_a_restore_that_breaks_off_is_never_saved(run_url):
    """After Ctrl-C in the middle of a restore nothing is logged or saved until a restore has come through."""

    class Interrupted(Weights):
        interrupt = False

        def load_state_dict(self, state):
            if self.interrupt:
                raise KeyboardInterrupt
            super().load_state_dict(state)

    first, second = Weights(), Interrupted()
    policy = CheckpointPolicy(monitor="val_loss", on_exception=True)
    with Checkpointer(run_url, policy, first=first, second=second) as ckpt:
        for loss in (1.0, 2.0):
            first.values, second.values = first.values + 1, second.values + 1
            ckpt.log(val_loss=loss)
        second.interrupt = True
        with pytest.raises(KeyboardInterrupt):
            ckpt.restore("best")
        for call in (lambda: ckpt.log(val_loss=0.0), ckpt.save, lambda: next(iter(ckpt.epochs(9)))):
            with pytest.raises(TornStateError, match="broke off half-way"):
                call()
        second.interrupt = False
        ckpt.restore("best")
        assert ckpt.log(val_loss=0.5).saved
    assert keepbest.open_run(run_url).latest.load("second")["values"].tolist() == [1.0] * 4


def test_a_training_killed_within_its_first_save_starts_again(run_url):
    """Where only the weights were committed there is nothing to continue from, and training begins anew."""
    torch = pytest.importorskip("torch")
    policy = CheckpointPolicy(monitor="val_loss", best_contents="weights")
    objects = {"model": torch.nn.Linear(1, 1), "weights": Weights()}
    with Checkpointer(run_url, policy, **objects) as ckpt:
        ckpt.log(val_loss=1.0)
    run = keepbest.open_run(run_url)
    run.backend.delete([f"commits/{run.latest.sequence:08}.json"])
    with Checkpointer(run_url, policy, **objects) as ckpt, pytest.warns(UserWarning, match="holds only weights"):
        assert [epoch for epoch in ckpt.epochs(2) if ckpt.log(val_loss=0.5)] == [0, 1]
    assert keepbest.open_run(run_url).latest.complete


def test_a_best_without_weights_is_refused(run_url):
    """best_contents="weights" would keep nothing where no object is a model, so it is refused before training."""
    with pytest.raises(ConfigError, match="best_contents='weights'"):
        Checkpointer(run_url, CheckpointPolicy(monitor="val_loss", best_contents="weights"), weights=Weights())


def test_a_state_that_could_not_be_copied_is_made_good(run_url):
    """If the snapshot of the best fails, the next chance to save is taken."""
    policy = CheckpointPolicy(monitor="val_loss", every_n_epochs=None, at_end=False)
    weights = Weights()
    with Checkpointer(run_url, policy, weights=weights) as ckpt:
        ckpt.log(val_loss=3.0)
        weights.values = print
        with pytest.raises(UnsupportedStateError):
            ckpt.log(val_loss=1.0)
        weights.values = np.ones(4)
        assert ckpt.log(val_loss=2.0).saved
    assert keepbest.open_run(run_url).best.metrics["val_loss"] == 2.0


def test_a_failure_on_the_way_out_does_not_hide_what_ended_training(run_url):
    """Whatever goes wrong while an exception is being saved, the user sees the exception, and the rest as a note."""
    weights = Weights()
    with pytest.raises(ZeroDivisionError) as caught:
        with Checkpointer(run_url, CheckpointPolicy(on_exception=True), weights=weights) as ckpt:
            ckpt.log_step()
            weights.state_dict = [].pop
            raise ZeroDivisionError
    assert caught.value.__notes__ == ["keepbest: pop from empty list"]


@pytest.mark.parametrize("on_save_error", ["raise", "warn"])
def test_a_row_that_could_not_be_written_is_not_lost(run_url, on_save_error, monkeypatch):
    """While metrics.jsonl cannot be written, rows wait; with on_save_error="warn" training goes on meanwhile."""
    policy = CheckpointPolicy(monitor="val_loss", on_save_error=on_save_error)
    with Checkpointer(run_url, policy, weights=Weights()) as ckpt:
        ckpt.log(val_loss=3.0)
        with monkeypatch.context() as broken:
            broken.setattr(ckpt._training._journal, "append", full_disk)
            if on_save_error == "raise":
                with pytest.raises(StorageFullError):
                    ckpt.log(val_loss=2.0)
            else:
                with pytest.warns(UserWarning, match="What was logged is kept"):
                    assert ckpt.log(val_loss=2.0).saved
        ckpt.log(val_loss=1.0)
    assert keepbest.open_run(run_url).history()["val_loss"] == [3.0, 2.0, 1.0]


def full_disk(*_):
    raise StorageFullError("disk")


def test_a_history_with_a_gap_is_told_about(tmp_path):
    """A journal that lost its rows is no silent loss: resuming warns, and the best and patience are as they were."""
    url = str(tmp_path / "run")
    train(url, [1.0, 2.0, 3.0])
    (tmp_path / "run" / "metrics.jsonl").unlink()
    with Checkpointer(url, BY_LOSS, weights=Weights()) as ckpt:
        with pytest.warns(UserWarning, match="0 are left of 3"):
            ckpt.resume()
        assert (ckpt.monitors[0].best, ckpt.monitors[0].wait) == (1.0, 2)


def test_a_resume_outlives_a_failed_clearing_away(run_url, monkeypatch):
    """A resume that restored everything is not failed by remains that cannot be deleted."""
    train(run_url, [1.0])
    with Checkpointer(run_url, BY_LOSS, weights=Weights()) as ckpt:
        monkeypatch.setattr(ckpt.run, "gc", cannot_delete)
        with pytest.warns(UserWarning, match="could not be cleared away"):
            assert ckpt.resume().next_epoch == 1


def cannot_delete():
    raise StoragePermissionError("somewhere", "delete")


def test_a_new_monitor_is_not_stopped_by_the_past(run_url):
    """A monitor that raises on NaN can be added to a run whose history holds one."""
    with Checkpointer(run_url, weights=Weights()) as ckpt:
        for loss in (1.0, float("nan"), 2.0):
            ckpt.log(val_loss=loss)
    with Checkpointer(run_url, CheckpointPolicy(monitor="val_loss", on_nonfinite="raise"), weights=Weights()) as ckpt:
        ckpt.resume()
        assert ckpt.monitors[0].best == 1.0


def test_a_timeout_that_failed_a_save_is_a_failed_save(run_url, monkeypatch):
    """result() raises SaveFailedError also if what went wrong was a timeout; TimeoutError means still being written."""
    with Checkpointer(run_url, weights=Weights()) as ckpt:
        monkeypatch.setattr(ckpt._saves._saver, "save", times_out)
        with pytest.raises(SaveFailedError):
            ckpt.save().result()


def times_out(_):
    raise TimeoutError


# ── what is handed over ───────────────────────────────────────────────────────────────────────────────────────────


def test_numpys_whole_numbers_count(run_url):
    """epoch= and step= take whatever is a whole number."""
    with Checkpointer(run_url, weights=Weights()) as ckpt:
        ckpt.log(loss=1.0, epoch=np.int64(3), step=np.int64(7))
        ckpt.log_step(loss=1.0, step=np.int32(9))
    assert [(row.epoch, row.step) for row in keepbest.open_run(run_url).history().rows] == [(3, 7), (4, 9)]


@pytest.mark.parametrize("wrong", [{"epoch": 1.5}, {"epoch": -3}, {"step": "7"}], ids=str)
def test_a_wrong_position_is_refused(run_url, wrong):
    """An epoch or step that is no whole number is an error at once, and nothing is recorded."""
    with Checkpointer(run_url, weights=Weights()) as ckpt:
        with pytest.raises(ConfigError, match=f"{next(iter(wrong))}= is a whole number"):
            ckpt.log(loss=1.0, **wrong)
        assert not ckpt.history.rows


@pytest.mark.parametrize("call", ["log", "log_step"])
@pytest.mark.parametrize(("name", "words"), [(1, "text, not 1"), ("caf\udce9", "text that UTF-8 can hold")])
def test_a_metric_without_a_name_is_refused(run_url, call, name, words):
    """The name of a metric is text; anything else is an error at the call, and nothing after it is lost."""
    with Checkpointer(run_url, weights=Weights()) as ckpt:
        with pytest.raises(MetricError, match=words):
            getattr(ckpt, call)({name: 0.5})
        ckpt.log(café=1.0)
    assert keepbest.open_run(run_url).history()["café"] == [1.0]


def test_random_number_generators_go_on(run_url):
    """Generators of Python and NumPy that are objects of their own are saved and restored like any other object."""

    def generators(seed):
        return {
            "python": random.Random(seed),
            "pcg": np.random.default_rng(seed),
            "twister": np.random.Generator(np.random.MT19937(seed)),
            "legacy": np.random.RandomState(seed),
        }

    def draw(those):
        return [
            float(those["python"].random()),
            *(float(those[name].normal()) for name in ("pcg", "twister", "legacy")),
        ]

    before, after = generators(1), generators(2)
    with Checkpointer(run_url, **before) as ckpt:
        draw(before)
        ckpt.log()
    with Checkpointer(run_url, **after) as ckpt:
        ckpt.resume()
    assert draw(after) == draw(before)


def test_arrays_of_another_byte_order_come_back_right(run_url):
    """Big-endian arrays keep their values."""
    with Checkpointer(run_url, data={"a": np.array([1, 2.5], ">f4"), "b": np.array([1 + 2j], ">c16")}) as ckpt:
        ckpt.log()
    held = keepbest.open_run(run_url).latest.load("data")
    assert (held["a"].tolist(), held["b"].tolist()) == ([1.0, 2.5], [1 + 2j])


def test_a_mask_is_not_dropped(run_url):
    """A masked array is refused, as its mask would be lost."""
    with pytest.raises(UnsupportedStateError, match=r"data\.a: .* lose its mask"):
        Checkpointer(run_url, data={"a": np.ma.array([1.0], mask=[True])})


def test_a_full_disk_is_not_tried_at_every_step(tmp_path):
    """When saves fail and training goes on, the next is tried at the next multiple of n steps, and the end saves."""
    policy = CheckpointPolicy(every_n_epochs=None, every_n_steps=10, on_save_error="warn")
    with Checkpointer(str(tmp_path / "run"), policy, weights=Weights(), mode="sync") as ckpt:
        with Breakable(tmp_path / "run" / "checkpoints"), warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            for _ in range(35):
                ckpt.log_step(loss=1.0)
        assert len(told) == 3
    assert keepbest.open_run(str(tmp_path / "run")).latest.step == 35


def test_a_change_of_monitor_loses_no_best(run_url):
    """When a run goes on under another monitor, its checkpoints are ranked by what was logged with them."""
    with Checkpointer(run_url, CheckpointPolicy(monitor="val_loss"), weights=Weights()) as ckpt:
        for loss, accuracy in [(0.1, 0.9), (0.3, 0.5), (0.2, 0.6)]:
            ckpt.log(val_loss=loss, val_acc=accuracy)
    with Checkpointer(run_url, CheckpointPolicy(monitor="val_acc"), weights=Weights()) as ckpt:
        with pytest.warns(UserWarning, match="no longer monitors val_loss"):
            ckpt.resume()
        for _ in ckpt.epochs(5):
            ckpt.log(val_loss=1.0, val_acc=0.5)
        assert ckpt.restore("best").epoch == 0
    assert [found.epoch for found in keepbest.open_run(run_url).checkpoints()] == [0, 4]


def test_nothing_left_to_train_is_said(run_url, caplog):
    """A loop over a run that is complete, or that patience ended, says so instead of just doing nothing."""
    policy = CheckpointPolicy(monitor="val_loss", patience=1)
    train(run_url, [1.0, 0.5], policy)
    train(run_url, [1.0, 0.5], policy)
    assert "2 of 2 epochs are done already" in caplog.text
    train(run_url, [1.0, 0.5, 2.0], policy)
    train(run_url, [1.0, 0.5, 2.0, 1.0], policy)
    assert "a monitor stopped it" in caplog.text


def test_a_run_may_be_given_as_a_path(tmp_path):
    """A pathlib.Path is as good as a text."""
    with Checkpointer(tmp_path / "run", weights=Weights()) as ckpt:
        ckpt.save().result()
    assert keepbest.open_run(tmp_path / "run").latest.complete


@pytest.mark.parametrize(
    ("make", "words"),
    [
        pytest.param(lambda: Checkpointer("x", BY_LOSS, patience=4), r"CheckpointPolicy\(patience=4", id="a setting"),
        pytest.param(lambda: CheckpointPolicy(monitor="val_los"), "Did you mean 'val_loss'", id="misspelt"),
        pytest.param(lambda: Checkpointer(BY_LOSS, "x"), "got a CheckpointPolicy", id="swapped"),
        pytest.param(lambda: CheckpointPolicy(monitor="val_loss", mode="sync"), "the Checkpointer's", id="mode"),
    ],
)
def test_arguments_in_the_wrong_place_are_told_where_they_belong(make, words):
    """Mixing up what is the policy's and what the Checkpointer's gives an error that says which is which."""
    with pytest.raises(ConfigError, match=words):
        make()


def test_a_misspelt_best_is_understood(run_url):
    """restore("bets") asks whether "best" was meant."""
    with Checkpointer(run_url, BY_LOSS, weights=Weights()) as ckpt:
        ckpt.log(val_loss=1.0)
        with pytest.raises(KeepbestError, match="Did you mean 'best'"):
            ckpt.restore("bets")
