"""Digests: which hash is used, and how one is written down and checked.

xxh3-128 finds every accident (a flipped bit, a short write) at memory speed; it is no defence against someone who
alters a checkpoint on purpose. sha256 is, and stands in signatures; what a trusted key signed is checked by it.
"""

from __future__ import annotations

import hashlib

import xxhash

from ..errors import DamagedError, DamagedFileError, UntrustedError

PREFIX = "xxh3-128:"
"""What every digest starts with, so that another algorithm can follow without a new format."""

_SHA256 = "sha256:"
_CHUNK = 1 << 20

Hasher = xxhash.xxh3_128


def digest(data: bytes | bytearray | memoryview) -> str:
    """Return the digest of `data` as `"xxh3-128:<32 hex digits>"`."""
    return PREFIX + xxhash.xxh3_128_hexdigest(data)


def sha256(data: bytes | bytearray | memoryview) -> str:
    """Return the cryptographic digest of `data` as `"sha256:<64 hex digits>"`."""
    return _SHA256 + hashlib.sha256(data).hexdigest()


def is_signed(expected: str) -> bool:
    """Say whether a digest is one that was signed."""
    return expected.startswith(_SHA256)


def matches(data: bytes | bytearray | memoryview, expected: str | None) -> bool:
    """Say whether the digest of `data` is `expected`, by the algorithm that this one names."""
    return (sha256(data) if expected is not None and is_signed(expected) else digest(data)) == expected


def altered(location: str, expected: str | None, *, tensor: str | None = None) -> DamagedError:
    """Return the error for bytes that do not match `expected`."""
    if expected is not None and is_signed(expected):
        return UntrustedError(location, "its bytes are not those that were signed", tensor=tensor)
    return DamagedFileError(location, "its bytes are not those that were written", tensor=tensor)


class Check:
    """Says, of what comes piece by piece, whether it was all that and nothing else."""

    def __init__(self, expected: str | None) -> None:
        self._expected = expected
        self._signed = expected is not None and is_signed(expected)
        self._hasher = hashlib.sha256() if self._signed else Hasher()

    def update(self, data: bytes | bytearray | memoryview) -> None:
        """Take the next piece."""
        self._hasher.update(data)

    def holds(self) -> bool:
        """Say whether all pieces together have the digest that is expected."""
        return (_SHA256 if self._signed else PREFIX) + self._hasher.hexdigest() == self._expected


def finish(hasher: xxhash.xxh3_128) -> str:
    """Return what `digest` would have returned for all that `hasher` was fed."""
    return PREFIX + hasher.hexdigest()


def digest_file(path: str) -> tuple[int, str]:
    """Return the size in bytes and the digest of a local file."""
    hasher, size = Hasher(), 0
    with open(path, "rb") as file:
        while chunk := file.read(_CHUNK):
            hasher.update(chunk)
            size += len(chunk)
    return size, finish(hasher)
