"""`keepbest explain`."""

from __future__ import annotations

import contextlib
import math
import re
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from contracts.runs import SmallRun
from contracts.stateful import Weights
from contracts.terminal import COMMAND, run_in_terminal
from contracts.trained import BEST, overfitted
from safetensors.numpy import save_file

import keepbest as library
from keepbest import Checkpointer, CheckpointPolicy, Measured
from keepbest.cli.account import Account
from keepbest.cli.explaining import reason, story
from keepbest.errors import SaveFailedError
from keepbest.storage.backend import open_backend
from keepbest.storage.history import Row
from keepbest.storage.journal import Journal
from keepbest.storage.manifest import CheckpointInfo, Score
from keepbest.storage.notes import Began, Check, Decided, Ended, Saved


def train(url, losses, policy=None, *, log=None, model=None, **settings):
    """Train one epoch for each loss; `log` makes what is logged of one."""
    policy = policy or CheckpointPolicy(monitor="val_loss", **settings)
    with Checkpointer(url, policy, model=model or Weights()) as ckpt:
        for epoch in ckpt.epochs(len(losses)):
            ckpt.log(log(losses[epoch]) if log else {"val_loss": losses[epoch]})
    return str(url)


def names(url):
    """Epoch (from 1) → the name of the checkpoint that was saved for it."""
    journal = library.open_run(url).journal()
    return {note.epoch + 1: note.checkpoint for note in journal if isinstance(note, Decided) and note.checkpoint}


def journal(url, *entries):
    """Write a journal by hand."""
    written = Journal(open_backend(str(url)))
    written.append(*entries)
    written.close()
    return str(url)


def row(epoch, kind="epoch", **metrics):
    return Row(kind=kind, epoch=epoch, step=3 * (epoch + 1), time=time.time() - 60, metrics=metrics)


def at(epoch):
    return {"time": time.time() - 60, "epoch": epoch, "step": 3 * (epoch + 1)}


def check(**fields):
    usual = {
        "monitor": "val_loss", "mode": "min", "value": 0.5, "judged": 0.5, "best": 0.5, "best_epoch": 0, "wait": 0,
        "improved": False, "stop": False, "eligible": True, "reason": "because",
    }  # fmt: skip
    return Check(**{**usual, **fields})


def sentences(said, title):
    """The sentences below a title."""
    assert said.code == 0, said.err
    lines = said.out.splitlines()
    begin = lines.index(title) + 1
    end = next((at for at in range(begin, len(lines)) if not lines[at].startswith(" ")), len(lines))
    return [line.strip() for line in lines[begin:end]]


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    """A run that crashed and was resumed, overfitted, and was ended by patience."""
    return overfitted(str(tmp_path_factory.mktemp("told") / "run"))


def test_the_story_of_a_run(keepbest, told):
    """The best and why it is there, the overfitting, the resumption and why it ended are told in plain words."""
    said = keepbest("explain", told)
    name = names(told)
    assert said.out.splitlines()[0] == told
    training = sentences(said, "Training")
    assert training[0] == "It went through 12 epochs and 36 steps, by 2 processes."
    assert re.fullmatch(r"It began \d+ s ago on .+\.", training[1])
    assert training[2].startswith(f"It was resumed from {name[4]} (the end of epoch 4) ")
    best = sentences(said, "Best")
    assert best[0] == f"The best by val_loss (lower is better) is epoch {BEST + 1}: 0.5."
    assert best[1] == "Of 11 other epochs none was better; of equals the earliest is the best."
    assert best[2].startswith(f"Its checkpoint is {name[6]} (number 6), saved ")
    assert best[2].endswith(
        "as the policy saves every epoch and val_loss improved. It is kept as the best by val_loss."
    )
    overfitting = sentences(said, "Overfitting")
    assert overfitting == [
        (
            "It overfits: since its best, in epoch 6, val_loss got worse (0.5 to 0.86) while train_loss got better "
            "(0.166667 to 0.0833333), over 6 checks."
        ),
        "Over 5 checks at a time overfitting by val_loss was seen in epochs 9 to 12.",
        "val_loss is 0.776667 worse than train_loss in epoch 12.",
    ]
    assert sentences(said, "End")[0].startswith(
        "Patience ended it: val_loss did not improve for 6 checks since epoch 6. That was "
    )
    assert sentences(said, "Saves") == [
        "12 saves began and ended well; 3 checkpoints are there now.",
        "9 checkpoints were deleted, as the policy keeps the best one by val_loss, and the last 2.",
    ]
    assert sentences(said, "Policy")[2] == "Stops after 6 checks of val_loss without improvement."


def test_overfitting_is_told_with_the_checks_it_was_seen_over(keepbest, tmp_path):
    """The policy says how many; fewer see it sooner."""
    url = overfitted(str(tmp_path / "run"), overfit_window=3)
    assert sentences(keepbest("explain", url), "Overfitting")[1] == (
        "Over 3 checks at a time overfitting by val_loss was seen in epochs 8 to 12."
    )


def test_an_epoch_that_is_the_best(keepbest, told):
    """Of one epoch it tells what was logged, the verdict, why it was saved and what became of that."""
    said = keepbest("explain", told, "--epoch", BEST + 1)
    name = names(told)[BEST + 1]
    logged = sentences(said, "Epoch 6")
    assert re.fullmatch(r"It ended \d+ s ago \(.+\), after step 18 of the run\.", logged[0])
    assert logged[1] == "Logged was train_loss 0.166667, val_loss 0.5 and learning_rate 0.059049."
    assert logged[2] == "3 single steps were logged within it."
    verdict = sentences(said, "What was made of val_loss")
    assert verdict[0] == "It was 0.5 (lower is better)."
    assert verdict[1] == "The verdict: val_loss improved from 0.51 to 0.5."
    assert verdict[2] == "So this was the best so far."
    assert verdict[3] == "It was 0.333333 worse than in training."
    saved = sentences(said, "Saved")
    assert saved[0] == f"Checkpoint {name} was saved, as the policy saves every epoch and val_loss improved."
    assert re.fullmatch(
        r"It became number 6 of the run, with \S+ \w+\. It was durable after \S+ m?s; training was held for \S+ m?s\.",
        saved[1],
    )
    assert saved[2] == "It is kept as the best by val_loss."


def test_an_epoch_whose_checkpoint_was_deleted(keepbest, told):
    """A checkpoint that retention deleted is told with what it made room for, and the policy's rule."""
    name = names(told)
    saved = sentences(keepbest("explain", told, "--epoch", "8"), "Saved")
    assert saved[0] == f"Checkpoint {name[8]} was saved, as the policy saves every epoch."
    assert saved[-1] == (
        f"It was deleted when {name[10]} (the end of epoch 10) had been saved, as the policy keeps the best one by "
        "val_loss, and the last 2."
    )


def test_a_deleted_checkpoint_is_told_with_the_policy_that_deleted_it(keepbest, tmp_path):
    """A policy that came later is not made answerable for what an earlier one deleted."""
    losses = [0.5, 0.4, 0.6, 0.7, 0.8, 0.9]
    train(tmp_path, losses[:4], keep_last=1)
    url = train(tmp_path, losses, keep_last=2)
    first, second = "the best one by val_loss, and the last one", "the best one by val_loss, and the last 2"
    by_the_first = sentences(keepbest("explain", url, "--epoch", "1"), "Saved")[2]
    assert by_the_first.endswith(f"had been saved, as the policy then was to keep {first}.")
    by_the_second = sentences(keepbest("explain", url, "--epoch", "4"), "Saved")[2]
    assert by_the_second.endswith(f"had been saved, as the policy keeps {second}.")
    deleted = sentences(keepbest("explain", url), "Saves")[1]
    assert deleted == "3 checkpoints were deleted, by the policies in force then."


