"""Object names: what an object of a Checkpointer can be called; the files of a checkpoint are called so, too."""

from __future__ import annotations

import re
from collections.abc import Container, Mapping
from typing import Any

from ..errors import ConfigError
from . import rng

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*")


def check(objects: Mapping[str, Any], settings: Container[str]) -> None:
    """Raise unless objects can be called as they are; `settings` are names that a policy's settings have.

    Raises:
        ConfigError: one cannot, or is a setting.
    """
    for name, obj in objects.items():
        if name in settings and isinstance(obj, int | float | str | None):
            raise ConfigError(f"{name} is a setting of the policy: CheckpointPolicy({name}={obj!r}, …).")
        why = why_not(name)
        if why is not None:
            raise ConfigError(f"an object of a Checkpointer cannot be called '{name}': {why}. Call it something else.")


def why_not(name: str) -> str | None:
    """Return why an object cannot be called `name`, as a clause; None if it can."""
    if name == rng.NAME:
        return f"'{rng.NAME}' is taken by the random number generators"
    if not _NAME.fullmatch(name):
        return "it names a file: letters, digits, '_', '-' and '.' after a letter or '_'"
    return None
