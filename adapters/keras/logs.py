"""Logs: what of the logs that `fit` gives its callbacks is a number."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...core.metric import scalar
from ...errors import MetricValueError


def number(name: str, value: Any) -> float | None:
    """Return a logged value as a float: a number, or a tensor that holds one; None if it is anything else."""
    try:
        return scalar(name, value)
    except MetricValueError:
        return None


def numbers(logs: Mapping[str, Any]) -> dict[str, float]:
    """Return those of the logs that are numbers."""
    found = ((name, number(name, value)) for name, value in logs.items())
    return {name: value for name, value in found if value is not None}
