"""Preflight: find out before training, not hours into it, that a run cannot be written."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import Any

from ..errors import ConfigError, StorageError, StorageFullError
from ..storage.backend import Backend
from ..storage.layout import TEMPORARY_PREFIX
from .policy import CheckpointPolicy
from .retention import KeepBest, KeepLast, simple_keep_rules
from .snapshot import Snapshots
from .state import holds_weights

_PROBE = b"keepbest was here\n"


def check_objects(objects: Mapping[str, Any], policy: CheckpointPolicy, snapshots: Snapshots) -> int:
    """Capture the objects once; returns the bytes of their tensors.

    Raises:
        ConfigError: the best is to hold the weights alone, and no object is a model.
        UnsupportedStateError: the state holds what cannot be saved.
    """
    if policy.best_contents == "weights" and not any(holds_weights(obj) for obj in objects.values()):
        raise ConfigError(
            "best_contents='weights', and none of the objects is a model that keepbest knows, so the best would be "
            "empty. Pass the model itself to the Checkpointer, or leave best_contents out."
        )
    return snapshots.estimate()


def check_place(backend: Backend, nbytes: int, policy: CheckpointPolicy, *, held: int) -> None:
    """Write, read and delete a small object, and see whether the space left is enough.

    Args:
        backend: where the run is, or will be.
        nbytes: what a checkpoint takes.
        policy: says how many checkpoints stay; one more is there while the next replaces it.
        held: checkpoints that are there already.

    Raises:
        StoragePermissionError, StorageError, NotARunError: it cannot be written, read or deleted there.
        StorageFullError: so many do not fit.
    """
    key = TEMPORARY_PREFIX + uuid.uuid4().hex
    backend.put_if_absent(key, _PROBE)
    try:
        if backend.read(key) != _PROBE:
            raise StorageError(
                f"{backend.url}/{key}", "what was read is not what was written. Do not train to this place."
            )
    finally:
        backend.delete([key])
    needed, free = space_needed(policy, nbytes, held=held), backend.free_bytes()
    if free is not None and free < needed:
        raise StorageFullError(backend.url, needed=needed, free=free)


def space_needed(policy: CheckpointPolicy, nbytes: int, *, held: int) -> int:
    """Return the bytes that the checkpoints still to come take, if each takes `nbytes` and those `held` make room."""
    kept = sum(rule.n for rule in simple_keep_rules(policy.keep_rule) if isinstance(rule, KeepBest | KeepLast))
    return nbytes * max(1, kept + 1 - held)
