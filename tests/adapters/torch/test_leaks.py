"""Leaks: what a training holds does not grow with its saves, and is given back at the end."""

from __future__ import annotations

import gc
import json
import subprocess
import sys
import weakref
from pathlib import Path

import pytest
import torch

from keepbest import Checkpointer, CheckpointPolicy

CHILD = Path(__file__).with_name("leaks.py")
MB = 1 << 20

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="asks the kernel what a process holds, as only Linux tells it"),
]


@pytest.fixture(params=["memory", "local"])
def url(request, tmp_path):
    return "memory://leaks" if request.param == "memory" else str(tmp_path / "run")


def child(*arguments):
    """Return what the child prints."""
    command = [sys.executable, str(CHILD), *map(str, arguments)]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True, timeout=300).stdout)


@pytest.mark.parametrize("mode", ["async", "sync"])
def test_saves_leave_nothing_behind(url, mode):
    """After 2,000 saves more a process has no more memory, objects, threads or open files; closed, no threads."""
    early, late, closed = child("many", url, mode, 500, 2_500)
    assert late["rss"] - early["rss"] < 3 * MB
    assert late["objects"] - early["objects"] < 100
    assert late["threads"] == early["threads"]
    assert late["files"] == early["files"]
    assert closed["threads"] == 1
    assert closed["files"] <= early["files"]


def test_a_training_takes_one_copy_of_its_state(tmp_path):
    """Saving 100 MB 200 times takes one staging copy and a tenth of it at its height; closing gives that back."""
    empty, full = child("large", tmp_path / "empty", 1, 3), child("large", tmp_path / "full", 2040, 200)
    own = empty["high"] - empty["before"]["rss"]
    assert 95e6 < full["state"] < 105e6
    assert full["high"] - full["before"]["rss"] <= 1.1 * full["state"] + own
    assert full["during"]["rss"] - full["before"]["rss"] >= 0.9 * full["state"]
    assert full["after"]["rss"] - full["before"]["rss"] <= own + 5 * MB


@pytest.mark.parametrize("how", ["resume", "restore"])
def test_what_a_restore_replaces_is_freed(how, tmp_path):
    """The tensors that an optimizer had before a restore are held by nobody, not until the next save either."""
    model = torch.nn.Linear(4, 4)
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.ones(4)).sum().backward()
    optimizer.step()
    with Checkpointer(tmp_path / "run", CheckpointPolicy(at_end=False), model=model, optimizer=optimizer) as ckpt:
        ckpt.save().result()
        before = weakref.ref(optimizer.state[model.weight]["exp_avg"])
        ckpt.resume() if how == "resume" else ckpt.restore("latest")
        gc.collect()
        assert before() is None


@pytest.mark.parametrize("cancelled", [False, True], ids=["saved", "cancelled"])
@pytest.mark.parametrize("mode", ["async", "sync"])
def test_a_handle_that_is_kept_keeps_no_training(mode, cancelled, tmp_path):
    """In a notebook a handle stays in its variable long after model and Checkpointer are deleted."""
    model = torch.nn.Linear(4, 4)
    with Checkpointer(tmp_path / "run", CheckpointPolicy(at_end=False), mode=mode, model=model) as ckpt:
        handle = ckpt.save()
        if cancelled:
            handle.cancel()  # in time or not
    held = weakref.ref(model)
    del model, ckpt
    gc.collect()
    assert held() is None
    assert handle.done()
