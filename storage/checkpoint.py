"""Checkpoint: one committed set of state, as its readers hold it."""

from __future__ import annotations

import fnmatch
import os
from collections.abc import Callable, Sequence
from typing import Any

from ..errors import CheckpointNotFoundError, DamagedFileError, ObjectNotFoundError
from . import export, keys, progress, signing, statefile, tensorfile
from .arrays import NUMPY_SCALAR, Converter, converter, scalar_from_view
from .backend import Backend
from .digest import altered, matches
from .export import ExportedFile
from .keys import KeySource
from .layout import STATE_FILE, data_key
from .listing import read_manifest
from .manifest import Artifact, CheckpointInfo, Manifest, Score
from .signing import Signed
from .statefile import StateFile
from .tensorfile import TensorView
from .trust import Trusted
from .typedjson import Json


class Checkpoint:
    """A committed checkpoint. Its light facts are at hand; files are read when asked for.

    Example:
        >>> weights = keepbest.open_run("runs/7").best.load("model")          # {name: numpy array}
    """

    def __init__(self, backend: Backend, facts: CheckpointInfo, trusted: Trusted | None = None) -> None:
        self.info = facts
        self._backend = backend
        self._trusted = trusted
        self._manifest: Manifest | None = None
        self._state: StateFile | None = None

    @property
    def name(self) -> str:
        """The folder's name below `checkpoints/`."""
        return self.info.name

    @property
    def sequence(self) -> int:
        """Position in the run's commits, from 1."""
        return self.info.sequence

    @property
    def step(self) -> int:
        """Training steps closed when it was taken."""
        return self.info.step

    @property
    def epoch(self) -> int | None:
        """The epoch (from 0) that was closed last, or was under way; None before the first."""
        return self.info.epoch

    @property
    def metrics(self) -> dict[str, float]:
        """The metrics logged with it."""
        return dict(self.info.metrics)

    @property
    def scores(self) -> tuple[Score, ...]:
        """What each monitor ranks it by."""
        return self.info.scores

    @property
    def complete(self) -> bool:
        """True: training can continue from it. False: weights only."""
        return self.info.complete

    @property
    def nbytes(self) -> int:
        """Bytes of all its files."""
        return self.info.nbytes

    def __repr__(self) -> str:
        metrics = ", ".join(f"{name}={value:.6g}" for name, value in self.info.metrics.items())
        return f"<Checkpoint {self.name} #{self.sequence}{': ' if metrics else ''}{metrics}>"

    def manifest(self) -> Manifest:
        """Return the manifest; read and checked once.

        Raises:
            DamagedManifestError: it was truncated or altered.
            UnsupportedFormatError: a newer keepbest wrote it.
            CheckpointNotFoundError: it was retired since it was listed.
            UntrustedError: the run was opened with a trusted key, whose holder did not sign it as it is.
        """
        if self._manifest is None:
            try:
                found = read_manifest(self._backend, self.sequence, self._trusted)
            except ObjectNotFoundError as error:
                raise CheckpointNotFoundError(self.name, self._backend.url) from error
            if found.name != self.name:  # its number was given out again
                raise CheckpointNotFoundError(self.name, self._backend.url, [found.name])
            self._manifest = found
        return self._manifest

    def state(self) -> StateFile:
        """Return the state file; read and checked once.

        Raises:
            DamagedFileError: it is missing or altered.
        """
        if self._state is None:
            self._state = statefile.parse(self.read_file(STATE_FILE), self._where(STATE_FILE))
        return self._state

    def objects(self) -> list[str]:
        """Return the names of the objects it holds."""
        return list(self.state().objects)

    def read_file(self, file: str) -> bytes:
        """Return one file, checked against its digest.

        Raises:
            DamagedFileError: it is missing or altered.
            CheckpointNotFoundError: the checkpoint has no such file.
        """
        artifact = self._artifact(file)
        try:
            data = self._backend.read(data_key(self.name, file))
        except ObjectNotFoundError as error:
            raise DamagedFileError(self._where(file), "it does not exist") from error
        if len(data) != artifact.size:
            raise DamagedFileError(self._where(file), f"it has {len(data)} bytes, not {artifact.size}")
        if not matches(data, artifact.digest):
            raise altered(self._where(file), artifact.digest)
        return data

    def check_file(self, file: str) -> None:
        """Compare one file with its digest, a piece at a time; raises as `read_file`."""
        for _ in export.checked(self._backend, data_key(self.name, file), self._artifact(file), self._where(file)):
            pass

    def load(self, name: str, framework: str = "numpy", only: str | Sequence[str] | None = None) -> Any:
        """Return the state of one object, every tensor checked against its digest.

        Args:
            name: the object, as it was given to `Checkpointer`: "model".
            framework: what the tensors shall be: "numpy", "torch", "tensorflow", "jax". Imported only now.
            only: one or more shell patterns of tensor names ("encoder.*"); reads only their bytes. A tensor's name is
                its key in the state dict, or the keys on the way to it, joined by dots ("state.0.exp_avg").

        Returns:
            The nested state as it was captured; for a PyTorch module its state dict, for a Keras model {path: array}.
            With `only`: a flat dict of tensors. The tensors are writable and private.

        Raises:
            CheckpointNotFoundError: the checkpoint holds no such object, or no tensor matches `only`.
            DamagedFileError: a file is missing, short or altered; names the tensor.
            ConfigError: the framework is unknown or not installed.
        """
        record = self._record(name)
        convert = converter(framework)
        if only is None:
            scalar = scalar_from_view if framework == "numpy" else convert
            return statefile.restore(
                record, self._tensors(record), lambda tag: scalar if tag == NUMPY_SCALAR else convert
            )
        chosen = self._matching(record, [only] if isinstance(only, str) else list(only))
        stored = {statefile.stored_name(payload) for payload in chosen.values()} - {None}
        views = self._tensors(record, sorted(name for name in stored if name is not None))
        return {key: statefile.tensor(payload, views, convert) for key, payload in chosen.items()}

    def restore_state(self, name: str, convert: Callable[[str], Converter]) -> Any:
        """Return the state of one object with each tensor made by the framework that it came from."""
        record = self._record(name)
        return statefile.restore(record, self._tensors(record), convert)

    def export(
        self,
        target: str | os.PathLike[str],
        *,
        objects: str | Sequence[str] | None = None,
        with_records: bool = False,
        overwrite: bool = False,
    ) -> tuple[ExportedFile, ...]:
        """Copy tensor files out of the run, each checked against its digest; all are right before the first appears.

        Args:
            target: a name that ends in ".safetensors" takes the tensors of one object; anything else is a folder, made
                if need be, and takes all tensor files. Local.
            objects: names of objects whose tensor files to copy. None: for one file, the only object that holds
                weights; for a folder, all.
            with_records: copy what stands beside the tensor files too: `state.json`, the manifest as `manifest.json`,
                and the signatures. For a folder.
            overwrite: replace files that exist.

        Returns:
            What was written.

        Raises:
            ObjectExistsError: a file exists and `overwrite` is False; nothing was written.
            DamagedFileError: a file is missing or altered; nothing was put in its place.
            ConfigError: it is not clear which object is meant, or the target cannot hold what is asked for.
            CheckpointNotFoundError: the checkpoint holds no such object.

        Example:
            >>> keepbest.open_run("runs/7").best.export("best.safetensors")
        """
        names = [objects] if isinstance(objects, str) else objects
        planned = export.plan(
            self.manifest(), lambda: self.state().objects, os.fspath(target), objects=names, with_records=with_records
        )
        if with_records:
            planned += export.plan_signatures(self._backend, self.name, os.fspath(target))
        nbytes = sum(file.artifact.size for file in planned if file.artifact is not None)
        with progress.waiting(), progress.task("export", self.name, nbytes):
            return export.execute(self._backend, planned, overwrite=overwrite)

    def sign(self, key: KeySource, *, run: str | None = None) -> Signed:
        """Sign it: whoever reads with `trusted=` the public key then accepts it, and no other bytes in its place.

        Sign where the bytes come from: what is signed is what is there now. It is read whole for that.

        Args:
            key: the private key: the path of a PEM file (PKCS8), or its content.
            run: what the run is called; None: the last part of its URL. Readers compare it with theirs.

        Raises:
            KeyFileError: it is no private Ed25519 key.
            DamagedError: the checkpoint is not as it was written, and was not signed.
            UntrustedError: a signature by this key is there, of other bytes.

        Example:
            >>> keepbest.open_run("runs/7").best.sign("signing.pem")
        """
        return signing.sign(self._backend, self.info, keys.read_private(key, stacklevel=3), run=run)

    def _artifact(self, file: str) -> Artifact:
        artifacts = self.manifest().artifacts
        if file not in artifacts:
            raise CheckpointNotFoundError(file, f"checkpoint {self.name}", list(artifacts), kind="file")
        return artifacts[file]

    def _record(self, name: str) -> statefile.ObjectRecord:
        objects = self.state().objects
        if name not in objects:
            raise CheckpointNotFoundError(name, f"checkpoint {self.name}", list(objects), kind="object")
        return objects[name]

    def _tensors(self, record: statefile.ObjectRecord, names: Sequence[str] | None = None) -> dict[str, TensorView]:
        if record.file is None:
            return {}
        artifact = self.manifest().artifacts.get(record.file)
        if artifact is None or artifact.tensors is None:
            raise DamagedFileError(self._where(record.file), "the manifest does not name it as a tensor file")
        held = artifact.tensors
        wanted = [held[name] for name in (held if names is None else names) if name in held]
        nbytes = sum(tensor.offsets[1] - tensor.offsets[0] for tensor in wanted)
        with progress.waiting(), progress.task("load", f"{self.name}/{record.file}", nbytes):
            return tensorfile.read(self._backend, data_key(self.name, record.file), artifact, names)

    def _matching(self, record: statefile.ObjectRecord, patterns: Sequence[str]) -> dict[str, Json]:
        known = statefile.references(record)
        chosen = {
            key: payload
            for key, payload in known.items()
            if any(fnmatch.fnmatchcase(key, pattern) for pattern in patterns)
        }
        if not chosen:
            raise CheckpointNotFoundError(", ".join(patterns), f"checkpoint {self.name}", list(known), kind="tensor")
        return chosen

    def _where(self, file: str) -> str:
        return f"{self._backend.url}/{data_key(self.name, file)}"
