"""Mirror: the second tier of a run — what goes there, what stays there, and what comes back when the disk is lost."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ..errors import AmbiguousNameError, CheckpointNotFoundError, ConfigError
from ..storage import progress
from ..storage.backend import Backend, open_backend
from ..storage.manifest import CheckpointInfo
from ..storage.mirror import Copier, check_same_run
from ..storage.ranking import best_of, newest_complete
from ..storage.run import Run
from ..storage.run_writer import RunWriter
from .policy import CheckpointPolicy

_log = logging.getLogger(__name__)


class Mirror:
    """One run on two tiers: `first`, where training saves, and the mirror. Used by one thread at a time.

    Each tier has what the policy keeps of its own listing, and deletes only after the commit of what replaces it. So
    the best is never lost on either.
    """

    def __init__(self, first: RunWriter, backend: Backend, policy: CheckpointPolicy) -> None:
        self.url = backend.url
        self.first_url = first.url
        self._first = first
        self._run = RunWriter(backend)
        self._policy = policy
        self._copier = Copier(first.backend, self._run)
        self._swept = False
        self.held: tuple[CheckpointInfo, ...] = tuple(self._run.checkpoints)
        """What it lists, oldest first. May be read by any thread."""

    @property
    def newest_name(self) -> str | None:
        """The name of its newest checkpoint; None if it holds none, not even one that cannot be read."""
        if self.held:
            return self.held[-1].name
        return "one whose manifest is damaged" if self._run.damaged else None

    # ── up ────────────────────────────────────────────────────────────────────────────────────────────────────────

    def lacks(self, held: Sequence[CheckpointInfo]) -> list[CheckpointInfo]:
        """Return those of `held`, the first tier's, that it should have and does not, the newest first.

        It should have what the policy would keep if it had all of them.
        """
        there = {checkpoint.sequence for checkpoint in self.held}
        missing = [checkpoint for checkpoint in held if checkpoint.sequence not in there]
        if not missing:
            return []
        keep = self._policy.retain([*self.held, *missing]).keep
        return [checkpoint for checkpoint in reversed(missing) if checkpoint.sequence in keep]

    def upload(self, checkpoint: CheckpointInfo, go_on: Callable[[], None]) -> None:
        """Copy the rows logged so far and one checkpoint; raises as `Copier.copy` does."""
        self._copier.copy_rows()
        self._copier.copy(checkpoint, go_on)
        self.held = tuple(self._run.checkpoints)

    def tidy(self, held: Sequence[CheckpointInfo]) -> None:
        """Retire what the policy no longer keeps there, but not what it would keep with all of `held`.

        Raises:
            StorageError: it is tried again after the next upload.
        """
        keep = self._policy.retain([*self.held, *self.lacks(held)]).keep
        going = self._policy.retain(self.held).retire
        self._run.retire(sequence for sequence in going if sequence not in keep)
        self.held = tuple(self._run.checkpoints)
        self._run.refresh_hints()
        if not self._swept:
            Run(self._run.backend).gc()
            self._swept = True

    def copy_rows(self) -> None:
        """Copy the rows that were logged since the last upload."""
        self._first.backend.settle()  # a bucket shows no rows before
        self._copier.copy_rows()

    def close(self) -> None:
        """Let go of the journal."""
        self._copier.close()

    # ── back ──────────────────────────────────────────────────────────────────────────────────────────────────────

    def bring_back(self) -> None:
        """Bring to the first tier what training needs and only the mirror has.

        That is the latest checkpoint, the best by each monitor if the policy keeps it, and the history. What else the
        mirror holds stays there alone.

        Raises:
            DivergedError: the two tiers are not one run; nothing was written.
            DamagedError: the latest is damaged in the mirror, or the best.
            StorageError: one of the tiers failed.
        """
        both = self._both()
        latest = self._latest(both)
        keep = self._policy.retain(both).keep
        monitors = {score.monitor for checkpoint in both for score in checkpoint.scores}
        bests = [best_of(both, monitor) for monitor in sorted(monitors)]
        self._fetch([latest, *(best for best in bests if best is not None and best.sequence in keep)])

    def bring_back_one(self, which: str | int, *, fresh: bool) -> str | int:
        """Bring one checkpoint to the first tier if only the mirror has it; returns what it is called there.

        Args:
            which: as `Run.get` takes it.
            fresh: training has not gone on yet, so that "best" and "latest" mean those of both tiers.

        Raises:
            As `bring_back`; CheckpointNotFoundError: neither holds it.
        """
        if which in {"best", "latest"} and not fresh:
            return which
        both = self._both()
        match which:
            case "best":
                found = best_of(both, None)
            case "latest":
                found = self._latest(both)
            case _:
                found = self._named(which)
        self._fetch([found])
        return which if found is None else found.sequence

    def _named(self, which: str | int) -> CheckpointInfo:
        try:
            return Run(self._first.backend).get(which).info
        except AmbiguousNameError:
            raise
        except CheckpointNotFoundError:
            return Run(self._run.backend).get(which).info

    def _latest(self, both: Sequence[CheckpointInfo]) -> CheckpointInfo | None:
        latest = newest_complete(both)
        for sequence, error in self._run.damaged:
            if latest is None or sequence > latest.sequence:
                raise error
        return latest

    def _both(self) -> list[CheckpointInfo]:
        """Return what either tier lists, oldest first, but not what stands damaged in the first."""
        first = self._first
        check_same_run(first.backend, first.checkpoints, self._run.backend, self.held)
        taken = {checkpoint.sequence for checkpoint in first.checkpoints} | {sequence for sequence, _ in first.damaged}
        there = [checkpoint for checkpoint in self.held if checkpoint.sequence not in taken]
        return sorted([*first.checkpoints, *there], key=lambda checkpoint: checkpoint.sequence)

    def _fetch(self, wanted: Sequence[CheckpointInfo | None]) -> None:
        """Copy what the first tier does not list, the first of `wanted` first; its next number is new to both."""
        here = {checkpoint.sequence for checkpoint in self._first.checkpoints}
        missing = {found.sequence: found for found in wanted if found is not None and found.sequence not in here}
        if missing:
            names = ", ".join(checkpoint.name for checkpoint in missing.values())
            nbytes = sum(checkpoint.nbytes for checkpoint in missing.values())
            _log.warning("%s: bringing back %s (%s bytes) from %s", self.first_url, names, f"{nbytes:,}", self.url)
            copier = Copier(self._run.backend, self._first)
            try:
                with progress.waiting():
                    copier.copy_rows()
                    for checkpoint in missing.values():
                        copier.copy(checkpoint)
            finally:
                copier.close()
        self._first.start_after(self._run.next_sequence - 1)


def open_mirror(url: str, mirror: str | os.PathLike[str] | None, options: Mapping[str, Any] | None) -> Backend | None:
    """Return the place of the mirror of the run at `url`; None without one.

    Raises:
        ConfigError: it is no second place, or there are options for none.
    """
    if mirror is None:
        if options:
            raise ConfigError("mirror_options without a mirror: say where it is, mirror='s3://…'.")
        return None
    opened = open_backend(mirror, options)
    here, there = (place if "://" in place else os.path.realpath(place) for place in (url, opened.url))
    if f"{there}/".startswith(f"{here}/") or f"{here}/".startswith(f"{there}/"):
        raise ConfigError(
            f"the mirror {opened.url} and the run {url} are one place, or one lies in the other. Give a mirror that "
            "can survive when the run is lost."
        )
    return opened
