"""History: the logged metrics as columns, the way Keras' `History.history` gives them."""

from __future__ import annotations

import importlib
import math
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal, NoReturn, TypeVar

from msgspec import Struct, field

from ..errors import ConfigError, UnknownMetricError

if TYPE_CHECKING:
    import pandas as pd
    import polars as pl

_Value = TypeVar("_Value")
_FACTS = ("kind", "epoch", "step", "time")


class Row(Struct, frozen=True, kw_only=True):
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


class Columns(dict[str, list[_Value]]):
    """Lists by metric. Who asks for a metric that was not logged is told which were."""

    def __missing__(self, metric: object) -> NoReturn:
        raise UnknownMetricError(metric, self)


class History(Mapping[str, list[float]]):
    """Columns of the metrics logged at the ends of epochs; `steps_log` has the rows of single steps.

    `history["val_loss"]` is a list of floats, one for each epoch that logged it. The same index into
    `history.epochs["val_loss"]` and `history.steps["val_loss"]` says when.

    Raises:
        UnknownMetricError: one of the three is asked for a metric that it has not; `in` and `get()` do not raise.
    """

    def __init__(self, rows: Iterable[Row] = ()) -> None:
        self.rows: list[Row] = list(rows)
        self._entered = 0
        self._columns: Columns[float] = Columns()
        self._epochs: Columns[int] = Columns()
        self._steps: Columns[int] = Columns()

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

    def to_pandas(self) -> pd.DataFrame:
        """Return every row, of epochs and of single steps, as a pandas DataFrame, in the order they were logged.

        Columns: `kind` ("epoch" or "step"), `epoch` (from 0), `step`, `time` (UTC), then the metrics in the order they
        were first logged, NaN where a row has not logged them. A metric that is called like one of the four is called
        `metric_epoch` and so on.

        Raises:
            ConfigError: pandas is not installed.

        Example:
            >>> keepbest.open_run("runs/7").history().to_pandas().query("kind == 'epoch'").plot(x="epoch", y="val_loss")
        """
        pandas = _imported("pandas")
        facts, metrics = self._table(missing=math.nan)
        facts["time"] = pandas.Series(facts["time"], dtype="datetime64[us, UTC]")
        frame: pd.DataFrame = pandas.DataFrame(facts | metrics)
        return frame

    def to_polars(self) -> pl.DataFrame:
        """Return every row as a polars DataFrame, as `to_pandas` does, with null where a row has not logged a metric.

        Raises:
            ConfigError: polars is not installed.
        """
        polars = _imported("polars")
        facts, metrics = self._table(missing=None)
        types = (polars.String, polars.Int64, polars.Int64, polars.Datetime("us", "UTC"))
        schema = dict(zip(_FACTS, types, strict=True)) | dict.fromkeys(metrics, polars.Float64)
        frame: pl.DataFrame = polars.DataFrame(facts | metrics, schema=schema)
        return frame

    def _table(self, *, missing: float | None) -> tuple[dict[str, Any], dict[str, list[float | None]]]:
        """Return the columns of what is known of each row, and those of its metrics."""
        facts = {
            "kind": [row.kind for row in self.rows],
            "epoch": [row.epoch for row in self.rows],
            "step": [row.step for row in self.rows],
            "time": [_moment(row.time) for row in self.rows],
        }
        metrics: dict[str, list[float | None]] = {}
        for number, row in enumerate(self.rows):
            for name, value in row.metrics.items():
                if name not in metrics:
                    metrics[name] = [missing] * len(self.rows)
                metrics[name][number] = value
        return facts, {_column(name, metrics): values for name, values in metrics.items()}

    def __getitem__(self, name: str) -> list[float]:
        return self.columns[name]

    def __contains__(self, name: object) -> bool:
        return name in self.columns

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


def _column(metric: str, metrics: Iterable[str]) -> str:
    """Return what a metric's column is called."""
    name = metric
    while name in _FACTS or (name != metric and name in metrics):
        name = f"metric_{name}"
    return name


def _moment(time: float) -> datetime | None:
    """Return a moment (seconds since 1970); None for one in no year that has a date."""
    try:
        return datetime.fromtimestamp(time, UTC)
    except (OverflowError, ValueError, OSError):  # a journal may hold any number
        return None


def _imported(package: str) -> Any:
    try:
        return importlib.import_module(package)
    except ModuleNotFoundError as error:
        if error.name != package:
            raise
        raise ConfigError(f"to_{package}() needs {package}, which is not installed: pip install {package}.") from error
