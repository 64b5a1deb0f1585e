"""Verify: read every byte of a run and say which checkpoints are whole."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field

from ..errors import DamagedError, KeepbestError, ObjectNotFoundError
from . import statefile
from .backend import Backend
from .checkpoint import Checkpoint
from .digest import digest
from .layout import STATE_FILE, data_key
from .listing import Listing
from .manifest import Artifact


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

    Cost: every byte of the run is read once; one file at a time in memory (mapped, where it is local).
    """
    problems = [
        Problem(checkpoint=f"commits/{sequence:08d}.json", file=None, tensor=None, message=str(error))
        for sequence, error in listing.damaged
    ]
    nbytes = 0
    for facts in listing.checkpoints:
        checkpoint = Checkpoint(backend, facts)
        try:
            artifacts = checkpoint.manifest().artifacts
        except KeepbestError as error:
            problems.append(Problem(checkpoint=facts.name, file=None, tensor=None, message=str(error)))
            continue
        for file, artifact in artifacts.items():
            nbytes += artifact.size
            problems.extend(_check(backend, checkpoint.name, file, artifact))
    return Report(
        checked=len(listing.checkpoints) + len(listing.damaged), nbytes=nbytes, problems=tuple(problems)
    )


def _check(backend: Backend, name: str, file: str, artifact: Artifact) -> Iterator[Problem]:
    where = f"{backend.url}/{data_key(name, file)}"

    def problem(what: str, tensor: str | None = None) -> Problem:
        subject = where if tensor is None else f"the tensor '{tensor}' in {where}"
        return Problem(checkpoint=name, file=file, tensor=tensor, message=f"{subject}: {what}")

    try:
        size = backend.head(data_key(name, file)).size
        view = backend.read_ranges(data_key(name, file), [(0, max(size, artifact.size))])[0]
    except ObjectNotFoundError:
        yield problem("it does not exist")
        return
    except KeepbestError as error:
        yield problem(str(error))
        return
    if size != artifact.size:
        yield problem(f"it has {size} bytes, not {artifact.size}")
    if artifact.tensors is None:
        if digest(view) != artifact.digest:
            yield problem("its bytes are not those that were written")
        elif file == STATE_FILE:
            try:
                statefile.parse(bytes(view), where)
            except DamagedError as error:
                yield problem(str(error))
        return
    start = artifact.data_start or 0
    if digest(view[:start]) != artifact.header_digest:
        yield problem("its header is not the one that was written")
    else:
        yield from (problem(what) for what in _header_problems(bytes(view[:start]), artifact))
    whole = True
    for tensor, record in artifact.tensors.items():
        if digest(view[start + record.offsets[0] : start + record.offsets[1]]) != record.digest:
            whole = False
            yield problem("its bytes are not those that were written", tensor)
    if whole and size == artifact.size and digest(view) != artifact.digest:
        yield problem("its bytes are not those that were written")


def _header_problems(header: bytes, artifact: Artifact) -> Iterator[str]:
    """Compare what safetensors readers will see with what the manifest says."""
    table = json.loads(header[8:])
    table.pop("__metadata__", None)
    expected = {
        name: {"dtype": record.dtype, "shape": list(record.shape), "data_offsets": list(record.offsets)}
        for name, record in (artifact.tensors or {}).items()
    }
    if table != expected:
        yield "its header and its manifest disagree"
