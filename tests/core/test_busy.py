"""What becomes of a save that is due while the one before is still being written: `on_busy`."""

from __future__ import annotations

import os
import signal
import threading
import uuid

import numpy as np
import pytest

import keepbest
from keepbest import Checkpointer, CheckpointPolicy
from keepbest.errors import PolicyError
from keepbest.storage.memory import MemoryBackend

KINDS = ["skip", "supersede"]


@pytest.fixture
def url():
    return f"memory://busy-{uuid.uuid4().hex}"


class Gate:
    """Holds up whoever writes while it is shut."""

    def __init__(self):
        self.open = threading.Event()
        self.open.set()
        self.reached = threading.Event()

    def shut(self):
        self.reached.clear()
        self.open.clear()

    def pass_through(self):
        if threading.current_thread().name.startswith("keepbest-writer"):
            self.reached.set()
            assert self.open.wait(10)


@pytest.fixture
def gate(monkeypatch):
    """What every change of the run by the writer passes through."""
    gate = Gate()

    def held(change):
        def held(self, *args, **settings):
            gate.pass_through()
            return change(self, *args, **settings)

        return held

    for name in ("put", "put_if_absent", "replace"):
        monkeypatch.setattr(MemoryBackend, name, held(getattr(MemoryBackend, name)))
    yield gate
    gate.open.set()


class Counter:
    """A state that says at which step it was taken."""

    def __init__(self):
        self.values = np.zeros(20_000)

    def state_dict(self):
        return {"values": self.values}

    def load_state_dict(self, state):
        self.values = state["values"]


def policy(on_busy, **fields):
    return CheckpointPolicy(
        **{"every_n_epochs": None, "every_n_steps": 1, "at_end": False, "keep_all": True, "on_busy": on_busy} | fields
    )


class Training:
    """Steps that change the state, and are logged."""

    def __init__(self, url, policy, **settings):
        self.counter, self.count = Counter(), 0
        self.ckpt = Checkpointer(url, policy, counter=self.counter, **settings)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.ckpt.__exit__(*error)

    def step(self):
        self.count += 1
        self.counter.values = self.counter.values + 1
        self.ckpt.log_step()

    def epoch(self, **metrics):
        self.count += 1
        self.counter.values = self.counter.values + 1
        return self.ckpt.log(metrics)


def saved(url):
    """Return the step of each checkpoint, each of which holds the state of that step and of no other."""
    found = sorted(keepbest.open_run(url).checkpoints(), key=lambda checkpoint: checkpoint.sequence)
    for checkpoint in found:
        assert set(checkpoint.load("counter")["values"].tolist()) == {float(checkpoint.step)}
    return [checkpoint.step for checkpoint in found]


def test_waiting_leaves_nothing_out(url, gate):
    """By default a save that finds the writer busy waits for it, so that every one is made."""
    with Training(url, policy("wait")) as training:
        gate.shut()
        training.step()
        assert gate.reached.wait(10)
        threading.Timer(0.1, gate.open.set).start()
        for _ in range(3):
            training.step()
    assert saved(url) == [1, 2, 3, 4]


@pytest.mark.parametrize("on_busy", KINDS)
def test_training_does_not_wait_for_a_busy_writer(url, gate, on_busy):
    """Steps go on while nothing is written at all; what was under way is saved, and what was put off, by the end."""
    with Training(url, policy(on_busy)) as training:
        gate.shut()
        training.step()
        for _ in range(5):
            training.step()
        assert gate.reached.wait(10)
        gate.open.set()
        training.ckpt.wait()
    assert saved(url) == {"skip": [1], "supersede": [1, 6]}[on_busy]


def test_what_was_skipped_is_not_made_up_for(url, gate):
    """With "skip" the next save is the next that is due: nothing is saved on other steps."""
    with Training(url, policy("skip", every_n_steps=4)) as training:
        for _ in range(4):
            training.step()
        training.ckpt.wait()
        gate.shut()
        training.ckpt.save()
        for _ in range(4):
            training.step()  # the 8th is skipped
        gate.open.set()
        training.ckpt.wait()
        for _ in range(6):
            training.step()
    assert saved(url) == [4, 4, 12]


def test_what_was_superseded_is_saved_once_the_writer_is_free(url, gate):
    """With "supersede" the first step that finds the writer free saves its own state, for the reasons of then, once."""
    with Training(url, policy("supersede", every_n_steps=4)) as training:
        for _ in range(4):
            training.step()
        training.ckpt.wait()
        gate.shut()
        training.ckpt.save()
        for _ in range(5):
            training.step()  # the 8th is put off, the 9th is not due
        gate.open.set()
        training.ckpt.wait()
        for _ in range(2):
            training.step()  # the 10th makes up for it
            training.ckpt.wait()
        reasons = keepbest.open_run(url).latest.manifest().reasons
    assert saved(url) == [4, 4, 10]
    assert list(reasons) == ["step"]


