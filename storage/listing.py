"""Listing: which checkpoints a run holds, from one listing of its commits and the newest index.

The listing is the truth. An index is a hint: it spares reading a manifest that it has a record of, if the manifest's
file is still there and as long as it was.
"""

from __future__ import annotations

import msgspec
from msgspec import Struct

from ..errors import DamagedError, DamagedManifestError, ObjectNotFoundError
from .backend import Backend, Entry
from .layout import COMMITS, commit_key, commit_sequence, index_key, index_sequence
from .manifest import CheckpointInfo, Manifest, decode, info, seal, to_plain, unseal
from .trust import Trusted

_LARGEST = 256 << 20
"""Bytes of a manifest or an index: those of a million tensors. What is larger is read by nobody."""

UNINDEXED = 64
"""A new index is written when this many commits stand in none."""

_LOOKS = 10
"""How often it is looked at a run whose commits go, each time, before they are read."""


class Listing(Struct, frozen=True, kw_only=True):
    """The commits of a run at one moment."""

    checkpoints: tuple[CheckpointInfo, ...]
    """By sequence, oldest first."""
    damaged: tuple[tuple[int, DamagedError], ...]
    """Sequence and error of every manifest that could not be read."""
    indexed: int
    """How many of `checkpoints` the newest index has."""
    index_keys: tuple[str, ...]
    """Every index there is, oldest first."""
    sizes: dict[int, int]
    """Sequence → bytes of the manifest's file."""

    @property
    def last_sequence(self) -> int:
        """The highest sequence number in use, damaged manifests included; 0 if there is none."""
        return max(self.sizes, default=0)


class _Record(Struct, frozen=True, kw_only=True):
    manifest_bytes: int
    checkpoint: CheckpointInfo


def read_listing(backend: Backend, trusted: Trusted | None = None) -> Listing:
    """List the commits. Cost: one listing, one read of the index, one read for each commit that is in no index.

    With `trusted` no index is believed, and a commit that is not signed is among the damaged ones. Cost: one listing,
    two reads for each commit.

    A commit that is retired while we look made room for one that came after our listing: then we look again, or a run
    that keeps one checkpoint would seem to hold none.
    """
    for _ in range(_LOOKS):
        listing = _look(backend, trusted)
        if len(listing.checkpoints) + len(listing.damaged) == len(listing.sizes):
            break
    return listing


def _look(backend: Backend, trusted: Trusted | None) -> Listing:
    """Return what is there; a commit that was listed, and gone when it was to be read, has a size only."""
    commits: dict[int, Entry] = {}
    indexes: list[Entry] = []
    for entry in backend.list(COMMITS):
        sequence = commit_sequence(entry.key)
        if sequence is not None:
            commits[sequence] = entry
        elif index_sequence(entry.key) is not None:
            indexes.append(entry)
    known = _read_index(backend, indexes[-1]) if indexes and trusted is None else {}
    found: list[CheckpointInfo] = []
    damaged: list[tuple[int, DamagedError]] = []
    hits = 0
    for sequence, entry in sorted(commits.items()):
        record = known.get(sequence)
        if record is not None and record.manifest_bytes == entry.size:
            found.append(record.checkpoint)
            hits += 1
            continue
        try:
            if entry.size > _LARGEST:
                raise DamagedManifestError(f"{backend.url}/{entry.key}", f"it has {entry.size:,} bytes")
            found.append(info(read_manifest(backend, sequence, trusted)))
        except ObjectNotFoundError:  # retired since we listed
            continue
        except DamagedError as error:
            damaged.append((sequence, error))
    return Listing(
        checkpoints=tuple(found),
        damaged=tuple(damaged),
        indexed=hits,
        index_keys=tuple(entry.key for entry in indexes),
        sizes={sequence: entry.size for sequence, entry in commits.items()},
    )


def is_committed(backend: Backend, sequence: int) -> bool:
    """Say whether a checkpoint's commit is there, and was not retired. Cost: one request."""
    try:
        backend.head(commit_key(sequence))
    except ObjectNotFoundError:
        return False
    return True


def read_manifest(backend: Backend, sequence: int, trusted: Trusted | None = None) -> Manifest:
    """Return the manifest with this sequence number; with `trusted`, with the digests that were signed.

    Raises:
        ObjectNotFoundError: there is none.
        DamagedManifestError: it was truncated, altered, or is that of another number.
        UnsupportedFormatError: a newer keepbest wrote it.
        UntrustedError: the trusted key's holder did not sign it as it is.
    """
    key = commit_key(sequence)
    data = backend.read(key)
    manifest = parse_manifest(data, sequence, f"{backend.url}/{key}")
    return manifest if trusted is None else trusted.check(backend, manifest, data)


def parse_manifest(data: bytes, sequence: int, location: str) -> Manifest:
    """Return the manifest in `data`; raises as `read_manifest` does."""
    manifest = decode(data, location)
    if manifest.sequence != sequence:
        raise DamagedManifestError(location, f"it is the manifest of number {manifest.sequence}")
    return manifest


def write_index(backend: Backend, listing: Listing) -> str:
    """Write an index of `listing`, delete the older ones, return its key. Readers that find none read the manifests."""
    key = index_key(listing.last_sequence)
    records = [
        {"manifest_bytes": listing.sizes[checkpoint.sequence], "checkpoint": to_plain(checkpoint)}
        for checkpoint in listing.checkpoints
    ]
    backend.replace(key, seal(msgspec.json.encode(records)))
    backend.delete(other for other in listing.index_keys if other != key)
    return key


def drop_indexes(backend: Backend) -> None:
    """Delete every index; needed before a number is given out that an index has a record of."""
    backend.delete(entry.key for entry in backend.list(COMMITS) if index_sequence(entry.key) is not None)


def _read_index(backend: Backend, index: Entry) -> dict[int, _Record]:
    if index.size > _LARGEST:
        return {}
    try:
        records = msgspec.json.decode(unseal(backend.read(index.key), f"{backend.url}/{index.key}"), type=list[_Record])
    except (DamagedError, ObjectNotFoundError, ValueError, RecursionError, MemoryError):  # a hint that is of no use
        return {}
    return {record.checkpoint.sequence: record for record in records}
