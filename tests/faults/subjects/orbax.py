"""Orbax' CheckpointManager: `save`, `wait_until_finished`; `restore` of `latest_step()`."""

from __future__ import annotations

import logging
import os

os.environ.setdefault("JAX_PLATFORMS", "cpu")

import warnings
from pathlib import Path

import numpy as np
import orbax.checkpoint as ocp
from faults.children import Voice

NAME = "Orbax CheckpointManager"
PROMISE = "a step is there whole or not at all, once `wait_until_finished` has returned"
VERSION = ocp.__version__
COUNT = 1 << 19


def train(folder: Path, voice: Voice, *, warm: int, window: int) -> None:
    """Go on after the latest step."""
    with _manager(folder) as manager:
        latest = manager.latest_step()
        begin = 0 if latest is None else latest + 1
        for epoch in range(begin, begin + warm + window):
            if epoch == begin + warm:
                voice.ready()
            manager.save(epoch, args=ocp.args.StandardSave({"weight": content(epoch)}))
            manager.wait_until_finished()
            voice.say(f"saved {epoch}")


def newest(folder: Path) -> int | None:
    """Restore the latest step."""
    with _manager(folder) as manager:
        latest = manager.latest_step()
        return None if latest is None else _restored(manager, latest)


def load(folder: Path, epoch: int) -> int:
    """Restore one step."""
    with _manager(folder) as manager:
        return _restored(manager, epoch)


def content(epoch: int) -> np.ndarray:
    """Return what the array is at the end of an epoch."""
    return np.arange(COUNT, dtype=np.float32) % 8191 + np.float32(epoch * 8192)


def _restored(manager: ocp.CheckpointManager, step: int) -> int:
    values = np.asarray(manager.restore(step, args=ocp.args.StandardRestore({"weight": content(0)}))["weight"])
    epoch = round(float(values[0]) / 8192)
    if not np.array_equal(values, content(epoch)):
        raise ValueError("these are no epoch's values")
    return epoch


def _manager(folder: Path) -> ocp.CheckpointManager:
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    options = ocp.CheckpointManagerOptions(max_to_keep=2)
    return ocp.CheckpointManager(folder / "run", options=options)