def test_the_epoch_that_training_was_resumed_from(keepbest, told):
    """The epoch whose checkpoint training went on from says so."""
    saved = sentences(keepbest("explain", told, "--epoch", "4"), "Saved")
    assert any(line.startswith("Training went on from it ") for line in saved)


def test_the_epoch_that_training_ended_with(keepbest, told):
    """The last epoch says what ended training."""
    said = keepbest("explain", told, "--epoch", "12")
    verdict = sentences(said, "What was made of val_loss")
    assert "That made 6 checks in a row without improvement; at 6 training ends." in verdict
    assert "The best so far was 0.5, of epoch 6." in verdict
    assert "It overfitted: over the last checks it got worse while its training value got better." in verdict
    after = sentences(said, "Afterwards")
    assert after[0] == "Patience ended it: val_loss did not improve for 6 checks since epoch 6."
    assert after[1].startswith("The process let go of the run ")


def test_an_epoch_is_named_by_number_or_by_its_checkpoint(keepbest, told):
    """Several epochs can be asked for, also as those of checkpoints; each is told once."""
    said = keepbest("explain", told, "--epoch", "2", "--epoch", "6", "--checkpoint", "best", "--checkpoint", "latest")
    titles = [line for line in said.out.splitlines() if line.startswith("Epoch ")]
    assert titles == ["Epoch 2", "Epoch 6", "Epoch 12"]


@pytest.mark.parametrize("number", ["99", "13"])
def test_an_epoch_that_does_not_exist(keepbest, told, number):
    """An epoch that the run does not have is an error that says which ones it has."""
    said = keepbest("explain", told, "--epoch", number)
    assert (said.code, said.out) == (2, "")
    assert f"the run has no epoch {number}. It has epochs 1 to 12." in said.err


def test_epochs_count_from_one(keepbest, told):
    """There is no epoch 0 for people."""
    said = keepbest("explain", told, "--epoch", "0")
    assert said.code == 2
    assert "0 is not in the range" in said.err


def test_no_run_is_an_error(keepbest, tmp_path):
    """Where there is no run, that is said."""
    said = keepbest("explain", tmp_path)
    assert said.code == 2
    assert "holds no run" in said.err


def test_when_nothing_was_due(keepbest, tmp_path):
    """An epoch that was not saved says when the policy saves."""
    url = train(tmp_path, [0.5, 0.6, 0.7], every_n_epochs=5)
    saved = sentences(keepbest("explain", url, "--epoch", "2"), "Saved")
    when = "every 5 epochs, when val_loss improves (lower is better), at the end, on SIGTERM"
    assert saved == [f"No checkpoint was saved at its end. The policy saves {when}; none of that was the case."]
    at_end = sentences(keepbest("explain", url, "--epoch", "3"), "Saved")
    assert re.fullmatch(r"Checkpoint \S+ was saved after it, as training ended\.", at_end[1])


def test_a_constraint_that_was_not_met(keepbest, tmp_path):
    """An epoch that looked better and did not meet a constraint is passed over, with the constraint as the reason."""
    url = train(
        tmp_path,
        [(0.5, 0.9), (0.1, 0.2), (0.6, 0.9)],
        where="val_acc > 0.5",
        log=lambda pair: {"val_loss": pair[0], "val_acc": pair[1]},
    )
    (passed,) = sentences(keepbest("explain", url), "Passed over")
    assert passed == (
        "Epoch 2, with val_loss 0.1, looked better and is not the best: val_loss 0.1 is not ranked: constraint val_acc "
        "> 0.5 not met (0.2)."
    )
    verdict = sentences(keepbest("explain", url, "--epoch", "2"), "What was made of val_loss")
    assert "A checkpoint of this epoch cannot be the best." in verdict


def test_values_that_are_not_finite(keepbest, tmp_path):
    """NaN and infinity are told with their epochs, and are never the best."""
    url = train(tmp_path, [0.5, -math.inf, math.nan, 0.6], on_nonfinite="ignore")
    assert sentences(keepbest("explain", url), "Passed over") == [
        "val_loss was NaN or infinite in epochs 2, 3, and that is never the best."
    ]
    verdict = sentences(keepbest("explain", url, "--epoch", "3"), "What was made of val_loss")
    assert verdict[0] == "It was nan (lower is better)."


def test_values_that_were_stale(keepbest, tmp_path):
    """A value that was measured too long before is passed over with its age."""
    with Checkpointer(tmp_path, CheckpointPolicy(monitor="val_loss"), model=Weights()) as ckpt:
        ckpt.log(val_loss=0.5)
        for _ in range(7):
            ckpt.log_step()
        ckpt.log(val_loss=Measured(0.1, step=4))
    (passed,) = sentences(keepbest("explain", tmp_path), "Passed over")
    assert passed == (
        "Epoch 2, with val_loss 0.1, looked better and is not the best: val_loss 0.1 is stale (measured at step 4, "
        "this is step 7), so it is not ranked."
    )
    verdict = sentences(keepbest("explain", tmp_path, "--epoch", "2"), "What was made of val_loss")
    assert verdict[0] == "It was 0.1 (lower is better), measured 3 steps before."


def test_a_save_that_failed(keepbest, tmp_path):
    """The best whose save failed is passed over with the error, in the story and in its epoch."""
    policy = CheckpointPolicy(monitor="val_loss")
    folder = tmp_path / "checkpoints"
    with contextlib.suppress(SaveFailedError), Checkpointer(tmp_path, policy, mode="sync", model=Weights()) as ckpt:
        ckpt.log(val_loss=0.5)
        folder.rename(tmp_path / "aside")
        folder.write_text("a file where a folder must be")
        ckpt.log(val_loss=0.1)
    folder.unlink()
    (tmp_path / "aside").rename(folder)
    said = keepbest("explain", tmp_path)
    (passed,) = sentences(said, "Passed over")
    assert passed.startswith("Epoch 2, with val_loss 0.1, looked better and is not the best: its save failed (")
    saves = sentences(said, "Saves")
    assert saves[0] == "2 saves began and 1 ended well; 1 checkpoint is there now."
    assert saves[1].startswith("The save of ")
    saved = sentences(keepbest("explain", tmp_path, "--epoch", "2"), "Saved")
    assert saved[0].startswith("A save of checkpoint epoch-002_")
    assert saved[1].startswith("That save failed: ")
    assert saved[1].endswith("Older checkpoints were not touched by it.")
    assert sentences(said, "End")[0].startswith("An exception ended it: SaveFailedError: ")


