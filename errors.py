"""Every exception a user can meet. This file imports nothing of ours.

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
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from typing import Any


class KeepbestError(Exception):
    """The base of every error keepbest raises on purpose."""

    def __str__(self) -> str:
        # KeyError shows the repr of its argument and OSError its errno: ours always show the sentence.
        return str(self.args[0]) if self.args else ""

    def __reduce__(self) -> tuple[Any, ...]:
        # The constructors take facts, not the text: rebuild without calling them, so errors cross processes.
        return (_rebuild, (type(self), self.args, self.__dict__))


def _rebuild(kind: type[KeepbestError], args: tuple[Any, ...], facts: dict[str, Any]) -> KeepbestError:
    error = kind.__new__(kind, *args)
    error.args = args
    error.__dict__.update(facts)
    return error


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return `" Did you mean 'val_loss'?"`, or an empty string when nothing known is close to `word`."""
    close = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f" Did you mean '{close[0]}'?" if close else ""


def _listed(names: Iterable[object]) -> str:
    return ", ".join(str(name) for name in names) or "nothing"


# ── settings ──────────────────────────────────────────────────────────────────────────────────────────────────────


class ConfigError(KeepbestError, ValueError):
    """A setting is wrong. Raised when the object is made, before any training."""


class UnknownModeError(ConfigError):
    """`mode` is none of "auto", "min" and "max"."""

    def __init__(self, mode: object) -> None:
        self.mode = mode
        super().__init__(
            f"unknown mode {mode!r}.{_not_this_mode(mode)} Use mode='min' if lower is better, mode='max' if higher is "
            "better, or "
            f"mode='auto' for the metric names keepbest knows.{did_you_mean(str(mode).lower(), ('auto', 'min', 'max'))}"
        )


def _not_this_mode(mode: object) -> str:
    return " (mode='sync' and 'async' are the Checkpointer's.)" if mode in {"sync", "async"} else ""


class AmbiguousModeError(ConfigError):
    """`mode="auto"`, and nothing says whether the metric should fall or rise."""

    def __init__(self, metric: str, known: Sequence[str] = ()) -> None:
        self.metric = metric
        stage, word = _stage_and_word(metric)
        hint = did_you_mean(metric, [stage + name for name in known]) if word else ""
        super().__init__(
            f"mode='auto' cannot tell whether '{metric}' should fall or rise: the name is not in the table of known "
            f"metrics.{hint} Say mode='min' (lower is better) or mode='max' (higher is better)."
        )


def _stage_and_word(metric: str) -> tuple[str, str]:
    """Split "val_los" into "val_" and "los", so that "val_loss" can be suggested."""
    for stage in ("val", "valid", "validation", "train", "test", "eval"):
        for separator in "_/":
            if metric.lower().startswith(stage + separator):
                return metric[: len(stage) + 1], metric[len(stage) + 1 :]
    return "", metric


class KeyFileError(ConfigError):
    """A file is no key to sign or to verify with. What is in it is never shown."""

    def __init__(self, location: str, problem: str) -> None:
        self.location, self.problem = location, problem
        super().__init__(
            f"{location} {problem}. Make a pair of keys by `openssl genpkey -algorithm ed25519 -out signing.pem` and "
            "`openssl pkey -in signing.pem -pubout -out signing.pub.pem`: sign with the first, verify with the second."
        )


class PolicyError(ConfigError):
    """A policy that contradicts itself, can never save, or has a field that does not exist."""


# ── order of calls ────────────────────────────────────────────────────────────────────────────────────────────────


class UsageError(KeepbestError, RuntimeError):
    """Calls came in an order that cannot be right; the text says which order is."""


class ClosedError(UsageError):
    """The Checkpointer was used after `close()`."""

    def __init__(self, call: str, url: str) -> None:
        self.call, self.url = call, url
        super().__init__(f"{call}() was called on a Checkpointer that is closed ({url}). Open a new one to go on.")


# ── metrics ───────────────────────────────────────────────────────────────────────────────────────────────────────


class MetricError(KeepbestError, ValueError):
    """A logged value cannot be judged."""


class MissingMetricError(MetricError, KeyError):
    """The monitored metric is not among those that were logged."""

    def __init__(self, metric: str, logged: Iterable[str], *, epoch: int | None = None) -> None:
        self.metric, self.logged, self.epoch = metric, tuple(logged), epoch
        where = "" if epoch is None else f" in epoch {epoch + 1}"
        super().__init__(
            f"the monitored metric '{metric}' was not logged{where}. Logged: {_listed(self.logged)}."
            f"{did_you_mean(metric, self.logged)} Log it, monitor another one, or say every=n where validation runs "
            "only every n epochs."
        )


