"""Object names: what an object of a Checkpointer can be called; the files of a checkpoint are called so, too."""

from __future__ import annotations

import re

from . import rng

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*")


def why_not(name: str) -> str | None:
    """Return why an object cannot be called `name`, as a clause; None if it can."""
    if name == rng.NAME:
        return f"'{rng.NAME}' is taken by the random number generators"
    if not _NAME.fullmatch(name):
        return "it names a file: letters, digits, '_', '-' and '.' after a letter or '_'"
    return None
