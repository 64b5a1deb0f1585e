"""Arriving: the data of a tensor file while it is being copied. Writing begins before the last tensor is there."""

from __future__ import annotations

import threading


class Arriving:
    """A region of staging that fills up from its beginning. Whoever reads a range waits until that is there."""

    def __init__(self, region: memoryview, there: int) -> None:
        """`there`: how many bytes are there already."""
        self._region = region
        self._there = there
        self._state = threading.Condition()
        self._failed = False

    def arrived(self, there: int) -> None:
        """So many bytes are there now."""
        with self._state:
            self._there = there
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
                self._state.wait_for(lambda: high <= self._there)
            if self._failed:
                raise BrokenOffError
        return self._region[span]


class BrokenOffError(Exception):
    """Copying has failed; the `Overlap` says why."""
