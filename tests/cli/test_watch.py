"""`keepbest watch`."""

from __future__ import annotations

import json
import math
import re
import subprocess
import sys
import time

import pytest
from contracts.runs import SmallRun
from contracts.stateful import Weights
from contracts.terminal import COMMAND, run_in_terminal
from contracts.trained import overfitted
from msgspec.structs import replace

import keepbest as library
from keepbest import Checkpointer, CheckpointPolicy
from keepbest.cli import telling, viewers
from keepbest.cli.account import Account
from keepbest.cli.follower import Follower, follow, wait_for
from keepbest.errors import UnreachableError
from keepbest.storage.backend import open_backend
from keepbest.storage.history import Row
from keepbest.storage.journal import Journal
from keepbest.storage.layout import commit_key
from keepbest.storage.notes import Began, Ended
from keepbest.storage.run import Run

TRAIN = """
import sys, time
import numpy as np
from keepbest import Checkpointer, CheckpointPolicy

class Weights:
    values = np.zeros(4)
    def state_dict(self):
        return {"values": self.values}
    def load_state_dict(self, state):
        self.values = state["values"]

url, first, pause, epochs = sys.argv[1], float(sys.argv[2]), float(sys.argv[3]), int(sys.argv[4])
time.sleep(first)
with Checkpointer(url, CheckpointPolicy(monitor="val_loss", patience=9), model=Weights()) as ckpt:
    for epoch in ckpt.epochs(epochs):
        ckpt.log_step(loss=1.0)
        time.sleep(pause)
        ckpt.log(train_loss=1 / (epoch + 1), val_loss=2 / (epoch + 1))
"""


@pytest.fixture
def training(tmp_path):
    """Start a training in another process; it is waited for at the end."""
    started = []

    def start(*, first=0.0, pause=0.3, epochs=4):
        url = str(tmp_path / "run")
        words = [sys.executable, "-c", TRAIN, url, str(first), str(pause), str(epochs)]
        started.append(subprocess.Popen(words))
        return url

    yield start
    for process in started:
        assert process.wait(30) == 0


@pytest.fixture
def ended(tmp_path):
    """A run that patience ended."""
    return overfitted(str(tmp_path / "run"))


def begun(url, epochs=2):
    """A run whose training was killed, or goes on: nobody says."""
    journal = Journal(open_backend(str(url)))
    journal.append(Began(checkpoint=None, policy={}, host="here", time=time.time(), epoch=None, step=0))
    for epoch in range(epochs):
        journal.append(row(epoch))
    journal.close()
    return str(url)


def row(epoch, kind="epoch"):
    return Row(kind=kind, epoch=epoch, step=epoch + 1, time=time.time(), metrics={"loss": 1.0})


def test_lines_while_it_trains(keepbest, training):
    """Where no terminal reads, each event is a line as it happens, and the command ends with the training."""
    url = training(first=0.2)
    said = keepbest("watch", url, "--interval", "0.1s", "--wait")
    assert said.code == 0
    assert said.err == f"Waiting for a run at {url}. Ctrl-C ends this.\n"
    first, *lines = said.out.splitlines()
    assert first.startswith(f"{url}: ")
    texts = [line.partition("  ")[2] for line in lines]
    assert texts[0].startswith("training began on ")
    ends = [text for text in texts if re.match(r"epoch \d ended", text)]
    assert ends == [
        "epoch 1 ended, step 1: train_loss 1, val_loss 2",
        "epoch 2 ended, step 2: train_loss 0.5, val_loss 1",
        "epoch 3 ended, step 3: train_loss 0.333333, val_loss 0.666667",
        "epoch 4 ended, step 4: train_loss 0.25, val_loss 0.5",
    ]
    assert sum(text.startswith("saved epoch-") for text in texts) == 4
    assert "val_loss improved from 1 to 0.666667" in texts
    assert texts[-1] == "training ended. All epochs were done."
    assert re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d [+-]\d{4}$", lines[-1].partition("  ")[0])


def test_json_holds_every_entry_once(keepbest, training):
    """Programs get every row and note, as they come, in the order of the journal."""
    url = training()
    said = keepbest("watch", url, "--interval", "0.1s", "--wait", "--json")
    objects = [json.loads(line) for line in said.out.splitlines()]
    journal = library.open_run(url).journal()
    assert {(found["schema"], found["run"]) for found in objects} == {("keepbest.watch/1", url)}
    assert [(found["kind"], found["time"], found["step"]) for found in objects] == [
        (entry.kind, entry.time, entry.step) for entry in journal
    ]
    assert objects[-1]["cause"] == "complete"
    assert next(found for found in objects if found["kind"] == "epoch")["metrics"] == {
        "train_loss": 1.0,
        "val_loss": 2.0,
    }
    decided = next(found for found in objects if found["kind"] == "decided")
    assert decided["checks"][0]["improved"] is True
    assert decided["busy"] is False


