"""Warnings that point at the line of the user's program which called keepbest, however deep inside they arise."""

from __future__ import annotations

import sys
import warnings

_PACKAGE = __name__.partition(".")[0]


def warn_caller(message: str, category: type[Warning] = UserWarning) -> None:
    """Warn, and name the nearest line outside of keepbest as the place."""
    level = 2
    frame = sys._getframe(1)  # noqa: SLF001 - the documented way to walk the stack; warnings itself does so
    while frame.f_back is not None and frame.f_globals.get("__name__", "").partition(".")[0] == _PACKAGE:
        frame, level = frame.f_back, level + 1
    warnings.warn(message, category, stacklevel=level)
