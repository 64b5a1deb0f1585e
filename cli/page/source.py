"""Source: one run, as the report read it. Everything the page says is made of this, and of nothing else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from msgspec import Struct

from ...core.direction import Mode, known_direction
from ...errors import KeepbestError
from ...storage.backend import open_backend
from ...storage.checkpoint import Checkpoint
from ...storage.history import Row
from ...storage.journal import Lost, read_journal
from ...storage.layout import TENSOR_SUFFIX
from ...storage.listing import Listing
from ...storage.manifest import CheckpointInfo, Manifest
from ...storage.notes import Decided, Note
from ...storage.run import Run, open_run
from ..marks import Marks, left, marks


class Source(Struct, frozen=True, kw_only=True):
    """What was found at one URL."""

    url: str
    listing: Listing
    marks: Marks
    left: frozenset[int]
    """Sequences of checkpoints on a way that training left; the curves are of another one."""
    shown: tuple[CheckpointInfo, ...]
    """The checkpoints that are listed one by one: the newest and the best, oldest first."""
    digests: Mapping[int, tuple[str, str]]
    """Sequence → name and digest of the file of weights, of those shown; absent: its manifest cannot be read now."""
    entries: Sequence[Row | Note]
    """The journal."""
    lost: Lost
    """What it does not say any more."""

    rows: int
    """How many entries are rows; the others are notes, and a run of a keepbest that kept none has none."""
    modes: Mapping[str, Mode]
    """Monitored metric → the direction in which it improves, the primary one first."""

    def mode(self, metric: str) -> Mode | None:
        """Return the direction in which a metric improves: as it is monitored, else as its name says; None: unknown."""
        return self.modes.get(metric) or known_direction(metric)


def read(url: str, storage_options: Mapping[str, Any], *, most: int) -> Source:
    """Read a run; of its checkpoints the newest `most` and the best are shown.

    Cost: one listing, one read of the journal, one read for each checkpoint shown.

    Raises:
        NotARunError: nothing there is a run.
    """
    run = Run(open_backend(url, storage_options))
    listing, journal = run.listing(), read_journal(run.backend)
    entries = journal.entries
    if not listing.checkpoints and not listing.damaged and not entries:
        open_run(url, storage_options=storage_options)  # says if it is no run
    found = marks(listing.checkpoints)
    best = set(found.best.values())
    newest = {info.sequence for info in listing.checkpoints[-most:]}
    shown = tuple(info for info in listing.checkpoints if info.sequence in newest | best)
    return Source(
        url=run.url,
        listing=listing,
        marks=found,
        left=frozenset(left(listing.checkpoints, entries)),
        shown=shown,
        digests=_digests(run, shown),
        entries=entries,
        lost=journal.lost,
        rows=sum(isinstance(entry, Row) for entry in entries),
        modes=_modes(found, entries),
    )


def _modes(found: Marks, entries: Sequence[Row | Note]) -> dict[str, Mode]:
    modes: dict[str, Mode] = {score.monitor: score.mode for score in found.monitors}
    checks = (entry.checks for entry in reversed(entries) if isinstance(entry, Decided) and entry.checks)
    for check in next(checks, ()):
        modes.setdefault(check.monitor, check.mode)
    return modes


def _digests(run: Run, shown: Sequence[CheckpointInfo]) -> dict[int, tuple[str, str]]:
    if not shown:
        return {}
    with ThreadPoolExecutor(min(max(run.backend.capabilities.parallel, 1), len(shown)), "keepbest-report") as pool:
        manifests = pool.map(lambda info: _manifest(Checkpoint(run.backend, info)), shown)
        return {manifest.sequence: _weights(manifest) for manifest in manifests if manifest and manifest.artifacts}


def _manifest(checkpoint: Checkpoint) -> Manifest | None:
    try:
        return checkpoint.manifest()
    except KeepbestError:  # retired since it was listed, or damaged behind an index that has a record of it
        return None


def _weights(manifest: Manifest) -> tuple[str, str]:
    """Return name and digest of the file that holds the weights: the model's, else the first tensor file."""
    files = manifest.artifacts
    tensors = [file for file, artifact in files.items() if artifact.tensors is not None]
    model = f"model{TENSOR_SUFFIX}"
    file = model if model in files else next(iter([*tensors, *files]))
    return file, files[file].digest
