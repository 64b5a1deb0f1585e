"""Saver: one snapshot → files → commit → retention. Whether and when to save is decided before."""

from __future__ import annotations

import logging
import socket
import time
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

from msgspec import Struct

from ..errors import StorageError
from ..storage import progress, statefile
from ..storage.backend import Backend
from ..storage.commit import BytesDraft, Draft, LinkDraft
from ..storage.layout import STATE_FILE, data_key, weights_name
from ..storage.manifest import Artifact, CheckpointInfo, Manifest, Score
from ..storage.run_writer import RunWriter
from .arriving import BrokenOffError
from .mirroring import Mirroring
from .overlap import Overlap
from .policy import CheckpointPolicy
from .position import Position
from .preflight import space_needed
from .snapshot import Snapshot
from .versions import versions

_log = logging.getLogger(__name__)


class SaveRequest(Struct, frozen=True, kw_only=True):
    """One save, with everything that is known when it is decided."""

    name: str
    """The checkpoint's name."""
    write_id: str
    position: Position
    reasons: tuple[str, ...]
    metrics: Mapping[str, float]
    """Those logged at this very position."""
    scores: tuple[Score, ...]
    training: Mapping[str, Any]
    """Where training stood: position, monitors, journal mark."""


class Committed(Struct, frozen=True, kw_only=True):
    """What became of a save that ended well."""

    checkpoint: str
    sequence: int
    nbytes: int
    """Of all its files."""
    time: float
    """Seconds, monotonic, at which it was committed and durable."""
    retired: tuple[str, ...]
    """Names of the checkpoints that were deleted after it."""