def test_a_save_that_was_left_out(keepbest, tmp_path):
    """A save that was due and left out for the one before is told as that."""
    left_out = Decided(event="epoch", checkpoint=None, reasons=("epoch",), busy=True, checks=(check(),), **at(0))
    policy = CheckpointPolicy(monitor="val_loss", every_n_epochs=2, on_busy="skip").model_dump(mode="json")
    url = journal(tmp_path, Began(checkpoint=None, policy=policy, **at(0)), row(0, val_loss=0.5), left_out)
    (saved,) = sentences(keepbest("explain", url, "--epoch", "1"), "Saved")
    assert saved == (
        "No checkpoint was saved at its end. A save was due, as the policy saves every 2 epochs, and left out: the one "
        "before was still being written, and the policy does not wait for that."
    )
    assert "1 save that came due while the one before was being written: left out." in sentences(
        keepbest("explain", url), "Saves"
    )


def test_a_save_of_which_nothing_is_known(keepbest, tmp_path):
    """Where the process was killed within a save, that is said, and not that it succeeded."""
    decided = Decided(event="epoch", checkpoint="epoch-001_abcdef", reasons=("epoch",), checks=(check(),), **at(0))
    url = journal(tmp_path, Began(checkpoint=None, policy={}, **at(0)), row(0, val_loss=0.5), decided)
    saved = sentences(keepbest("explain", url, "--epoch", "1"), "Saved")
    assert saved[0] == "A save of checkpoint epoch-001_abcdef began, as the policy saves by epochs."
    assert saved[1].startswith("Nothing says what became of that save")


def without_saved(url, *numbers):
    """Take the notes from the journal that say that the saves of these epochs (from 1) ended, as a kill does."""
    ends = [b'"checkpoint":"%b","sequence"' % names(url)[number].encode() for number in numbers]
    return damage(url, lambda lines: [line for line in lines if not any(end in line for end in ends)])


@pytest.fixture
def killed(tmp_path):
    """A run whose process was killed after its third save was committed, which no note says; another took it up."""
    losses = [0.9, 0.8, 0.7, 0.6, 0.5]
    train(tmp_path, losses[:3])
    damage(tmp_path, lambda lines: [line for line in lines if b'"ended"' not in line])
    without_saved(tmp_path, 3)
    return train(tmp_path, losses)


def test_a_save_that_ended_before_the_process_was_killed(keepbest, killed):
    """A save is counted and told as one that ended well if what followed shows it, though its note was lost."""
    name = names(killed)
    assert sentences(keepbest("explain", killed), "Saves") == [
        "5 saves began and ended well; 1 checkpoint is there now.",
        "4 checkpoints were deleted, as the policy keeps the best one by val_loss, and the last one.",
        "No note says so of 1 of them: a process was killed before it could write one.",
    ]
    saved = sentences(keepbest("explain", killed, "--epoch", "3"), "Saved")
    assert saved[0] == f"Checkpoint {name[3]} was saved, as the policy saves every epoch and val_loss improved."
    assert saved[1] == "It ended well. The process was killed before it could note so."
    assert saved[2].startswith(f"It was deleted when {name[4]} (the end of epoch 4) had been saved")
    assert saved[3].startswith("Training went on from it ")
    assert "It is not there any more, or its manifest cannot be read; `keepbest verify` tells which." in sentences(
        keepbest("explain", killed, "--epoch", "2"), "Saved"
    )


def test_a_save_that_a_later_one_shows(keepbest, tmp_path):
    """The save before one that is held ended well, as that one's manifest shows, even if all its notes are lost."""
    url = without_saved(train(tmp_path, [0.9, 0.8, 0.7]), 2, 3)
    damage(url, lambda lines: [line for line in lines if b'"ended"' not in line])
    assert sentences(keepbest("explain", url), "Saves") == [
        "3 saves began and ended well; 1 checkpoint is there now.",
        "2 checkpoints were deleted, as the policy keeps the best one by val_loss, and the last one.",
        "No note says so: a process was killed before it could write one.",
    ]
    saved = sentences(keepbest("explain", url, "--epoch", "3"), "Saved")
    assert saved[1] == "It became number 3 of the run. No note says so (yet)."


def test_a_checkpoint_that_somebody_deleted(keepbest, tmp_path):
    """Where no process was killed before its note, nobody is made answerable for a checkpoint that is not there."""
    url = train(tmp_path, [0.9, 0.8], CheckpointPolicy(monitor="val_loss", keep_all=True))
    Path(url, "commits", "00000001.json").unlink()
    assert sentences(keepbest("explain", url), "Saves") == [
        "2 saves began and ended well; 1 checkpoint is there now.",
        "1 more checkpoint cannot be found or read; `keepbest verify` tells which.",
    ]


def test_the_monitor_may_go_by_another_epoch(keepbest, tmp_path):
    """With min_delta the best checkpoint and what patience counts from differ, and both are told."""
    url = train(tmp_path, [0.5, 0.495], min_delta=0.1)
    best = sentences(keepbest("explain", url), "Best")
    assert best[0] == "The best by val_loss (lower is better) is epoch 2: 0.495."
    assert best[-1].startswith("The monitor itself goes by 0.5 of epoch 1, ")


def test_smoothed_values_are_told_as_that(keepbest, tmp_path):
    """Where a smoothed value is judged, both values stand there."""
    url = train(tmp_path, [0.4, 0.2, 0.5], smoothing="mean:2")
    assert sentences(keepbest("explain", url), "Best")[0] == (
        "The best by val_loss (lower is better) is epoch 2: 0.3 (0.2 before smoothing)."
    )
    verdict = sentences(keepbest("explain", url, "--epoch", "2"), "What was made of val_loss")
    assert "It is smoothed, so what was judged is 0.3." in verdict


def test_a_value_that_only_looks_better_unsmoothed_is_not_passed_over(keepbest, tmp_path):
    """What is compared with the best is the smoothed value, as the monitor did."""
    url = train(tmp_path, [0.6, 0.1, 0.3, 0.25], smoothing="mean:2")
    said = keepbest("explain", url)
    assert sentences(said, "Best")[0].endswith("is epoch 3: 0.2 (0.3 before smoothing).")
    assert "Passed over" not in said.out


def test_weights_that_were_kept_apart(keepbest, tmp_path):
    """Where the best keeps its weights alone, the epoch says where they are, and that the rest was deleted."""
    import torch

    policy = CheckpointPolicy(monitor="val_loss", best_contents="weights")
    url = train(tmp_path, [0.4, 0.5], policy, model=torch.nn.Linear(2, 2))
    name = names(url)[1]
    saved = sentences(keepbest("explain", url, "--epoch", "1"), "Saved")
    assert f"Its weights are there by themselves, as {name}-weights, kept as the best by val_loss." in saved
    assert saved[-1].startswith("It was deleted when ")
    assert "It holds the weights only" in sentences(keepbest("explain", url), "Best")[2]


def test_milestones_are_kept_as_that(keepbest, tmp_path):
    """A checkpoint that a milestone keeps says so."""
    url = train(tmp_path, [0.1, 0.2, 0.3], keep_every_n_epochs=2)
    assert "It is kept as a milestone, one every 2 epochs." in sentences(
        keepbest("explain", url, "--epoch", "2"), "Saved"
    )


ENDS = [
    pytest.param("complete", None, "All epochs were done.", id="complete"),
    pytest.param("signal", None, "SIGTERM ended it: the machine was to be taken away, or ", id="signal"),
    pytest.param("exception", "ValueError", "An exception ended it: ValueError.", id="exception"),
    pytest.param("exception", "KeyboardInterrupt", "Ctrl-C ended it.", id="ctrl-c"),
    pytest.param("exception", None, "It was broken off: the Checkpointer was closed without a last", id="broken-off"),
    pytest.param("callback", None, "Another callback of fit ended it (model.stop_training), as Early", id="callback"),
    pytest.param("closed", None, "The program closed the run when its loop had ended", id="closed"),
    pytest.param("stopped", None, "A monitor stopped it: val_loss is nan.", id="stopped"),
]


