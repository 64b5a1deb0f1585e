"""Verify: read every byte of a run and say which checkpoints are whole."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field

from ..errors import DamagedError, KeepbestError, ObjectNotFoundError
from . import progress, statefile
from .backend import Backend
from .checkpoint import Checkpoint
from .digest import Hasher, digest, finish
from .layout import STATE_FILE, commit_key, data_key
from .listing import Listing
from .manifest import Artifact, CheckpointInfo

_ALTERED = "its bytes are not those that were written"
_CHUNK = 8 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One thing that is not as it was written."""

    checkpoint: str
    """Its name, or the manifest's key if that cannot be read."""
    file: str | None
    tensor: str | None
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What `verify` found."""

    checked: int
    """Checkpoints looked at, damaged ones included."""
    whole: tuple[str, ...]
    """Names of the checkpoints that are as they were written, oldest first."""
    nbytes: int
    """Bytes read."""
    problems: tuple[Problem, ...] = field(default=())

    @property
    def ok(self) -> bool:
        """True if every checkpoint is whole."""
        return not self.problems

    def __str__(self) -> str:
        if self.ok:
            return f"{self.checked} checkpoint(s) are whole ({self.nbytes:,} bytes read)."
        lines = "".join(f"\n  - {problem.message}" for problem in self.problems)
        return f"{len(self.problems)} problem(s) in {self.checked} checkpoint(s):{lines}"


def verify(backend: Backend, listing: Listing) -> Report:
    """Check every checkpoint of `listing`: manifest, sizes, digests of files and tensors, headers, state file.

    A checkpoint that its training retires meanwhile is passed over: it is gone, not damaged.

    Cost: every byte of the run is read once; one file at a time in memory (mapped, where it is local).
    """
    problems = [
        Problem(checkpoint=f"commits/{sequence:08d}.json", file=None, tensor=None, message=str(error))
        for sequence, error in listing.damaged
    ]
    checked, nbytes = len(listing.damaged), 0
    whole: list[str] = []
    total = sum(facts.nbytes for facts in listing.checkpoints)
    with progress.waiting(), progress.task("verify", backend.url, total):
        for facts in listing.checkpoints:
            found = list(_inspect(backend, facts))
            if found and _retired(backend, facts):
                continue
            checked, nbytes = checked + 1, nbytes + facts.nbytes
            problems.extend(found)
            if not found:
                whole.append(facts.name)
    return Report(checked=checked, whole=tuple(whole), nbytes=nbytes, problems=tuple(problems))


def _inspect(backend: Backend, facts: CheckpointInfo) -> Iterator[Problem]:
    try:
        artifacts = Checkpoint(backend, facts).manifest().artifacts
    except KeepbestError as error:
        yield Problem(checkpoint=facts.name, file=None, tensor=None, message=str(error))
        return
    for file, artifact in artifacts.items():
        yield from _check(backend, facts.name, file, artifact)


def _retired(backend: Backend, facts: CheckpointInfo) -> bool:
    try:
        backend.head(commit_key(facts.sequence))
    except ObjectNotFoundError:
        return True
    return False


def _check(backend: Backend, name: str, file: str, artifact: Artifact) -> Iterator[Problem]:
    where = f"{backend.url}/{data_key(name, file)}"
    for tensor, what in _faults(backend, data_key(name, file), artifact):
        subject = where if tensor is None else f"the tensor '{tensor}' in {where}"
        yield Problem(checkpoint=name, file=file, tensor=tensor, message=f"{subject}: {what}")


def _faults(backend: Backend, key: str, artifact: Artifact) -> Iterator[tuple[str | None, str]]:
    """Yield the tensor (None: the file as a whole) and what is wrong with it."""
    try:
        size = backend.head(key).size
        view = backend.read_ranges(key, [(0, max(size, artifact.size))])[0]
    except ObjectNotFoundError:
        yield None, "it does not exist"
        return
    except KeepbestError as error:
        yield None, str(error)
        return
    if size != artifact.size:
        yield None, f"it has {size} bytes, not {artifact.size}"
    found = list(_tensor_file_faults(view, artifact)) if artifact.tensors is not None else []
    yield from found
    hashed = _digest if artifact.tensors is None else digest  # not counted twice
    if not found and size == artifact.size and hashed(view) != artifact.digest:
        yield None, _ALTERED
    elif key.endswith(f"/{STATE_FILE}"):
        try:
            statefile.parse(bytes(view), key)
        except DamagedError as error:
            yield None, str(error)


def _tensor_file_faults(view: memoryview, artifact: Artifact) -> Iterator[tuple[str | None, str]]:
    start = artifact.data_start or 0
    if _digest(view[:start]) != artifact.header_digest:
        yield None, "its header is not the one that was written"
    elif not _header_agrees(bytes(view[:start]), artifact):
        yield None, "its header and its manifest disagree"
    for tensor, record in (artifact.tensors or {}).items():
        if _digest(view[start + record.offsets[0] : start + record.offsets[1]]) != record.digest:
            yield tensor, _ALTERED


def _digest(view: memoryview) -> str:
    """Return what `digest` does, piece by piece: a mapped file is read meanwhile, which may take long."""
    hasher, task = Hasher(), progress.current()
    for begin in range(0, len(view), _CHUNK):
        chunk = view[begin : begin + _CHUNK]
        hasher.update(chunk)
        task.process(len(chunk))
    return finish(hasher)


def _header_agrees(header: bytes, artifact: Artifact) -> bool:
    """Compare what safetensors' own readers will see with what the manifest says."""
    try:
        table = json.loads(header[8:])
        table.pop("__metadata__", None)
    except (ValueError, AttributeError):
        return False
    return bool(
        table
        == {
            name: {"dtype": record.dtype, "shape": list(record.shape), "data_offsets": list(record.offsets)}
            for name, record in (artifact.tensors or {}).items()
        }
    )
