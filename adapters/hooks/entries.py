"""What the hooks share: how a metric is called, where it stands on the axis, and which rows a resumed run has left."""

from __future__ import annotations

from collections.abc import Collection

from msgspec import Struct

from ...errors import ConfigError
from ...storage.history import Row
from ...storage.layout import checkpoint_place


class Place(Struct, frozen=True, kw_only=True):
    """Where a checkpoint was saved, as its name says."""

    epoch: int | None
    """From 0; None before the first."""
    step: int
    """Training steps closed; 0 where the loop counts none."""

    @property
    def axis(self) -> int:
        """Where it stands on the axis."""
        return axis(self.epoch, self.step)

    def includes(self, epoch: int, step: int) -> bool:
        """Say whether a row may have led to the checkpoint; one that was logged later may have the same numbers."""
        return step <= self.step if self.step else step == 0 and self.epoch is not None and epoch <= self.epoch


def place_of(checkpoint: str) -> Place | None:
    """Return where a checkpoint of this name was saved; None if the name does not say."""
    place = checkpoint_place(checkpoint)
    return None if place is None else Place(epoch=place[0], step=place[1])


def axis(epoch: int | None, step: int) -> int:
    """Return the number under which a row is drawn: the training step, or the epoch where the loop counts no steps."""
    return step or epoch or 0


def values_of(row: Row, *, apart: bool = True, taken: Collection[str] = ()) -> dict[str, float]:
    """Return the metrics of a row, under the names that people see.

    Args:
        row: the row.
        apart: metrics of single steps are called `step/loss`, so that they do not mix with those of epochs.
        taken: names of what stands beside the metrics; a metric that has one is called `metric_epoch` and so on.
    """
    before = "step/" if apart and row.kind == "step" else ""
    return {
        f"{before}metric_{name}" if before + name in taken else before + name: value
        for name, value in row.metrics.items()
    }


def missing(hook: str, package: str, extra: str, error: ImportError) -> ConfigError:
    """Return the error that says what to install."""
    if not (error.name or package).startswith(package):
        return ConfigError(f"{hook} cannot import {package}: {error}")
    return ConfigError(f'{hook} needs {package}, which is not installed: pip install "keepbest[{extra}]".')