def test_a_run_that_has_ended_is_told_and_done(keepbest, ended):
    """Of a run that ended before, the last events are shown, and the command ends at once."""
    said = keepbest("watch", ended)
    lines = said.out.splitlines()
    assert said.code == 0
    assert re.match(
        rf"{re.escape(ended)}: 12 epochs; ended \d+ s ago\. Patience ended it: val_loss did not improve for 6 checks "
        r"since epoch 6\.$",
        lines[0],
    )
    assert len(lines) == 1 + viewers.SHOWN
    assert lines[-1].endswith("training ended. Patience ended it: val_loss did not improve for 6 checks since epoch 6.")


def test_a_run_that_does_not_exist_is_an_error(keepbest, tmp_path):
    """Unless it is told to wait, watching nothing is an error."""
    said = keepbest("watch", tmp_path / "none")
    assert said.code == 2
    assert "holds no run" in said.err


@pytest.mark.parametrize(("interval", "why"), [("0", "0.1 s is the least"), ("soon", "no span of time")])
def test_an_interval_that_makes_no_sense(keepbest, ended, interval, why):
    """Spans that are none, or would only burn time, are refused."""
    said = keepbest("watch", ended, "--interval", interval)
    assert said.code == 2
    assert why in said.err


@pytest.mark.parametrize("columns", [80, 120])
def test_a_terminal_is_drawn_again_and_again(training, columns):
    """In a terminal everything stands in one place, is kept up to date, and what was drawn last stays."""
    url = training(first=0.5, epochs=5)
    ran = run_in_terminal(COMMAND, "watch", url, "--interval", "0.1s", "--wait", columns=columns)
    assert ran.code == 0
    shown = ran.screen
    assert shown[0] == f"Waiting for a run at {url}. Ctrl-C ends this."[: len(shown[0])]
    facts = {line.split()[0]: " ".join(line.split()[1:]) for line in shown if line and not line[0].isdigit()}
    assert facts["state"].startswith("ended ")
    assert facts["position"] == "epoch 5 ended, step 5"
    assert facts["epoch"] == "5 train_loss 0.2, val_loss 0.4"
    assert facts["best"] == "val_loss 0.4 in epoch 5 (lower is better)"
    assert facts["patience"] == "0 of 9 checks without improvement, val_loss"
    assert facts["overfitting"] == "not seen; val_loss is 0.2 worse than in training"
    assert facts["last"].startswith("saved epoch-005_step-000005_")
    assert any(line.endswith("training ended. All epochs were done.") for line in shown)
    assert sum(line.startswith("state") for line in shown) == 1
    assert "epoch 2 ended, step 2" in ran.written
    assert max(len(line) for line in shown[1:]) <= columns
    assert "\x1b[?" not in ran.written


def test_ctrl_c_ends_it(tmp_path):
    """Ctrl-C ends the watching, not the training, with the exit code of an interrupt; the screen stays whole."""
    ran = run_in_terminal(COMMAND, "watch", begun(tmp_path), "--interval", "30s", columns=100, interrupt="last saved")
    assert ran.code == 130
    text = "\n".join(ran.screen)
    assert "probably training, as it was heard of " in text
    assert "Traceback" not in text


@pytest.mark.parametrize(
    ("ago", "said"),
    [
        (2, "probably training, as it was heard of 2 s ago; else killed, or never closed"),
        (3600, "training, killed, or never closed; last heard of 1 h ago"),
    ],
)
def test_a_run_of_which_no_end_is_known(ago, said):
    """Of a run that was heard of a moment ago the likely is said first; of another one nothing is likely."""
    now = 1.7e9
    entry = Row(kind="epoch", epoch=0, step=1, time=now - ago, metrics={})
    assert telling.state(Account("runs/7", [entry], []), now) == said


