"""Staging: the reusable host memory in which a snapshot waits to be written.

Allocated once and kept, because fresh pages cost more than the copy (2.6 against 23 GB/s, measured). One snapshot lies
in it at a time: whoever takes the next one waits until the writer is done with this one.
"""

from __future__ import annotations

import mmap
from collections.abc import Callable, Sequence

from ..storage.pages import pages
from .tensor import Lane

_PAGE = 4096
"""Each region begins on a page, as O_DIRECT wants it."""


class Staging:
    """One growing block of memory, handed out in regions."""

    def __init__(self) -> None:
        self._block: mmap.mmap | None = None
        self.generation = 0
        """Grows with each new block, which holds nothing of the one before."""
        self._pinned: dict[Lane, Callable[[], None]] = {}
        """What lets go of the block, for each accelerator that writes to it by itself."""

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        return 0 if self._block is None else len(self._block)

    def reserve(self, sizes: Sequence[int]) -> list[memoryview]:
        """Return a writable region for each size in bytes; the regions handed out before are reused.

        Cost: nothing, unless more is needed than ever before.

        Raises:
            MemoryError: there is not so much.
        """
        starts, end = [], 0
        for size in sizes:
            starts.append(end)
            end += -(-size // _PAGE) * _PAGE
        if end > self.nbytes:
            self.release()  # before the larger one is made
            try:
                self._block = pages(end)
            except OSError as error:
                raise MemoryError(f"{end:,} bytes for a snapshot cannot be had") from error
            self.generation += 1
        view = memoryview(self._block) if self._block is not None else memoryview(b"")
        return [view[start : start + size] for start, size in zip(starts, sizes, strict=True)]

    def pin(self, lane: Lane) -> None:
        """Let an accelerator write to the block by itself. Cost: once for each block, some 0.2 s per GB."""
        if lane not in self._pinned and self._block is not None:
            self._pinned[lane] = lane.pin(memoryview(self._block))

    def release(self) -> None:
        """Let go of the memory; it is freed when the last region is dropped. Nothing is being copied to it."""
        for unpin in self._pinned.values():
            unpin()
        self._pinned.clear()
        self._block = None
