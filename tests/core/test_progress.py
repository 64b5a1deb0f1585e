"""What training shows of its saves and restores."""

from __future__ import annotations

import numpy as np
import pytest
from contracts.terminal import run_in_terminal

import keepbest
from keepbest import Checkpointer, CheckpointPolicy

TRAINING = """
import sys, keepbest, numpy as np
settle = os.fsync
def slow(fd):  # as a disk that others use too
    time.sleep(0.4)
    settle(fd)
ckpt = keepbest.Checkpointer(sys.argv[1], mode=sys.argv[2], model={"w": np.ones(1000)})
os.fsync = slow
go()
"""


def test_a_save_behind_training_draws_nothing(tmp_path):
    """However long it takes, training's own output is not disturbed before training waits; then the save is shown."""
    loop = "ckpt.log(loss=1.0)\ntime.sleep(1.2)\nprint('waiting', flush=True)\nckpt.wait()\nprint('end', flush=True)\n"
    ran = run_in_terminal(TRAINING + loop + "os._exit(0)", tmp_path / "run", "async")
    before, _, after = ran.written.partition("waiting")
    assert before == ""
    assert "save epoch-001" in after
    assert (ran.code, ran.screen) == (0, ["waiting", "end"])


def test_a_save_that_training_waits_for_is_shown(tmp_path):
    """With mode="sync" each save that takes long has a bar, and none is left."""
    loop = "ckpt.log(loss=1.0)\nprint('end', flush=True)\n"
    ran = run_in_terminal(TRAINING + loop + "os._exit(0)", tmp_path / "run", "sync")
    assert "save epoch-001" in ran.written
    assert (ran.code, ran.screen) == (0, ["end"])


@pytest.mark.parametrize("mode", ["async", "sync"])
def test_a_callback_hears_of_saves_and_of_restoring(run_url, mode):
    """A program is told of every save, and of what is read when a run goes on."""
    told = []
    policy = CheckpointPolicy(keep_all=True)
    with keepbest.on_progress(told.append):
        with Checkpointer(run_url, policy, mode=mode, model={"w": np.ones(100_000)}) as ckpt:
            for _ in ckpt.epochs(2):
                ckpt.log(loss=1.0)
        names = [held.name for held in keepbest.open_run(run_url).checkpoints()]
        assert [one.subject for one in told if one.finished and one.action == "save"] == names
        assert all(one.done == one.total >= 800_000 for one in told if one.finished and one.action == "save")
        told.clear()
        with Checkpointer(run_url, policy, model={"w": np.ones(100_000)}) as ckpt:
            ckpt.resume()
    loads = [one.subject for one in told if one.finished and one.action == "load"]
    assert f"{names[-1]}/model.safetensors" in loads