def test_a_small_terminal_loses_old_events_only(tmp_path):
    """Where there is no room, old events go; the facts stay, and no line stands twice."""
    url = begun(tmp_path, epochs=40)
    journal = Journal(open_backend(url))
    journal.append(*(row(epoch) for epoch in range(40)), Ended(cause="closed", time=time.time(), epoch=39, step=40))
    journal.close()
    ran = run_in_terminal(COMMAND, "watch", url, columns=40)
    assert sum(line.startswith("state") for line in ran.screen) == 1
    assert ran.screen[-1] or ran.screen[-2]
    assert len(ran.screen) <= 24


class Recorder:
    """A backend that counts what is read, and cannot be reached while `down`."""

    def __init__(self, backend):
        self._backend = backend
        self.reads = 0
        self.down = False

    def __getattr__(self, name):
        return getattr(self._backend, name)

    def read(self, key):
        self.reads += 1
        return self._backend.read(key)

    def list(self, prefix, **how):
        if self.down:
            raise UnreachableError("s3://b/r", "no answer")
        return self._backend.list(prefix, **how)


def follower(backend):
    return Follower(Run(backend))


def test_nothing_is_read_while_nothing_happens(run_url):
    """A look at a run that has not changed reads nothing of it; what is new is found at the next one."""
    journal = Journal(open_backend(run_url))
    journal.append(row(0))
    journal._backend.settle()
    backend = Recorder(open_backend(run_url))
    followed = follower(backend)
    assert followed.look()
    assert [entry.epoch for entry in followed.new] == [0]
    before = backend.reads
    assert followed.look()
    assert (backend.reads, followed.new) == (before, ())
    journal.append(row(1))
    journal._backend.settle()
    assert followed.look()
    assert [entry.epoch for entry in followed.new] == [1]
    journal.close()


def test_going_back_shows_the_new_branch(tmp_path):
    """When training goes back, what is new begins where the old way and the new one part."""
    policy = CheckpointPolicy(monitor="val_loss", keep_all=True)
    followed = follower(open_backend(str(tmp_path)))
    with Checkpointer(tmp_path, policy, model=Weights()) as ckpt:
        for loss in (0.5, 0.4, 0.6):
            ckpt.log(val_loss=loss)
        ckpt.wait()
        followed.look()
        ckpt.restore(1)
        ckpt.log(val_loss=0.3)
        followed.look()
    new = [entry for entry in followed.new if isinstance(entry, Row) or entry.kind == "back"]
    assert [entry.kind for entry in new] == ["back", "epoch"]
    assert new[1].metrics == {"val_loss": 0.3}
    assert [entry.epoch for entry in followed.entries if isinstance(entry, Row)] == [0, 1]


def test_a_training_that_goes_on_is_followed_from_its_start(tmp_path):
    """A run that ended is not at its end any more when a process has taken it up, before that logs anything."""
    policy = CheckpointPolicy(every_n_epochs=2, at_end=False)
    followed = follower(open_backend(str(tmp_path)))
    with Checkpointer(tmp_path, policy, model=Weights()) as ckpt:
        for _epoch in ckpt.epochs(3):
            ckpt.log(loss=0.5)
    followed.look()
    assert followed.ended
    with Checkpointer(tmp_path, policy, model=Weights()) as ckpt:
        epochs = ckpt.epochs(5)
        next(epochs)
        followed.look()
        assert not followed.ended
        assert [entry.kind for entry in followed.new] == ["began"]
        ckpt.log(loss=0.4)
        followed.look()
        assert [entry.epoch for entry in followed.new if isinstance(entry, Row)] == [2]
        epochs.close()


def test_a_store_that_does_not_answer_is_tried_again(tmp_path):
    """While the store cannot be reached, what is known stays, and the next look tries again."""
    begun(tmp_path)
    backend = Recorder(open_backend(str(tmp_path)))
    followed = follower(backend)
    assert followed.look()
    backend.down = True
    assert not followed.look()
    assert "no answer" in followed.problem
    assert followed.took == 0, "how long a store takes not to answer is no reason to ask more seldom"
    assert len(followed.entries) == 3
    backend.down = False
    assert followed.look()
    assert followed.problem is None


def test_a_store_that_does_not_answer_is_told_while_waiting(tmp_path, capsys):
    """Whoever waits for a run in a store that cannot be reached is told so, once."""
    backend = Recorder(open_backend(begun(tmp_path)))
    backend.down = True
    followed = follower(backend)
    looks = []

    def pause(interval):
        looks.append(interval)
        backend.down = len(looks) < 3

    followed.look()
    followed.pause = pause
    wait_for(followed, wait=True, interval=1, missing=pytest.fail)
    assert (len(looks), followed.exists) == (3, True)
    assert capsys.readouterr().err.count("no answer") == 1


