"""Restoring: a checkpoint's states back into live objects, all of them or none."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

from ..errors import StateMismatchError
from ..storage.arrays import converter
from ..storage.checkpoint import Checkpoint
from . import rng, state


def restore(checkpoint: Checkpoint, objects: Mapping[str, Any], *, with_rng: bool) -> None:
    """Set `objects` to their states in `checkpoint`.

    1. Read and verify everything that is needed; 2. compare each state with its object, and if anything differs raise
    one error that lists all of it; 3. set those objects first whose fit could not be checked, each with its old state
    at hand, then the rest, then the random number generators.

    Raises:
        StateMismatchError: shapes, dtypes, keys or objects differ; nothing was changed.
        DamagedError: something stored is damaged; nothing was changed.
    """
    held = checkpoint.objects()
    problems = [
        f"{name}: the checkpoint holds no such object (it holds {', '.join(sorted(held))})"
        for name in objects
        if name not in held
    ]
    states = {name: checkpoint.restore_state(name, converter) for name in objects if name in held}
    for name, stored in states.items():
        problems.extend(state.mismatches(name, objects[name], stored))
    if problems:
        raise StateMismatchError(checkpoint.name, problems)
    generators = checkpoint.restore_state(rng.NAME, converter) if with_rng and rng.NAME in held else None
    _apply(objects, states, checkpoint.name)
    if generators is not None:
        rng.restore(generators)


def _apply(objects: Mapping[str, Any], states: Mapping[str, Any], checkpoint: str) -> None:
    order = sorted(objects, key=lambda name: state.verifies(objects[name]))
    done: list[tuple[str, Any]] = []
    for name in order:
        before = None if state.verifies(objects[name]) else copy.deepcopy(objects[name].state_dict())
        try:
            state.restore(objects[name], states[name])
        except Exception as error:
            # Whatever an object's own load_state_dict raises: put everything back, then say which one it was.
            stuck = _undo(objects, [*done, (name, before)])
            raise StateMismatchError(checkpoint, [f"{name}: {type(error).__name__}: {error}", *stuck]) from error
        done.append((name, before))


def _undo(objects: Mapping[str, Any], done: Sequence[tuple[str, Any]]) -> list[str]:
    """Give the objects their old states back; return a line for each that does not take it."""
    stuck = []
    for name, before in reversed(done):
        if before is None:
            continue
        try:
            objects[name].load_state_dict(before)
        except Exception as error:  # noqa: BLE001 - the user is told, with the error that led here
            stuck.append(f"{name}: does not take its own old state back either ({type(error).__name__}: {error})")
    return stuck
