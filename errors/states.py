"""States: what cannot be captured, or does not fit what it is to be restored to."""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from numbers import Integral, Real

from .base import KeepbestError


class StateError(KeepbestError):
    """State cannot be captured or restored.

    When: at `save()`, `restore()` and `resume()`, and when a Checkpointer is made.

    Do: See the error below it that was raised.
    """


class UnsupportedStateError(StateError, TypeError):
    """A value in the state is neither a tensor nor plain data.

    When: when a Checkpointer is made, or at its first save. Nothing is ever pickled instead.

    Do: Give the object `state_dict()` and `load_state_dict(state)`, or leave the value out of the state. A number or a
    string of another type, NumPy's or an enum's, becomes a plain one by `int(…)`, `float(…)`, `str(…)` or `.value`.
    """

    def __init__(self, path: str, value: object, *, why: str | None = None, instead: str | None = None) -> None:
        self.path, self.kind = path, f"{type(value).__module__}.{type(value).__qualname__}"
        remedy = _plain(value) or instead or _REMEDY
        super().__init__(
            f"cannot save {path}: a {self.kind} {why or 'is neither a tensor nor plain data'}. {remedy} "
            "(keepbest never pickles: loading a checkpoint must not run code.)"
        )


_REMEDY = (
    "Give it state_dict() and load_state_dict(state) that return and take tensors and plain values, or leave it out of "
    "the state."
)


def _plain(value: object) -> str | None:
    """Return how a number or a string of another type becomes a plain one; None for anything else."""
    if isinstance(value, Enum):
        return "Save its .value instead."
    made = next((make for make, kind in _PLAIN.items() if isinstance(value, kind)), None)
    if made is None and (type(value).__module__, type(value).__name__) in (("numpy", "bool"), ("numpy", "bool_")):
        made = bool  # of NumPy's, this one alone says by no base what it is
    return f"Save {made.__name__}(…) of it instead." if made not in (None, type(value)) else None


_PLAIN: dict[type, type] = {str: str, bytes: bytes, bool: bool, int: Integral, float: Real}


class StateMismatchError(StateError, ValueError):
    """What is stored does not fit the objects to restore. Nothing was changed.

    When: at `restore()` and `resume()`; `problems` lists every difference.

    Do: Build the objects as they were when the checkpoint was saved, or restore only some with only=[…].
    """

    def __init__(self, checkpoint: str, problems: Sequence[str]) -> None:
        self.checkpoint, self.problems = checkpoint, tuple(problems)
        lines = "".join(f"\n  - {problem}" for problem in self.problems)
        self.fact = f"checkpoint {checkpoint} does not fit. {len(self.problems)} difference(s):{lines}"
        super().__init__(
            f"checkpoint {checkpoint} does not fit; nothing was restored. {len(self.problems)} difference(s):{lines}\n"
            "Build the objects as they were when it was saved, or restore only some with only=[…]."
        )


class TornStateError(StateError, RuntimeError):
    """A restore broke off half-way: some objects hold the checkpoint's state, others their own.

    When: at `restore()` and `resume()`, and at any `log()` or `save()` after it.

    Do: Restore a whole checkpoint; nothing is logged or saved until that has come through.
    """

    def __init__(self, checkpoint: str, problems: Sequence[str] = ()) -> None:
        self.checkpoint, self.problems = checkpoint, tuple(problems)
        lines = "".join(f"\n  - {problem}" for problem in self.problems)
        super().__init__(
            f"restoring checkpoint {checkpoint} broke off half-way, so the objects do not belong together.{lines}\n"
            "Nothing is logged or saved until resume() or restore() of a whole checkpoint has come through."
        )
