"""Notices: what a loop is told before it begins, when it will do less than it looks like, or the same twice."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from .caller import warn_caller
from .position import Position
from .state import Stateful, verifies
from .training import Training

_log = logging.getLogger(__name__)


def say_if_complete(training: Training, n: int, url: str) -> None:
    """Say that no epoch of `n` is left; where no logging is set up, Python writes it to stderr."""
    if training.stopped:
        _log.warning("%s: training has ended already, a monitor stopped it; nothing to train", url)
    elif training.position.next_epoch >= n > 0:
        _log.warning("%s: %d of %d epochs are done already; nothing to train", url, training.position.next_epoch, n)


def warn_of_repeated_batches(position: Position, objects: Mapping[str, Any]) -> None:
    """Warn of a resume within an epoch: a loader that has no state begins it anew, whatever the checkpoint says."""
    loaders = [
        obj
        for obj in objects.values()
        if hasattr(obj, "__iter__") and (hasattr(obj, "__next__") or (isinstance(obj, Stateful) and not verifies(obj)))
    ]
    if position.steps_in_epoch and not loaders:
        warn_caller(
            f"the run was left in the middle of epoch {position.next_epoch + 1}, {position.steps_in_epoch} of its "
            "steps done; it goes on there, but a data loader without state begins the epoch anew. Pass a "
            "StatefulDataLoader to the Checkpointer, or, if its order is the same each time, skip what was trained on."
        )
