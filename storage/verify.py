"""Verify: read every byte of a run's checkpoints and say which are whole; and look at what lies beside them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Literal

from msgspec import Struct, field
from msgspec.structs import replace

from ..errors import DamagedError, KeepbestError, ObjectNotFoundError, UntrustedError
from . import progress, statefile
from .backend import Backend
from .checkpoint import Checkpoint
from .digest import Check, is_signed
from .layout import BEST_HINT, BEST_LINK, JOURNAL, STATE_FILE, commit_key, data_key, segments_prefix
from .listing import Listing, is_committed
from .manifest import Artifact, CheckpointInfo
from .pointer import astray
from .tensorfile import contradiction
from .trust import Trusted

if TYPE_CHECKING:
    from .journal import Lost

_CHUNK = 8 << 20
_ABSENT = "it does not exist"


class Problem(Struct, frozen=True, kw_only=True):
    """One thing that is not as it was written."""

    checkpoint: str
    """Its name; or the key of what is wrong: of a manifest that cannot be read, the best link, the journal."""
    file: str | None = None
    tensor: str | None = None
    message: str
    untrusted: bool = False
    """It is not what the holder of the trusted key signed; as for its own digests it may be whole."""
    part: Literal["checkpoint", "best", "journal"] = "checkpoint"
    """What of the run it is."""


class Report(Struct, frozen=True, kw_only=True):
    """What `verify` found."""

    checked: int
    """Checkpoints looked at, damaged ones included."""
    whole: tuple[str, ...]
    """Names of the checkpoints that are as they were written, oldest first."""
    nbytes: int
    """Bytes read: of files that are there."""
    problems: tuple[Problem, ...] = field(default=())

    @property
    def ok(self) -> bool:
        """True if every checkpoint is whole, and so is what lies beside them, where that was looked at."""
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
    problems = [Problem(checkpoint=commit_key(sequence), message=str(error)) for sequence, error in listing.damaged]
    checked, nbytes = len(listing.damaged), 0
    whole: list[str] = []
    total = sum(facts.nbytes for facts in listing.checkpoints)
    with progress.waiting(), progress.task("verify", backend.url, total):
        for facts in listing.checkpoints:
            found, read = _inspect(backend, facts, trusted)
            if found and not is_committed(backend, facts.sequence):  # retired meanwhile
                continue
            checked, nbytes = checked + 1, nbytes + read
            problems.extend(found)
            if not found:
                whole.append(facts.name)
    return Report(checked=checked, whole=tuple(whole), nbytes=nbytes, problems=tuple(problems))


def with_rest(report: Report, backend: Backend, trusted: Trusted | None = None) -> Report:
    """Return a report with what is wrong beside the checkpoints: with the pointer to the best, and with the journal.

    What training leaves while it goes on, or a crash leaves, is no problem: a pointer that is late (`pointer.astray`),
    a line of the journal that ends too early (`journal.Lost`). Lines have no digest: one that reads well is believed.

    Cost: that of `pointer.astray`, and one read of the journal.
    """
    rest = *_pointer_problems(backend, trusted), *_journal_problems(backend)
    return replace(report, problems=(*report.problems, *rest))


def _pointer_problems(backend: Backend, trusted: Trusted | None) -> Iterator[Problem]:
    try:
        yield from (
            Problem(checkpoint=each.key, message=each.message, part="best") for each in astray(backend, trusted)
        )
    except KeepbestError as error:
        key = BEST_LINK if backend.capabilities.links else BEST_HINT
        yield Problem(checkpoint=key, message=str(error), part="best")


def _journal_problems(backend: Backend) -> Iterator[Problem]:
    from .journal import read_journal  # noqa: PLC0415 - checkpoints can be had without what reads a history

    try:
        lost = read_journal(backend).lost
    except KeepbestError as error:
        yield Problem(checkpoint=JOURNAL, message=str(error), part="journal")
        return
    if lost:
        pieces = "" if backend.capabilities.appends else f" with what lies in {backend.url}/{segments_prefix(JOURNAL)}"
        yield Problem(
            checkpoint=JOURNAL,
            message=f"{backend.url}/{JOURNAL}{pieces}: {_told(lost)}. No checkpoint needs it, but the history has a "
            "gap, and `keepbest explain` and `report` are incomplete. To mend it: put back a copy of the journal from "
            "before, if there is one; training can go on in any case.",
            part="journal",
        )


def _told(lost: Lost) -> str:
    """Return how many lines and rows of a journal are lost, and where the first of them stood."""
    told = []
    if lost.lines == 1:
        told.append(f"1 line cannot be read (line {lost.first_line})")
    elif lost.lines:
        told.append(f"{lost.lines:,} lines cannot be read (line {lost.first_line} first)")
    if lost.first_row is not None:
        many = "1 row is" if lost.rows == 1 else f"{lost.rows:,} rows are"
        first = " first" if lost.rows > 1 else ""
        told.append(f"at least {many} missing (row {lost.first_row.rows} of branch {lost.first_row.branch}{first})")
    return ", and ".join(told)


def _inspect(backend: Backend, facts: CheckpointInfo, trusted: Trusted | None) -> tuple[list[Problem], int]:
    """Return what is wrong with one checkpoint, and how many bytes of its files were read."""
    try:
        artifacts = Checkpoint(backend, facts, trusted).manifest().artifacts
    except KeepbestError as error:
        untrusted = isinstance(error, UntrustedError)
        message = f"{error.location}: {error.problem}" if isinstance(error, UntrustedError) else str(error)
        return [Problem(checkpoint=facts.name, message=message, untrusted=untrusted)], 0
    problems: list[Problem] = []
    nbytes = gone = 0
    for file, artifact in artifacts.items():
        view = _read(backend, data_key(facts.name, file))
        nbytes += 0 if isinstance(view, str) else len(view)
        gone += isinstance(view, str) and view == _ABSENT
        problems.extend(_check(backend, facts.name, file, artifact, view))
        del view  # before the next one comes into memory
    if artifacts and gone == len(artifacts):
        problems = [Problem(checkpoint=facts.name, message=gone_whole(backend.url, facts.sequence))]
    return problems, nbytes


def gone_whole(url: str, sequence: int) -> str:
    """Return what to do about a commit whose data somebody deleted: keepbest itself deletes the commit first."""
    return (
        "its files are gone, all of them: somebody deleted them, and not the commit. Put them back if there is a copy; "
        f"else delete {url}/{commit_key(sequence)}, too, while no training writes to the run: until then the "
        "checkpoint is listed, and may keep a place among the best."
    )


def _check(backend: Backend, name: str, file: str, artifact: Artifact, view: memoryview | str) -> Iterator[Problem]:
    where = f"{backend.url}/{data_key(name, file)}"
    if isinstance(view, str):
        yield Problem(checkpoint=name, file=file, message=f"{where}: {view}", untrusted=is_signed(artifact.digest))
        return
    for tensor, what in _faults(view, data_key(name, file), artifact):
        subject = where if tensor is None else f"the tensor '{tensor}' in {where}"
        untrusted = is_signed(artifact.digest)
        yield Problem(checkpoint=name, file=file, tensor=tensor, message=f"{subject}: {what}", untrusted=untrusted)


def _read(backend: Backend, key: str) -> memoryview | str:
    """Return a file, or why it cannot be read."""
    try:
        return backend.read_ranges(key, [(0, backend.head(key).size)])[0]
    except ObjectNotFoundError:
        return _ABSENT
    except KeepbestError as error:
        return str(error)


def _faults(view: memoryview, key: str, artifact: Artifact) -> Iterator[tuple[str | None, str]]:
    """Yield the tensor (None: the file as a whole) and what is wrong with it."""
    size = len(view)
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
