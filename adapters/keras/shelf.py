"""Shelf: the hidden run in which a ModelCheckpoint commits each file before it is placed where the user wants it.

The order of effects of a save (a crash between any two leaves the file that was there, or the new one, whole):

1. the file is committed to the hidden run, like any checkpoint;
2. it is published to its exact path, atomically replacing what is there;
3. the commits before it are retired; their published files stay.
"""

from __future__ import annotations

import errno
import logging
import shutil
import socket
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import keras
from msgspec import Struct
from msgspec.structs import asdict

from ...core.caller import warn_caller
from ...core.snapshot import Snapshots
from ...core.staging import Staging
from ...core.versions import versions
from ...errors import (
    DamagedFileError,
    KeepbestError,
    ObjectNotFoundError,
    SaveFailedError,
    StorageError,
    StorageFullError,
)
from ...storage import progress, statefile
from ...storage.backend import Backend, open_backend
from ...storage.checkpoint import Checkpoint
from ...storage.commit import BytesDraft, Draft, FileDraft
from ...storage.layout import COMMITS, STATE_FILE, checkpoint_name, data_key
from ...storage.local import local_path
from ...storage.manifest import Manifest, Score
from ...storage.remote_errors import without_password
from ...storage.run import Run
from ...storage.run_writer import RunWriter

_log = logging.getLogger(__name__)

_MODEL = "model"


class Standing(Struct, frozen=True, kw_only=True):
    """What a later ModelCheckpoint goes on from."""

    monitor: str
    """The metric's name."""
    mode: str | None
    """"min" or "max"; None where it was never needed."""
    best: float | None
    file: str
    """Where the file was published, relative to the folder of the hidden run's template."""
    value: float | None
    """Of the file; None where it was not judged."""


class Entry(Struct, frozen=True, kw_only=True):
    """One file to be kept."""

    path: str
    """The user's exact path or URL; it may hold a password."""
    epoch: int
    """From 0."""
    step: int
    reason: str
    metrics: Mapping[str, float]
    score: Score | None
    standing: Standing


@dataclass(slots=True)
class Shelf:
    """The run of one template."""

    url: str = field(repr=False)
    """It may hold a password: what is shown is the backend's."""
    storage_options: Mapping[str, Any] | None = field(repr=False)
    _staging: Staging = field(default_factory=Staging, repr=False)
    _opened: Backend | None = field(default=None, repr=False)
    _tidied: bool = False

    @property
    def backend(self) -> Backend:
        """The place, opened at the first use and held: a bucket's has connections, and knows what the store can do."""
        if self._opened is None:
            self._opened = open_backend(self.url, self.storage_options)
        return self._opened

    def look(self) -> None:
        """Ask the place one thing, so that one that does not exist or says no is known before training.

        Raises:
            StorageError: it cannot be used.
        """
        self.backend.list(COMMITS)

    def keep_file(self, entry: Entry, write: Callable[[str], None]) -> None:
        """Keep a file that `write` makes at the local path it is given.

        Raises:
            KeepbestError: nothing was published, and what was there is unharmed.
        """
        name = entry.path.rpartition("/")[2]
        scratch = self.backend.scratch()
        try:
            made = f"{scratch}/{name}"
            _guarded(without_password(entry.path), lambda: write(made))
            self._keep(entry, FileDraft(file=name, path=made), Path(made).stat().st_size, {})
        finally:
            shutil.rmtree(scratch, ignore_errors=True)

    def keep_weights(self, entry: Entry, model: keras.Model) -> None:
        """Keep the model's variables as a tensor file.

        Raises:
            KeepbestError: as `keep_file`.
        """
        taken = Snapshots({_MODEL: model}).staged(self._staging, overlap=False)
        assert taken is not None
        taken = taken.weights_only()
        self._keep(entry, taken.files[0], taken.nbytes, taken.objects)

    def standing(self) -> tuple[Standing, Callable[[str], None]] | None:
        """Return what the newest commit says, and what places its file at a path once more; None if there is none."""
        run = Run(self.backend)
        newest = max(run.listing().checkpoints, key=lambda found: found.sequence, default=None)
        if newest is None:
            return None
        checkpoint = Checkpoint(run.backend, newest)
        try:
            stored = dict(checkpoint.state().training)
            artifact = stored.pop("artifact")
            standing = Standing(**stored)
            _check(artifact, standing)
        except (LookupError, TypeError) as error:
            raise DamagedFileError(
                f"{checkpoint.name}/{STATE_FILE}", f"it is not a ModelCheckpoint's ({error})"
            ) from error
        return standing, lambda path: run.publish(checkpoint, artifact, path)

    def _keep(self, entry: Entry, draft: Draft, nbytes: int, objects: Mapping[str, statefile.ObjectRecord]) -> None:
        # Listed for each save: another callback, of this process or of the one before, may have written since.
        writer = RunWriter(self.backend)
        older = [found.sequence for found in writer.checkpoints]
        with progress.waiting(), progress.task("save", without_password(entry.path), nbytes):
            name = _commit(writer, entry, draft, objects)
        self.backend.publish(data_key(name, draft.file), entry.path)
        self._tidy(writer, older)

    def _tidy(self, writer: RunWriter, older: Sequence[int]) -> None:
        """The file is safe: a failure here is told, and tried again next time."""
        try:
            writer.retire(older)
            if not self._tidied:
                Run(writer.backend).gc()
                self._tidied = True
        except StorageError as error:
            _log.warning("retention.failed run=%s error=%s", self.backend.url, error)
            warn_caller(
                f"the model was saved, but what came before it in {self.backend.url} could not be tidied up: {error}"
            )


