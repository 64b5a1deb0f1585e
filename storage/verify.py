"""Verify: read every byte of a run and say which checkpoints are whole."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from msgspec import Struct, field

from ..errors import DamagedError, KeepbestError, ObjectNotFoundError, UntrustedError
from . import progress, statefile
from .backend import Backend
from .checkpoint import Checkpoint
from .digest import Check, is_signed
from .layout import STATE_FILE, commit_key, data_key
from .listing import Listing
from .manifest import Artifact, CheckpointInfo
from .tensorfile import contradiction
from .trust import Trusted

_CHUNK = 8 << 20


class Problem(Struct, frozen=True, kw_only=True):
    """One thing that is not as it was written."""

    checkpoint: str
    """Its name, or the manifest's key if that cannot be read."""
    file: str | None
    tensor: str | None
    message: str
    untrusted: bool = False
    """It is not what the holder of the trusted key signed; as for its own digests it may be whole."""


class Report(Struct, frozen=True, kw_only=True):
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


def verify(backend: Backend, listing: Listing, trusted: Trusted | None = None) -> Report:
    """Check every checkpoint of `listing`: manifest, sizes, digests of files and tensors, headers, state file.

    With `trusted`, also that each is signed, and the digests are those that were signed.

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
            found = list(_inspect(backend, facts, trusted))
            if found and _retired(backend, facts):
                continue
            checked, nbytes = checked + 1, nbytes + facts.nbytes
            problems.extend(found)
            if not found:
                whole.append(facts.name)
    return Report(checked=checked, whole=tuple(whole), nbytes=nbytes, problems=tuple(problems))


def _inspect(backend: Backend, facts: CheckpointInfo, trusted: Trusted | None) -> Iterator[Problem]:
    try:
        artifacts = Checkpoint(backend, facts, trusted).manifest().artifacts
    except KeepbestError as error:
        untrusted = isinstance(error, UntrustedError)
        message = f"{error.location}: {error.problem}" if isinstance(error, UntrustedError) else str(error)
        yield Problem(checkpoint=facts.name, file=None, tensor=None, message=message, untrusted=untrusted)
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
        untrusted = is_signed(artifact.digest)
        yield Problem(checkpoint=name, file=file, tensor=tensor, message=f"{subject}: {what}", untrusted=untrusted)


def _faults(backend: Backend, key: str, artifact: Artifact) -> Iterator[tuple[str | None, str]]:
    """Yield the tensor (None: the file as a whole) and what is wrong with it."""
    try:
        size = backend.head(key).size
        view = backend.read_ranges(key, [(0, size)])[0]
    except ObjectNotFoundError:
        yield None, "it does not exist"
        return
    except KeepbestError as error:
        yield None, str(error)
        return
    if size != artifact.size:
        yield None, f"it has {size} bytes, not {artifact.size}"
        if artifact.tensors is None:
            return
    found = list(_tensor_file_faults(view, artifact)) if artifact.tensors is not None else []
    yield from found
    counted = artifact.tensors is None  # else its bytes were counted as those of its tensors
    if not found and size == artifact.size and not _holds(view, artifact.digest, counted=counted):
        yield None, _altered(artifact)
    elif key.endswith(f"/{STATE_FILE}"):
        try:
            statefile.parse(bytes(view), key)
        except DamagedError as error:
            yield None, str(error)


def _tensor_file_faults(view: memoryview, artifact: Artifact) -> Iterator[tuple[str | None, str]]:
    start = artifact.data_start or 0
    if not _holds(view[:start], artifact.header_digest):
        yield None, "its header is not the one that was written"
    elif not _header_agrees(bytes(view[:start]), artifact):
        yield None, "its header and its manifest disagree"
    for tensor, record in (artifact.tensors or {}).items():
        problem = contradiction(record)
        if problem is not None:
            yield tensor, problem
        elif not _holds(view[start + record.offsets[0] : start + record.offsets[1]], record.digest):
            yield tensor, _altered(artifact)


def _altered(artifact: Artifact) -> str:
    return f"its bytes are not those that were {'signed' if is_signed(artifact.digest) else 'written'}"


def _holds(view: memoryview, expected: str | None, *, counted: bool = True) -> bool:
    """Compare the digest, taken piece by piece: a mapped file is read meanwhile, which may take long."""
    check, task = Check(expected), progress.current()
    for begin in range(0, len(view), _CHUNK):
        chunk = view[begin : begin + _CHUNK]
        check.update(chunk)
        if counted:
            task.process(len(chunk))
    return check.holds()


def _header_agrees(header: bytes, artifact: Artifact) -> bool:
    """Compare what safetensors' own readers will see with what the manifest says."""
    try:
        table = json.loads(header[8:], object_pairs_hook=_without_doubles)
        metadata = table.pop("__metadata__", {})
        texts = all(isinstance(text, str) for text in metadata.values())
        numbers = all(type(number) is int for entry in table.values() for number in entry["shape"])
    except (ValueError, AttributeError, LookupError, TypeError, RecursionError):
        return False
    tensors = artifact.tensors or {}
    end = 0
    for begin, after in sorted(record.offsets for record in tensors.values()):
        if begin != end:  # a hole, or two at one place: readers of safetensors refuse it
            return False
        end = after
    return (
        texts
        and numbers  # to Python 2.0 and True are as good
        and int.from_bytes(header[:8], "little") == len(header) - 8
        and artifact.size == len(header) + end
        and table
        == {
            name: {"dtype": record.dtype, "shape": list(record.shape), "data_offsets": list(record.offsets)}
            for name, record in tensors.items()
        }
    )


def _without_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return a JSON object; a name that stands in it twice would be one thing to us and another to other readers."""
    table = dict(pairs)
    if len(table) != len(pairs):
        raise ValueError("a name stands there twice")
    return table
