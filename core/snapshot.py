"""Snapshot: the state of all objects at one moment, copied into staging, as files ready to be written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..storage import statefile, tensorfile
from ..storage.commit import TensorDraft
from ..storage.layout import TENSOR_SUFFIX
from ..storage.statefile import ObjectRecord
from ..storage.tensorfile import TensorFilePlan, TensorSpec
from ..storage.typedjson import Json
from . import rng
from .live import LiveTensors
from .staging import Staging
from .state import CapturedState, capture

INLINE_BYTES = 64 << 10
"""State that is neither weights nor an optimizer's, and holds no more tensor bytes than this, stays in `state.json`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """What was captured. `files` lie in staging until the next snapshot is taken, or where training has them."""

    objects: dict[str, ObjectRecord]
    files: tuple[TensorDraft, ...]

    @property
    def nbytes(self) -> int:
        """Bytes of the tensor files."""
        return sum(len(draft.plan.header) + draft.plan.data_bytes for draft in self.files)

    def revoke(self) -> None:
        """Let nothing more be read that training may change; see `take`."""
        for draft in self.files:
            if isinstance(draft.data, LiveTensors):
                draft.data.revoke()

    def weights_only(self) -> Snapshot:
        """Return the part of it that inference needs."""
        objects = {name: record for name, record in self.objects.items() if record.role == "weights"}
        names = {record.file for record in objects.values()}
        return Snapshot(objects=objects, files=tuple(draft for draft in self.files if draft.file in names))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Planned:
    captured: CapturedState
    plan: TensorFilePlan | None
    """None: its tensors, if any, stay inline."""


def take(objects: Mapping[str, Any], staging: Staging | None) -> Snapshot:
    """Capture `objects` and the random number generators, and copy every tensor into `staging`.

    When it returns, training may change the objects. Cost: one copy of the state's bytes.

    With None nothing is copied: the objects must stay as they are until the snapshot is written, or `revoke` was called
    and whoever writes it has ended.

    Raises:
        UnsupportedStateError: something is neither tensor nor plain data; names its path.
    """
    captured = [capture(name, obj) for name, obj in objects.items()]
    captured.append(rng.capture())
    planned = [_Planned(captured=state, plan=_plan(state)) for state in captured]
    in_files = [item for item in planned if item.plan is not None]
    records = {item.captured.name: _record(item) for item in planned}
    if staging is None:
        return Snapshot(objects=records, files=tuple(_live(item) for item in in_files))
    regions = staging.reserve([item.plan.data_bytes for item in in_files if item.plan is not None])
    files = [_copy(item, region) for item, region in zip(in_files, regions, strict=True)]
    return Snapshot(objects=records, files=tuple(files))


def estimate(objects: Mapping[str, Any]) -> int:
    """Return the bytes that the tensors of `objects` take now; nothing is copied.

    An optimizer that has made no step yet may hold none of the state it will have.
    """
    return sum(_nbytes(_specs(capture(name, obj))) for name, obj in objects.items())


def _plan(captured: CapturedState) -> TensorFilePlan | None:
    specs = _specs(captured)
    if not specs or (captured.role == "state" and _nbytes(specs) <= INLINE_BYTES):
        return None
    return tensorfile.plan(specs, captured.metadata)


def _specs(captured: CapturedState) -> list[TensorSpec]:
    return [TensorSpec(name=name, dtype=source.dtype, shape=source.shape) for name, source in captured.sources.items()]


def _nbytes(specs: Sequence[TensorSpec]) -> int:
    return sum(spec.nbytes for spec in specs)


def _copy(item: _Planned, region: memoryview) -> TensorDraft:
    assert item.plan is not None
    for name, (begin, end) in item.plan.offsets.items():
        if end > begin:
            item.captured.sources[name].copy_into(region[begin:end])
    return TensorDraft(file=item.captured.name + TENSOR_SUFFIX, plan=item.plan, data=region)


def _live(item: _Planned) -> TensorDraft:
    assert item.plan is not None
    data = LiveTensors(item.plan, item.captured.sources)
    return TensorDraft(file=item.captured.name + TENSOR_SUFFIX, plan=item.plan, data=data)


def _record(item: _Planned) -> ObjectRecord:
    sources = item.captured.sources

    def refer(stored: str) -> Json:
        source = sources[stored]
        if item.plan is not None:
            return statefile.reference(stored, source.logical)
        spec = TensorSpec(name=stored, dtype=source.dtype, shape=source.shape)
        data = bytearray(spec.nbytes)
        if data:
            source.copy_into(memoryview(data))
        return statefile.inline(spec, bytes(data), source.logical)

    return ObjectRecord(
        role=item.captured.role,
        file=None if item.plan is None else item.captured.name + TENSOR_SUFFIX,
        state=item.captured.state(refer),
    )
