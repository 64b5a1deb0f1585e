"""Mirror: the same checkpoints and rows in a second run. Which ones, and when, is for core to say.

A checkpoint keeps its name, its sequence and its write id. The order of effects of a copy (a crash between any two
leaves what the target lists whole, and what is not listed to the next try, or to `gc`):

1. every file under the same name, its digest compared on the way; the signatures, as they are;
2. the commit of the same manifest, as `commit.commit` does it.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator, Sequence

from ..errors import (
    CheckpointNotFoundError,
    DamagedFileError,
    DivergedError,
    KeepbestError,
    ObjectExistsError,
    ObjectNotFoundError,
    StorageError,
)
from . import commit, progress
from .backend import Appender, Backend
from .checkpoint import Checkpoint
from .digest import Hasher, digest, finish
from .layout import JOURNAL, data_key, data_prefix, is_signature
from .listing import is_committed, read_manifest
from .manifest import Artifact, CheckpointInfo, Manifest
from .run_writer import RunWriter
from .segments import read_appended

_PIECE = 8 << 20
_WINDOW = 8 * _PIECE
"""Bytes that one call reads: a bucket reads the pieces of a window in parallel."""


class Copier:
    """Copies checkpoints and rows from one run to another. Used by one thread at a time.

    Memory: some 64 MiB, beside what the target holds of a stream.
    """

    def __init__(self, source: Backend, target: RunWriter) -> None:
        self._source = source
        self._target = target
        self._files: dict[str, dict[str, str]] = {}
        """Checkpoint's name → digest → key, of the files that were copied."""
        self._appender: Appender | None = None
        self._copied = (0, "")
        """How long the journal was when its rows were copied, in bytes, and the digest of it."""

    def copy(self, checkpoint: CheckpointInfo, go_on: Callable[[], None] = lambda: None) -> CheckpointInfo:
        """Copy one checkpoint. A file that the target holds in another checkpoint is copied within the target.

        Args:
            checkpoint: one of the source.
            go_on: called every few megabytes; what it raises breaks the copying off.

        Raises:
            CheckpointNotFoundError: the source does not hold it (any more).
            DamagedError: what the source holds is damaged.
            ConcurrentWriterError: the target has another checkpoint of that number.
            StorageError: the target did not take it.
            In each case the target does not list it, and nothing of it is left there but what a crash would leave.
        """
        manifest = self._manifest(checkpoint)
        try:
            with progress.task("mirror", checkpoint.name, checkpoint.nbytes):
                self._place_files(manifest, go_on)
        except DamagedFileError:
            self._manifest(checkpoint)  # retired meanwhile, it is not damaged but gone
            raise
        committed = self._target.commit(manifest)
        self._files[manifest.name] = {
            artifact.digest: data_key(manifest.name, file) for file, artifact in manifest.artifacts.items()
        }
        return committed

    def copy_rows(self) -> None:
        """Append the rows of the journal that the target does not have; durable on return.

        If it has the last one, what else it lacks are futures that were left behind: they stay where they are, or the
        history of the target would end with them. Cost: one read of the journal; the first time one of the target's
        as well.
        """
        rows = memoryview(read_appended(self._source, JOURNAL))
        length, known = self._copied
        grown = length > 0 and digest(rows[:length]) == known
        missing = bytes(rows[length:]) if grown else self._missing(bytes(rows))
        if missing:
            self._append(missing)
        self._copied = len(rows), digest(rows)
        self._target.backend.settle()

    def close(self) -> None:
        """Make durable what was appended, and let go of it."""
        appender, self._appender = self._appender, None
        if appender is not None:
            appender.close()

    def _manifest(self, checkpoint: CheckpointInfo) -> Manifest:
        try:
            found = read_manifest(self._source, checkpoint.sequence)
        except ObjectNotFoundError as error:
            raise CheckpointNotFoundError(checkpoint.name, self._source.url) from error
        if found.name != checkpoint.name:  # its number was given out again
            raise CheckpointNotFoundError(checkpoint.name, self._source.url, [found.name])
        return found

    # ── files ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def _place_files(self, manifest: Manifest, go_on: Callable[[], None]) -> None:
        backend, placed = self._target.backend, list[str]()
        left = [entry.key for entry in backend.list(data_prefix(manifest.name))]
        if left and is_committed(self._target.backend, manifest.sequence):
            return  # an earlier try came through and was not told so
        backend.delete(left)
        try:
            for file, artifact in manifest.artifacts.items():
                placed.append(file)
                self._place(data_key(manifest.name, file), artifact, go_on)
            for file in self._signatures(manifest.name):
                key = data_key(manifest.name, file)
                with contextlib.suppress(ObjectNotFoundError):  # somebody deleted it
                    document = self._source.read(key)
                    placed.append(file)
                    backend.put(key, [document])
        except ObjectExistsError:
            commit.discard(backend, manifest.name, placed[:-1])  # but not the file that somebody else put there
            raise
        except BaseException:
            commit.discard(backend, manifest.name, placed)
            raise

    def _signatures(self, name: str) -> list[str]:
        prefix = data_prefix(name)
        files = [entry.key.removeprefix(prefix) for entry in self._source.list(prefix)]
        return [file for file in files if is_signature(file)]

    def _place(self, key: str, artifact: Artifact, go_on: Callable[[], None]) -> None:
        twin = self._twin(artifact)
        if twin is not None:
            with contextlib.suppress(ObjectNotFoundError):  # somebody deleted it
                self._target.backend.copy(twin, key)
                progress.current().process(artifact.size)
                return
        self._target.backend.put(key, self._stream(key, artifact, go_on))

    def _twin(self, artifact: Artifact) -> str | None:
        """Return a file with the same content in a checkpoint that the target lists."""
        listed = {checkpoint.name for checkpoint in self._target.checkpoints}
        self._files = {name: files for name, files in self._files.items() if name in listed}
        return next((files[artifact.digest] for files in self._files.values() if artifact.digest in files), None)

    def _stream(self, key: str, artifact: Artifact, go_on: Callable[[], None]) -> Iterator[memoryview]:
        """Yield a file of the source; raises at its end, so that no object comes of it, if it is not what it was."""
        hasher, where, task = Hasher(), f"{self._source.url}/{key}", progress.current()
        for begin in range(0, artifact.size, _WINDOW):
            end = min(begin + _WINDOW, artifact.size)
            ranges = [(piece, min(piece + _PIECE, end)) for piece in range(begin, end, _PIECE)]
            try:
                pieces = self._source.read_ranges(key, ranges)
            except ObjectNotFoundError as error:
                raise DamagedFileError(where, "it does not exist") from error
            for piece, (first, last) in zip(pieces, ranges, strict=True):
                if len(piece) < last - first:
                    raise DamagedFileError(where, f"it has {first + len(piece)} bytes, not {artifact.size}")
                hasher.update(piece)
                yield piece
                task.process(len(piece))
                go_on()
        if finish(hasher) != artifact.digest:
            raise DamagedFileError(where, "its bytes are not those that were written")

    # ── rows ──────────────────────────────────────────────────────────────────────────────────────────────────────

    def _missing(self, rows: bytes) -> bytes:
        known = set(read_appended(self._target.backend, JOURNAL).split(b"\n"))
        lines = rows.split(b"\n")[:-1]
        if not lines or lines[-1] in known:
            return b""
        return b"".join(line + b"\n" for line in lines if line not in known)

    def _append(self, rows: bytes) -> None:
        try:
            if self._appender is None:
                self._appender = self._target.backend.append(JOURNAL)
                with contextlib.suppress(ObjectNotFoundError):
                    if not (b"\n" + self._target.backend.read(JOURNAL)).endswith(b"\n"):
                        rows = b"\n" + rows  # a crash cut the last line short; it must not swallow ours
            self._appender.write(rows)
        except StorageError:
            with contextlib.suppress(KeepbestError):
                self.close()  # the last line may be torn: opened anew, it is looked at; a row that comes twice is one
            raise


