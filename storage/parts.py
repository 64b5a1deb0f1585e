"""Parts: how a stream of unknown length becomes the parts of an upload, some of them copied from an older object.

It decides where the stream is cut and which bytes need not be sent; `transfer.py` sends and copies. Nothing here knows
a store.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from msgspec import Struct

from .backend import Buffer, Chunk, Held, bytes_of

LEAST = 5 << 20
"""Bytes that stores want every part but the last to have."""

_DOUBLING = 2000
_LARGEST = 5 << 30


class PartSizes(Struct, frozen=True, kw_only=True):
    """How large parts are. All double after each 2,000 parts: 10,000 parts of 8 MiB at first hold 484 GiB."""

    sent: int
    """Bytes of a part that is sent, at least `least`; up to `least` more where that spares sending held ones."""
    least: int = LEAST
    """Bytes that each part but the last has."""
    copied: int | None = None
    """Bytes that a copied part has at most, at least twice `least`; does not double. None: nothing is copied."""


class Part:
    """The bytes of one part: buffers that are joined only when it is sent, so that what waits is not held twice."""

    def __init__(self, begin: int | None = None) -> None:
        self.buffers: list[memoryview] = []
        """Empty in a part that is copied whose bytes nobody wants to send after all."""
        self.nbytes = 0
        self.begin = begin
        """Where the older object has them, if they are to be copied."""

    def add(self, buffer: memoryview, *, keep: bool = True) -> None:
        """Put bytes at the end, or only count them."""
        if keep:
            self.buffers.append(buffer)
        self.nbytes += len(buffer)

    def take(self, count: int) -> Part:
        """Cut off the first `count` bytes and return them."""
        taken = Part(self.begin)
        while self.buffers and taken.nbytes < count:
            first = self.buffers.pop(0)
            piece = first[: count - taken.nbytes]
            taken.add(piece)
            if len(piece) < len(first):
                self.buffers.insert(0, first[len(piece) :])
        taken.nbytes = count
        self.nbytes -= count
        if self.begin is not None:
            self.begin += count
        return taken

    def joined(self) -> Buffer:
        """Return the bytes, once; copied only if they come in several pieces."""
        data = self.buffers[0] if len(self.buffers) == 1 else b"".join(self.buffers)
        self.buffers = []
        return data


def parts(chunks: Iterable[Chunk], sizes: PartSizes, *, keep: bool = True) -> Iterator[Part]:
    """Regroup a stream into parts, without copying.

    Held chunks that are neighbours in the older object too are one run. A run is copied but for the bytes that fill up
    the part before it; one that leaves less than a part, and a stream that is one part, is sent.

    Args:
        chunks: the stream.
        sizes: of the parts.
        keep: parts that are copied have their bytes as well, for whoever must send them after all.
    """
    plan = _Plan(sizes, keep=keep)
    for chunk in chunks:
        begin = chunk.begin if isinstance(chunk, Held) and not chunk.in_place else None
        yield from plan.add(memoryview(bytes_of(chunk)).cast("B"), None if sizes.copied is None else begin)
    yield from plan.end()


class _Plan:
    """What came of a stream and has not become a part: bytes to be sent, and a run behind them."""

    def __init__(self, sizes: PartSizes, *, keep: bool) -> None:
        self._sizes = sizes
        self._keep = keep
        self._number = 0
        self._pending = Part()
        self._run: Part | None = None
        self._copying = False
        """It is certain that the run is copied."""

    def add(self, data: memoryview, begin: int | None) -> Iterator[Part]:
        """Take the next bytes of the stream; `begin` is where the older object has them."""
        if not data:
            return
        run = self._run
        if run is not None and (begin is None or begin != (run.begin or 0) + run.nbytes):
            yield from self._end_run()
        if begin is None:
            yield from self._send(data)
            return
        if self._run is None:
            self._run = Part(begin)
        self._run.add(data, keep=self._keep or not self._copying)
        yield from self._copy(self._run)

    def end(self) -> Iterator[Part]:
        """Give out what is left: only now a part may be small."""
        yield from self._end_run()
        if self._pending.nbytes > self._size:
            yield self._out(self._pending.take(self._size))
        if self._pending.nbytes:
            yield self._out(self._pending)

    def _send(self, data: memoryview) -> Iterator[Part]:
        while data:
            # What may come behind the part is held back, so that no small rest has to be filled up from a run.
            full = self._size + (0 if self._sizes.copied is None else self._least)
            taken = data[: full - self._pending.nbytes]
            self._pending.add(taken)
            data = data[len(taken) :]
            if self._pending.nbytes >= full:
                yield self._out(self._pending.take(self._size))

    def _copy(self, run: Part) -> Iterator[Part]:
        assert self._sizes.copied is not None
        if not self._copying:
            pending = self._pending
            lent = max(0, self._least - pending.nbytes) if pending.nbytes else 0
            one_part = not self._number and pending.nbytes + run.nbytes <= self._size
            if one_part or run.nbytes < lent + self._least:
                return
            self._copying = True
            for buffer in run.take(lent).buffers:
                pending.add(buffer)
            if pending.nbytes:
                self._pending = Part()
                yield self._out(pending)
            if not self._keep:
                run.buffers = []
        while run.nbytes >= self._sizes.copied + self._least:
            yield self._out(run.take(self._sizes.copied))

    def _end_run(self) -> Iterator[Part]:
        run, copied = self._run, self._copying
        self._run, self._copying = None, False
        if run is None:
            return
        if not copied:
            for buffer in run.buffers:
                yield from self._send(buffer)
            return
        assert self._sizes.copied is not None
        if run.nbytes > self._sizes.copied:
            yield self._out(run.take(run.nbytes // 2))
        yield self._out(run)

    def _out(self, part: Part) -> Part:
        self._number += 1
        return part

    @property
    def _least(self) -> int:
        grown = self._sizes.least << (self._number // _DOUBLING)
        return grown if self._sizes.copied is None else min(grown, self._sizes.copied // 2)

    @property
    def _size(self) -> int:
        most = _LARGEST if self._sizes.copied is None else _LARGEST - self._least
        return min(self._sizes.sent << (self._number // _DOUBLING), most)
