"""History: the logged metrics as columns, the way Keras' `History.history` gives them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
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

    def __init__(self, rows: Iterable[Row] = ()) -> None:
        self.rows: list[Row] = list(rows)
        self._entered = 0
        self._columns: dict[str, list[float]] = {}
        self._epochs: dict[str, list[int]] = {}
        self._steps: dict[str, list[int]] = {}

    def append(self, row: Row) -> None:
        """Add a row. It enters the columns when somebody looks at them: training logs more often than people look."""
        self.rows.append(row)

    @property
    def columns(self) -> dict[str, list[float]]:
        """Values by metric, of the rows that closed an epoch."""
        self._enter()
        return self._columns

    @property
    def epochs(self) -> dict[str, list[int]]:
        """For each value of the columns, the epoch (from 0) that it was logged for."""
        self._enter()
        return self._epochs

    @property
    def steps(self) -> dict[str, list[int]]:
        """For each value of the columns, the training steps closed when it was logged."""
        self._enter()
        return self._steps

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

    def _enter(self) -> None:
        """Bring the columns up to the last row; each row is entered once."""
        for row in self.rows[self._entered :]:
            for name, value in row.metrics.items() if row.kind == "epoch" else ():
                self._columns.setdefault(name, []).append(value)
                self._epochs.setdefault(name, []).append(row.epoch)
                self._steps.setdefault(name, []).append(row.step)
        self._entered = len(self.rows)
