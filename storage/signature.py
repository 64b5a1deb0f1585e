r"""Signature: what is stated of a checkpoint, and the document that holds the statement and its signature.

    {"signature":"ed25519:<128 hex digits>","statement":<JSON>}\n

The signature is that of the statement's bytes as they stand: slice and verify; there is no canonical JSON to agree on.
A statement begins with its format, so that nothing else that the same key signs can be taken for one.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import msgspec
from msgspec import Struct

from .digest import sha256
from .keys import PREFIX, PrivateKey
from .manifest import Artifact, Manifest

FORMAT = "keepbest-signature/1"

_BEGINNING = f'{{"format":"{FORMAT}",'.encode()
_HEAD = b'{"signature":"' + PREFIX.encode()
_MIDDLE = b'","statement":'
_TAIL = b"}\n"
_DIGITS = re.compile(rb"[0-9a-f]{128}")
_SIGNATURE_END = len(_HEAD) + 128
_STATEMENT = _SIGNATURE_END + len(_MIDDLE)


class FileStatement(Struct, frozen=True, kw_only=True):
    """What is stated of one file. Every digest is `sha256:<64 hex digits>`."""

    digest: str
    """Of the whole file."""
    header_digest: str | None
    """Of the bytes before the tensors; None for a file that is no tensor file."""
    tensors: dict[str, str] | None
    """Name → digest of the tensor's bytes, so that one can be checked without the others."""


class Statement(Struct, frozen=True, kw_only=True):
    """What a signature says. The fields are written in this order."""

    format: str = FORMAT
    key: str
    """The public key, `ed25519:<64 hex digits>`. To tell whose it is; nobody trusts it for being named here."""
    run: str
    """What the signer calls the run."""
    sequence: int
    write_id: str
    name: str
    manifest: str
    """Digest of the bytes of the manifest's file."""
    files: dict[str, FileStatement]


def state(
    manifest: Manifest, data: bytes, files: Mapping[str, FileStatement], *, run: str, key: PrivateKey
) -> Statement:
    """Return the statement of a checkpoint whose manifest's file holds `data`."""
    return Statement(
        key=str(key.public),
        run=run,
        sequence=manifest.sequence,
        write_id=manifest.write_id,
        name=manifest.name,
        manifest=sha256(data),
        files=dict(files),
    )


def file_statement(view: memoryview, artifact: Artifact) -> FileStatement:
    """Return the statement of a file whose content is `view`."""
    start = artifact.data_start
    if start is None or artifact.tensors is None:
        return FileStatement(digest=sha256(view), header_digest=None, tensors=None)
    return FileStatement(
        digest=sha256(view),
        header_digest=sha256(view[:start]),
        tensors={
            name: sha256(view[start + record.offsets[0] : start + record.offsets[1]])
            for name, record in artifact.tensors.items()
        },
    )


def pack(statement: Statement, key: PrivateKey) -> bytes:
    """Return the document: the same bytes for the same statement and key."""
    body = msgspec.json.encode(statement)
    return _HEAD + key.sign(body).hex().encode() + _MIDDLE + body + _TAIL


def unpack(data: bytes) -> tuple[bytes, bytes] | None:
    """Return the signature and the bytes that it is of; None if this is no such document."""
    digits = data[len(_HEAD) : _SIGNATURE_END]
    shaped = data.startswith(_HEAD) and data[_SIGNATURE_END:_STATEMENT] == _MIDDLE and data.endswith(_TAIL)
    if not shaped or not _DIGITS.fullmatch(digits):
        return None
    return bytes.fromhex(digits.decode()), data[_STATEMENT : -len(_TAIL)]


def read_statement(body: bytes) -> Statement | None:
    """Return the statement in bytes whose signature was verified; None if they are none of this format."""
    if not body.startswith(_BEGINNING):
        return None
    try:
        return msgspec.json.decode(body, type=Statement)
    except (msgspec.DecodeError, RecursionError):
        return None
