"""Restoring: a checkpoint's states back into live objects, all of them or none."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

from msgspec import Struct

from ..errors import StateMismatchError, TornStateError
from ..storage import progress
from ..storage.arrays import from_tag
from ..storage.checkpoint import Checkpoint
from . import rng, state


class Restore(Struct, frozen=True, kw_only=True):
    """Everything read and checked; `apply` sets it."""

    checkpoint: str
    """Its name."""
    objects: Mapping[str, Any]
    states: Mapping[str, Any]
    generators: Any
    """State of the random number generators; None leaves them alone."""

    def apply(self) -> None:
        """Set those objects first whose fit could not be checked, each with its old state at hand, then the rest.

        Of the former, those whose old state cannot be copied come last; after all, the random number generators.

        Raises:
            StateMismatchError: an object did not take its state; nothing is changed.
            TornStateError: it did not, and not all could be put back.
        """
        _apply(self.objects, self.states, self.checkpoint)
        if self.generators is not None:
            _let_iterators_begin(self.objects)
            try:
                rng.restore(self.generators)
            except Exception as error:
                # Whatever a library says of a state that is none of its own: the objects have theirs already.
                problem = f"{rng.NAME}: {type(error).__name__}: {error!s:.200}"
                raise TornStateError(self.checkpoint, [problem]) from error


def prepare(checkpoint: Checkpoint, objects: Mapping[str, Any], *, with_rng: bool) -> Restore:
    """Read and verify everything that is needed, and compare each state with its object; changes nothing.

    Raises:
        StateMismatchError: shapes, dtypes, keys or objects differ; all of it is listed.
        DamagedError: something stored is damaged.
    """
    held = checkpoint.objects()
    problems = [
        f"{name}: the checkpoint holds no such object (it holds {', '.join(sorted(held))})"
        for name in objects
        if name not in held
    ]
    with progress.waiting():  # once for all of them
        states = {name: checkpoint.restore_state(name, from_tag) for name in objects if name in held}
    for name, stored in states.items():
        problems.extend(state.mismatches(name, objects[name], stored))
    if problems:
        raise StateMismatchError(checkpoint.name, problems)
    generators = checkpoint.restore_state(rng.NAME, from_tag) if with_rng and rng.NAME in held else None
    return Restore(checkpoint=checkpoint.name, objects=objects, states=states, generators=generators)


def restore(checkpoint: Checkpoint, objects: Mapping[str, Any], *, with_rng: bool) -> None:
    """Set `objects` to their states in `checkpoint`; raises as `prepare` and `Restore.apply` do."""
    prepare(checkpoint, objects, with_rng=with_rng).apply()


def _apply(objects: Mapping[str, Any], states: Mapping[str, Any], checkpoint: str) -> None:
    before = {name: _copy(obj) for name, obj in objects.items() if not state.verifies(obj)}
    order = sorted(objects, key=lambda name: (state.verifies(objects[name]), before.get(name) is None))
    done: list[tuple[str, Any]] = []
    for name in order:
        done.append((name, before.get(name)))
        try:
            state.restore(objects[name], states[name])
        except Exception as error:
            # Whatever an object's own load_state_dict raises: put everything back, then say which one it was.
            problem = f"{name}: {type(error).__name__}: {error}"
            stuck = _undo(objects, done)
            if stuck:
                raise TornStateError(checkpoint, [problem, *stuck]) from error
            raise StateMismatchError(checkpoint, [problem]) from error


def _copy(obj: Any) -> Any:
    """Return a copy of an object's state to go back to; None if there is none to be had."""
    try:
        return copy.deepcopy(obj.state_dict())
    except Exception:  # noqa: BLE001 - too large for one more, or it holds what cannot be copied
        return None


def _undo(objects: Mapping[str, Any], done: Sequence[tuple[str, Any]]) -> list[str]:
    """Give the objects their old states back; return a line for each that does not take it, or has none."""
    stuck = []
    for name, before in reversed(done):
        if before is None:
            stuck.append(f"{name}: holds the checkpoint's state, or some of it")
            continue
        try:
            objects[name].load_state_dict(before)
        except Exception as error:  # noqa: BLE001 - the user is told, with the error that led here
            stuck.append(f"{name}: does not take its own old state back either ({type(error).__name__}: {error})")
    return stuck


def _let_iterators_begin(objects: Mapping[str, Any]) -> None:
    """Ask data loaders for their state once.

    A loader in the middle of an epoch makes its iterator when it is first asked, and draws a random number for it. The
    training that is continued had drawn it long before its generators were saved.
    """
    for obj in objects.values():
        if hasattr(obj, "__iter__") and isinstance(obj, state.Stateful) and not state.verifies(obj):
            obj.state_dict()
