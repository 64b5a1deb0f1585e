"""Tensor stream: the bytes of a tensor file, cut into chunks, hashed on their way, without what an older file has.

Where there is nothing to compare with, or a tensor is known to train, a chunk is hashed while those before it are being
sent. Else the tensor is hashed first: one whose digest is that of the older tensor is sent as `Held`.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterator
from typing import Protocol

from .backend import Chunk, Held
from .digest import digest
from .file_hasher import FileHasher, Offsets
from .manifest import Artifact

LARGE = 1 << 20
"""Bytes from which a tensor is a chunk, or several, by itself; and from which it is worth to hold some back."""

_CHUNK = 8 << 20
_IN_PLACE = 64 << 10
"""Bytes from which it is worth to pass over some that are in place: the pages at their edges are written anyway."""

_Place = tuple[bool, int]
"""Whether it is in place, in the spare file; and how much further behind the older file has it."""


class Bytes(Protocol):
    """A row of bytes that may be put together only where it is asked for: a memoryview is one."""

    def __len__(self) -> int: ...

    def __getitem__(self, span: slice, /) -> memoryview: ...


class TensorStream:
    """The stream of a tensor file. It can be gone through again, from its beginning."""

    def __init__(  # noqa: PLR0913 - a file, and what is known of older ones
        self,
        header: bytes,
        offsets: Offsets,
        data: Bytes,
        *,
        base: Artifact | None = None,
        spare: Artifact | None = None,
        training: Collection[str] = (),
        hasher: FileHasher | None = None,
    ) -> None:
        """Take a file.

        Args:
            header: the bytes before the data.
            offsets: name → begin and end in the data, in the order of the file.
            data: the data.
            base: the record of the file that `Held` bytes may be in.
            spare: the record of the file that is written over.
            training: the tensors that are not expected to be what they were; they are compared with nothing.
            hasher: of this file, fed with part of it by others, or None.
        """
        self.base = base
        self.nbytes = len(header) + len(data)
        self.hasher = hasher or FileHasher(header, offsets)
        """Has all of the file when the stream has ended."""
        self._header = header
        self._offsets = offsets
        self._data = data
        self._spare = spare
        self._training = training

    def is_all_of(self, older: Artifact) -> bool:
        """Say whether the file is, byte for byte, an older one; where something trains, that is not expected.

        Cost: hashing up to the first tensor that is not, before anything is sent.
        """
        if self._training or (older.size, older.header_digest) != (self.nbytes, digest(self._header)):
            return False
        records = older.tensors or {}
        return all(name in records and self._digest(name) == records[name].digest for name in self._offsets)

    def __iter__(self) -> Iterator[Chunk]:
        yield self._header
        for names in self._groups():
            if any(self._candidates(name) for name in names):
                yield from self._compared(names)
            else:
                yield from self._streamed(names)

    def _groups(self) -> Iterator[list[str]]:
        """Yield the tensors in the order of the file: each large one by itself, small ones together."""
        group: list[str] = []
        length = 0
        for name, (begin, end) in self._offsets.items():
            if end - begin >= LARGE or length >= LARGE:
                if group:
                    yield group
                group, length = [], 0
            group.append(name)
            length += end - begin
        if group:
            yield group

    # ── nothing to compare with ───────────────────────────────────────────────────────────────────────────────────

    def _streamed(self, names: list[str]) -> Iterator[memoryview]:
        """Yield the tensors of a group, each chunk hashed just before."""
        for begin, end in _chunks(*self._span(names)):
            chunk = self._data[begin:end]
            self.hasher.feed(chunk, begin)
            yield chunk

    # ── something to compare with ─────────────────────────────────────────────────────────────────────────────────

    def _compared(self, names: list[str]) -> Iterator[Chunk]:
        """Yield the tensors of a group, those next to each other that are held by the same file as one."""
        for name in names:
            self._digest(name)  # all of them, before the first is sent
        found = [(place, list(group)) for place, group in itertools.groupby(names, self._place)]
        worth = [(place if self._is_worth(place, run) else None, run) for place, run in found]
        for place, runs in itertools.groupby(worth, lambda entry: entry[0]):
            low, high = self._span([name for _, run in runs for name in run])
            if place is not None and high > low:
                in_place, further = place
                begin = len(self._header) + low + further
                yield Held(data=self._data[low:high], begin=begin, in_place=in_place)
                continue
            for begin, end in _chunks(low, high):
                yield self._data[begin:end]

    def _place(self, name: str) -> _Place | None:
        """Return where an older file has a tensor with this very content, or None."""
        mine = self._digest(name)
        return next((place for place, there in self._candidates(name) if there == mine), None)

    def _candidates(self, name: str) -> list[tuple[_Place, str]]:
        """Return where an older file has a tensor of this name and size, with its digest; in place if possible."""
        if name in self._training:
            return []
        begin, end = self._offsets[name]
        found = []
        for in_place, older in ((True, self._spare), (False, self.base)):
            record = (older.tensors or {}).get(name) if older is not None else None
            if older is None or record is None or record.offsets[1] - record.offsets[0] != end - begin:
                continue
            further = (older.data_start or 0) + record.offsets[0] - len(self._header) - begin
            if not in_place or not further:
                found.append(((in_place, further), record.digest))
        return found

    def _is_worth(self, place: _Place | None, names: list[str]) -> bool:
        low, high = self._span(names)
        return place is not None and high - low >= (_IN_PLACE if place[0] else LARGE)

    def _digest(self, name: str) -> str:
        """Return the digest of a tensor; of those before it, too, all are known then."""
        for begin, end in _chunks(*self._offsets[name]):
            if self.hasher.taken < end:
                self.hasher.feed(self._data[begin:end], begin)
        return self.hasher.digests[name]

    def _span(self, names: list[str]) -> tuple[int, int]:
        return self._offsets[names[0]][0], self._offsets[names[-1]][1]


def _chunks(low: int, high: int) -> Iterator[tuple[int, int]]:
    for begin in range(low, high, _CHUNK):
        yield begin, min(begin + _CHUNK, high)