class MetricValueError(MetricError, TypeError):
    """A metric's value is not one number: a string, None, a vector without a named reduction."""

    def __init__(self, metric: str, value: object, problem: str) -> None:
        self.metric, self.problem, self.kind = metric, problem, type(value).__name__
        super().__init__(f"the metric '{metric}' is {problem} (got {self.kind}: {value!r:.80}).")


class NonFiniteMetricError(MetricError):
    """A monitored value is NaN or infinite, and the policy says to raise."""

    def __init__(self, metric: str, value: float, *, epoch: int, step: int) -> None:
        self.metric, self.value, self.epoch, self.step = metric, value, epoch, step
        super().__init__(
            f"the monitored metric '{metric}' is {value} in epoch {epoch + 1} (step {step}). The best checkpoint is "
            "unharmed. Lower the learning rate or look at the data; on_nonfinite='warn' would train on."
        )


class PlaceholderError(MetricError, KeyError):
    """A file's name has a placeholder, such as `{val_loss:.2f}`, for what was not logged."""

    def __init__(self, filepath: str, placeholder: str, logged: Iterable[str]) -> None:
        self.filepath, self.placeholder, self.logged = filepath, placeholder, tuple(logged)
        super().__init__(
            f"Failed to format this callback filepath: \"{filepath}\". Reason: '{placeholder}' was not logged. "
            f"Logged: {_listed(self.logged)}.{did_you_mean(placeholder, self.logged)}"
        )


# ── state ─────────────────────────────────────────────────────────────────────────────────────────────────────────


class StateError(KeepbestError):
    """State cannot be captured or restored."""


class UnsupportedStateError(StateError, TypeError):
    """A value in the state is neither a tensor nor plain data."""

    def __init__(self, path: str, value: object, *, why: str | None = None) -> None:
        self.path, self.kind = path, f"{type(value).__module__}.{type(value).__qualname__}"
        super().__init__(
            f"cannot save {path}: a {self.kind} {why or 'is neither a tensor nor plain data'}. Give it state_dict() "
            "and load_state_dict(state) that return and take tensors and plain values, or leave it out of the state. "
            "(keepbest never pickles: loading a checkpoint must not run code.)"
        )


class StateMismatchError(StateError, ValueError):
    """What is stored does not fit the objects to restore. Nothing was changed."""

    def __init__(self, checkpoint: str, problems: Sequence[str]) -> None:
        self.checkpoint, self.problems = checkpoint, tuple(problems)
        lines = "".join(f"\n  - {problem}" for problem in self.problems)
        super().__init__(
            f"checkpoint {checkpoint} does not fit; nothing was restored. {len(self.problems)} difference(s):{lines}\n"
            "Build the objects as they were when it was saved, or restore only some with only=[…]."
        )


class TornStateError(StateError, RuntimeError):
    """A restore broke off half-way: some objects hold the checkpoint's state, others their own."""

    def __init__(self, checkpoint: str, problems: Sequence[str] = ()) -> None:
        self.checkpoint, self.problems = checkpoint, tuple(problems)
        lines = "".join(f"\n  - {problem}" for problem in self.problems)
        super().__init__(
            f"restoring checkpoint {checkpoint} broke off half-way, so the objects do not belong together.{lines}\n"
            "Nothing is logged or saved until resume() or restore() of a whole checkpoint has come through."
        )


# ── runs ──────────────────────────────────────────────────────────────────────────────────────────────────────────


class RunError(KeepbestError):
    """The run is not what the call needs."""


class RunExistsError(RunError, FileExistsError):
    """The run holds checkpoints already, and was neither resumed nor restored."""

    def __init__(self, url: str, latest: str) -> None:
        self.url, self.latest = url, latest
        super().__init__(
            f"{url} already holds checkpoints (the latest is {latest}), and this Checkpointer did not resume them, so "
            "nothing was written. Loop over ckpt.epochs(n) or call ckpt.resume() to continue, call "
            "ckpt.restore('best') to branch off the best, or give another URL for a fresh run."
        )


class NotARunError(RunError, NotADirectoryError):
    """The URL names a file, or a place that holds no run."""

    def __init__(self, url: str, problem: str) -> None:
        self.url, self.problem = url, problem
        super().__init__(f"{url} {problem}. Give the folder or prefix that a Checkpointer writes to.")