def test_a_metric_that_is_nan_repeats_nothing(tmp_path):
    """What was found once is not new again, though NaN equals nothing."""
    journal = Journal(open_backend(str(tmp_path)))
    journal.append(replace(row(0), metrics={"loss": math.nan}), row(1))
    followed = follower(open_backend(str(tmp_path)))
    assert followed.look()
    journal.append(row(2))
    journal.close()
    assert followed.look()
    assert [entry.epoch for entry in followed.new] == [2]


def test_showing_takes_its_share_of_the_time(ended):
    """What is slow to show is looked at more seldom, as what is slow to read is."""
    followed = follower(open_backend(ended))
    followed.look()
    follow(followed, 0.1, lambda _: time.sleep(0.2))
    assert followed.took >= 0.2


def test_a_reader_that_stopped_for_a_while_is_not_left_waiting_for_long(ended, monkeypatch):
    """However long a look or what shows it took, the next one comes within a minute."""
    slept = []
    monkeypatch.setattr("keepbest.cli.follower.time.sleep", slept.append)
    followed = follower(open_backend(ended))
    followed.took = 300.0
    followed.pause(2.0)
    followed.pause(90.0)
    assert slept == [60.0, 90.0]


def test_what_has_not_changed_is_not_sorted_anew(tmp_path):
    """While nothing happens, a look gives what is shown the account that it had."""
    followed = follower(open_backend(begun(tmp_path)))
    followed.look()
    account = followed.account
    assert len(account.closed) == 2
    followed.look()
    assert followed.account is account
    begun(tmp_path, epochs=3)
    followed.look()
    assert len(followed.account.closed) == 3


def test_a_run_of_nothing_but_damage_is_told_and_done(keepbest, tmp_path):
    """Nobody writes to a run whose manifests are all damaged and that has no journal, so it is not waited for."""
    backend = open_backend(str(tmp_path))
    SmallRun(backend).save()
    backend.replace(commit_key(1), b"{}")
    assert keepbest("watch", tmp_path).code == 0


def test_a_run_without_notes_is_followed(tmp_path):
    """A run that has no notes is shown with its checkpoints; that it ended, nobody can know."""
    run = SmallRun(open_backend(str(tmp_path)))
    run.save(0.5)
    journal = Journal(open_backend(str(tmp_path)))
    journal.append(replace(row(0), metrics={"val_loss": 0.5}))
    journal.close()
    ran = run_in_terminal(COMMAND, "watch", str(tmp_path), columns=120, interrupt="last saved")
    text = "\n".join(ran.screen)
    assert ran.code == 130
    assert "val_loss 0.5 in epoch 1 (lower is better)" in text
    assert "1 checkpoint, " in text


def test_names_cannot_steer_the_terminal(tmp_path):
    """Control characters in a stranger's names are written out, in a terminal and in a pipe."""
    journal = Journal(open_backend(str(tmp_path)))
    journal.append(
        Began(checkpoint=None, policy={}, host="h\x1b]0;owned\x07", time=1.7e9, epoch=None, step=0),
        replace(row(0), metrics={"l\x1b[2Joss": 1.0}),
        Ended(cause="exception", error="E\x9b", time=1.7e9, epoch=0, step=1),
    )
    journal.close()
    ran = run_in_terminal(COMMAND, "watch", str(tmp_path), columns=200)
    text = "\n".join(ran.screen)
    assert "h\\x1b]0;owned\\x07" in text
    assert "l\\x1b[2Joss 1" in text
    assert "E\\x9b" in text


def test_a_reader_that_goes_away_is_no_error(ended):
    """`keepbest watch … --json | head -1` ends quietly."""
    command = [sys.executable, "-m", "keepbest", "watch", ended, "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as running:
        running.stdout.readline()
        running.stdout.close()
        complaints = running.stderr.read()
    assert (running.returncode, complaints) == (0, "")


def test_help_says_that_json_is_many_objects(keepbest):
    """Whoever reads the JSON of a training is told that it is an object a line, and not one."""
    said = " ".join(keepbest("watch", "--help").out.split())
    assert "--json Print a JSON object for each row and note, one on a line, for programs." in said
    assert "Print one JSON object" not in said


def test_help_says_what_a_look_costs(keepbest):
    """Whoever watches a bucket can read what is requested how often."""
    said = " ".join(keepbest("watch", "--help").out.split())
    assert "A look costs a listing of the commits and of the journal" in said
