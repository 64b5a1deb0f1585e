"""Foreign: what was found in another program's checkpoint, and how it becomes a checkpoint of a run.

Who reads a format says what is in it (`Found`); here it is written and committed as training would. Tensors are read
one at a time, when they are written: no more of them is in memory than the format's own reader holds.
"""

from __future__ import annotations

import socket
import time
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from msgspec import Struct, field
from msgspec.structs import replace

from ..errors import DamagedFileError, ForeignFileError, ObjectExistsError, UnsupportedStateError
from ..storage import progress, statefile, tensorfile, typedjson
from ..storage.backend import Backend, open_backend
from ..storage.checkpoint import Checkpoint
from ..storage.commit import BytesDraft, Draft, TensorDraft
from ..storage.foreign import check_name, check_size
from ..storage.layout import CHECKPOINTS, COMMITS, STATE_FILE, TENSOR_SUFFIX, temporary_of
from ..storage.listing import read_listing
from ..storage.manifest import CheckpointInfo, Manifest
from ..storage.run import Run
from ..storage.run_writer import RunWriter
from ..storage.statefile import ObjectRecord, Role
from ..storage.tensorfile import TensorSpec
from ..storage.typedjson import Json
from ..storage.verify import verify
from .live import LiveTensors
from .position import Position, name_checkpoint
from .state import source_of
from .tensor import TensorSource
from .tensor_names import TensorNames
from .versions import versions

REASON = "converted"
"""Why such a checkpoint was saved."""


class Unread(TensorSource, frozen=True, kw_only=True):
    """A tensor of another program's file that `read` copies from there."""

    read: Callable[[memoryview], None]

    def copy_into(self, target: memoryview) -> None:
        """Read it."""
        self.read(target)


class Lazy(Struct, frozen=True, kw_only=True):
    """A tensor that is read when it is written."""

    tag: str
    """The framework whose tensor it shall be."""
    source: TensorSource


class Part(Struct, frozen=True, kw_only=True):
    """What becomes one object of the checkpoint."""

    role: Role
    value: Any
    """Nested plain data with tensors, and `Lazy` ones."""
    metadata: Mapping[str, str] = field(default_factory=dict)
    """For the tensor file: what the framework's readers expect."""


class Found(Struct, frozen=True, kw_only=True):
    """What another program's checkpoint holds."""

    location: str
    """For messages."""
    format: str
    """What it is, for people: "a Lightning checkpoint"."""
    parts: Mapping[str, Part]
    """By the name of the object."""
    position: Position = field(default_factory=Position)
    complete: bool = False
    """Training can continue from it."""
    left_out: tuple[str, ...] = ()
    """Sentences about what was not taken over, and why."""
    stored: int
    """Bytes of its files."""
    times: int = 1
    """By how much what is in them may honestly grow."""


class Converted(Struct, frozen=True, kw_only=True):
    """What became of it."""

    run: str
    checkpoint: Checkpoint
    objects: Mapping[str, int]
    """Name → how many tensors it has in its file."""


def open_target(url: str, storage_options: Mapping[str, Any] | None, *, append: bool) -> RunWriter:
    """Return what writes to a run that is new, or with `append` may hold checkpoints.

    Raises:
        ObjectExistsError: it holds some; or a local folder holds something else.
    """
    backend = open_backend(url, storage_options)
    writer = RunWriter(backend)
    held = Run(backend).exists()
    folder = Path(backend.url)
    strange = not held and folder.is_dir() and not all(map(_left_behind, folder.iterdir()))
    if strange or (held and not append):
        raise ObjectExistsError(backend.url)
    return writer


def _left_behind(item: Path) -> bool:
    """Say whether a conversion that failed may have left it: what is temporary, or a run's folder without a file."""
    if temporary_of(item.name) is not None:
        return True
    ours = f"{item.name}/" in {CHECKPOINTS, COMMITS} and item.is_dir()
    return ours and all(each.is_dir() or temporary_of(each.name) is not None for each in item.rglob("*"))


