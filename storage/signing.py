"""Signing: a checkpoint is read, and a signed statement of every byte is placed beside its files.

The order of effects (a crash between any two leaves the checkpoint as it is, signed or not):

1. every file is read, compared with the manifest, and hashed with sha256;
2. `checkpoints/<name>/signature-<key>.json` is created only if absent: several keys may sign, none twice;
3. the commit is looked at once more: the signature of a checkpoint that was retired meanwhile is deleted.

It lies with the data, so it goes with it: retiring and `gc` delete a checkpoint's whole folder. (In a bucket, a
training that retires what it wrote itself does not look what else there is; what was signed meanwhile is left to `gc`.)
Listings know nothing of it.
"""

from __future__ import annotations

import contextlib
import logging

from msgspec import Struct

from ..errors import (
    CheckpointNotFoundError,
    DamagedFileError,
    KeepbestError,
    ObjectExistsError,
    ObjectNotFoundError,
    UntrustedError,
)
from . import progress, signature
from .backend import Backend
from .digest import digest
from .keys import PrivateKey, PublicKey
from .layout import commit_key, data_key, signature_file
from .listing import parse_manifest
from .manifest import Artifact, CheckpointInfo
from .signature import FileStatement
from .trust import Trusted, run_name

_log = logging.getLogger(__name__)


class Signed(Struct, frozen=True, kw_only=True):
    """What signing a checkpoint did."""

    checkpoint: str
    """Its name."""
    key: PublicKey
    file: str
    """Key of the signature."""
    new: bool
    """False: it was there already, the very same."""


def sign(backend: Backend, checkpoint: CheckpointInfo, key: PrivateKey, *, run: str | None = None) -> Signed:
    """Sign one checkpoint.

    Args:
        backend: the run.
        checkpoint: one of it.
        key: the signer's.
        run: what the run is called; None: the last part of its URL.

    Raises:
        DamagedError: it is not as it was written, and was not signed.
        CheckpointNotFoundError: it was retired.
        UntrustedError: a signature by this key is there, and is not that of what is there now.

    Cost: every byte is read once, and hashed (some 1 GB/s); one file at a time in memory (mapped, where it is local).
    """
    with progress.waiting(), progress.task("sign", checkpoint.name, checkpoint.nbytes):
        return _sign(backend, checkpoint, key, run_name(backend.url) if run is None else run)


def _sign(backend: Backend, checkpoint: CheckpointInfo, key: PrivateKey, run: str) -> Signed:
    place = commit_key(checkpoint.sequence)
    try:
        data = backend.read(place)
    except ObjectNotFoundError as error:
        raise CheckpointNotFoundError(checkpoint.name, backend.url) from error
    manifest = parse_manifest(data, checkpoint.sequence, f"{backend.url}/{place}")
    if manifest.name != checkpoint.name:  # its number was given out again
        raise CheckpointNotFoundError(checkpoint.name, backend.url, [manifest.name])
    files = {
        file: _statement(backend, data_key(manifest.name, file), artifact)
        for file, artifact in manifest.artifacts.items()
    }
    document = signature.pack(signature.state(manifest, data, files, run=run, key=key), key)
    target, new = data_key(manifest.name, signature_file(key.public.id)), True
    try:
        backend.put_if_absent(target, document)
    except ObjectExistsError:
        new = False
        if backend.read(target) != document:
            Trusted(key.public, run=run).check(backend, manifest, data)
            problem = "this key signed other bytes than are there now; delete it to sign these"
            raise UntrustedError(f"{backend.url}/{target}", problem, key=str(key.public)) from None
    _check_still_there(backend, checkpoint, target)
    _log.info("checkpoint.signed run=%s name=%s key=%s", backend.url, checkpoint.name, key.public)
    return Signed(checkpoint=checkpoint.name, key=key.public, file=target, new=new)


def _statement(backend: Backend, key: str, artifact: Artifact) -> FileStatement:
    where = f"{backend.url}/{key}"
    try:
        size = backend.head(key).size
        if size != artifact.size:
            raise DamagedFileError(where, f"it has {size} bytes, not {artifact.size}")
        view = backend.read_ranges(key, [(0, size)])[0]
    except ObjectNotFoundError as error:
        raise DamagedFileError(where, "it does not exist") from error
    if digest(view) != artifact.digest:
        raise DamagedFileError(where, "its bytes are not those that were written")
    stated = signature.file_statement(view, artifact)
    progress.current().process(len(view))
    return stated


def _check_still_there(backend: Backend, checkpoint: CheckpointInfo, target: str) -> None:
    try:
        backend.head(commit_key(checkpoint.sequence))
    except ObjectNotFoundError as error:
        with contextlib.suppress(KeepbestError):  # else `gc` finds it
            backend.delete([target])
        raise CheckpointNotFoundError(checkpoint.name, backend.url) from error
