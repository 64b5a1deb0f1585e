"""Collect garbage: delete what a crash left, once it is old enough to be nobody's work in progress."""

from __future__ import annotations

import time
from collections import defaultdict

from msgspec import Struct

from ..errors import StoragePermissionError
from . import progress
from .backend import Backend, Entry
from .layout import CHECKPOINTS, checkpoint_of, data_prefix, temporary_of
from .listing import Listing, is_committed, read_listing
from .manifest import CheckpointInfo

GRACE = 3600.0
"""Seconds. A file that grew within this time may belong to a save that is still under way."""


class Orphan(Struct, frozen=True, kw_only=True):
    """Data that no commit names."""

    name: str
    """A checkpoint's folder, or the key of a temporary file or of an unfinished upload."""
    nbytes: int
    age: float
    """Seconds since it last changed, by the store's clock against ours."""
    files: tuple[str, ...]
    """Keys."""
    upload: bool = False
    """A multipart upload that was begun and not ended: parts without a name of their own, of unknown size."""


class Report(Struct, frozen=True, kw_only=True):
    """What `gc` deleted, or would delete."""

    removed: tuple[Orphan, ...]
    kept: tuple[Orphan, ...]
    """Orphans younger than the grace period."""
    dry_run: bool
    missing: tuple[CheckpointInfo, ...] = ()
    """Checkpoints whose data is gone and whose commits stand: somebody deleted a folder by hand. They are left."""
    hidden: str | None = None
    """Why unfinished uploads could not be looked for, if they could not: the permission is rarely given."""

    @property
    def nbytes(self) -> int:
        """Bytes freed, or that would be."""
        return sum(orphan.nbytes for orphan in self.removed)

    def __str__(self) -> str:
        verb = "would remove" if self.dry_run else "removed"
        young = f"; {len(self.kept)} are too young to be touched" if self.kept else ""
        return f"{verb} {len(self.removed)} orphan(s), {self.nbytes:,} bytes{young}."


def collect(backend: Backend, *, grace: float, dry_run: bool) -> Report:
    """Delete the orphans below the run's own prefixes that did not change for `grace` seconds.

    With a damaged manifest nobody knows which data it names, so nothing but temporary files is deleted then.
    """
    with progress.waiting(), progress.task("gc", backend.url, unit="objects") as task:
        return _collect(backend, task, grace=grace, dry_run=dry_run)


def _collect(backend: Backend, task: progress.Task, *, grace: float, dry_run: bool) -> Report:
    now = time.time()
    entries = backend.list("")
    listing = read_listing(backend)  # after the data, or what is committed in between would look like an orphan
    named = {checkpoint.name for checkpoint in listing.checkpoints}
    groups: dict[str, list[Entry]] = defaultdict(list)
    for entry in entries:
        name = checkpoint_of(entry.key)
        temporary = temporary_of(entry.key)
        if temporary is not None:
            groups[temporary].append(entry)
        elif name is not None and name not in named and not listing.damaged:
            groups[name].append(entry)
    orphans = [
        Orphan(
            name=name,
            nbytes=sum(entry.size for entry in entries),
            age=now - max(entry.modified for entry in entries),
            files=tuple(entry.key for entry in entries),
        )
        for name, entries in sorted(groups.items())
    ]
    uploads, hidden = _uploads(backend, now)
    orphans += uploads
    old = tuple(orphan for orphan in orphans if orphan.age >= grace)
    if not dry_run:
        old = _orphans_still(backend, old)
        task.expect(sum(len(orphan.files) for orphan in old))
        for orphan in old:
            backend.delete(orphan.files)
            task.advance(len(orphan.files))
        if hidden is None:
            backend.abort_stale("", now - grace)
    young = tuple(orphan for orphan in orphans if orphan.age < grace)
    missing = _missing(backend, listing, entries)
    return Report(removed=old, kept=young, dry_run=dry_run, missing=missing, hidden=hidden)


def _missing(backend: Backend, listing: Listing, entries: list[Entry]) -> tuple[CheckpointInfo, ...]:
    """Return what has no data; what was committed after the data was listed, or retired since, has some, or no commit.

    Cost: two requests for each that seems so.
    """
    present = {entry.key.removeprefix(CHECKPOINTS).partition("/")[0] for entry in entries}
    return tuple(
        found
        for found in listing.checkpoints
        if found.nbytes
        and found.name not in present
        and not backend.list(data_prefix(found.name), limit=1)
        and is_committed(backend, found.sequence)
    )


def _orphans_still(backend: Backend, orphans: tuple[Orphan, ...]) -> tuple[Orphan, ...]:
    """Look for their commits once more: what is deleted is gone, and a listing may come wrong, from a cache say."""
    if not any(map(_holds_data, orphans)):
        return orphans
    listing = read_listing(backend)
    named = {checkpoint.name for checkpoint in listing.checkpoints}
    return tuple(
        orphan for orphan in orphans if not _holds_data(orphan) or not (listing.damaged or orphan.name in named)
    )


def _holds_data(orphan: Orphan) -> bool:
    return any(temporary_of(key) is None for key in orphan.files)


def _uploads(backend: Backend, now: float) -> tuple[list[Orphan], str | None]:
    """Return the unfinished uploads, or why nobody knows them."""
    try:
        found = backend.unfinished("")
    except StoragePermissionError as error:  # few need this permission; all else can be collected without it
        return [], str(error)
    return [Orphan(name=entry.key, nbytes=0, age=now - entry.modified, files=(), upload=True) for entry in found], None