def check_same_run(
    first: Backend, here: Sequence[CheckpointInfo], mirror: Backend, there: Sequence[CheckpointInfo]
) -> None:
    """Make sure that two runs are one: what both hold of one number is the same checkpoint.

    Names are compared: they end in digits of the write id. Where retention left no number to both, the branches of the
    history decide.

    Raises:
        DivergedError: they are not.
    """
    if not here or not there:
        return
    ours = {checkpoint.sequence: checkpoint.name for checkpoint in here}
    common = [checkpoint for checkpoint in there if checkpoint.sequence in ours]
    for checkpoint in common:
        own = ours[checkpoint.sequence]
        if own != checkpoint.name:
            raise DivergedError(first.url, mirror.url, sequence=checkpoint.sequence, ours=own, theirs=checkpoint.name)
    if not common and not _branches(first, here[-1]) & _branches(mirror, there[-1]):
        raise DivergedError(first.url, mirror.url, sequence=None, ours=here[-1].name, theirs=there[-1].name)


def _branches(backend: Backend, newest: CheckpointInfo) -> set[str]:
    """Return every branch that the journal or the newest checkpoint names."""
    found: set[str] = set()
    with contextlib.suppress(LookupError, TypeError):  # a stranger's
        found.add(Checkpoint(backend, newest).state().training["journal"]["branch"])
    for line in read_appended(backend, JOURNAL).split(b"\n"):
        with contextlib.suppress(ValueError, LookupError, TypeError, RecursionError):  # a line that a crash cut short
            row = json.loads(line)
            found.add(row["branch"])
            found.add(row["from"]["branch"])  # one that was left before its first row has no line of its own
    return found
