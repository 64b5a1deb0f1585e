"""Position: where in its training a run stands."""

from __future__ import annotations

import operator
import uuid
from collections.abc import Mapping
from typing import Any

from msgspec import Struct
from msgspec.structs import asdict, replace

from ..errors import ConfigError
from ..storage.layout import checkpoint_name

LONGEST = 2**62
"""Epochs and steps beyond which no training goes: what another program says of more is no count."""


class Position(Struct, frozen=True, kw_only=True):
    """A moment between two steps. Epochs count from 0, as `range` does."""

    next_epoch: int = 0
    """The epoch to run next, or the one that is under way if `steps_in_epoch` is not 0."""
    step: int = 0
    """Training steps closed, over the whole run."""
    steps_in_epoch: int = 0
    """Steps closed of the epoch under way; a loader that cannot continue by itself skips as many batches."""

    @property
    def epoch(self) -> int | None:
        """The epoch that was closed last, or is under way; None before the first."""
        if self.steps_in_epoch:
            return self.next_epoch
        return self.next_epoch - 1 if self.next_epoch else None

    @property
    def within_epoch(self) -> bool:
        """An epoch is under way: steps of it are closed, it is not."""
        return self.steps_in_epoch > 0

    def after_epoch(self, epoch: int | None, step: int | None) -> Position:
        """Return the position after an epoch was closed; the arguments are what the loop knows better, or None.

        Raises:
            ConfigError: one of them is no whole number of at least 0.
        """
        closed = self.next_epoch if epoch is None else _count("epoch", epoch)
        return Position(next_epoch=closed + 1, step=self.step if step is None else _count("step", step))

    def after_step(self, step: int | None) -> Position:
        """Return the position after one step was closed, or as many as the loop says.

        Raises:
            ConfigError: `step` is no whole number of at least 0.
        """
        closed = self.step + 1 if step is None else _count("step", step)
        return replace(self, step=closed, steps_in_epoch=self.steps_in_epoch + max(1, closed - self.step))

    def to_json(self) -> dict[str, int]:
        """Return plain data for the state file."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Position:
        """Return what `to_json` was called on.

        Raises:
            ConfigError: it is something else.
        """
        try:
            counts = {name: data[name] for name in cls.__struct_fields__}
        except (LookupError, TypeError) as error:
            raise ConfigError(
                f"this is no position of a training ({error!r}): {data!r:.200}. Give what to_json() returned."
            ) from error
        for name, count in counts.items():
            if type(count) is not int or not 0 <= count < 2**63:
                raise ConfigError(
                    f"this is no position of a training: {name} is {count!r:.80}, "
                    "where a whole number, 0 or more, stands."
                )
        return cls(**counts)

    def __str__(self) -> str:
        if self.steps_in_epoch:
            return f"epoch {self.next_epoch + 1}, step {self.step}"
        return f"the end of epoch {self.next_epoch}" if self.next_epoch else f"step {self.step}"


def name_checkpoint(position: Position) -> tuple[str, str]:
    """Return a fresh name for a checkpoint that is taken here, and the write id that makes it so."""
    write_id = uuid.uuid4().hex
    return checkpoint_name(epoch=position.epoch, step=position.step, write_id=write_id), write_id


def _count(name: str, value: Any) -> int:
    """Return `value` as an int: NumPy's whole numbers and integer tensors are as good."""
    try:
        count = operator.index(value)
    except TypeError:
        count = -1
    if count < 0:
        raise ConfigError(f"{name}= is a whole number, counted from 0 (got {value!r}).")
    return count
