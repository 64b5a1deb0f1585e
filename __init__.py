"""Keep the best model: watch metrics, decide what is worth keeping, write it fast, whole and safe.

This file is a facade: names and nothing else. Importing it imports no framework.
"""

from . import adapters as _adapters  # noqa: F401: fills the table of adapters; imports no framework
from .core.checkpointer import Checkpointer
from .core.decision import Decision
from .core.metric import Measured
from .core.monitor import MetricMonitor
from .core.policy import CheckpointPolicy
from .core.position import Position
from .core.state import Stateful
from .core.writer import SaveHandle
from .errors import (
    KeepbestError,
)
from .storage.checkpoint import Checkpoint
from .storage.history import History
from .storage.run import Run, open_run

__version__ = "0.1.0"
