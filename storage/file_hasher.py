"""File hasher: the digests of a tensor file, of the whole and of each tensor, in one pass over its bytes.

Whoever has the bytes in its cache feeds them: the thread that copies them, else the one that sends them.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping

from .digest import Hasher, digest, finish

Offsets = Mapping[str, tuple[int, int]]
"""Name → begin and end in the data, in the order of the file."""

PIECE = 512 << 10
"""Bytes that are hashed at a time, for two digests: what was read for the first is in the cache for the second.

Measured with the copy before it, 1 GiB: 256 KiB 75 ms, 512 KiB 71, 1 MiB 81, which a core's cache has no room for.
"""
_GAP = 1 << 20


class FileHasher:
    """Takes the data from its beginning to its end; whatever it was given before, it passes over."""

    def __init__(self, header: bytes, offsets: Offsets) -> None:
        self.digests = {name: digest(b"") for name, (begin, end) in offsets.items() if begin == end}
        """Of each tensor that was taken to its end."""
        self.taken = 0
        """Bytes of the data."""
        self._whole = Hasher(header)
        self._ends = [(name, end) for name, (begin, end) in offsets.items() if end > begin]
        self._place = 0
        """Of the tensor under way, in `_ends`."""
        self._tensor = Hasher()
        self._lock = threading.Lock()

    def feed(self, data: memoryview, begin: int) -> None:
        """Take bytes of the data, of which `begin` come before; at least as many were taken."""
        if self.taken < begin + len(data):  # else who offers, again and again, would be waited for
            with self._lock:
                self._feed(data, begin)

    def offer(self, data: memoryview, begin: int) -> None:
        """Take bytes that are in the cache, if they come next, or nearly, and nobody is at it; waits for nobody.

        Args:
            data: all that is there by now, from the beginning of the data.
            begin: where that begins that is in the cache.
        """
        if self.taken <= begin <= self.taken + _GAP and self._lock.acquire(blocking=False):
            try:
                self._feed(data, 0)
            finally:
                self._lock.release()

    def file_digest(self) -> str:
        """Return the digest of all that was taken, with the header."""
        return finish(self._whole)

    def _feed(self, data: memoryview, begin: int) -> None:
        end = begin + len(data)
        while self.taken < end:
            low, high = self.taken, min(self.taken + PIECE, end)
            self._whole.update(data[low - begin : high - begin])
            while low < high:
                name, last = self._ends[self._place]
                until = min(last, high)
                self._tensor.update(data[low - begin : until - begin])
                if until == last:
                    self.digests[name] = finish(self._tensor)
                    self._tensor, self._place = Hasher(), self._place + 1
                low = until
            self.taken = high
