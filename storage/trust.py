"""Trust: what a reader demands of every checkpoint, that the holder of one key signed it and nothing changed since.

The order in which a checkpoint is checked; nothing of it is used before the last step:

1. the signature, over the statement's bytes, before they are parsed;
2. that the statement is of this run, of this checkpoint, and of the very bytes of this manifest;
3. the bytes of the files, when they are read: by the statement's sha256 digests, which take the place of the
   manifest's own. So whatever reads a file by its manifest checks it so.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

from msgspec.structs import replace

from ..errors import ConfigError, ObjectNotFoundError, UntrustedError
from . import signature
from .backend import Backend
from .digest import sha256
from .keys import KeySource, PublicKey, read_public
from .layout import commit_key, data_key, signature_file
from .manifest import Artifact, Manifest
from .signature import FileStatement, Statement


class Trusted:
    """The key whose holder must have signed whatever is read.

    Args:
        key: the public key: the path of a PEM file, or its content.
        run: what the holder called the run. None: the last part of the URL that is read, which is what signing takes,
            too, unless it is told another name.

    Raises:
        KeyFileError: it is no public Ed25519 key.
        ConfigError: the package `cryptography` is not installed.

    Example:
        >>> run = keepbest.open_run("s3://bucket/copies/7b", trusted=Trusted("signing.pub.pem", run="7"))
    """

    def __init__(self, key: KeySource | PublicKey, *, run: str | None = None) -> None:
        self.key = key if isinstance(key, PublicKey) else read_public(key)
        self.run = run

    def __repr__(self) -> str:
        return f"<Trusted {self.key}{'' if self.run is None else f' run={self.run!r}'}>"

    def check(self, backend: Backend, manifest: Manifest, data: bytes) -> Manifest:
        """Return the manifest, which was read from `data`, with the digests that were signed.

        Raises:
            UntrustedError: it is not signed by the key, or not as it stands here.
            ObjectNotFoundError: it was retired since its manifest was read.
        """
        statement = self._statement(backend, manifest)
        where = f"{backend.url}/{commit_key(manifest.sequence)}"
        expected = self.run if self.run is not None else run_name(backend.url)
        if statement.run != expected:
            raise UntrustedError(
                where,
                f"it was signed as one of the run '{statement.run}', and this is the run '{expected}'. If this is a "
                f"copy of that run, say so: Trusted(key, run='{statement.run}'), or --run on the command line",
                key=str(self.key),
            )
        signed = (statement.sequence, statement.name, statement.write_id)
        if signed != (manifest.sequence, manifest.name, manifest.write_id):
            problem = f"its signature is that of checkpoint {statement.name} (number {statement.sequence})"
            raise UntrustedError(where, problem, key=str(self.key))
        if statement.manifest != sha256(data):
            raise UntrustedError(where, "it is not the manifest that was signed", key=str(self.key))
        artifacts = _signed_artifacts(manifest.artifacts, statement.files)
        if artifacts is None:
            raise UntrustedError(where, "its signature does not name the files that it names", key=str(self.key))
        return replace(manifest, artifacts=artifacts)

    def _statement(self, backend: Backend, manifest: Manifest) -> Statement:
        place = data_key(manifest.name, signature_file(self.key.id))
        where, key = f"{backend.url}/{place}", str(self.key)
        try:
            packed = signature.unpack(backend.read(place))
        except ObjectNotFoundError as error:
            backend.head(commit_key(manifest.sequence))  # else it was retired meanwhile, and nobody is to blame
            checkpoint = f"{backend.url}/{commit_key(manifest.sequence)}"
            raise UntrustedError(checkpoint, f"{manifest.name} is not signed by this key", key=key) from error
        if packed is None:
            raise UntrustedError(where, "it is cut short, or no signature", key=key)
        if not self.key.verifies(*packed):
            raise UntrustedError(where, "it is not this key's signature of what it states", key=key)
        statement = signature.read_statement(packed[1])
        if statement is None:
            raise UntrustedError(where, "it states something that this version of keepbest does not know", key=key)
        return statement


Trust = Trusted | KeySource
"""What `trusted=` takes: a demand, or the public key alone."""


def as_trusted(trusted: Trust | None) -> Trusted | None:
    """Return what is demanded by somebody who gave a key alone."""
    return trusted if trusted is None or isinstance(trusted, Trusted) else Trusted(trusted)


def run_name(url: str) -> str:
    """Return what a run is called where nobody says it: the last part of its URL.

    Raises:
        ConfigError: there is none.
    """
    path = url.partition("://")[2] if "://" in url else os.path.realpath(url)
    name = path.rstrip("/").rpartition("/")[2]
    if not name:
        raise ConfigError(f"{url} has no last part that names the run. Name it: run='…', or --run on the command line.")
    return name


def _signed_artifacts(
    artifacts: Mapping[str, Artifact], files: Mapping[str, FileStatement]
) -> dict[str, Artifact] | None:
    """Return the artifacts with the digests that were signed; None if the two do not name the same things."""
    if artifacts.keys() != files.keys():
        return None
    found = {}
    for file, artifact in artifacts.items():
        stated = files[file]
        if (artifact.tensors is None) != (stated.tensors is None):
            return None
        if artifact.tensors is None or stated.tensors is None:
            found[file] = replace(artifact, digest=stated.digest)
            continue
        if artifact.tensors.keys() != stated.tensors.keys() or stated.header_digest is None:
            return None
        tensors = {name: replace(record, digest=stated.tensors[name]) for name, record in artifact.tensors.items()}
        found[file] = replace(artifact, digest=stated.digest, header_digest=stated.header_digest, tensors=tensors)
    return found
