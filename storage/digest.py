"""Digests: which hash is used, and how one is written down and checked.

xxh3-128 finds every accident (a flipped bit, a short write) at memory speed; it is no defence against someone who
alters a checkpoint on purpose.
"""

from __future__ import annotations

import xxhash

PREFIX = "xxh3-128:"
"""What every digest starts with, so that another algorithm can follow without a new format."""

_CHUNK = 1 << 20

Hasher = xxhash.xxh3_128


def digest(data: bytes | bytearray | memoryview) -> str:
    """Return the digest of `data` as `"xxh3-128:<32 hex digits>"`."""
    return PREFIX + xxhash.xxh3_128_hexdigest(data)


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
