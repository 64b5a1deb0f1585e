"""Commit: the protocol that makes a checkpoint visible whole, and the one that makes it go away.

The order of effects of a save (a crash between any two leaves the older checkpoints listed and whole):

1. every file under a fresh name;
2. all of it durable: the content, the names of the files, and that of their folder;
3. `commits/<sequence>.json` created only if absent, durable. From here on the checkpoint exists.

And of retiring (a crash between any two leaves an orphan at worst, never a commit without its data):

1. the commit deleted;
2. that deletion durable;
3. the data deleted, or kept for the next checkpoint to be written over.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from msgspec import Struct

from ..errors import (
    ConcurrentWriterError,
    DamagedManifestError,
    KeepbestError,
    ObjectExistsError,
    ObjectNotFoundError,
    StorageError,
    UnreachableError,
)
from . import tensorfile
from .backend import Backend
from .digest import digest, digest_file
from .file_hasher import FileHasher
from .known_files import KnownFiles
from .layout import commit_key, data_key, data_prefix
from .manifest import Artifact, CheckpointInfo, Manifest, decode, encode
from .operation import one_operation, submit
from .tensorfile import TensorFilePlan
from .tensorstream import Bytes

_log = logging.getLogger(__name__)


class TensorDraft(Struct, frozen=True, kw_only=True):
    """A tensor file to be written."""

    file: str
    plan: TensorFilePlan
    data: Bytes
    """The data of the plan, usually staging itself."""
    hasher: FileHasher | None = None
    """Of this file, if somebody hashes it while it is made."""


class BytesDraft(Struct, frozen=True, kw_only=True):
    """A file to be written, already in memory."""

    file: str
    data: bytes


class FileDraft(Struct, frozen=True, kw_only=True):
    """A local file that is to be moved in; it is gone afterwards."""

    file: str
    path: str


class LinkDraft(Struct, frozen=True, kw_only=True):
    """A file that a committed checkpoint holds already."""

    file: str
    source: str
    """Its key."""
    artifact: Artifact


Draft = TensorDraft | BytesDraft | FileDraft | LinkDraft


@one_operation()
def write(backend: Backend, name: str, drafts: Sequence[Draft], known: KnownFiles | None = None) -> dict[str, Artifact]:
    """Write a checkpoint's files (step 1); nothing lists them yet. If one fails, what was written is deleted again.

    Where the backend is faster so, several are written at once, the largest first: then all its connections have work
    to the end.

    Args:
        backend: where to.
        name: the checkpoint's, a fresh one.
        drafts: the files.
        known: older files that need not be written again, and spare ones.
    """
    outcomes: dict[str, Artifact | BaseException] = {}
    failed = threading.Event()

    def attempt(draft: Draft) -> None:
        if failed.is_set():
            return
        try:
            outcomes[draft.file] = _write_one(backend, data_key(name, draft.file), draft, known)
        except BaseException as error:  # noqa: BLE001 - raised again below, once nobody writes any more
            outcomes[draft.file] = error
            failed.set()

    if backend.capabilities.parallel > 1 and len(drafts) > 1:
        with ThreadPoolExecutor(min(backend.capabilities.parallel, len(drafts)), "keepbest-file") as pool:
            for draft in sorted(drafts, key=_size, reverse=True):
                submit(pool, attempt, draft)
    else:
        for draft in drafts:
            attempt(draft)
    ended = {draft.file: outcomes[draft.file] for draft in drafts if draft.file in outcomes}
    artifacts = {file: found for file, found in ended.items() if isinstance(found, Artifact)}
    failures = {file: found for file, found in ended.items() if isinstance(found, BaseException)}
    if failures:
        # But not a file that was there before us.
        ours = [file for file, error in failures.items() if not isinstance(error, ObjectExistsError)]
        discard(backend, name, [*artifacts, *ours])
        raise next(iter(failures.values()))
    return artifacts


def _size(draft: Draft) -> int:
    match draft:
        case TensorDraft() | BytesDraft():
            return len(draft.data)
        case FileDraft():
            return Path(draft.path).stat().st_size
        case LinkDraft():
            return 0


def _write_one(backend: Backend, key: str, draft: Draft, known: KnownFiles | None) -> Artifact:
    match draft:
        case TensorDraft() if known is not None:
            return _write_tensors(backend, key, draft, known)
        case TensorDraft():
            return tensorfile.write(backend, key, draft.plan, draft.data, hasher=draft.hasher)
        case BytesDraft():
            return Artifact(size=backend.put(key, [draft.data]), digest=digest(draft.data))
        case FileDraft():
            size, found = digest_file(draft.path)
            backend.put_file(key, draft.path)
            return Artifact(size=size, digest=found)
        case LinkDraft():
            backend.copy(draft.source, key)
            return draft.artifact


def _write_tensors(backend: Backend, key: str, draft: TensorDraft, known: KnownFiles) -> Artifact:
    base, spare = known.base(draft.file), known.take_spare(draft.file)
    try:
        artifact = tensorfile.write(backend, key, draft.plan, draft.data, base=base, spare=spare, hasher=draft.hasher)
    except BaseException:
        if spare is not None:
            known.drop([spare])
        raise
    if spare is not None and base is not None and artifact is base[1]:  # a copy: nothing was written
        known.give_back(draft.file, spare)
    return artifact


@one_operation()
def commit(backend: Backend, manifest: Manifest, check: Callable[[], None] = lambda: None) -> int:
    """Make a written checkpoint visible (steps 2 and 3); readers see all of it or nothing.

    Args:
        backend: where it is.
        manifest: says what it is.
        check: called between the two steps; what it raises calls the commit off.

    Returns:
        The bytes of the manifest's file.

    Raises:
        ConcurrentWriterError: another writer has this sequence number; its checkpoint was not touched, ours is deleted.
        StorageError: it is not committed, and its files are deleted; or the store does not say whether it is, and they
            are left: a listed checkpoint is whole, and one that is not listed is left to `gc`.
    """
    try:
        data = encode(manifest)
        backend.settle()
        check()
    except BaseException:
        discard(backend, manifest.name, manifest.artifacts)
        raise
    try:
        backend.put_if_absent(commit_key(manifest.sequence), data)
    except StorageError as error:
        # The store may have taken it and lost the reply: what stands there decides.
        _accept_if_ours(backend, manifest, error)
    _log.info("checkpoint.committed run=%s sequence=%d name=%s", backend.url, manifest.sequence, manifest.name)
    return len(data)


def _accept_if_ours(backend: Backend, manifest: Manifest, error: StorageError) -> None:
    key = commit_key(manifest.sequence)
    try:
        found = decode(backend.read(key), f"{backend.url}/{key}")
    except ObjectNotFoundError:
        if not isinstance(error, UnreachableError):  # else it is on its way, for all we know, and must find its data
            discard(backend, manifest.name, manifest.artifacts)
        raise error from None
    except DamagedManifestError as damage:
        raise ConcurrentWriterError(backend.url, manifest.sequence, "its manifest is damaged") from damage
    except KeepbestError:
        raise error from None
    if found.write_id != manifest.write_id:
        discard(backend, manifest.name, manifest.artifacts)
        raise ConcurrentWriterError(backend.url, manifest.sequence, f"{found.name} by {found.host}") from error
    backend.settle()


def retire(
    backend: Backend,
    checkpoints: Iterable[CheckpointInfo],
    known: KnownFiles | None = None,
    files: Mapping[str, Iterable[str]] | None = None,
) -> None:
    """Delete checkpoints, their commits first.

    Args:
        backend: where they are.
        checkpoints: which.
        known: may keep some of their files to be written over.
        files: names of checkpoints, and of the files in each, as far as that is known; else it is looked up.
    """
    going = list(checkpoints)
    if not going:
        return
    if known is not None:
        known.retiring([checkpoint.name for checkpoint in going])
    backend.delete([commit_key(checkpoint.sequence) for checkpoint in going])
    backend.settle()
    for checkpoint in going:
        # On a disk a look costs nothing, and finds the signature that somebody may have placed there since.
        if files is not None and checkpoint.name in files and not backend.capabilities.links:
            keys = [data_key(checkpoint.name, file) for file in files[checkpoint.name]]
        else:
            keys = [entry.key for entry in backend.list(data_prefix(checkpoint.name))]
        if known is not None:
            keys = known.recycle(checkpoint.name, keys)
        backend.delete(keys)
        _log.info("checkpoint.retired run=%s sequence=%d name=%s", backend.url, checkpoint.sequence, checkpoint.name)


def discard(backend: Backend, name: str, files: Iterable[str]) -> None:
    """Delete files of a checkpoint that was not committed; what cannot be deleted is left to `gc`."""
    with contextlib.suppress(KeepbestError):
        backend.delete([data_key(name, file) for file in files])
