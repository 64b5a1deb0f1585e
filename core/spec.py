"""MonitorSpec: how a metric is judged, as a frozen value that a file can hold."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BeforeValidator, Field, PlainSerializer, model_validator

from .monitor import MetricMonitor
from .setting import Setting, Whole, as_tuple
from .smoothing import Smoothing, parse_smoothing

Number = Annotated[float, Field(strict=True)]


def _texts(value: Any) -> Any:
    return (value,) if isinstance(value, str) else as_tuple(value)


class MonitorSettings(Setting):
    """How a metric is judged. The fields mean what the arguments of `MetricMonitor` of the same names mean."""

    _FIRST: ClassVar = "mode"

    mode: str = "auto"
    min_delta: Number | str = 0.0
    patience: Whole | None = None
    """Checks."""
    baseline: Number | None = None
    start_epoch: Whole = 0
    """From 0."""
    every: Whole = 1
    """Epochs."""
    smoothing: Annotated[
        Smoothing | str | None,
        BeforeValidator(parse_smoothing),
        PlainSerializer(lambda value: value and str(value), return_type=str | None),
    ] = None
    on_nonfinite: str = "warn"
    nonfinite_limit: Whole | None = None
    reduce: Literal["mean", "min", "max"] | Whole | None = None
    where: Annotated[str | Sequence[str], BeforeValidator(_texts)] = ()
    overfit_window: Whole = 5
    """Checks."""
    max_age: Whole = 0
    """Steps."""

    def monitor_for(self, key: str) -> MetricMonitor:
        """Return a fresh monitor of the metric `key`."""
        return MetricMonitor(key, **{name: getattr(self, name) for name in MonitorSettings.model_fields})


class MonitorSpec(MonitorSettings):
    """One monitored metric with settings of its own, for policies that watch several.

    Example:
        >>> MonitorSpec(key="val_f1", min_delta="1%").monitor_for("val_f1").mode
        'max'
    """

    _FIRST: ClassVar = "key"

    key: str
    """The metric's name, as it is logged."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        self.monitor_for(self.key)
        return self
