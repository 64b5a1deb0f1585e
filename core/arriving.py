"""Arriving: the data of a tensor file while it is being copied. Writing begins before the last tensor is there."""

from __future__ import annotations

import threading

from ..storage.file_hasher import FileHasher


class Arriving:
    """A region of staging that fills up from its beginning. Whoever reads a range waits until that is there."""

    def __init__(self, region: memoryview, there: int, hasher: FileHasher | None) -> None:
        """`there`: how many bytes are there already; `hasher`: of the file, if it is that."""
        self.hasher = hasher
        self._region = region
        self._there = there
        self._wanted = len(region) + 1
        """The least that somebody waits for: nobody is woken up for each piece."""
        self._state = threading.Condition()
        self._failed = False

    def arrived(self, begin: int, end: int, *, hashed: bool) -> None:
        """The bytes up to `end` are there; with `hashed` those from `begin` on, in the cache, are hashed right now."""
        if hashed and self.hasher is not None:
            self.hasher.offer(self._region[:end], begin)
        with self._state:
            self._there = end
            if end >= self._wanted:
                self._wanted = len(self._region) + 1
                self._state.notify_all()

    def finish(self, *, failed: bool) -> None:
        """All is there; or, with `failed`, nothing more will come."""
        with self._state:
            self._failed = failed
            self._there = len(self._region)
            self._state.notify_all()

    def __len__(self) -> int:
        return len(self._region)

    def __getitem__(self, span: slice) -> memoryview:
        high = span.indices(len(self._region))[1]
        if high > self._there or self._failed:
            with self._state:
                while high > self._there:
                    self._wanted = min(self._wanted, high)
                    self._state.wait()
            if self._failed:
                raise BrokenOffError
        return self._region[span]


class BrokenOffError(Exception):
    """Copying has failed; the `Overlap` says why."""
