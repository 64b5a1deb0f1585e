"""Keep the best model: watch metrics, decide what is worth keeping, write it fast, whole and safe.

This file is a facade: names and nothing else. Each is imported when it is first used, so `import keepbest` is instant;
no framework is imported before an object of it is handed over.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

__version__ = "0.1.0"

if TYPE_CHECKING:
    from . import errors as errors
    from .core.checkpointer import Checkpointer
    from .core.decision import Decision
    from .core.metric import Measured
    from .core.monitor import MetricMonitor
    from .core.policy import CheckpointPolicy
    from .core.position import Position
    from .core.spec import MonitorSpec
    from .core.state import Stateful
    from .core.writer import SaveHandle
    from .errors import KeepbestError
    from .storage.checkpoint import Checkpoint
    from .storage.history import History
    from .storage.progress import on_progress
    from .storage.run import Run, open_run
    from .storage.trust import Trusted

_HOMES = {
    "Checkpoint": ".storage.checkpoint",
    "CheckpointPolicy": ".core.policy",
    "Checkpointer": ".core.checkpointer",
    "Decision": ".core.decision",
    "History": ".storage.history",
    "KeepbestError": ".errors",
    "Measured": ".core.metric",
    "MetricMonitor": ".core.monitor",
    "MonitorSpec": ".core.spec",
    "Position": ".core.position",
    "Run": ".storage.run",
    "SaveHandle": ".core.writer",
    "Stateful": ".core.state",
    "Trusted": ".storage.trust",
    "on_progress": ".storage.progress",
    "open_run": ".storage.run",
}

__all__ = [
    "Checkpoint",
    "CheckpointPolicy",
    "Checkpointer",
    "Decision",
    "History",
    "KeepbestError",
    "Measured",
    "MetricMonitor",
    "MonitorSpec",
    "Position",
    "Run",
    "SaveHandle",
    "Stateful",
    "Trusted",
    "on_progress",
    "open_run",
]


def __getattr__(name: str) -> object:
    if name == "errors":
        return importlib.import_module(".errors", __name__)
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'keepbest' has no attribute '{name}'")
    importlib.import_module(".adapters", __name__)  # fills the table of adapters; imports no framework
    found: object = getattr(importlib.import_module(home, __name__), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return [*__all__, "errors", "__version__"]
