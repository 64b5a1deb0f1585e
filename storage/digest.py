"""Digests: which hash is used, and how one is written down and checked.

xxh3-128 finds every accident (a flipped bit, a short write) at memory speed; it is no defence against someone who
alters a checkpoint on purpose.
"""

from __future__ import annotations

import xxhash

PREFIX = "xxh3-128:"
"""What every digest starts with, so that another algorithm can follow without a new format."""

Hasher = xxhash.xxh3_128


def digest(data: bytes | bytearray | memoryview) -> str:
    """Return the digest of `data` as `"xxh3-128:<32 hex digits>"`."""
    return PREFIX + xxhash.xxh3_128_hexdigest(data)


def finish(hasher: xxhash.xxh3_128) -> str:
    """Return what `digest` would have returned for all that `hasher` was fed."""
    return PREFIX + hasher.hexdigest()
