"""What the machine itself needs for as many bytes as the state has: no saver that writes them all can be faster."""

from __future__ import annotations

import abc
import os
from pathlib import Path

import numpy as np
from models import Training
from savers import Saver
from typing_extensions import override

from keepbest.storage.pages import pages

CHUNK = 64 << 20
"""Bytes of a read or a write, as large as the largest of a save: smaller ones take longer."""
BLOCK = 4096
"""Bytes that offset, length and memory of a direct write are multiples of."""


class Floor(Saver):
    """Has the bytes in aligned memory before the clock starts."""

    def __init__(self, training: Training, folder: Path) -> None:
        super().__init__(training, folder)
        self._size = -(-training.nbytes // BLOCK) * BLOCK
        self._bytes = pages(self._size)
        np.frombuffer(self._bytes, np.uint8)[:] = np.random.default_rng(0).integers(0, 256, self._size, np.uint8)

    def finish(self) -> None:
        """`save` has done it."""

    def restore(self) -> None:
        """Read into memory that is there, past the page cache."""
        fd = os.open(self.path, os.O_RDONLY | os.O_DIRECT)
        for begin in range(0, self._size, CHUNK):
            os.preadv(fd, [memoryview(self._bytes)[begin : begin + CHUNK]], begin)
        os.close(fd)


class Memcpy(Floor):
    """Copy into memory that is there and was touched."""

    def __init__(self, training: Training, folder: Path) -> None:
        super().__init__(training, folder)
        self._copy = np.ones(self._size, np.uint8)

    @override
    def save(self) -> None:
        np.copyto(self._copy, np.frombuffer(self._bytes, np.uint8))

    def tidy(self) -> None:
        """There are no files."""

    def restore(self) -> None:
        """Copy back."""
        np.copyto(np.frombuffer(self._bytes, np.uint8), self._copy)


class Raw(Floor):
    """One preallocated file, written past the page cache by one thread, and flushed with its folder."""

    @abc.abstractmethod
    def open(self) -> int:
        """Return the file."""

    @override
    def save(self) -> None:
        fd = self.open()
        view = memoryview(self._bytes)
        for begin in range(0, self._size, CHUNK):
            os.pwrite(fd, view[begin : begin + CHUNK], begin)
        os.fsync(fd)
        os.close(fd)
        folder = os.open(self.folder, os.O_RDONLY)
        os.fsync(folder)
        os.close(folder)


class RawFresh(Raw):
    """A new file each time."""

    @override
    def open(self) -> int:
        fd = os.open(self.next_path(), os.O_CREAT | os.O_WRONLY | os.O_DIRECT)
        os.posix_fallocate(fd, 0, self._size)
        return fd


class RawRecycled(Raw):
    """The same file each time: its blocks are there, and were written before."""

    @override
    def open(self) -> int:
        return os.open(self.path, os.O_CREAT | os.O_WRONLY | os.O_DIRECT)