@pytest.mark.parametrize(("cause", "error", "sentence"), ENDS)
def test_why_training_ended(keepbest, tmp_path, cause, error, sentence):
    """Every way to end is told in words."""
    stop = cause == "stopped"
    decided = Decided(
        event="epoch", checkpoint=None, checks=(check(stop=stop, reason="val_loss is nan"),), stop=stop, **at(0)
    )
    url = journal(
        tmp_path,
        Began(checkpoint=None, policy={}, **at(0)),
        row(0, val_loss=0.5),
        decided,
        Ended(cause=cause, error=error, **at(0)),
    )
    (end,) = sentences(keepbest("explain", url), "End")
    assert end.startswith(sentence)
    assert end.endswith("That was 1 min ago.")
    assert keepbest("explain", url, "--json").json["end"]["cause"] == cause


@pytest.mark.parametrize(
    ("end", "sentence"),
    [
        ({"cause": "closed"}, "The program left its loop in epoch 5 of 10; no monitor stopped it."),
        (
            {"cause": "exception", "error": "RuntimeError", "text": "CUDA is out of memory."},
            "An exception ended it in epoch 5: RuntimeError: CUDA is out of memory.",
        ),
        (
            {"cause": "exception", "error": "KeyError", "text": "'lr'"},
            "An exception ended it in epoch 5: KeyError: 'lr'.",
        ),
        ({"cause": "exception", "error": "KeyboardInterrupt"}, "Ctrl-C ended it in epoch 5."),
    ],
)
def test_in_which_epoch_training_ended(keepbest, tmp_path, end, sentence):
    """Where the note says in which epoch a loop was left, and what an exception said, that is told."""
    began = Began(checkpoint=None, policy={}, **at(4))
    url = journal(tmp_path, began, row(4, val_loss=0.5), Ended(**end, within=4, planned=10, **at(4)))
    (told,) = sentences(keepbest("explain", url), "End")
    assert told == f"{sentence} That was 1 min ago."
    found = keepbest("explain", url, "--json").json["end"]
    assert (found["epoch"], found["planned"], found["text"]) == (4, 10, end.get("text", ""))
    assert sentence in keepbest("watch", url).out


def test_where_no_end_was_written(keepbest, tmp_path):
    """A process that was killed, one that never closed and one that trains look alike: all are named, and how old."""
    url = journal(tmp_path, Began(checkpoint=None, policy={}, **at(0)), row(0, val_loss=0.5))
    (end,) = sentences(keepbest("explain", url), "End")
    assert end == (
        "No end was written: the process was killed, never closed the Checkpointer, or is still training; the last row "
        "was logged 1 min ago."
    )
    assert keepbest("explain", url, "--json").json["end"] is None


def test_a_process_that_began_after_the_end(keepbest, tmp_path):
    """A process that began after another had ended has not ended itself, even if it logged nothing yet."""
    began = Began(checkpoint=None, policy={}, **at(0))
    url = journal(tmp_path, began, row(0, val_loss=0.5), Ended(cause="complete", **at(0)), began)
    assert sentences(keepbest("explain", url), "End")[0].startswith("No end was written")


def test_an_end_that_was_not_the_last(keepbest, tmp_path):
    """A process that ended and was followed by another is not the end of the run, and its epoch says so."""
    policy = CheckpointPolicy(monitor="val_loss", keep_all=True)
    train(tmp_path, [0.5, 0.4], policy)
    train(tmp_path, [0.5, 0.4, 0.3], policy)
    after = sentences(keepbest("explain", tmp_path, "--epoch", "2"), "Afterwards")
    assert after[0] == "Training ended here: All epochs were done."
    assert after[-1] == "It was taken up again later."


def test_overfitting_that_is_over(keepbest, tmp_path):
    """A run that overfitted for a while and no more says when that was."""
    entries = [Began(checkpoint=None, policy={}, **at(0))]
    for epoch, overfits in enumerate([False, True, True, False]):
        entries.append(row(epoch, val_loss=0.5, train_loss=0.4))
        entries.append(
            Decided(event="epoch", checkpoint=None, checks=(check(gap=0.1, overfitting=overfits),), **at(epoch))
        )
    url = journal(tmp_path, *entries)
    assert sentences(keepbest("explain", url), "Overfitting") == [
        "Overfitting by val_loss was seen in epochs 2 to 3. The last 5 checks show no such trend.",
        "val_loss is 0.1 worse than train_loss in epoch 4.",
    ]


@pytest.mark.parametrize(
    ("validation", "sentence"),
    [
        (
            [0.5, 0.3, 0.6, 0.9],
            (
                "Whether it overfits by val_loss cannot be said yet: val_loss and train_loss were logged together at 4 "
                "checks, and a trend takes 5."
            ),
        ),
        (
            [0.5, 0.3, 0.6, 0.2, 0.5, 0.3],
            (
                "No overfitting by val_loss was seen: in no 5 checks in a row did it clearly get worse while "
                "train_loss got better."
            ),
        ),
    ],
)
def test_no_overfitting_is_claimed_or_denied_without_a_trend(keepbest, tmp_path, validation, sentence):
    """A few checks say nothing, and values that leap about say only that no trend was seen."""
    policy = CheckpointPolicy(monitor="val_loss")
    with Checkpointer(tmp_path / "run", policy, model=Weights()) as ckpt:
        for epoch in ckpt.epochs(len(validation)):
            ckpt.log(val_loss=validation[epoch], train_loss=1 / (epoch + 1))
    assert sentences(keepbest("explain", tmp_path / "run"), "Overfitting")[0] == sentence


ZIGZAG = [1, 0.5, 0.6, 0.55, 0.65, 0.6, 0.7, 0.65, 0.75, 0.7, 0.8, 0.75, 0.85, 0.8]
PLATEAU = [0.9, 0.7, 0.5, 0.56, 0.58, 0.54, 0.57, 0.55, 0.58, 0.53, 0.56, 0.57]


@pytest.mark.parametrize(("validation", "overfits"), [(ZIGZAG, True), (PLATEAU, False)])
def test_overfitting_is_judged_since_the_best(keepbest, tmp_path, validation, overfits):
    """Curves that leap about show in no five checks what they show in all since the best; a plateau shows nothing."""
    with Checkpointer(tmp_path / "run", CheckpointPolicy(monitor="val_loss"), model=Weights()) as ckpt:
        for epoch in ckpt.epochs(len(validation)):
            ckpt.log(val_loss=validation[epoch], train_loss=1 / (epoch + 1))
    said = sentences(keepbest("explain", tmp_path / "run"), "Overfitting")[0]
    after = keepbest("explain", tmp_path / "run", "--json").json["overfitting"][0]["after_best"]
    assert said.startswith(
        "It overfits: since its best, in epoch 2," if overfits else "No overfitting by val_loss was seen"
    )
    assert (after["overfits"], after["checks"]) == (overfits, len(validation) - 1 - validation.index(min(validation)))


