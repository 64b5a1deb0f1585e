"""A run whose policy monitors something else than before: the best by the old metric does not go without a word."""

from __future__ import annotations

import warnings

import pytest

import keepbest
from keepbest import Checkpointer, CheckpointPolicy
from keepbest.core.retention import KeepAnyOf, KeepBest, KeepLast

LOSSES, ACCURACIES = [1.0, 0.1, 2.0, 3.0, 4.0], [0.5, 0.1, 0.6, 0.7, 0.8]


def train(url, policy, epochs):
    """Train up to that many epochs; returns the texts of the warnings, which all point at this file."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with Checkpointer(url, policy, state={"x": 0}) as ckpt:
            for epoch in ckpt.epochs(epochs):
                ckpt.log(val_loss=LOSSES[epoch], val_acc=ACCURACIES[epoch])
    assert {warning.filename for warning in caught} <= {__file__}
    return [str(warning.message) for warning in caught]


def test_the_best_by_a_metric_that_is_monitored_no_more_is_named(tmp_path):
    """Who changes the monitor is told once what will be deleted for that, before it is, and how to keep it."""
    url = tmp_path / "run"
    assert train(url, CheckpointPolicy(monitor="val_loss"), 3) == []
    best = keepbest.open_run(url).best.name
    by_accuracy = CheckpointPolicy(monitor="val_acc")
    (said,) = train(url, by_accuracy, 4)
    assert said == (
        f"the policy no longer monitors val_loss, so checkpoint {best}, the best by it (0.1), is deleted as soon as "
        f"nothing else keeps it. To keep it, copy it out of the run first: keepbest export {url} {best} FOLDER --all"
    )
    assert train(url, by_accuracy, 5) == []


def test_a_policy_without_a_monitor_is_told_the_same(tmp_path):
    """Who leaves the monitor out is told what that deletes."""
    url = tmp_path / "run"
    train(url, CheckpointPolicy(monitor="val_loss"), 3)
    (said,) = train(url, CheckpointPolicy(), 4)
    assert "no longer monitors val_loss" in said


@pytest.mark.parametrize(
    "policy",
    [
        pytest.param(CheckpointPolicy(monitor=["val_acc", "val_loss"]), id="both"),
        pytest.param(CheckpointPolicy(monitor="val_acc", keep_all=True), id="all"),
        pytest.param(CheckpointPolicy(monitor="val_acc", keep_every_n_epochs=2), id="a milestone"),
        pytest.param(CheckpointPolicy(monitor="val_acc", keep=KeepAnyOf([KeepBest(), KeepLast()])), id="any metric"),
    ],
)
def test_nothing_is_said_of_a_best_that_stays(tmp_path, policy):
    """Where the new policy keeps the best by the old metric, nobody is warned, and it stays."""
    url = tmp_path / "run"
    train(url, CheckpointPolicy(monitor="val_loss"), 3)
    best = keepbest.open_run(url).best.name
    assert train(url, policy, 5) == []
    assert best in [found.name for found in keepbest.open_run(url).checkpoints()]


def test_a_constraint_holds_for_checkpoints_from_before_it(tmp_path):
    """Those that were saved under another monitor do not rank by one that has constraints: nobody looked at them."""
    url = tmp_path / "run"
    train(url, CheckpointPolicy(monitor="val_loss"), 1)
    train(url, CheckpointPolicy(monitor="val_acc", where="val_loss < 0.5"), 5)  # only epoch 2 meets it
    run = keepbest.open_run(url)
    assert [found.epoch for found in run.checkpoints()] == [1, 4]
    assert run.best.epoch == 1


def test_who_only_restores_is_told_nothing(tmp_path):
    """To restore the best with no policy deletes nothing, and nothing is said."""
    url = tmp_path / "run"
    train(url, CheckpointPolicy(monitor="val_loss"), 3)
    with Checkpointer(url, state={"x": 0}) as ckpt:
        ckpt.restore("best")
