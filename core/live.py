"""Live tensors: those of a snapshot that is written while training waits, read where they lie, without staging."""

from __future__ import annotations

import bisect
from collections.abc import Mapping

from ..errors import UsageError
from ..storage.tensorfile import TensorFilePlan
from .tensor import TensorSource


class LiveTensors:
    """The data of a tensor file, as one row of bytes that is put together where it is asked for.

    A range within a tensor of contiguous host memory is that memory. Of others a copy is made: of the range, and, as
    long as ranges of it are asked for, of a tensor that lies on a device or not contiguously.

    Read from one thread at a time, in ascending order.
    """

    def __init__(self, plan: TensorFilePlan, sources: Mapping[str, TensorSource]) -> None:
        self._sources = sources
        self._names = [name for name, (begin, end) in plan.offsets.items() if end > begin]
        self._offsets = plan.offsets
        self._ends = [plan.offsets[name][1] for name in self._names]
        self._length = plan.data_bytes
        self._copied: tuple[str, memoryview] | None = None
        self._revoked = False

    def revoke(self) -> None:
        """Give out nothing more: training goes on, and will change the tensors."""
        self._revoked = True

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, span: slice) -> memoryview:
        if self._revoked:
            raise UsageError(
                "the save was interrupted, and training may have changed what it had not yet written, so it was not "
                "committed. Older checkpoints are unharmed; call save() again."
            )
        low, high, _ = span.indices(self._length)
        first = bisect.bisect_right(self._ends, low)
        if high > low and high <= self._ends[first]:
            return self._within(self._names[first], low, high)
        made = memoryview(bytearray(high - low))
        for name in self._names[first:]:
            begin, end = self._offsets[name]
            if begin >= high:
                break
            inside = max(begin, low), min(end, high)
            made[inside[0] - low : inside[1] - low] = self._within(name, *inside)
        return made

    def _within(self, name: str, low: int, high: int) -> memoryview:
        begin, end = self._offsets[name]
        return self._whole(name, end - begin)[low - begin : high - begin]

    def _whole(self, name: str, nbytes: int) -> memoryview:
        if self._copied is not None and self._copied[0] == name:
            return self._copied[1]
        source = self._sources[name]
        found = source.view()
        if found is None:
            found = memoryview(bytearray(nbytes))
            source.copy_into(found)
        self._copied = name, found
        return found