def _check(artifact: object, standing: Standing) -> None:
    """Raise TypeError for what no ModelCheckpoint wrote."""
    names, values = (artifact, standing.monitor, standing.file), (standing.best, standing.value)
    if not all(isinstance(name, str) for name in names) or not all(
        isinstance(value, float | int | None) for value in values
    ):
        raise TypeError(f"{standing!r:.200}")


def _commit(writer: RunWriter, entry: Entry, draft: Draft, objects: Mapping[str, statefile.ObjectRecord]) -> str:
    """Write and commit; returns the checkpoint's name."""
    state = statefile.dump(objects, asdict(entry.standing) | {"artifact": draft.file})
    write_id = uuid.uuid4().hex
    name = checkpoint_name(epoch=entry.epoch, step=entry.step, write_id=write_id)
    artifacts = writer.write(name, [draft, BytesDraft(file=STATE_FILE, data=state)])
    writer.commit(
        Manifest(
            sequence=writer.next_sequence,
            write_id=write_id,
            name=name,
            step=entry.step,
            epoch=entry.epoch,
            parent=None,
            time=time.time(),
            reasons=(entry.reason,),
            complete=False,
            metrics=dict(entry.metrics),
            scores=() if entry.score is None else (entry.score,),
            artifacts=dict(artifacts),
            host=socket.gethostname(),
            versions=versions(),
        )
    )
    return name


def is_folder(path: str) -> bool:
    """Say whether a local path is a folder, where no file can be placed."""
    return _is_local(path) and local_path(path).is_dir()


def exists(path: str, storage_options: Mapping[str, Any] | None) -> bool:
    """Say whether something is at an exact path or URL."""
    if _is_local(path):
        return local_path(path).exists()
    folder, _, name = path.rpartition("/")
    try:
        open_backend(folder, storage_options).head(name)
    except ObjectNotFoundError:
        return False
    return True


def _is_local(path: str) -> bool:
    scheme, found, _ = path.partition("://")
    return not found or scheme in {"file", "local"}


def _guarded(path: str, write: Callable[[], None]) -> None:
    """Let Keras write; whatever it raises reaches the user as one of ours, with Keras' error as its cause."""
    try:
        write()
    except KeepbestError:
        raise
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise StorageFullError(path) from error
        raise StorageError(path, f"Keras could not write it: {error}") from error
    except Exception as error:
        raise SaveFailedError(path, error) from error