class Saver:
    """Saves to one run. `save` runs in the writer's thread, one at a time; the rest when no save is in flight."""

    def __init__(self, backend: Backend, policy: CheckpointPolicy) -> None:
        self.run = RunWriter(backend)
        self.mirroring: Mirroring | None = None
        self._policy = policy
        self.parent: int | None = None
        """Sequence of the checkpoint that training continues from."""
        self._looked_at_space = False
        self._spared = False
        self.notices: list[str] = []
        """What the user should hear of that failed no save; the Checkpointer takes them out."""

    @property
    def checkpoints(self) -> Sequence[CheckpointInfo]:
        """What is committed and was not retired, oldest first."""
        return self.run.checkpoints

    @property
    def newest_name(self) -> str | None:
        """The name of the newest checkpoint; None if the run holds none, not even one that cannot be read."""
        if self.checkpoints:
            return self.checkpoints[-1].name
        return "one whose manifest is damaged" if self.run.next_sequence > 1 else None

    def save(self, request: SaveRequest, overlap: Overlap) -> Committed:
        """Write, commit, then retire what the policy no longer keeps.

        Writing begins while the snapshot is still being copied; if it had to be taken again, what was written is
        deleted, and the new one is written.

        Raises:
            KeepbestError: nothing was committed, and nothing older was touched.
        """
        begun = overlap.begun()
        with progress.task("save", request.name, begun.nbytes):
            self._check_space(begun.nbytes)
            return self._save(request, overlap, begun)

    def _save(self, request: SaveRequest, overlap: Overlap, begun: Snapshot) -> Committed:
        parent = self.parent
        if self._policy.best_contents == "weights" and any(score.value is not None for score in request.scores):
            snapshot = overlap.result()
            weights = self._commit_weights(request, snapshot.weights_only(), parent)
            artifacts = self._write(request.name, snapshot, request.training, _linked(request, snapshot, weights))
        else:
            artifacts = self._write_early(request, overlap, begun)
        self._commit(request, request.name, request.write_id, artifacts, parent, complete=True)
        self.parent, durable = self.run.next_sequence - 1, time.monotonic()
        retired = self.tidy()
        if self.mirroring is not None:
            self.mirroring.offer(self.run.checkpoints)
        return Committed(
            checkpoint=request.name,
            sequence=self.parent,
            nbytes=sum(artifact.size for artifact in artifacts.values()),
            time=durable,
            retired=retired,
        )

    def _write_early(self, request: SaveRequest, overlap: Overlap, begun: Snapshot) -> Mapping[str, Artifact]:
        name, training = request.name, request.training
        try:
            artifacts = self._write(name, begun, training, begun.files)
        except BrokenOffError:
            overlap.result()  # raises what broke it off
            raise
        try:
            snapshot = overlap.result()
        except BaseException:
            self.run.discard(name, artifacts)
            raise
        if snapshot is not begun:
            self.run.discard(name, artifacts)
            artifacts = self._write(name, snapshot, training, snapshot.files)
        return artifacts

    def _write(
        self, name: str, snapshot: Snapshot, training: Mapping[str, Any], drafts: Sequence[Draft]
    ) -> Mapping[str, Artifact]:
        state = BytesDraft(file=STATE_FILE, data=statefile.dump(snapshot.objects, training))
        return self.run.write(name, [*drafts, state])

    def _commit_weights(self, request: SaveRequest, part: Snapshot, parent: int | None) -> Mapping[str, Artifact]:
        """Commit the weights by themselves, so that the best can stay when the complete checkpoint goes."""
        name = weights_name(request.name)
        artifacts = self._write(name, part, request.training, part.files)
        self._commit(request, name, uuid.uuid4().hex, artifacts, parent, complete=False)
        return artifacts

    def _commit(  # noqa: PLR0913 - one commit has these facts
        self,
        request: SaveRequest,
        name: str,
        write_id: str,
        artifacts: Mapping[str, Artifact],
        parent: int | None,
        *,
        complete: bool,
    ) -> None:
        manifest = Manifest(
            sequence=self.run.next_sequence,
            write_id=write_id,
            name=name,
            step=request.position.step,
            epoch=request.position.epoch,
            parent=parent,
            time=time.time(),
            reasons=request.reasons,
            complete=complete,
            metrics=dict(request.metrics),
            scores=request.scores,
            artifacts=dict(artifacts),
            host=socket.gethostname(),
            versions=versions(),
        )
        self.run.commit(manifest)

    def _check_space(self, nbytes: int) -> None:
        """At the first save, when the optimizer has all its state, look once more whether the rest will fit."""
        if self._looked_at_space:
            return
        self._looked_at_space = True
        needed, free = space_needed(self._policy, nbytes, held=len(self.checkpoints)), self.run.backend.free_bytes()
        if free is not None and free < needed:
            self.notices.append(
                f"{self.run.url} has {free:,} bytes left; the checkpoints that the policy keeps need {needed:,} more. "
                "Free some space, or keep fewer, before saving fails."
            )

    def tidy(self) -> tuple[str, ...]:
        """Retire and refresh the hints; returns the names of what went.

        A failure here is told and tried again: the checkpoint is committed.
        """
        before = self.run.checkpoints
        try:
            going = set(self._policy.retain(self.run.checkpoints).retire)
            now = going if self.mirroring is None else self.mirroring.spare(going)
            self._spared = now != going
            self.run.retire(now)
            self.run.refresh_hints()
        except StorageError as error:
            _log.warning("retention.failed run=%s error=%s", self.run.url, error)
            self.notices.append(f"the checkpoint was saved, but older ones could not be tidied up: {error}")
        held = {found.sequence for found in self.run.checkpoints}
        return tuple(found.name for found in before if found.sequence not in held)

    def make_up_for_spared(self) -> None:
        """Retire what was left for the mirror's sake, once nothing is uploaded any more."""
        if self._spared:
            self.tidy()


def _linked(request: SaveRequest, snapshot: Snapshot, weights: Mapping[str, Artifact]) -> list[Draft]:
    """Return the files of a snapshot, and links in place of those that its weights were committed with."""
    name = weights_name(request.name)
    return [
        LinkDraft(file=draft.file, source=data_key(name, draft.file), artifact=weights[draft.file])
        if draft.file in weights
        else draft
        for draft in snapshot.files
    ]
