"""History: the logged metrics as columns, the way Keras' `History.history` gives them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One call of `log` or `log_step`."""

    kind: Literal["epoch", "step"]
    """"epoch": the row closed an epoch."""
    epoch: int
    """From 0."""
    step: int
    """Training steps closed when the row was logged."""
    time: float
    """Seconds since 1970."""
    metrics: dict[str, float] = field(default_factory=dict)


class History(Mapping[str, list[float]]):
    """Columns of the metrics logged at the ends of epochs; `steps_log` has the rows of single steps.

    `history["val_loss"]` is a list of floats, one for each epoch that logged it. The same index into
    `history.epochs["val_loss"]` and `history.steps["val_loss"]` says when.
    """

    def __init__(self, rows: Iterator[Row] | list[Row] | tuple[Row, ...] = ()) -> None:
        self.columns: dict[str, list[float]] = {}
        self.epochs: dict[str, list[int]] = {}
        self.steps: dict[str, list[int]] = {}
        self.rows: list[Row] = []
        for row in rows:
            self.append(row)

    def append(self, row: Row) -> None:
        """Add a row; rows of kind "step" do not enter the columns."""
        self.rows.append(row)
        if row.kind != "epoch":
            return
        for name, value in row.metrics.items():
            if name not in self.columns:
                self.columns[name], self.epochs[name], self.steps[name] = [], [], []
            self.columns[name].append(value)
            self.epochs[name].append(row.epoch)
            self.steps[name].append(row.step)

    @property
    def steps_log(self) -> list[Row]:
        """The rows of single steps, in the order they were logged."""
        return [row for row in self.rows if row.kind == "step"]

    def __getitem__(self, name: str) -> list[float]:
        return self.columns[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.columns)

    def __len__(self) -> int:
        return len(self.columns)

    def __repr__(self) -> str:
        epochs = sum(row.kind == "epoch" for row in self.rows)
        return f"History({epochs} epochs of {', '.join(self.columns) or 'nothing'})"