@pytest.mark.parametrize("on_busy", KINDS)
def test_the_best_is_always_saved(url, gate, on_busy):
    """A save for improvement waits for the writer; others of the same training do not."""
    with Training(url, policy(on_busy, monitor="val_loss", every_n_epochs=1, every_n_steps=None)) as training:
        training.epoch(val_loss=3.0)
        training.ckpt.wait()
        gate.shut()
        training.ckpt.save()
        assert training.epoch(val_loss=4.0).save_reasons == ()
        threading.Timer(0.1, gate.open.set).start()
        assert "improvement" in training.epoch(val_loss=1.0).save_reasons
        training.ckpt.wait()
    run = keepbest.open_run(url)
    assert run.best.metrics["val_loss"] == 1.0
    assert [checkpoint.metrics.get("val_loss") for checkpoint in run.checkpoints()].count(4.0) == 0


@pytest.mark.parametrize("on_busy", KINDS)
def test_the_end_is_always_saved(url, gate, on_busy):
    """What training left is saved when it ends, though the save at its last step was left out."""
    with Training(url, policy(on_busy, at_end=True)) as training:
        gate.shut()
        for _ in range(3):
            training.step()
        threading.Timer(0.1, gate.open.set).start()
    assert saved(url) == [1, 3]


def test_what_was_superseded_is_saved_at_the_end(url, gate):
    """What was put off is made at close though the writer is still busy, and the policy saves nothing at the end."""
    with Training(url, policy("supersede", every_n_steps=2)) as training:
        gate.shut()
        for _ in range(5):
            training.step()  # the 4th is put off, the 5th is not due
        assert gate.reached.wait(10)
        threading.Timer(0.1, gate.open.set).start()
    assert saved(url) == [2, 5]


def test_what_was_skipped_is_not_saved_at_the_end(url, gate):
    """With "skip", and a policy that saves nothing at the end, close only waits."""
    with Training(url, policy("skip", every_n_steps=2)) as training:
        gate.shut()
        for _ in range(5):
            training.step()
        threading.Timer(0.1, gate.open.set).start()
    assert saved(url) == [2]


def test_what_was_superseded_is_not_saved_on_an_exception(url, gate):
    """A policy that saves nothing on an exception saves nothing then: half a step may have been made."""
    with pytest.raises(ZeroDivisionError):
        with Training(url, policy("supersede", every_n_steps=2)) as training:
            gate.shut()
            for _ in range(4):
                training.step()
            training.counter.values[:100] = -1  # half a step
            threading.Timer(0.1, gate.open.set).start()
            raise ZeroDivisionError
    assert saved(url) == [2]


@pytest.mark.parametrize("on_busy", KINDS)
def test_a_signal_is_always_obeyed(url, gate, on_busy):
    """SIGTERM saves what training left, though the writer was busy."""
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit):
        with Training(url, policy(on_busy)) as training:
            training.step()
            training.ckpt.wait()
            gate.shut()
            training.ckpt.save()
            training.step()
            threading.Timer(0.1, gate.open.set).start()
            os.kill(os.getpid(), signal.SIGTERM)
            training.step()
    signal.signal(signal.SIGTERM, before)
    assert saved(url)[-1] == 3


@pytest.mark.parametrize("on_busy", KINDS)
def test_an_exception_is_always_saved(url, gate, on_busy):
    """Where the policy saves on an exception, it does so though the writer was busy."""
    with pytest.raises(ZeroDivisionError):
        with Training(url, policy(on_busy, on_exception=True)) as training:
            gate.shut()
            training.step()
            training.step()
            threading.Timer(0.1, gate.open.set).start()
            raise ZeroDivisionError
    assert saved(url) == [1, 2]


@pytest.mark.parametrize("on_busy", KINDS)
def test_a_save_that_is_asked_for_waits(url, gate, on_busy):
    """`save()` is made whatever the policy says of a busy writer."""
    with Training(url, policy(on_busy)) as training:
        gate.shut()
        training.step()
        training.step()
        threading.Timer(0.1, gate.open.set).start()
        training.ckpt.save()
    assert saved(url) == [1, 2]


def test_a_resumed_training_owes_nothing(url, gate):
    """What a training before put off is not made up for by the one that continues it."""
    with Training(url, policy("supersede")) as training:
        gate.shut()
        training.step()
        training.step()
        gate.open.set()
    before = saved(url)
    with Training(url, policy("supersede", every_n_steps=100)) as training:
        training.ckpt.resume()
        training.step()
    assert saved(url) == before


@pytest.mark.parametrize("wrong", ["never", "", None, True, 1])
def test_another_word_is_refused(wrong):
    """A policy with any other `on_busy` says which there are."""
    with pytest.raises(PolicyError, match=r"on_busy.*(wait|skip)"):
        CheckpointPolicy(on_busy=wrong)


def test_a_policy_says_what_it_does_when_busy():
    """In words, where it is not the default; and as a file it comes back the same."""
    assert "busy" not in str(CheckpointPolicy())
    for on_busy in KINDS:
        made = CheckpointPolicy(on_busy=on_busy)
        assert str(made) != str(CheckpointPolicy())
        assert CheckpointPolicy.model_validate_json(made.model_dump_json()) == made
