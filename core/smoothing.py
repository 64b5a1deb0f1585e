"""Smoothing: what a monitor judges by when single values are too noisy. Pure: the state goes in and comes out."""

from __future__ import annotations

import statistics
from dataclasses import dataclass

from ..errors import ConfigError, did_you_mean
from .checks import check_whole

State = tuple[float, ...]
"""What a smoothing remembers: a bounded number of finite floats; empty before the first value."""


@dataclass(frozen=True, slots=True)
class ExponentialMean:
    """The mean of all values so far, in which a value weighs `decay` times as much as the one after it.

    Bias-corrected: the first value counts as itself, not as a step away from zero. Written "ema:0.9" in files.
    """

    decay: float = 0.9
    """Above 0, below 1. The mean is of about 1 / (1 - decay) values."""

    def __post_init__(self) -> None:
        if not 0 < self.decay < 1:
            raise ConfigError(f"decay must lie between 0 and 1 (exclusive), not {self.decay!r}.")

    def __str__(self) -> str:
        return f"ema:{self.decay!r}"

    def fold(self, state: State, value: float) -> tuple[State, float]:
        """Return the new state and the smoothed value."""
        mean, weight = state or (0.0, 0.0)
        weight = self.decay * weight + (1 - self.decay)
        # In this form equal values give exactly that value, so rounding never looks like an improvement.
        mean += (1 - self.decay) / weight * (value - mean)
        return (mean, weight), mean


@dataclass(frozen=True, slots=True)
class MovingMean:
    """The mean of the last `window` values, of fewer at the start. Written "mean:5" in files."""

    window: int = 5
    """Values, at least 1."""

    def __post_init__(self) -> None:
        check_whole("window", self.window, least=1)

    def __str__(self) -> str:
        return f"mean:{self.window}"

    def fold(self, state: State, value: float) -> tuple[State, float]:
        """Return the new state and the smoothed value."""
        state = (*state, value)[-self.window :]
        # Exact before it is rounded: the same values in another order are no improvement, and no sum overflows.
        return state, statistics.mean(state)


@dataclass(frozen=True, slots=True)
class MovingMedian:
    """The median of the last `window` values, of fewer at the start. Written "median:5" in files."""

    window: int = 5
    """Values, at least 1."""

    def __post_init__(self) -> None:
        check_whole("window", self.window, least=1)

    def __str__(self) -> str:
        return f"median:{self.window}"

    def fold(self, state: State, value: float) -> tuple[State, float]:
        """Return the new state and the smoothed value."""
        state = (*state, value)[-self.window :]
        return state, statistics.median(state)


Smoothing = ExponentialMean | MovingMean | MovingMedian


def parse_smoothing(text: object) -> Smoothing | None:
    """Return the smoothing that "ema:0.9", "mean:5" or "median:5" names; None and ready objects pass through.

    Raises:
        ConfigError: it names none, or a number that makes no sense.
    """
    if text is None or isinstance(text, Smoothing):
        return text
    kind, _, number = str(text).partition(":")
    kind = kind.strip().lower()
    try:
        if kind == "ema":
            return ExponentialMean(float(number))
        if kind == "mean":
            return MovingMean(int(number))
        if kind == "median":
            return MovingMedian(int(number))
    except ValueError as error:
        if isinstance(error, ConfigError):
            raise ConfigError(f"smoothing {text!r}: {error}") from None
        raise ConfigError(
            f"smoothing {text!r}: {number.strip() or 'nothing'!r} is not a number of that kind. "
            "Give a decay between 0 and 1, 'ema:0.9', or how many values, 'mean:5' or 'median:5'."
        ) from None
    hint = did_you_mean(kind, ("ema", "mean", "median"))
    raise ConfigError(f"unknown smoothing {text!r}. Use 'ema:0.9', 'mean:5' or 'median:5'.{hint}")