class CheckpointNotFoundError(RunError, LookupError):
    """No committed checkpoint answers to that name."""

    def __init__(self, wanted: object, url: str, known: Sequence[str] = ()) -> None:
        self.wanted, self.url, self.known = wanted, url, tuple(known)
        held = f"It holds {_listed(known[-8:])}." if known else "It holds none."
        super().__init__(
            f"no checkpoint '{wanted}' in {url}. {held}{did_you_mean(str(wanted), (*known, 'best', 'latest'))}"
        )


class AmbiguousNameError(CheckpointNotFoundError):
    """The beginning of a checkpoint's name that was given fits several."""

    def __init__(self, wanted: str, url: str, matching: Sequence[str]) -> None:
        super().__init__(wanted, url, matching)
        text = (
            f"'{wanted}' is the beginning of {len(matching)} checkpoints in {url}, among them "
            f"{_listed(matching[-8:])}. Give more of the name, or the sequence number."
        )
        self.args = (text,)


class ConcurrentWriterError(RunError):
    """Another training committed to this run since this one opened it."""

    sequence: int | None

    def __init__(self, url: str, sequence: int, other: str) -> None:
        self.url, self.sequence, self.other = url, sequence, other
        super().__init__(
            f"another writer ({other}) committed number {sequence} to {url} while this training was running, so this "
            "checkpoint was not committed and nothing of the other was touched. Two trainings must not write to one "
            "run: stop one of them, then resume, or give each its own URL."
        )


class DivergedError(ConcurrentWriterError):
    """A run and its mirror hold checkpoints that do not continue one another. Nothing was written to either."""

    def __init__(self, url: str, mirror: str, *, sequence: int | None, ours: str, theirs: str) -> None:
        self.url, self.mirror, self.sequence, self.ours, self.other = url, mirror, sequence, ours, theirs
        difference = (
            f"have nothing in common: the newest checkpoint here is {ours}, there it is {theirs}"
            if sequence is None
            else f"went different ways: number {sequence} is {ours} here, and {theirs} there"
        )
        super(ConcurrentWriterError, self).__init__(
            f"{url} and its mirror {mirror} {difference}. Nothing was written to either. To go on with this one, give "
            "another mirror; to go on with the mirror's, give another URL, which it will be brought back to."
        )


# ── damage ────────────────────────────────────────────────────────────────────────────────────────────────────────


class DamagedError(KeepbestError, ValueError):
    """What is stored is not what was written."""


class DamagedManifestError(DamagedError):
    """A manifest is cut short, altered or not a manifest."""

    def __init__(self, location: str, problem: str) -> None:
        self.location, self.problem = location, problem
        super().__init__(
            f"the manifest {location} is damaged: {problem}. Other checkpoints of the run are not affected; "
            "`keepbest verify` lists which are whole."
        )


class DamagedFileError(DamagedError):
    """A data file is missing, too short or altered."""

    def __init__(self, location: str, problem: str, *, tensor: str | None = None) -> None:
        self.location, self.problem, self.tensor = location, problem, tensor
        what = f"the tensor '{tensor}' in {location}" if tensor is not None else location
        super().__init__(f"{what} is damaged: {problem}. Nothing was restored; load another checkpoint of the run.")


class UnsupportedFormatError(DamagedError):
    """The manifest was written in a format that this version does not know."""

    def __init__(self, location: str, found: object, supported: int) -> None:
        self.location, self.found, self.supported = location, found, supported
        super().__init__(
            f"{location} has format version {found}; this keepbest reads version {supported}. "
            "Install a newer keepbest to read it."
        )


class UntrustedError(DamagedError):
    """What is stored is not what the holder of the trusted key signed. Nothing of it was used."""

    def __init__(self, location: str, problem: str, *, key: str | None = None, tensor: str | None = None) -> None:
        self.location, self.problem, self.key, self.tensor = location, problem, key, tensor
        what = f"the tensor '{tensor}' in {location}" if tensor is not None else location
        by = "" if key is None else f" ({key})"
        super().__init__(
            f"{what} is not trusted{by}: {problem}. Nothing was restored. Take a checkpoint that the holder of the key "
            "signed, which `keepbest verify --key` finds; or, if you know where this one comes from, sign it."
        )


# ── storage ───────────────────────────────────────────────────────────────────────────────────────────────────────


class StorageError(KeepbestError, OSError):
    """The place to store refused, in a way that no more special error names."""

    def __init__(self, location: str, problem: str) -> None:
        self.location, self.problem = location, problem
        super().__init__(f"{location}: {problem}")