def test_overfitting_since_shortly_is_told_by_its_checks(keepbest, tmp_path):
    """Where fewer checks than the monitor looks at came after the best, it is told with when it was seen."""
    validation = [0.9, 0.5, 0.51, 0.52, 0.53, 0.54]
    with Checkpointer(tmp_path / "run", CheckpointPolicy(monitor="val_loss"), model=Weights()) as ckpt:
        for epoch in ckpt.epochs(len(validation)):
            ckpt.log(val_loss=validation[epoch], train_loss=1 / (epoch + 1))
    assert sentences(keepbest("explain", tmp_path / "run"), "Overfitting")[0] == (
        "It overfits, seen in epoch 6: val_loss gets worse while train_loss gets better, over the 5 checks up to then."
    )


def train_classifier(url, accuracies, **more):
    """Train one epoch for each; val_loss, which is monitored, gets better all along."""
    with Checkpointer(url, CheckpointPolicy(monitor="val_loss"), model=Weights()) as ckpt:
        for epoch in ckpt.epochs(len(accuracies)):
            loss = 1 / (epoch + 1)
            others = {name: values[epoch] for name, values in more.items()}
            ckpt.log(val_loss=loss, train_loss=loss, val_acc=accuracies[epoch], train_acc=1 - loss, **others)
    return str(url)


@pytest.mark.parametrize(
    ("accuracies", "sentence"),
    [
        (
            [0.5, 0.8, 0.79, 0.78, 0.77, 0.76, 0.75, 0.74],
            (
                "val_acc, which no monitor watches, overfits: since its best, in epoch 2, it got worse (0.8 to 0.74) "
                "while train_acc got better (0.5 to 0.875), over 6 checks."
            ),
        ),
        (
            [0.5, 0.6, 0.7, 0.8, 0.79, 0.78, 0.77, 0.76],
            (
                "val_acc, which no monitor watches, overfits, seen in epoch 8 (found now, in the history): it gets "
                "worse while train_acc gets better, over the 5 checks up to then."
            ),
        ),
        (
            [0.9, 0.8, 0.7, 0.6, 0.5, 0.7, 0.8, 0.95],
            (
                "val_acc, which no monitor watches, overfitted in epoch 5 (found now, in the history); the last 5 "
                "checks show no such trend."
            ),
        ),
    ],
    ids=["since-best", "now", "before"],
)
def test_overfitting_by_a_metric_that_no_monitor_watches(keepbest, tmp_path, accuracies, sentence):
    """What the report shades of a metric that is only logged, explain tells, and that nobody watches it."""
    url = train_classifier(tmp_path / "run", accuracies)
    told = sentences(keepbest("explain", url), "Overfitting")
    assert told[0].startswith("No overfitting by val_loss was seen: ")
    assert told[2:] == [sentence]
    (found,) = keepbest("explain", url, "--json").json["unwatched_overfitting"]
    assert (found["monitor"], found["partner"], found["noted"]) == ("val_acc", "train_acc", False)
    assert keepbest("report", url, "-o", tmp_path / "page.html").code == 0
    assert "Overfitting by val_acc, shaded" in (tmp_path / "page.html").read_text(encoding="utf-8")


def test_metrics_that_say_nothing_of_overfitting_are_not_told(keepbest, tmp_path):
    """Whose direction nobody knows, or what stands beside no training metric, is not judged."""
    worse = [0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3]
    url = train_classifier(tmp_path / "run", worse[::-1], val_odd=worse, train_odd=worse[::-1], val_f1=worse)
    assert len(sentences(keepbest("explain", url), "Overfitting")) == 2
    assert keepbest("explain", url, "--json").json["unwatched_overfitting"] == []


def test_overfitting_needs_a_training_value(keepbest, tmp_path):
    """Without a training metric beside the monitored one, it does not claim that nothing overfits."""
    url = train(tmp_path, [0.5, 0.4])
    assert sentences(keepbest("explain", url), "Overfitting") == [
        "Whether it overfits by val_loss cannot be said: no training value was logged beside it, such as train_loss."
    ]


def old_run(url, losses, **more):
    """A run as a keepbest without notes wrote it: the best and the last of its checkpoints are left."""
    run = SmallRun(open_backend(str(url)))
    for epoch, loss in enumerate(losses):
        run.save(loss, epoch=epoch)
    best = min(range(len(losses)), key=losses.__getitem__)
    run.writer.retire({number + 1 for number in range(len(losses) - 1)} - {best + 1})
    rows = [row(epoch, val_loss=loss, **{name: held[epoch] for name, held in more.items()}) for epoch, loss in
            enumerate(losses)]  # fmt: skip
    return journal(url, *rows)


def test_a_run_without_notes(keepbest, tmp_path):
    """Of a run that has no notes it tells what manifests and history show, and that the rest is not known."""
    losses = [0.9, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0]
    url = old_run(tmp_path, losses, train_loss=[1 / (epoch + 2) for epoch in range(7)])
    said = keepbest("explain", url)
    assert sentences(said, "Training")[1].startswith("This run has no decision notes")
    assert sentences(said, "Best")[0] == "The best by val_loss (lower is better) is epoch 2: 0.5."
    assert "It is kept as the best by val_loss." in sentences(said, "Best")[2]
    assert sentences(said, "Overfitting")[:2] == [
        (
            "It overfits: since its best, in epoch 2, val_loss got worse (0.5 to 1) while train_loss got better "
            "(0.333333 to 0.125), over 5 checks."
        ),
        "Over 5 checks at a time overfitting by val_loss was seen in epochs 6 to 7 (found now, in the history).",
    ]
    assert sentences(said, "End") == ["Whether and why it ended is not known; the last row was logged 1 min ago."]
    assert keepbest("explain", url, "--json").json["notes"] is False


def test_an_epoch_without_notes(keepbest, tmp_path):
    """An epoch without a note tells what the history and the manifests show of it."""
    url = old_run(tmp_path, [0.9, 0.5, 0.6])
    said = keepbest("explain", url, "--epoch", "3", "--epoch", "1", "--epoch", "2")
    third = sentences(said, "What was made of it")
    assert third[0].startswith("There are no decision notes in this run")
    assert third[1] == "val_loss was 0.6 (lower is better); the best before was 0.5, of epoch 2."
    saved = sentences(said, "Saved")
    assert re.fullmatch(r"Checkpoint \S+ \(number 3\) was saved at step 30, as the policy saves by epochs\.", saved[0])
    first = sentences(keepbest("explain", url, "--epoch", "1"), "What was made of it")
    assert first[1] == "val_loss was 0.9 (lower is better), the first value logged."
    second = sentences(keepbest("explain", url, "--epoch", "2"), "What was made of it")
    assert second[1].endswith("better than all before; the best of those was 0.9, of epoch 1.")
    assert sentences(keepbest("explain", url, "--epoch", "1"), "Saved") == [
        "No checkpoint of it is there; whether none was saved or it was deleted since, no note says."
    ]


def test_an_epoch_under_way(keepbest, tmp_path):
    """An epoch whose end was not logged can be explained as far as it came."""
    url = journal(tmp_path, Began(checkpoint=None, policy={}, **at(0)), row(0, "step", loss=1.0))
    assert sentences(keepbest("explain", url, "--epoch", "1"), "Epoch 1") == [
        "Its end was not logged: it is under way, or training broke off within it.",
        "1 single step was logged within it.",
    ]


