"""Snapshot: the state of all objects at one moment, as files ready to be written.

Three kinds of tensors are told apart. Those that never change are held (JAX); where an assignment would have to copy
what is held (TensorFlow), they are copied into staging while training goes on, and let go of one by one. Those that
only a step of an optimizer changes are copied likewise, and a fence holds up the step (`overlap.py`). All others are
copied before training goes on; but a frozen parameter, which nobody is known to have changed, is left as the snapshot
before has it, and compared while training goes on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from msgspec import Struct, field
from msgspec.structs import replace

from ..storage import statefile, tensorfile
from ..storage.commit import TensorDraft
from ..storage.file_hasher import FileHasher
from ..storage.layout import TENSOR_SUFFIX
from ..storage.statefile import ObjectRecord, Role
from ..storage.tensorfile import TensorFilePlan, TensorSpec
from ..storage.typedjson import Json
from . import rng
from .arriving import Arriving
from .capturing import Capturing
from .copies import Copy, Resting
from .live import LiveTensors
from .staging import Staging
from .state import CapturedState, value_of
from .tensor import Lying, TensorSource

INLINE_BYTES = 64 << 10
"""State that is neither weights nor an optimizer's, and holds no more tensor bytes than this, stays in `state.json`."""


class ObjectDraft(Struct, frozen=True, kw_only=True):
    """One object of a snapshot; its typed state is worked out by whoever writes it."""

    name: str
    role: Role
    file: str | None
    state: Callable[[], Json]


class Snapshot(Struct, frozen=True, kw_only=True):
    """What was captured. `files` lie in staging until the next snapshot is taken, or where training has them."""

    drafts: tuple[ObjectDraft, ...]
    files: tuple[TensorDraft, ...]
    copies: tuple[Copy, ...] = ()
    """What is still to be copied, while a fence holds up whatever changes it."""
    arriving: Mapping[int, Arriving] = field(default_factory=dict)
    """The data of files that copies are made to, by the `id` of the region: whoever reads it waits for them."""

    @property
    def can_be_written(self) -> bool:
        """Writing may begin before all copies are made."""
        awaited = {id(draft.data) for draft in self.files}
        return all(id(arriving) in awaited for arriving in self.arriving.values())

    @property
    def objects(self) -> dict[str, ObjectRecord]:
        """What the state file says of each object."""
        return {
            draft.name: ObjectRecord(role=draft.role, file=draft.file, state=draft.state()) for draft in self.drafts
        }

    @property
    def nbytes(self) -> int:
        """Bytes of the tensor files."""
        return sum(len(draft.plan.header) + draft.plan.data_bytes for draft in self.files)

    def revoke(self) -> None:
        """Let nothing more be read that training may change; see `Snapshots.live`."""
        for draft in self.files:
            if isinstance(draft.data, LiveTensors):
                draft.data.revoke()

    def weights_only(self) -> Snapshot:
        """Return the part of it that inference needs."""
        drafts = tuple(draft for draft in self.drafts if draft.role == "weights")
        names = {draft.file for draft in drafts}
        return Snapshot(drafts=drafts, files=tuple(draft for draft in self.files if draft.file in names))


class _Planned(Struct, frozen=True, kw_only=True):
    captured: CapturedState
    plan: TensorFilePlan | None
    """None: its tensors, if any, stay inline."""

    @property
    def file(self) -> str | None:
        return None if self.plan is None else self.captured.name + TENSOR_SUFFIX

    def staged_bytes(self, *, letting_go: bool) -> int:
        sources = self.captured.sources
        offsets = {} if self.plan is None else self.plan.offsets
        return sum(end - begin for name, (begin, end) in offsets.items() if _is_staged(sources[name], letting_go))


class Snapshots:
    """Takes snapshots of objects and of the random number generators. Used by one thread at a time."""

    def __init__(self, objects: Mapping[str, Any]) -> None:
        self._capturings = [Capturing(name, partial(value_of, obj)) for name, obj in objects.items()]
        self._rng = Capturing(rng.NAME, rng.read)
        self._resting = Resting()

    def estimate(self) -> int:
        """Return the bytes that the tensors of the objects take now; nothing is copied.

        An optimizer that has made no step yet may hold none of the state it will have.
        """
        return sum(_nbytes(_specs(capturing.capture())) for capturing in self._capturings)

    def live(self) -> Snapshot:
        """Capture all, and copy nothing: the objects must stay as they are until the snapshot is written.

        Or until `revoke` was called and whoever writes it has ended.

        Raises:
            UnsupportedStateError: something is neither tensor nor plain data; names its path.
        """
        planned = self._planned()
        files = [_draft(item, item.captured.sources) for item in planned if item.plan is not None]
        return Snapshot(drafts=_drafts(planned), files=tuple(files))

    def staged(self, staging: Staging, *, overlap: bool, limit: int | None = None) -> Snapshot | None:
        """Capture all, and copy into `staging` what may change before it is written.

        When it returns, training may go on. Cost: a microsecond or two for each tensor, and the copy.

        Args:
            staging: where to; what an earlier snapshot has there is overwritten.
            overlap: leave out what a fence keeps from changing; `copies` says what that is.
            limit: bytes of staging; None: whatever it takes.

        Returns:
            None: it takes more than `limit`; nothing was copied.

        Raises:
            UnsupportedStateError: as `live`.
        """
        planned = self._planned()
        in_files = [item for item in planned if item.plan is not None]
        letting_go, sizes = overlap, [item.staged_bytes(letting_go=overlap) for item in in_files]
        if limit is not None and overlap and sum(sizes) > limit:
            letting_go, sizes = False, [item.staged_bytes(letting_go=False) for item in in_files]
        if limit is not None and sum(sizes) > limit:
            return None
        drafts, copies, files = _drafts(planned), list[Copy](), list[TensorDraft]()
        for item, region in zip(in_files, staging.reserve(sizes), strict=True):
            found, draft = _stage(item, region, letting_go=letting_go)
            copies += found
            files.append(draft)
        later = self._resting.copy(copies, staging, overlap=overlap)
        arriving = _arriving(later, files)
        return Snapshot(
            drafts=drafts,
            files=tuple(_awaiting(file, arriving.get(id(file.data))) for file in files),
            copies=tuple(later),
            arriving=arriving,
        )

    def forget(self) -> None:
        """Hold on to no tensor: the objects are about to get others, and these are to be freed."""
        for capturing in (*self._capturings, self._rng):
            capturing.forget()
        self._resting.forget()

    def distrust(self) -> None:
        """Take no tensor for what it was: one was changed, and nobody was told."""
        self._resting.distrust()

    def _planned(self) -> list[_Planned]:
        captured = [capturing.capture() for capturing in (*self._capturings, self._rng)]
        return [_Planned(captured=state, plan=_plan(state)) for state in captured]


