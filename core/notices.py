"""Notices: what a loop is told before it begins, when it will do less than it looks like, or the same twice."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from ..storage.layout import commit_key
from ..storage.manifest import CheckpointInfo, todays_scores, with_todays_scores
from ..storage.ranking import best_of
from .caller import warn_caller
from .policy import CheckpointPolicy
from .position import Position
from .retention import KeepBest, KeepLast, simple_keep_rules
from .state import Stateful, verifies
from .training import Training

_log = logging.getLogger(__name__)

_NAMED = 5
"""Checkpoints that a warning names."""


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


def warn_of_forsaken_bests(checkpoints: Sequence[CheckpointInfo], policy: CheckpointPolicy, url: str) -> None:
    """Warn of a best by what the newest checkpoints were ranked by, and the policy neither monitors nor keeps."""
    monitored = [monitor.key for monitor in policy.monitors()]
    staying = [rule for rule in simple_keep_rules(policy.keep_rule) if not _lets_go(rule)]
    scored = with_todays_scores(checkpoints)
    for metric in (score.monitor for score in todays_scores(checkpoints) if score.monitor not in monitored):
        best = best_of(scored, metric)
        score = None if best is None else best.score(metric)
        if best is None or score is None or any(best.sequence in rule.keeps(scored) for rule in staying):
            continue
        warn_caller(
            f"the policy no longer monitors {metric}, so checkpoint {best.name}, the best by it ({score.value:.6g}), "
            "is deleted as soon as nothing else keeps it. To keep it, copy it out of the run first: "
            f"keepbest export {url} {best.name} FOLDER --all"
        )


def _lets_go(rule: object) -> bool:
    """Say whether what a rule keeps now may go when others come, other than for better ones by the same metric."""
    return isinstance(rule, KeepLast) or (isinstance(rule, KeepBest) and rule.monitor is not None)


def warn_of_missing(missing: Sequence[CheckpointInfo], url: str) -> None:
    """Warn of checkpoints whose files somebody deleted, and not their commits: they count for retention."""
    if not missing:
        return
    names = ", ".join(found.name for found in missing[:_NAMED])
    commits = ", ".join(commit_key(found.sequence) for found in missing[:_NAMED])
    more = f" and {len(missing) - _NAMED:,} more" if len(missing) > _NAMED else ""
    warn_caller(
        f"the files of {names}{more} in {url} are gone: somebody deleted them, and not the commits. What is gone "
        "cannot be restored, and may keep a place among the best that another checkpoint would have. Put the files "
        f"back; or end this training, delete {commits}{more} in {url}, too, and resume."
    )
