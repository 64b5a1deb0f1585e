"""Hooks: whoever else hears of the rows and notes hears all of them, and can do no harm."""

from __future__ import annotations

import pytest
from contracts.proxy import FaultProxy
from contracts.stateful import Weights

import keepbest
from keepbest import Checkpointer, CheckpointPolicy
from keepbest.errors import ConfigError, KeepbestError


class Recorder:
    """A hook that remembers, and fails when it is told to."""

    def __init__(self, *, fails_at=None, fails_to_close=False):
        self.entries, self.closed = [], 0
        self.fails_at, self.fails_to_close = fails_at, fails_to_close

    def __call__(self, entry):
        if len(self.entries) == self.fails_at:
            raise OSError("no route")
        self.entries.append(entry)

    def close(self):
        self.closed += 1
        if self.fails_to_close:
            raise OSError("no route")


def train(url, *hooks, epochs=3, **settings):
    policy = CheckpointPolicy(monitor="val_loss")
    with Checkpointer(url, policy, hooks=hooks, model=Weights(), **settings) as ckpt:
        for epoch in ckpt.epochs(epochs):
            ckpt.log_step(loss=1.0)
            ckpt.log(val_loss=1.0 - epoch / 10)


@pytest.mark.parametrize("mode", ["sync", "async"])
def test_a_hook_hears_what_stands_in_the_journal(tmp_path, mode):
    """Each row and note comes once, in the order of the journal, and then the hook is closed."""
    hook = Recorder()
    train(tmp_path, hook, mode=mode)
    assert hook.entries == keepbest.open_run(tmp_path).journal()
    assert hook.closed == 1
    first = len(hook.entries)
    again = Recorder()
    train(tmp_path, again, epochs=4, mode=mode)
    assert again.entries == keepbest.open_run(tmp_path).journal()[first:]
    assert again.entries[0].kind == "began"
    assert again.entries[0].epoch == 2


def test_a_function_is_a_hook(tmp_path):
    """What can be called with one entry will do; what cannot is refused at once."""
    heard = []
    train(tmp_path / "run", heard.append)
    assert heard[0].kind == "began"
    with pytest.raises(ConfigError, match="cannot be called"):
        Checkpointer(tmp_path / "other", hooks=["tensorboard"], model=Weights())


def test_a_hook_that_fails_is_dropped_and_training_goes_on(tmp_path):
    """One warning names the hook; it is closed and not called again; others and the run are as without it."""
    broken, whole = Recorder(fails_at=2), Recorder()
    with pytest.warns(UserWarning, match="the hook Recorder failed .*no route") as told:
        train(tmp_path, broken, whole)
    assert len(told) == 1
    assert (len(broken.entries), broken.closed) == (2, 1)
    assert whole.entries == keepbest.open_run(tmp_path).journal()


def test_the_password_in_a_hooks_error_is_not_shown(tmp_path):
    """Libraries put the URL of their server into what they raise."""

    def hook(entry):
        raise OSError("http://me:s3cret@host:5000/api and http://you:s3cret@host did not answer")

    with pytest.warns(UserWarning, match="the hook .*http://me@host:5000/api and http://you@host did not answer"):
        train(tmp_path, hook)


def test_a_hook_that_cannot_be_closed_is_told_of(tmp_path):
    """That is a warning, after everything was saved."""
    with pytest.warns(UserWarning, match="could not be closed.*The run is whole"):
        train(tmp_path, Recorder(fails_to_close=True))
    assert keepbest.open_run(tmp_path).latest.epoch == 2


def test_hooks_are_closed_when_the_bucket_is_gone(s3_server, s3_url):
    """What a hook has not sent yet does not get lost because the journal cannot be written."""
    hook = Recorder()
    with FaultProxy(s3_server.url) as proxy:
        options = {"endpoint_url": proxy.url, "deadline": 1}
        ckpt = Checkpointer(s3_url, CheckpointPolicy(), hooks=[hook], storage_options=options, model=Weights())
        ckpt.log(loss=1.0)
        ckpt.wait()
        ckpt.log_step(loss=0.5)
        proxy.kill()
        with pytest.raises(KeepbestError):
            ckpt.close(save=False)
    assert hook.closed == 1