def add_part(parts: dict[str, Part], name: str, part: Part, location: str) -> None:
    """Add a part that is called as such parts are.

    Raises:
        ForeignFileError: the weights are to be called so.
    """
    if name in parts:
        raise ForeignFileError(
            location, f"its weights cannot be called '{name}', as another part of it is. Give them another --name."
        )
    parts[name] = part


def write(writer: RunWriter, found: Found) -> Converted:
    """Write one checkpoint, commit it, and read it back.

    Raises:
        ForeignFileError, UnsupportedStateError: something in it cannot be saved; nothing was committed.
        DamagedFileError: what was written is not what is read; it is committed, and `verify` says the same.
    """
    name, write_id = name_checkpoint(found.position)
    records: dict[str, ObjectRecord] = {}
    drafts: list[Draft] = []
    for key, part in found.parts.items():
        records[key], draft = _draft(key, part, found.location)
        if draft is not None:
            drafts.append(draft)
    nbytes = sum(draft.plan.data_bytes for draft in drafts if isinstance(draft, TensorDraft))
    check_size(found.location, "all of it", nbytes, found.stored, times=found.times)
    state = statefile.dump(records, _training(found.position))
    with progress.waiting(), progress.task("save", name, nbytes):
        artifacts = writer.write(name, [*drafts, BytesDraft(file=STATE_FILE, data=state)])
        try:
            manifest = Manifest(
                sequence=writer.next_sequence,
                write_id=write_id,
                name=name,
                step=found.position.step,
                epoch=found.position.epoch,
                parent=None,
                time=time.time(),
                reasons=(REASON,),
                complete=found.complete,
                metrics={},
                scores=(),
                artifacts=dict(artifacts),
                host=socket.gethostname(),
                versions=versions(),
            )
        except BaseException:
            writer.discard(name, artifacts)
            raise
        committed = writer.commit(manifest)
    _verify(writer.backend, committed)
    tensors = {
        key: len((artifacts[record.file].tensors or {}) if record.file else {}) for key, record in records.items()
    }
    return Converted(run=writer.url, checkpoint=Checkpoint(writer.backend, committed), objects=tensors)


def _verify(backend: Backend, committed: CheckpointInfo) -> None:
    """Read back what was written, and only that: a run that it was added to may hold terabytes."""
    report = verify(backend, replace(read_listing(backend), checkpoints=(committed,), damaged=()))
    for problem in report.problems:
        raise DamagedFileError(
            f"{backend.url}/{problem.file or committed.name}", problem.message, tensor=problem.tensor
        )


def _training(position: Position) -> dict[str, Json]:
    """Return what a Checkpointer goes on from: a journal without rows, and monitors that have judged nothing."""
    return {"position": position.to_json(), "journal": {"branch": uuid.uuid4().hex[:12], "rows": 0}, "monitors": []}


def _draft(key: str, part: Part, location: str) -> tuple[ObjectRecord, TensorDraft | None]:
    """Return the object's record, and its tensor file if it has tensors; tied ones are stored once."""
    names = TensorNames(part.metadata)

    def tensor(path: str, leaf: Any) -> tuple[str, Json] | None:
        found = (leaf.tag, leaf.source) if isinstance(leaf, Lazy) else source_of(path, leaf)
        if found is None:
            return None
        tag, source = found
        stored = names.enter(check_name(location, path[len(key) + 1 :] or "value"), source)
        return tag, statefile.reference(stored, source.logical)

    try:
        state = typedjson.encode(part.value, key, tensor)
    except UnsupportedStateError as error:
        raise ForeignFileError(location, f"of what it holds, {error}") from error
    sources = names.sources
    if not sources:
        return ObjectRecord(role=part.role, file=None, state=state), None
    specs = [TensorSpec(name=name, dtype=source.dtype, shape=source.shape) for name, source in sources.items()]
    plan, file = tensorfile.plan(specs, names.metadata), key + TENSOR_SUFFIX
    draft = TensorDraft(file=file, plan=plan, data=LiveTensors(plan, sources))
    return ObjectRecord(role=part.role, file=file, state=state), draft
