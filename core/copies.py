"""Copies: the tensors of a snapshot on their way into staging — at once, later, or there already."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from ..storage.digest import digest
from .staging import Staging
from .tensor import Came, TensorSource

_CLONED = 256 << 20
"""Bytes of an accelerator's memory that a snapshot may take for copies of what no fence protects."""
_SAMPLE = 512
"""Bytes of a frozen tensor that are looked at before training goes on."""
_GLANCE = 16
"""Bytes of a tensor that are looked at once it is copied; a step may be waiting, and there are thousands of them."""


class Copy(NamedTuple):
    """One tensor that is to be copied into staging."""

    source: TensorSource
    region: memoryview
    base: int
    """The region's address."""
    begin: int
    end: int
    version: object
    """Of the source, when the snapshot was taken; None: nothing keeps it from changing."""
    rests: object
    """Of the source, likewise; None: it does not."""
    there: bool = False
    """The region should have the bytes already."""

    @property
    def address(self) -> int:
        """Of the first byte."""
        return self.base + self.begin

    @property
    def target(self) -> memoryview:
        """Where the bytes go."""
        return self.region[self.begin : self.end]

    @property
    def live(self) -> memoryview | None:
        """The tensor's bytes as they are now, if they lie in host memory."""
        return self.source.view()

    def make(self, came: Came) -> None:
        """Copy; from an accelerator, have it copied.

        Args:
            came: told begin and end, in the region, of what is in the cache; all that comes before the end is there.
        """
        if self.there:
            came(self.end, self.end)
            return
        if self.source.remote is not None:
            self.source.remote.queue(self.target)
        else:
            self.source.fill(self.target, lambda begin, end: came(self.begin + begin, self.begin + end))
        if self.source.lets_go:
            self.source.let_go()

    def is_torn(self) -> bool:
        """Say whether the tensor changed since the snapshot was taken, as far as it counts; or before, unnoticed."""
        if self.there:
            return self.live is None or digest(self.live) != digest(self.target)
        if self.version is None:
            return False
        if self.source.version() != self.version:
            return True
        live = self.live  # changes through `.data` are not counted
        return live is not None and not _alike(live, self.target, _GLANCE)


class Resting:
    """Remembers the frozen tensors that lie in staging, so that they are not copied again and again."""

    def __init__(self) -> None:
        self._held: dict[tuple[int, int], tuple[TensorSource, object]] = {}
        """Block and address → the tensor, and what it said of itself."""
        self._trusts = True

    def forget(self) -> None:
        """Hold on to no tensor."""
        self._held = {}

    def distrust(self) -> None:
        """Take no tensor for what it was."""
        self._trusts = False

    def copy(self, copies: Sequence[Copy], staging: Staging, *, overlap: bool) -> list[Copy]:
        """Copy what nothing keeps from changing, on an accelerator to a place of its own; return what is left to do.

        Args:
            copies: all of a snapshot.
            staging: where they go.
            overlap: False leaves nothing to do.
        """
        # Of a tensor that is taken for what it was, and is not, all are taken again before the next fenced step; where
        # nothing is fenced, training may have gone on since.
        fenced = any(copy.version is not None for copy in copies)
        known, self._held = self._held, {}  # staging is not what it was, should this fail
        held, later, loose = {}, [], _CLONED
        for copy in copies:
            remote = copy.source.remote if overlap else None
            if remote is not None:
                staging.pin(remote.lane)
            place, rests = (staging.generation, copy.address), (copy.source, copy.rests)
            if copy.rests is not None and self._trusts:
                held[place] = rests
            if overlap and (copy.version is not None or copy.source.held):
                later.append(copy)
            elif overlap and fenced and place in held and known.get(place) == rests and _looks_equal(copy):
                later.append(copy._replace(there=True))
            elif remote is not None and copy.end - copy.begin <= loose:
                loose -= copy.end - copy.begin
                later.append(copy._replace(source=remote.clone()))
            else:
                copy.source.fill(copy.target)
        self._held = held
        return later


def _looks_equal(copy: Copy) -> bool:
    """Compare a sample of a tensor with what lies in staging: an update of all of it, through `.data`, shows there."""
    live = copy.live
    return live is not None and _alike(live, copy.target, _SAMPLE)


def _alike(one: memoryview, other: memoryview, sample: int) -> bool:
    """Compare about so many of two tensors' bytes."""
    step = len(one) // sample | 1  # odd, so that all bytes of an element come by
    return one[::step] == other[::step]