def test_a_run_without_a_monitor(keepbest, tmp_path):
    """Where nothing is monitored, nothing is called the best."""
    train(tmp_path, [0.5], CheckpointPolicy())
    assert sentences(keepbest("explain", tmp_path), "Best")[0] == "No metric is monitored, so no epoch is the best."


def test_the_branch_that_was_taken_is_told(keepbest, tmp_path):
    """Of an epoch that was trained twice, the one on the way to the last row is explained."""
    policy = CheckpointPolicy(monitor="val_loss", keep_all=True)
    train(tmp_path, [0.5, 0.7, 0.6], policy)
    with Checkpointer(tmp_path, policy, model=Weights()) as ckpt:
        ckpt.restore(1)
        ckpt.log(val_loss=0.3)
    said = keepbest("explain", tmp_path, "--epoch", "2")
    assert "Logged was val_loss 0.3." in sentences(said, "Epoch 2")
    assert "It has epochs 1 to 2." in keepbest("explain", tmp_path, "--epoch", "3").err


@pytest.mark.parametrize("longer", [True, False], ids=["longer", "shorter"])
def test_a_checkpoint_on_a_way_that_was_left(keepbest, tmp_path, longer):
    """The epoch of a checkpoint that training left behind is not mistaken for the one that took its number."""
    policy = CheckpointPolicy(monitor="val_loss", keep_all=True)
    train(tmp_path, [0.9, 0.8, 0.7, 0.6, 0.5, 0.4], policy)
    left, kept = names(tmp_path)[6], names(tmp_path)[3]
    with Checkpointer(tmp_path, policy, model=Weights()) as ckpt:
        ckpt.restore(kept)
        for _ in range(5 if longer else 1):
            ckpt.log(val_loss=0.3)
    said = keepbest("explain", tmp_path, "--checkpoint", left)
    assert said.code == 2
    assert f"Invalid value for --checkpoint: {left} lies on a way that training left" in said.err
    assert "keepbest show" in said.err
    assert sentences(keepbest("explain", tmp_path, "--checkpoint", kept), "Epoch 3")[1] == "Logged was val_loss 0.7."


@pytest.fixture
def left(tmp_path):
    """A run whose best lies on a way that training left: its third epoch was 0.5, and then 2.7 by another way."""
    policy = CheckpointPolicy(monitor="val_loss", keep_all=True)
    train(tmp_path / "left", [3.0, 2.5, 0.5, 2.6], policy)
    with Checkpointer(tmp_path / "left", policy, model=Weights()) as ckpt:
        ckpt.restore(2)
        ckpt.log(val_loss=2.7)
        ckpt.log(val_loss=2.3)
    return str(tmp_path / "left")


def test_the_best_on_a_way_that_was_left(keepbest, left):
    """Why it was saved, and by what the monitor goes, is not told as if it were of the epoch that took its number."""
    best = sentences(keepbest("explain", left), "Best")
    name = library.open_run(left).best.name
    assert best[0] == "The best by val_loss (lower is better) is epoch 3: 0.5."
    assert best[1] == "Of 4 other epochs none was better; of equals the earliest is the best."
    assert "as the policy saves every epoch and a monitored metric improved." in best[2]
    assert best[3] == (
        f"The monitor itself goes by 2.3 of epoch 4, as {name} does not lie on the way that training took; patience "
        "counts from there."
    )


@pytest.mark.parametrize("noted", [True, False], ids=["notes", "no-notes"])
def test_an_epoch_has_no_checkpoint_of_a_way_that_was_left(keepbest, left, noted):
    """What is told of an epoch leaves out the checkpoint of its number that lies on another way."""
    if not noted:
        held = [entry for entry in library.open_run(left).journal() if isinstance(entry, Row)]
        Path(left, "metrics.jsonl").unlink()
        journal(left, *held)
    saved = "\n".join(sentences(keepbest("explain", left, "--epoch", "3"), "Saved"))
    assert library.open_run(left).get(5).name in saved
    assert library.open_run(left).get(3).name not in saved


def test_a_checkpoint_without_scores_takes_no_best_away(keepbest, tmp_path):
    """After weights from elsewhere were appended, all verbs still say what is the best."""
    url = train(tmp_path / "run", [3.0, 1.0, 2.0])
    best = library.open_run(url).best.name
    save_file({"weight": np.ones((2, 3), np.float32)}, tmp_path / "weights.safetensors")
    assert keepbest("convert", tmp_path / "weights.safetensors", url, "--append").code == 0
    assert sentences(keepbest("explain", url), "Best")[0] == "The best by val_loss (lower is better) is epoch 2: 1."
    assert keepbest("ls", url, "--json").json["best"] == {"val_loss": 2}
    assert [line.split()[1] for line in keepbest("ls", url).out.splitlines() if line.endswith("best")] == [best]
    assert keepbest("plot", url, "--json").json["panels"][0]["best"]["name"] == best
    page = tmp_path / "page.html"
    assert keepbest("report", url, "-o", page).code == 0
    assert f"1 at epoch 2: {best}" in page.read_text(encoding="utf-8")


def test_a_save_that_took_for_ever(keepbest, tmp_path):
    """A span that a stranger's note holds is told, whatever it is."""
    decided = Decided(event="epoch", checkpoint="one", reasons=("epoch",), checks=(check(),), **at(0))
    saved = Saved(checkpoint="one", sequence=1, nbytes=1, blocked=math.nan, seconds=math.inf, **at(0))
    url = journal(tmp_path, Began(checkpoint=None, **at(0)), row(0, val_loss=0.5), decided, saved)
    told = "It was durable after inf; training was held for nan."
    assert told in sentences(keepbest("explain", url, "--epoch", "1"), "Saved")[1]
    assert keepbest("explain", url, "--epoch", "1", "--json").json["asked"][0]["saves"][0]["saved"]["seconds"] == "inf"


def test_a_run_without_a_journal(keepbest, tmp_path):
    """Of a run that has none it does not claim that an old keepbest wrote it, no epoch, or that it was converted."""
    run = SmallRun(open_backend(str(tmp_path)))
    run.save(0.5, epoch=3)
    no_journal = "It has no journal: a ModelCheckpoint for Keras wrote it, which keeps none, or it was copied without."
    assert sentences(keepbest("explain", tmp_path), "Training") == [no_journal]
    assert f"the run has no epoch 4. {no_journal}" in keepbest("explain", tmp_path, "--epoch", "4").err
    said = keepbest("explain", tmp_path, "--checkpoint", "latest")
    assert said.code == 2
    assert "is in a run without a journal, so its epoch is not told; `keepbest show`" in said.err


def test_a_converted_run(keepbest, tmp_path):
    """Of a checkpoint that was converted it says where it came from."""
    save_file({"weight": np.ones((2, 3), np.float32)}, tmp_path / "weights.safetensors")
    assert keepbest("convert", tmp_path / "weights.safetensors", tmp_path / "run").code == 0
    said = keepbest("explain", tmp_path / "run")
    assert sentences(said, "Training") == ["It has no journal, as it was converted."]
    watched = keepbest("watch", tmp_path / "run")  # and comes to an end
    assert watched.code == 0
    assert "no journal, so there is nothing to follow" in watched.out
    assert reason("converted", None, ()) == "it was brought in from another program"


