"""Checks of single settings: each returns the setting in the form that judging uses, or raises a ConfigError."""

from __future__ import annotations

import math
import operator
import reprlib
from numbers import Integral, Real
from typing import Any, Literal, get_args

from ..errors import ConfigError, did_you_mean

OnNonFinite = Literal["ignore", "warn", "stop", "raise"]

_MOST = 2**53
"""Of epochs, checks or values: more than a float counts, or a deque holds, is no setting but a mistake."""


def shown(value: object) -> str:
    """Return a value in words, whatever it is, and without unfolding what YAML can let refer to one list often."""
    try:
        return f"{reprlib.repr(value) if isinstance(value, list | dict | tuple | set) else repr(value):.60}"
    except (ValueError, RecursionError):  # Python shows no int of more than 4,300 digits, and nothing too deep
        return f"a value of type {type(value).__name__} that is too long to show"


def check_key(key: object) -> str:
    """Return the name of a metric, which is not empty, as a plain string."""
    if isinstance(key, str) and key.strip():
        return str.__str__(key)
    raise ConfigError(f"a monitor needs the name of a metric, not {shown(key)}.")


def as_int(number: Any) -> Any:
    """Return a whole number of another type, NumPy's for one, as an int; anything else, a bool too, as it is."""
    return operator.index(number) if not isinstance(number, bool) and isinstance(number, Integral) else number


def check_whole(name: str, number: object, *, least: int) -> int:
    """Return a whole number that is `least` or more, and no more than anything counts, as an int; True is none."""
    plain = as_int(number)
    if isinstance(plain, int) and not isinstance(plain, bool) and least <= plain <= _MOST:
        return plain
    most = "" if not isinstance(number, int) or number <= _MOST else " and at most 2**53"
    raise ConfigError(f"{name} must be a whole number, {least} or more{most}, not {shown(number)}.")


def check_finite(name: str, number: object) -> float:
    """Return a finite number as a float."""
    try:
        plain = float(number) if not isinstance(number, bool) and isinstance(number, Real) else math.nan
    except OverflowError:  # an int that no float holds
        plain = math.inf
    if math.isfinite(plain):
        return plain
    raise ConfigError(f"{name} must be a finite number, not {shown(number)}.")


def check_positive(name: str, number: object) -> float:
    """Return a finite number above 0 as a float."""
    checked = check_finite(name, number)
    if checked > 0:
        return checked
    raise ConfigError(f"{name} must be greater than 0, not {shown(number)}.")


def check_min_delta(min_delta: float | str) -> tuple[float, float]:
    """Return the absolute part and the relative one (a share, not a percentage)."""
    text = min_delta.strip() if isinstance(min_delta, str) else ""
    try:
        delta = float(text[:-1]) if text.endswith("%") else check_finite("min_delta", min_delta)
    except ValueError:
        delta = -1.0
    if not 0 <= delta < float("inf"):
        raise ConfigError(
            "min_delta is how much better a value must be, whichever way is better: 0 or more, a number such as 0.01 "
            f"or a share of the best such as '1%', not {shown(min_delta)}."
        )
    return (0.0, delta / 100) if text else (delta, 0.0)


def check_nonfinite(on_nonfinite: str, limit: int | None) -> tuple[OnNonFinite, int]:
    """Return what NaN and infinity lead to, and how many in a row it takes to end training."""
    choices: tuple[OnNonFinite, ...] = get_args(OnNonFinite)
    chosen = next((choice for choice in choices if choice == on_nonfinite), None)
    if chosen is None:
        raise ConfigError(
            f"on_nonfinite must be 'ignore', 'warn', 'stop' or 'raise', not {on_nonfinite!r}."
            f"{did_you_mean(str(on_nonfinite), choices)}"
        )
    if limit is None:
        return chosen, 1
    if chosen in ("ignore", "warn"):
        raise ConfigError(
            f"nonfinite_limit={limit} has no effect with on_nonfinite={chosen!r}, which never ends training. Say "
            "on_nonfinite='stop' or 'raise', or leave the limit out."
        )
    return chosen, check_whole("nonfinite_limit", limit, least=1)
