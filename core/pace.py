"""Pace: how much of the machine saving may take from training."""

from __future__ import annotations

import contextlib
import math
import os
import threading
from typing import Literal

from msgspec import Struct

from ..errors import ConfigError

_STEP = 1.25
"""The weight of a thread falls by this factor with each level of niceness. Source: sched(7), "nice"."""


class Pace(Struct, frozen=True, kw_only=True):
    """Settings of a Checkpointer that cost or give it resources."""

    mode: Literal["async", "sync"] = "async"
    """"sync": training waits until each save is committed."""
    snapshot: Literal["overlap", "copy"] = "overlap"
    """"copy": all is copied before training goes on, whatever fences there are."""
    max_staging_bytes: int | None = None
    """Host memory that a snapshot may take; a save that needs more is one that training waits for."""
    writer_share: float = 0.1
    """Of a core, what the writer gets where training wants it too, from 0 to 0.5."""

    def __post_init__(self) -> None:
        for name, choices in (("mode", ("async", "sync")), ("snapshot", ("overlap", "copy"))):
            given = getattr(self, name)
            if given not in choices:
                first, second = choices
                raise ConfigError(
                    f"unknown {name} {given!r} of a Checkpointer. Use {name}={first!r} or {name}={second!r}."
                )
        size = self.max_staging_bytes
        if size is not None and (not isinstance(size, int) or isinstance(size, bool) or size < 0):
            raise ConfigError(f"max_staging_bytes= is a whole number of bytes, or None (got {size!r}).")
        share = self.writer_share
        if not isinstance(share, int | float) or isinstance(share, bool) or not 0 < share <= 0.5:  # noqa: PLR2004
            raise ConfigError(f"writer_share= is more than 0 and at most 0.5 of a core (got {share!r}).")

    def slow_down(self) -> None:
        """Give the calling thread its share. Where threads have no niceness of their own, nothing happens."""
        level = min(19, round(math.log((1 - self.writer_share) / self.writer_share, _STEP)))
        if level and hasattr(os, "setpriority") and os.uname().sysname == "Linux":
            with contextlib.suppress(OSError):  # a limit on niceness; it may only be raised
                thread = threading.get_native_id()
                os.setpriority(os.PRIO_PROCESS, thread, os.getpriority(os.PRIO_PROCESS, thread) + level)
