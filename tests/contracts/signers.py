"""Signers: pairs of keys for tests, and the one who can write to a run but has no key."""

from __future__ import annotations

import json

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519
from msgspec.structs import replace

from keepbest.storage.digest import digest
from keepbest.storage.layout import commit_key, data_key, signature_file
from keepbest.storage.listing import read_manifest
from keepbest.storage.manifest import Artifact, encode

NO_ENCRYPTION = serialization.NoEncryption()


class Signer:
    """A pair of keys in PEM files: `private` and `public`."""

    def __init__(self, folder, name="signing"):
        self.key = ed25519.Ed25519PrivateKey.generate()
        self.private, self.public = folder / f"{name}.pem", folder / f"{name}.pub.pem"
        write_private(self.private, self.key)
        write_public(self.public, self.key)

    def sign(self, statement):
        """Return the document of a statement (bytes) with a signature that is right."""
        return b'{"signature":"ed25519:%s","statement":%s}\n' % (self.key.sign(statement).hex().encode(), statement)


def write_private(path, key, encryption=NO_ENCRYPTION):
    """Write a private key as PKCS8, for its owner alone."""
    path.touch(mode=0o600)
    encoding, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    path.write_bytes(key.private_bytes(encoding, form, encryption))


def write_public(path, key):
    """Write the public half as SubjectPublicKeyInfo."""
    encoding, form = serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    path.write_bytes(key.public_key().public_bytes(encoding, form))


class Intruder:
    """Writes what he likes to a run, with every digest right that needs no key."""

    def __init__(self, backend):
        self.backend = backend

    def signature_key(self, sequence, key_id):
        """Return where the signature of a checkpoint by a key lies."""
        return data_key(read_manifest(self.backend, sequence).name, signature_file(key_id))

    def set_manifest(self, of, **changes):
        """Change fields of the manifest with the number `of`."""
        manifest = replace(read_manifest(self.backend, of), **changes)
        self.backend.replace(commit_key(manifest.sequence), encode(manifest))

    def set_file(self, sequence, file, data):
        """Change the content of a file, of the same layout, and what the manifest says of it."""
        manifest = read_manifest(self.backend, sequence)
        self.set_bytes(sequence, file, data)
        self.set_manifest(sequence, artifacts={**manifest.artifacts, file: described(manifest.artifacts[file], data)})

    def set_bytes(self, sequence, file, data):
        """Change the content of a file, and nothing else."""
        self.backend.replace(data_key(read_manifest(self.backend, sequence).name, file), data)

    def read(self, sequence, file):
        """Return the content of a file."""
        return self.backend.read(data_key(read_manifest(self.backend, sequence).name, file))


def described(artifact, data):
    """Return the artifact of other data of the same layout."""
    if artifact.tensors is None:
        return Artifact(size=len(data), digest=digest(data))
    start = artifact.data_start
    tensors = {
        name: replace(record, digest=digest(data[start + record.offsets[0] : start + record.offsets[1]]))
        for name, record in artifact.tensors.items()
    }
    return replace(artifact, digest=digest(data), header_digest=digest(data[:start]), tensors=tensors)


def flipped(data, at=-1):
    """Return data with one bit flipped in the byte `at`."""
    changed = bytearray(data)
    changed[at] ^= 1
    return bytes(changed)


def statement_of(document):
    """Return what a signature states, as JSON has it."""
    return json.loads(document)["statement"]