def test_a_checkpoint_that_was_brought_in_is_of_no_epoch(keepbest, tmp_path):
    """It is not said that training left its way, nor told among what an epoch of the same number saved."""
    url = train(tmp_path / "run", [3.0, 1.0, 2.0])
    save_file({"weight": np.ones((2, 3), np.float32)}, tmp_path / "weights.safetensors")
    assert keepbest("convert", tmp_path / "weights.safetensors", url, "--append", "--epoch", "2").code == 0
    name = library.open_run(url).checkpoints()[-1].name
    said = keepbest("explain", url, "--checkpoint", name)
    assert (said.code, f"{name} was converted: no epoch of this run led to it" in said.err) == (2, True)
    assert name not in keepbest("explain", url, "--epoch", "2").out


def long_account(epochs):
    """The account of a run whose every epoch looked better than the best, was deleted, and overfitted."""
    entries = [Began(checkpoint=None, policy={}, **at(0))]
    best = CheckpointInfo(
        sequence=1, name="epoch-001_000000", step=3, epoch=0, parent=None, time=time.time(), reasons=("epoch",),
        complete=True, metrics={"val_loss": 0.9}, scores=(Score(monitor="val_loss", mode="min", value=0.9),),
    )  # fmt: skip
    for epoch in range(epochs):
        name, loss = f"epoch-{epoch + 1:03d}_{epoch:06x}", 0.9 if epoch == 0 else 0.5
        judged = check(value=loss, judged=loss, gap=0.1, overfitting=True)
        entries.append(row(epoch, val_loss=loss, train_loss=0.4))
        entries.append(Decided(event="epoch", checkpoint=name, reasons=("epoch",), checks=(judged,), **at(epoch)))
        gone = (f"epoch-{epoch:03d}_{epoch - 1:06x}",) if epoch > 1 else ()
        entries.append(
            Saved(checkpoint=name, sequence=epoch + 1, nbytes=1, blocked=0.1, seconds=0.1, retired=gone, **at(epoch))
        )
    return Account("runs/7", entries, [best])


def test_the_story_of_a_long_run_is_told_at_once():
    """Ten thousand epochs that were passed over cost no more than a few passes over the journal."""
    account = long_account(10_000)
    began = time.process_time()
    told = {section.title: section.sentences for section in story(account, time.time())}
    assert time.process_time() - began < 5  # a pass for each epoch takes far longer
    assert len(told["Passed over"]) == 6
    assert "that of epoch-003_000002 (the end of epoch 3) was saved" in told["Passed over"][0]


def test_overfitting_of_a_long_run_is_found_at_once():
    """Since when a run of ten thousand epochs overfits is found in one pass."""
    account = long_account(10_000)
    began = time.process_time()
    found = account.overfitting("val_loss")
    assert (found.since, found.last) == (0, 9_999)
    assert time.process_time() - began < 5  # a pass for each epoch takes far longer


def test_a_checkpoint_is_placed_by_its_name(keepbest, tmp_path):
    """Where only its name is left of a checkpoint, the epoch in it is told, not the one in which its save ended."""
    name = "epoch-002_step-000006_abcdef"
    saved = Saved(checkpoint=name, sequence=2, nbytes=1, blocked=0.1, seconds=0.1, **at(6))
    began = Began(checkpoint=name, policy={}, **at(6))
    url = journal(tmp_path, row(0, loss=1.0), saved, began)
    assert sentences(keepbest("explain", url), "Training")[1].startswith(f"It was resumed from {name} (epoch 2) ")


def test_json_holds_what_is_told(keepbest, told):
    """Programs get facts under names that stay, epochs from 0, and the sentences too."""
    said = keepbest("explain", told, "--epoch", "6", "--json")
    assert (said.err, said.out.count("\n")) == ("", 1)
    found = said.json
    assert {key: found[key] for key in ("schema", "run", "notes", "epochs", "steps", "passed_over")} == {
        "schema": "keepbest.explain/1", "run": told, "notes": True, "epochs": 12, "steps": 36, "passed_over": [],
    }  # fmt: skip
    (best,) = found["best"]
    assert (best["monitor"], best["value"], best["checkpoint"]["epoch"]) == ("val_loss", 0.5, 5)
    assert best["kept_as"] == ["the best by val_loss"]
    (overfitting,) = found["overfitting"]
    assert (overfitting["since"], overfitting["epochs"]) == (8, [8, 9, 10, 11])
    assert overfitting["gap_now"] == pytest.approx(0.5 + 0.36 - 1 / 12)
    assert found["end"]["stopped_by"] == ["val_loss 0.86 is not better than 0.5 (6 of 6 checks of patience used)"]
    assert found["policy"]["patience"] == 6
    (epoch,) = found["asked"]
    assert (epoch["epoch"], epoch["step"], epoch["steps"]) == (5, 18, 3)
    assert epoch["metrics"]["val_loss"] == 0.5
    assert epoch["checks"][0]["improved"] is True
    (save,) = epoch["saves"]
    assert (save["checkpoint"], save["saved"]["sequence"], save["failed"]) == (names(told)[6], 6, None)
    assert epoch["text"][0]["title"] == "Epoch 6"
    assert [section["title"] for section in found["text"]][:2] == ["Training", "Best"]


@pytest.mark.parametrize("columns", [80, 120])
@pytest.mark.parametrize("words", [[], ["--epoch", "6"]], ids=["story", "epoch"])
def test_a_terminal_wraps_words(keepbest, told, columns, words):
    """In a terminal lines break between words, and no word is lost."""
    ran = run_in_terminal(COMMAND, "explain", told, *words, columns=columns)
    assert ran.code == 0
    plain = re.sub(r"\d+ (s|min|ms) ago", "then", keepbest("explain", told, *words).out)
    assert re.sub(r"\d+ (s|min|ms) ago", "then", " ".join(ran.screen)).split() == plain.split()
    inside = ran.screen[1:]
    assert max(map(len, inside)) <= columns
    assert max(map(len, inside)) > columns - 25
    assert all(line.startswith("  ") or line in plain.splitlines() for line in inside)


def test_names_cannot_steer_the_terminal(keepbest, tmp_path):
    """Control characters in a stranger's metrics, reasons and hosts are written out."""
    evil = "a\x1b]0;owned\x07\nb"
    decided = Decided(event="epoch", checkpoint=None, checks=(check(monitor=evil, reason=evil),), **at(0))
    began = Began(checkpoint=None, policy={"x": math.nan}, host=evil, **at(0))
    url = journal(
        tmp_path, began, row(0, **{evil: 0.5}), decided, Ended(cause="exception", error=evil, text=evil, **at(0))
    )
    for words in ([], ["--epoch", "1"]):
        said = keepbest("explain", url, *words)
        assert said.code == 0
        assert not any(not char.isprintable() for char in said.out.replace("\n", ""))
        assert "a\\x1b]0;owned\\x07\\nb" in said.out


def test_a_line_that_is_not_json_is_passed_over(keepbest, tmp_path):
    """JSON has no NaN: a stranger's note with one is none, and the rest is told."""
    url = journal(tmp_path, Began(checkpoint=None, policy={"x": [None]}, **at(0)), row(0, loss=1.0))
    path = tmp_path / "metrics.jsonl"
    path.write_text(path.read_text().replace("[null]", "[NaN]"))
    found = keepbest("explain", url, "--json").json
    assert (found["policy"], found["epochs"]) == (None, 1)


