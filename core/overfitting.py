"""Overfitting: does validation get worse while training gets better? Judged on two short sequences of values."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterable, Sequence

from .checks import check_whole
from .direction import Mode

MIN_WINDOW = 3
"""Checks. Through two points a line always fits, so fewer than three say nothing about a trend."""


def training_partners(key: str) -> tuple[str, ...]:
    """Return the names under which the training value beside the validation metric `key` may be logged.

    `val_loss` → `train_loss`, `training_loss`, `loss`; `val/loss` and `loss/val` likewise. A name that neither begins
    nor ends with a word for validation has no partner.
    """
    if found := _VALIDATION_FIRST.fullmatch(key):
        separator, name = found["separator"], found["name"]
        return (f"train{separator}{name}", f"training{separator}{name}", name)
    if found := _VALIDATION_LAST.fullmatch(key):
        separator, name = found["separator"], found["name"]
        return (f"{name}{separator}train", f"{name}{separator}training", name)
    return ()


def generalisation_gap(validation: float, training: float, mode: Mode) -> float:
    """Return how much worse validation is than training: positive when it is worse, whichever way is better."""
    return validation - training if mode == "min" else training - validation


def overfits(validation: Sequence[float], training: Sequence[float], mode: Mode) -> bool:
    """Say whether validation worsens while training improves over the same checks, the oldest first.

    A sequence has a trend when both hold:

    1. its last value lies beyond its first one in that direction, and
    2. the slope of the least-squares line through it has that direction, and is at least twice its standard error
       √(Σ(residual²) / (n - 2) / Σ(xᵢ - x̄)²); so the noise of a plateau is no trend.

    Overfitting is a trend of validation to the worse together with a trend of training to the better.
    """
    worse = 1.0 if mode == "min" else -1.0
    return _has_trend(validation, worse) and _has_trend(training, -worse)


class OverfittingWatch:
    """The pairs of the last `window` checks, and what they say."""

    __slots__ = ("_mode", "_training", "_validation", "_window")

    def __init__(self, mode: Mode, window: int) -> None:
        self._mode, self._window = mode, check_whole("overfit_window", window, least=MIN_WINDOW)
        self._validation: deque[float] = deque(maxlen=window)
        self._training: deque[float] = deque(maxlen=window)

    def see(self, validation: float, training: float) -> bool:
        """Take in the values of one check, both finite, and say whether the last `window` ones overfit."""
        self._validation.append(validation)
        self._training.append(training)
        return len(self._validation) == self._window and overfits(self._validation, self._training, self._mode)

    @property
    def pairs(self) -> tuple[tuple[float, float], ...]:
        """The validation and training values in the window, the oldest first."""
        return tuple(zip(self._validation, self._training, strict=True))

    @pairs.setter
    def pairs(self, pairs: Iterable[tuple[float, float]]) -> None:
        self._validation.clear()
        self._training.clear()
        for validation, training in pairs:
            self._validation.append(validation)
            self._training.append(training)


_WORDS = "val|valid|validation|eval|dev|test"
_VALIDATION_FIRST = re.compile(rf"(?:{_WORDS})(?P<separator>[_/\-. ])(?P<name>.+)", re.IGNORECASE)
_VALIDATION_LAST = re.compile(rf"(?P<name>.+)(?P<separator>[_/\-. ])(?:{_WORDS})", re.IGNORECASE)


def _has_trend(values: Sequence[float], sign: float) -> bool:
    # The cheap half first: most checks of a healthy training end here.
    if sign * (values[-1] - values[0]) <= 0:
        return False
    count = len(values)
    mean = sum(values) / count
    middle = (count - 1) / 2
    along = squares = 0.0
    for index, value in enumerate(values):
        away = value - mean
        along += (index - middle) * away
        squares += away * away
    spread = count * (count * count - 1) / 12  # Σ(xᵢ - x̄)² for x = 0, 1, …, n - 1
    slope = along / spread
    residual = max(squares - slope * along, 0.0)
    return sign * slope > 0 and slope * slope * spread * (count - 2) >= 4 * residual
