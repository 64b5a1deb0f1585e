"""Every exception a user can meet. This room imports nothing of the others.

    KeepbestError
    ├── ConfigError (ValueError)                a setting is wrong; raised at construction
    │   ├── UnknownModeError                    mode is none of auto, min, max
    │   ├── KeyFileError                        no key that signs or verifies
    │   ├── AmbiguousModeError                  mode="auto" and the metric's name is not in the table
    │   └── PolicyError                         a policy that contradicts itself or can never save
    ├── UsageError (RuntimeError)               calls in an order that cannot be right
    │   └── ClosedError                         the Checkpointer is closed
    ├── MetricError (ValueError)                a logged value cannot be judged
    │   ├── MissingMetricError (KeyError)       the monitored metric was not logged
    │   ├── MetricValueError (TypeError)        a string, a vector without a reduction, …
    │   ├── NonFiniteMetricError                NaN or infinity where the policy says raise
    │   └── PlaceholderError (KeyError)         a file's name asks for a metric that was not logged
    ├── UnknownMetricError (KeyError)           a history is asked for a metric that it has not
    ├── StateError                              state that cannot be captured or restored
    │   ├── UnsupportedStateError (TypeError)   neither tensor nor plain data, at a named path
    │   ├── StateMismatchError (ValueError)     shapes, dtypes or keys differ; nothing was restored
    │   └── TornStateError (RuntimeError)       a restore broke off, and not everything could be put back
    ├── RunError                                the run is not what the call needs
    │   ├── RunExistsError (FileExistsError)    it holds checkpoints and was not resumed
    │   ├── NotARunError (NotADirectoryError)   the URL is a file, or holds no run
    │   ├── CheckpointNotFoundError (LookupError)
    │   │   └── AmbiguousNameError              the beginning of a name that fits several
    │   └── ConcurrentWriterError               another training committed to the same run
    │       └── DivergedError                   a run and its mirror do not continue one another
    ├── DamagedError (ValueError)               what is stored is not what was written
    │   ├── DamagedManifestError
    │   ├── DamagedFileError                    names the file, and the tensor if there is one
    │   ├── UnsupportedFormatError              written by a newer keepbest
    │   └── UntrustedError                      not signed by the trusted key, or not as it stands there
    ├── ForeignFileError (ValueError)           another program's checkpoint is damaged, unsafe or does not fit
    ├── StorageError (OSError)                  the place to store refused
    │   ├── ObjectNotFoundError (FileNotFoundError)
    │   ├── ObjectExistsError (FileExistsError)
    │   ├── StorageFullError
    │   ├── StoragePermissionError (PermissionError)
    │   ├── CredentialsError (PermissionError)  none, wrong or expired
    │   ├── BucketNotFoundError                 the bucket itself, not an object in it
    │   ├── WrongRegionError                    the bucket is in another region
    │   ├── UnreachableError (ConnectionError)  no answer within the deadline
    │   ├── UnexpectedAnswerError               whoever answered is not the store: a proxy, a login page
    │   └── ConditionalWriteError               the store cannot create a key only if it is absent
    ├── SaveFailedError                         a save in the background failed; __cause__ says why
    └── MirrorFailedError                       checkpoints are saved, and not in the mirror; __cause__ says why

Leaves also inherit the builtin in brackets, so code that catches builtins keeps working. The constructor takes the
facts, builds the text (what happened, where, what to do next) and keeps the facts as attributes.

Each docstring has two more lines: "When:" it is raised, and what to "Do:". docs/messages.md is made of them.
"""

from __future__ import annotations

from .base import KeepbestError, did_you_mean
from .damage import DamagedError, DamagedFileError, DamagedManifestError, UnsupportedFormatError, UntrustedError
from .foreign import ForeignFileError
from .metrics import (
    MetricError,
    MetricValueError,
    MissingMetricError,
    NonFiniteMetricError,
    PlaceholderError,
    UnknownMetricError,
)
from .runs import (
    AmbiguousNameError,
    CheckpointNotFoundError,
    ConcurrentWriterError,
    DivergedError,
    NotARunError,
    RunError,
    RunExistsError,
)
from .saves import MirrorFailedError, SaveFailedError
from .settings import (
    AmbiguousModeError,
    ClosedError,
    ConfigError,
    KeyFileError,
    PolicyError,
    UnknownModeError,
    UsageError,
)
from .states import StateError, StateMismatchError, TornStateError, UnsupportedStateError
from .stores import (
    BucketNotFoundError,
    ConditionalWriteError,
    CredentialsError,
    ObjectExistsError,
    ObjectNotFoundError,
    StorageError,
    StorageFullError,
    StoragePermissionError,
    UnexpectedAnswerError,
    UnreachableError,
    WrongRegionError,
)

__all__ = [
    "AmbiguousModeError",
    "AmbiguousNameError",
    "BucketNotFoundError",
    "CheckpointNotFoundError",
    "ClosedError",
    "ConcurrentWriterError",
    "ConditionalWriteError",
    "ConfigError",
    "CredentialsError",
    "DamagedError",
    "DamagedFileError",
    "DamagedManifestError",
    "DivergedError",
    "ForeignFileError",
    "KeepbestError",
    "KeyFileError",
    "MetricError",
    "MetricValueError",
    "MirrorFailedError",
    "MissingMetricError",
    "NonFiniteMetricError",
    "NotARunError",
    "ObjectExistsError",
    "ObjectNotFoundError",
    "PlaceholderError",
    "PolicyError",
    "RunError",
    "RunExistsError",
    "SaveFailedError",
    "StateError",
    "StateMismatchError",
    "StorageError",
    "StorageFullError",
    "StoragePermissionError",
    "TornStateError",
    "UnexpectedAnswerError",
    "UnknownMetricError",
    "UnknownModeError",
    "UnreachableError",
    "UnsupportedFormatError",
    "UnsupportedStateError",
    "UntrustedError",
    "UsageError",
    "WrongRegionError",
    "did_you_mean",
]

for _kind in list(vars().values()):
    if isinstance(_kind, type) and issubclass(_kind, KeepbestError):
        _kind.__module__ = __name__  # a traceback then says keepbest.errors, which is where they are imported from
