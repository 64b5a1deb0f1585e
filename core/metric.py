"""A logged value becomes one float here; what the float means is for the monitor to say."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from ..errors import ConfigError, MetricError, MetricValueError, did_you_mean

Reduce = Literal["mean", "min", "max"] | int | None
"""How a vector becomes one number; an int picks one element of the flattened vector, counted as Python counts."""


@dataclass(frozen=True, slots=True)
class Measured:
    """A value that says when it was measured, so that a stale one cannot rank a checkpoint.

    Example:
        >>> Measured(0.31, step=1200).step
        1200
    """

    value: object
    """Whatever `scalar` takes."""
    step: int | None = field(default=None, kw_only=True)
    """Training steps closed when it was measured; None where the loop does not say."""
    epoch: int | None = field(default=None, kw_only=True)
    """From 0; None where the loop does not say."""


def scalar(name: str, value: object, reduce: Reduce = None) -> float:
    """Return a logged value as one float.

    Numbers, NumPy scalars, and arrays or tensors of any framework that hold one number are taken as they are
    (`reduce` leaves them alone). A value on a device is fetched, which waits for the device.

    Args:
        name: the metric's name, for the error.
        value: a number, an array or tensor, a list or tuple of numbers, or a `Measured` of one of these.
        reduce: what to do with a vector: "mean", "min", "max", or the index of one element.

    Raises:
        MetricValueError: the value is not one number and `reduce` does not make it one.
        ConfigError: `reduce` is none of the above.
    """
    if type(value) is float:
        return value
    if isinstance(value, float | int):  # bool and numpy.float64 too; what float() makes of them is exact enough
        return _as_float(name, value, value)
    if isinstance(value, Measured):
        return scalar(name, value.value, reduce)
    numbers = _numbers(name, value, wanted=reduce is not None)
    if len(numbers) == 1:
        return numbers[0]
    return _reduced(name, value, numbers, reduce)


def scalars(metrics: Mapping[str, object], reductions: Mapping[str, Reduce] | None = None) -> dict[str, float]:
    """Return all of `metrics` as floats, ready for a row of the history.

    Args:
        metrics: name → anything `scalar` takes.
        reductions: name → what to do with a vector of that name.

    Raises:
        MetricValueError: one of them is not one number.
        MetricError: a name is no text.
    """
    check_names(metrics)
    if not reductions:
        return {name: scalar(name, value) for name, value in metrics.items()}
    return {name: scalar(name, value, reductions.get(name)) for name, value in metrics.items()}


def together(metrics: Mapping[str, object] | None, named: dict[str, object]) -> Mapping[str, object]:
    """Return the metrics of one call: those in a mapping, and those by name.

    Raises:
        MetricError: the first is no mapping.
    """
    if metrics is None:
        return named
    if not isinstance(metrics, Mapping):
        raise MetricError(
            f"metrics are logged by name, log(val_loss=0.5) or log({{'val_loss': 0.5}}), not {metrics!r:.60}."
        )
    return {**metrics, **named}


def check_names(metrics: Mapping[str, object]) -> None:
    """Check that all names are text, and can be written.

    Raises:
        MetricError: one is not.
    """
    for name in metrics:
        if not isinstance(name, str):
            raise MetricError(f"the name of a metric is text, not {name!r} (of type {type(name).__name__}).")
        if not name.isascii() and name.encode(errors="ignore").decode() != name:
            raise MetricError(
                f"the name of a metric is text that UTF-8 can hold, not {name!r}. Call it something else."
            )


def check_reduce(reduce: object) -> None:
    """Check that `reduce` is a reduction.

    Raises:
        ConfigError: it is not.
    """
    if reduce is None or reduce in _REDUCTIONS or (isinstance(reduce, int) and not isinstance(reduce, bool)):
        return
    raise ConfigError(
        f"reduce must be 'mean', 'min', 'max' or the index of an element, not {reduce!r}."
        f"{did_you_mean(str(reduce), _REDUCTIONS)}"
    )


_REDUCTIONS = ("mean", "min", "max")
_HINT = "say reduce='mean', 'min', 'max' or the index of one element, or log one number"


def _as_float(name: str, number: Any, value: object) -> float:
    if isinstance(number, complex | str | bytes | bytearray):
        raise MetricValueError(name, value, f"{_a(number)}, where one real number is needed")
    try:
        return float(number)
    except OverflowError as error:
        raise MetricValueError(name, value, "too large for a float") from error
    except (TypeError, ValueError) as error:
        raise MetricValueError(name, value, _what_it_is(value)) from error


def _numbers(name: str, value: Any, *, wanted: bool) -> list[float]:
    """Return the numbers in `value`, flattened; a vector that nobody wants is refused before it is fetched."""
    if isinstance(value, list | tuple):
        numbers = [number for item in value for number in _numbers(name, item, wanted=True)]
        if len(numbers) <= 1 or wanted:
            return numbers
        raise MetricValueError(name, value, f"{len(numbers)} numbers, not one; {_HINT}")
    shape = getattr(value, "shape", None)
    if shape is None or isinstance(value, type):
        return [_as_float(name, value, value)]
    try:
        lengths = [int(length) for length in shape]
        fetch = wanted or math.prod(lengths) == 1
        flat = _flat(_fetched(value)) if fetch else []
    except Exception as error:
        # Symbolic, traced and meta tensors each raise something of their own when asked for their value.
        raise MetricValueError(
            name, value, "a tensor whose value cannot be read here; log it outside of compiled and traced functions"
        ) from error
    if not fetch:
        raise MetricValueError(name, value, f"an array of shape {tuple(lengths)}, not one number; {_HINT}")
    return [_as_float(name, number, value) for number in flat]


def _fetched(value: Any) -> Any:
    # A TensorFlow tensor and a Keras variable give their value by numpy(); a torch tensor has numpy() too, but refuses
    # while it needs a gradient or lies on a GPU, so tolist() is asked first.
    held = value if hasattr(value, "tolist") or not hasattr(value, "numpy") else value.numpy()
    return held.tolist() if hasattr(held, "tolist") else held


def _flat(nested: Any) -> list[Any]:
    if isinstance(nested, list):
        return [number for item in nested for number in _flat(item)]
    return [nested]


def _reduced(name: str, value: object, numbers: list[float], reduce: Reduce) -> float:
    if not numbers:
        raise MetricValueError(name, value, "empty: there is no number in it")
    check_reduce(reduce)
    if isinstance(reduce, int):
        if not -len(numbers) <= reduce < len(numbers):
            raise MetricValueError(name, value, f"{len(numbers)} numbers, so it has no element {reduce} (reduce)")
        return numbers[reduce]
    if any(number != number for number in numbers):  # noqa: PLR0124 - true for NaN only, which min and max would lose
        return float("nan")
    if reduce == "mean":
        return sum(numbers) / len(numbers)
    return min(numbers) if reduce == "min" else max(numbers)


def _what_it_is(value: Any) -> str:
    if hasattr(value, "compute"):
        return "a metric object, not its value; log what its compute() returns"
    if hasattr(value, "result"):
        return "a metric object, not its value; log what its result() returns"
    if callable(value):
        return "a function, not a value; call it and log what it returns"
    if isinstance(value, Mapping):
        return "a dictionary, not one number; log its entries under names of their own"
    return f"{_a(value)}, where one real number is needed"


def _a(value: object) -> str:
    if value is None:
        return "None"
    words = {str: "a string", bytes: "bytes", bytearray: "bytes", complex: "a complex number"}
    return next((text for kind, text in words.items() if isinstance(value, kind)), f"of type {type(value).__name__}")