def _plan(captured: CapturedState) -> TensorFilePlan | None:
    if "plan" not in captured.memo:
        specs = _specs(captured)
        inline = not specs or (captured.role == "state" and _nbytes(specs) <= INLINE_BYTES)
        captured.memo["plan"] = None if inline else tensorfile.plan(specs, captured.metadata)
    plan: TensorFilePlan | None = captured.memo["plan"]
    return plan


def _specs(captured: CapturedState) -> list[TensorSpec]:
    """Return the tensors, frozen ones first: what is not sent again lies together."""
    ordered = sorted(captured.sources.items(), key=lambda item: item[1].rests() is None)
    return [TensorSpec(name=name, dtype=source.dtype, shape=source.shape) for name, source in ordered]


def _nbytes(specs: Sequence[TensorSpec]) -> int:
    return sum(spec.nbytes for spec in specs)


def _is_staged(source: TensorSource, letting_go: bool) -> bool:  # noqa: FBT001 - once for each tensor
    return not source.held or (letting_go and source.lets_go)


def _stage(item: _Planned, region: memoryview, *, letting_go: bool) -> tuple[list[Copy], TensorDraft]:
    """Give each tensor that does not stay held its place in the region; the region is the file's data if none does."""
    assert item.plan is not None
    sources, copies, free, anything_held = item.captured.sources, list[Copy](), 0, False
    base = np.frombuffer(region, np.uint8).ctypes.data if region else 0
    for name, (begin, end) in item.plan.offsets.items():
        source = sources[name]
        if not _is_staged(source, letting_go):
            anything_held = True
        elif end > begin:
            copies.append(Copy(source, region, base, free, free + end - begin, source.version(), source.rests()))
            free += end - begin
    if not anything_held:
        return copies, TensorDraft(file=item.captured.name + TENSOR_SUFFIX, plan=item.plan, data=region)
    staged = {id(copy.source): region[copy.begin : copy.end] for copy in copies}
    places = {
        name: Lying(dtype=source.dtype, shape=source.shape, lies=staged[id(source)]) if id(source) in staged else source
        for name, source in sources.items()
    }
    return copies, _draft(item, places)


def _arriving(later: Sequence[Copy], files: Sequence[TensorDraft]) -> dict[int, Arriving]:
    """Return what waits for the copies to each region, by its `id`."""
    plans = {id(file.data): file.plan for file in files}
    found: dict[int, Arriving] = {}
    for copy in later:
        key = id(copy.region)
        if key not in found:
            plan = plans.get(key)
            hasher = None if plan is None else FileHasher(plan.header, plan.offsets)
            found[key] = Arriving(copy.region, copy.begin, hasher)
    return found


def _awaiting(file: TensorDraft, arriving: Arriving | None) -> TensorDraft:
    return file if arriving is None else replace(file, data=arriving, hasher=arriving.hasher)


def _draft(item: _Planned, sources: Mapping[str, TensorSource]) -> TensorDraft:
    assert item.plan is not None
    data = LiveTensors(item.plan, sources)
    return TensorDraft(file=item.captured.name + TENSOR_SUFFIX, plan=item.plan, data=data)


def _drafts(planned: Sequence[_Planned]) -> tuple[ObjectDraft, ...]:
    return tuple(
        ObjectDraft(name=item.captured.name, role=item.captured.role, file=item.file, state=_state(item))
        for item in planned
    )


def _state(item: _Planned) -> Callable[[], Json]:
    """Return what builds the typed state, later: what stays inline is copied now."""
    memo = item.captured.memo
    if "facts" not in memo:
        memo["facts"] = {name: source.facts for name, source in item.captured.sources.items()}
    facts = memo["facts"]
    if item.plan is not None:
        return partial(item.captured.state, lambda stored: statefile.reference(stored, facts[stored][2]))
    copied = {name: _bytes(source) for name, source in item.captured.sources.items()}

    def refer(stored: str) -> Json:
        dtype, shape, logical = facts[stored]
        return statefile.inline(TensorSpec(name=stored, dtype=dtype, shape=shape), copied[stored], logical)

    return partial(item.captured.state, refer)


def _bytes(source: TensorSource) -> bytes:
    data = bytearray(TensorSpec(name="", dtype=source.dtype, shape=source.shape).nbytes)
    if data:
        source.fill(memoryview(data))
    return bytes(data)
