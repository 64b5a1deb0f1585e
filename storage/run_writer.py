"""RunWriter: the one writer of a run. It numbers the commits, knows what is committed, and keeps the hints fresh.

It lists the run once, when it opens; from then on it knows what it did itself. Another writer is noticed at the next
commit, by the number that is taken; or, where that was given up again, by those that are higher.
"""

from __future__ import annotations

import bisect
import contextlib
import weakref
from collections.abc import Iterable, Mapping, Sequence
from functools import partial

from ..errors import ConcurrentWriterError, ObjectExistsError, StorageError
from . import commit, listing
from .backend import Backend
from .known_files import KnownFiles
from .layout import BEST_HINT, BEST_LINK, COMMITS, commit_sequence, data_prefix, index_key, index_sequence
from .listing import Listing
from .manifest import Artifact, CheckpointInfo, Manifest, info, seal
from .ranking import best_of

_SEEN_AT_ONCE = 900
"""Checkpoints up to which one request lists all commits. Who keeps more retires few, so that numbers stay taken."""


class RunWriter:
    """Writes checkpoints to a run and retires them. Used by one thread at a time."""

    def __init__(self, backend: Backend) -> None:
        held = listing.read_listing(backend)
        self.backend = backend
        self.url = backend.url
        self.checkpoints: list[CheckpointInfo] = list(held.checkpoints)
        """Committed and not retired, oldest first."""
        self.damaged = held.damaged
        """Sequence and error of every manifest that could not be read."""
        self._last_sequence = held.last_sequence
        self._sizes = dict(held.sizes)
        """Of every commit that is known, those that are gone by now included."""
        self._files: dict[str, tuple[str, ...]] = {}
        """Of the checkpoints that were committed here."""
        self._index_keys = held.index_keys
        self._unindexed = len(held.checkpoints) - held.indexed
        self._pointed_at: str | None = None
        self._known = KnownFiles(backend)
        self._drop_spares = weakref.finalize(self, self._known.drop_all)

    def close(self) -> None:
        """Give back the space of spare files. Writing goes on afterwards, if anybody wants it to.

        Who forgets it loses nothing: it happens when the writer is collected, or the interpreter exits.
        """
        self._known.drop_all()

    @property
    def next_sequence(self) -> int:
        """The number the next commit will have."""
        return self._last_sequence + 1

    def start_after(self, sequence: int) -> None:
        """Give out no number up to `sequence`: a mirror has them."""
        self._last_sequence = max(self._last_sequence, sequence)

    def write(self, name: str, drafts: Sequence[commit.Draft]) -> Mapping[str, Artifact]:
        """Write a checkpoint's files; nothing lists them yet."""
        artifacts = commit.write(self.backend, name, drafts, self._known)
        self._known.wrote(
            name,
            {
                draft.file: artifacts[draft.file]
                for draft in drafts
                if isinstance(draft, commit.TensorDraft | commit.LinkDraft)
            },
        )
        return artifacts

    def discard(self, name: str, files: Iterable[str]) -> None:
        """Delete what was written of a checkpoint and will not be committed."""
        commit.discard(self.backend, name, files)

    def commit(self, manifest: Manifest) -> CheckpointInfo:
        """Make a written checkpoint visible; see `commit.commit` for the order and the errors."""
        if any((index_sequence(key) or 0) >= manifest.sequence for key in self._index_keys):
            # The newest were deleted, and their numbers are given out again: no index may describe those before.
            listing.drop_indexes(self.backend)
            self._index_keys = ()
            self._unindexed = len(self.checkpoints)
        try:
            nbytes = commit.commit(self.backend, manifest, partial(self._check_alone, manifest.sequence))
        except ConcurrentWriterError:
            raise
        except BaseException as error:
            # The store may have it after all, or get it yet: the number is not given out a second time.
            self.start_after(manifest.sequence)
            self._sizes.setdefault(manifest.sequence, 0)
            if isinstance(error, ObjectExistsError):
                self._check_alone(manifest.sequence)  # it was taken, and has been retired since
            raise
        self._sizes[manifest.sequence] = nbytes
        self._files[manifest.name] = tuple(manifest.artifacts)
        committed = info(manifest)
        self._known.committed(manifest.name)
        bisect.insort(self.checkpoints, committed, key=lambda found: found.sequence)  # a copy may come late
        self.start_after(manifest.sequence)
        self._unindexed += 1
        return committed

    def _check_alone(self, sequence: int) -> None:
        """See whether a number is free only because another writer has retired what had it, and gone on.

        Whatever a writer retires, it never retires the newest, so a look at the commits shows it.

        Raises:
            ConcurrentWriterError: so it is.
        """
        if len(self.checkpoints) >= _SEEN_AT_ONCE:
            return
        with contextlib.suppress(StorageError):  # the next commit looks again
            found = {commit_sequence(entry.key) or 0 for entry in self.backend.list(COMMITS)}
            newer = max(found - self._sizes.keys(), default=0)
            if newer > sequence:
                raise ConcurrentWriterError(self.url, newer, "it has retired what followed on ours since")

    def retire(self, sequences: Iterable[int]) -> None:
        """Delete the checkpoints with these numbers; see `commit.retire` for the order."""
        going = set(sequences)
        if not going:
            return
        retired = [found for found in self.checkpoints if found.sequence in going]
        commit.retire(self.backend, retired, self._known, self._files)
        for found in retired:
            self._files.pop(found.name, None)
        self.checkpoints = [found for found in self.checkpoints if found.sequence not in going]

    def refresh_hints(self) -> None:
        """Bring the index and the pointer to the best up to date; readers believe neither over the listing."""
        if self._unindexed >= listing.UNINDEXED:
            self._write_index()
        best = best_of(self.checkpoints, None)
        if best is None or best.name == self._pointed_at:
            return
        if self.backend.capabilities.links:
            self.backend.link(data_prefix(best.name).rstrip("/"), BEST_LINK)
        else:
            self.backend.replace(BEST_HINT, seal(f'{{"name":"{best.name}","sequence":{best.sequence}}}'.encode()))
        self._pointed_at = best.name

    def _write_index(self) -> None:
        # Before: it may be written, and deleting the older ones refused. Then the next one deletes them all.
        self._index_keys = (*self._index_keys, index_key(self.checkpoints[-1].sequence))
        held = Listing(
            checkpoints=tuple(self.checkpoints),
            damaged=(),
            indexed=0,
            index_keys=self._index_keys,
            sizes={found.sequence: self._sizes[found.sequence] for found in self.checkpoints},
        )
        self._index_keys = (listing.write_index(self.backend, held),)
        self._unindexed = 0