class ObjectNotFoundError(StorageError, FileNotFoundError):
    """No object of that key."""

    def __init__(self, location: str) -> None:
        super().__init__(location, "does not exist.")


class ObjectExistsError(StorageError, FileExistsError):
    """An object of that key exists, and the call was to create it only if absent."""

    def __init__(self, location: str) -> None:
        super().__init__(location, "exists already and was not overwritten.")


class StorageFullError(StorageError):
    """No space or quota left."""

    def __init__(self, location: str, *, needed: int | None = None, free: int | None = None) -> None:
        self.needed, self.free = needed, free
        figures = "" if needed is None or free is None else f" ({needed:,} bytes are needed, {free:,} are free)"
        super().__init__(
            location, f"no space is left{figures}. Older checkpoints are unharmed. Free some space, or keep fewer."
        )


class StoragePermissionError(StorageError, PermissionError):
    """Reading, writing or deleting is not allowed there."""

    def __init__(self, location: str, action: str, *, needs: str | None = None) -> None:
        self.action, self.needs = action, needs
        remedy = f"The credentials lack {needs}; grant it" if needs else "Check who owns it"
        super().__init__(location, f"cannot {action}: permission denied. {remedy}, or give another URL.")


class CredentialsError(StorageError, PermissionError):
    """There are no credentials, or the store does not accept them. They are never shown."""

    def __init__(self, location: str, problem: str) -> None:
        super().__init__(
            location, f"{problem} Give valid ones in storage_options, the environment or a profile, and try again."
        )


class BucketNotFoundError(StorageError):
    """The bucket does not exist. Not an `ObjectNotFoundError`: nothing can be said of the objects in it."""

    def __init__(self, location: str, bucket: str) -> None:
        self.bucket = bucket
        super().__init__(
            location, f"the bucket '{bucket}' does not exist. Create it, or check its name and the endpoint's."
        )


class WrongRegionError(StorageError):
    """The request went to another region than the bucket's."""

    def __init__(self, location: str, region: str | None) -> None:
        self.region = region
        named = f"in the region '{region}'" if region else "in another region than the one that was asked"
        say = region or "…"
        super().__init__(
            location,
            f"the bucket is {named}. Set AWS_DEFAULT_REGION={say}, or give "
            f"storage_options={{'client_kwargs': {{'region_name': '{say}'}}}}.",
        )


class UnreachableError(StorageError, ConnectionError):
    """The store gave no usable answer within the deadline, in spite of retries."""

    def __init__(self, location: str, problem: str) -> None:
        super().__init__(
            location,
            f"{problem}. What was stored before is unharmed. Check the network and the endpoint, and try again.",
        )


class UnexpectedAnswerError(StorageError):
    """The answer is not one that such a store gives."""

    def __init__(self, location: str, found: str) -> None:
        self.found = found
        super().__init__(
            location,
            f"the answer is {found}, which this kind of store never sends: a proxy or a login page may stand in "
            "between, or the endpoint is not the store's. Check the endpoint and the proxy settings.",
        )


class ConditionalWriteError(StorageError):
    """The store does not create a key only if it is absent, which is what tells two writers apart."""

    def __init__(self, location: str, option: str) -> None:
        self.option = option
        super().__init__(
            location,
            "this store does not create objects only if they are absent, so two trainings that write to one run would "
            "overwrite each other's checkpoints unnoticed. If only one ever writes, give "
            f"storage_options={{{option}}}; else use another store.",
        )


class SaveFailedError(KeepbestError):
    """A save in the background failed. Older checkpoints are unharmed; `__cause__` is the reason."""

    def __init__(self, checkpoint: str, cause: BaseException) -> None:
        self.checkpoint = checkpoint
        super().__init__(f"saving {checkpoint} failed, older checkpoints are unharmed: {cause}")
        self.__cause__ = cause


class MirrorFailedError(KeepbestError):
    """Checkpoints did not reach the mirror. They are saved where training saves; `__cause__` is the reason."""

    def __init__(self, url: str, mirror: str, checkpoints: Sequence[str], cause: BaseException | None) -> None:
        self.url, self.mirror, self.checkpoints = url, mirror, tuple(checkpoints)
        super().__init__(
            f"{_listed(self.checkpoints)} did not reach the mirror {mirror}: {cause or 'the copying broke off'} The "
            f"checkpoints are safe in {url}. Start the training again to copy what is missing, also if it is complete."
        )
        self.__cause__ = cause