def damage(url, change):
    """Change the lines of a run's journal."""
    path = Path(url, "metrics.jsonl")
    path.write_bytes(b"".join(line + b"\n" for line in change(path.read_bytes().splitlines())))
    return url


def epoch_lines(lines):
    return [at for at, line in enumerate(lines) if b'"row":' in line]


def without_epochs_3_and_4(lines):
    return [line for at, line in enumerate(lines) if at not in epoch_lines(lines)[2:4]]


def with_epoch_3_altered(lines):
    at = epoch_lines(lines)[2]
    return [*lines[:at], lines[at].replace(b":", b";", 1), *lines[at + 1 :]]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (without_epochs_3_and_4, "At least 2 rows of its journal are missing"),
        (with_epoch_3_altered, "1 line of its journal cannot be read and at least 1 row is missing"),
        (lambda lines: [*lines, b"junk", b"junk"], "2 lines of its journal cannot be read"),
    ],
    ids=["missing", "altered", "junk"],
)
def test_a_journal_that_is_damaged(keepbest, tmp_path, change, told):
    """Of a journal that has lost lines it is said that what is told is incomplete, and to programs how many."""
    url = damage(train(tmp_path, [0.8, 0.7, 0.6, 0.5, 0.4]), change)
    assert sentences(keepbest("explain", url), "Training")[1] == f"{told}, so what is told here is incomplete."
    last = keepbest("explain", url, "--epoch", "1").out.splitlines()[-1]
    assert last == f"{told}, so what is told here is incomplete. See: keepbest verify {url}"
    found = keepbest("explain", url, "--json").json
    numbers = [int(word) for word in told.split() if word.isdigit()]
    assert sorted(filter(None, found["lost"].values())) == sorted(numbers)


def test_an_epoch_that_is_missing_in_a_damaged_journal(keepbest, tmp_path):
    """Who asks for an epoch that the journal has lost is told that it has lost some."""
    url = damage(train(tmp_path, [0.8, 0.7, 0.6]), lambda lines: [line for line in lines if b'"epoch":1' not in line])
    said = keepbest("explain", url, "--epoch", "2")
    assert said.code == 2
    assert "It has epochs 1, 3. At least 1 row of its journal is missing, so" in said.err


def test_a_journal_of_which_nothing_can_be_read(keepbest, tmp_path):
    """It is not said that there is none, nor who might have written no journal."""
    url = damage(train(tmp_path, [0.8, 0.7]), lambda lines: [b"junk" for _ in lines])
    (only,) = sentences(keepbest("explain", url), "Training")
    assert re.fullmatch(r"\d+ lines of its journal cannot be read, so what is told here is incomplete\.", only)


def test_what_a_crash_leaves_of_a_journal_is_told_without_alarm(keepbest, tmp_path):
    """A line that a crash cut short, also in the middle of what a resumed training wrote, is nothing to tell."""
    url = train(tmp_path, [0.8, 0.7])
    with Path(url, "metrics.jsonl").open("ab") as file:
        file.write(b'{"branch":"0123456789ab","row":2,"kind":"ep')
    said = keepbest("explain", url)
    assert "incomplete" not in said.out
    train(url, [0.8, 0.7, 0.6])
    said = keepbest("explain", url)
    assert sentences(said, "Training")[0] == "It went through 3 epochs, by 2 processes."
    assert "incomplete" not in said.out


def test_a_policy_that_cannot_be_read(keepbest, tmp_path):
    """Settings of a newer keepbest do not hide the rest, and are not guessed at."""
    began = Began(checkpoint=None, policy={"monitor": "val_loss", "of_the_future": 1}, **at(0))
    decided = Decided(event="epoch", checkpoint=None, checks=(check(),), **at(0))
    url = journal(tmp_path, began, row(0, val_loss=0.5), decided)
    said = keepbest("explain", url)
    assert sentences(said, "Policy") == [
        "It cannot be read: another version of keepbest wrote it, or somebody altered it."
    ]
    assert sentences(keepbest("explain", url, "--epoch", "1"), "Saved") == [
        "No checkpoint was saved at its end, as none was due."
    ]


@pytest.mark.parametrize("policy", ['"gibberish"', "7", "[1]", "null", '{"monitor":{"key":[]}}', "true"])
def test_garbage_in_place_of_the_policy_hides_nothing_else(keepbest, tmp_path, policy):
    """Who trained and from where is told, and that the policy cannot be read, to people and to programs."""
    began = Began(checkpoint=None, policy={"x": "here"}, host="crane", **at(0))
    url = journal(tmp_path, began, row(0, val_loss=0.5), Ended(cause="closed", **at(0)))
    damage(url, lambda lines: [line.replace(b'{"x":"here"}', policy.encode()) for line in lines])
    said = keepbest("explain", url)
    training = sentences(said, "Training")
    assert training[0] == "It went through 1 epoch and 3 steps, by 1 process."
    assert training[1].endswith(" on crane.")
    assert len(training) == 2
    assert sentences(said, "Policy") == [
        "It cannot be read: another version of keepbest wrote it, or somebody altered it."
    ]
    assert keepbest("explain", url, "--json").json["policy"] is None or policy.startswith("{")
    assert "cannot be read" in keepbest("explain", url, "--json").out


def test_names_in_a_policy_take_one_line(keepbest, tmp_path):
    """A metric whose name breaks the line, or a sentence of the policy, does not: it is written out."""
    evil = "loss\nSaves never.\u2028Keeps x\x1b[1m"
    policy = CheckpointPolicy(monitor=evil, mode="min", patience=3).model_dump(mode="json")
    url = journal(tmp_path, Began(checkpoint=None, policy=policy, **at(0)), row(0, **{evil: 0.5}))
    told = sentences(keepbest("explain", url), "Policy")
    name = r"loss\nSaves never.\u2028Keeps x\x1b[1m"
    assert told == [
        f"Saves every epoch, when {name} improves (lower is better), at the end, on SIGTERM.",
        f"Keeps the best one by {name}, and the last one.",
        f"Stops after 3 checks of {name} without improvement.",
    ]


def test_many_resumptions_are_told_in_few_lines(keepbest, tmp_path):
    """A run that was preempted fifty times is still a short story."""
    entries = []
    for epoch in range(50):
        entries.append(Began(checkpoint=f"epoch-{epoch:03d}_abcdef" if epoch else None, policy={}, **at(epoch)))
        entries.append(row(epoch, val_loss=0.5))
    training = sentences(keepbest("explain", journal(tmp_path, *entries)), "Training")
    assert len(training) == 1 + 6
    assert training[5] == "(45 more times between, it was resumed or went back.)"


def test_it_imports_no_more_than_other_verbs(told):
    """Explaining needs neither NumPy nor a framework, and its help not even pydantic's work."""
    import subprocess

    code = (
        "import sys; from keepbest.cli import main; main(sys.argv[1:]); "
        "print(*sorted({name.partition('.')[0] for name in sys.modules}), file=sys.stderr)"
    )
    for words in (["explain", told], ["explain", told, "--epoch", "3"], ["explain", "--help"]):
        done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, check=True)
        assert not set(done.stderr.split()) & {"torch", "tensorflow", "keras", "jax", "numpy", "fsspec"}


def test_runs_in_buckets_are_explained(keepbest, run_url):
    """A run is told alike wherever it lies."""
    overfitted(run_url)
    assert sentences(keepbest("explain", run_url), "Best")[0].endswith("is epoch 6: 0.5.")
