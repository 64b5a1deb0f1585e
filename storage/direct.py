"""Direct: a large file, written past the page cache, so that neither that nor a core is taken from training.

Memory that lies as the file does (page on page: staging) is written from where it is; all else goes through a bounce
buffer. A helper thread waits for the disk while the caller makes, and hashes, the next piece. Where the file system
refuses O_DIRECT, the same writes go through the page cache.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import mmap
import os
import queue
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Self

from . import helper, progress
from .backend import Buffer, Chunk, Held
from .pages import pages

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

LARGE = 1 << 20
"""Bytes from which a file is written so: below, the page cache costs less than the calls."""
PAGE = 4096
"""What O_DIRECT wants addresses, offsets and lengths to be multiples of; no common disk wants more."""

_PIECE = 64 << 20
_EAGER = 4 << 20
"""Bytes that a disk with next to nothing to do gets. So a write is as large as what came during the one before, and the
disk seldom waits for a thread (1 GiB in writes of 8 MiB 118 ms, of 64 MiB 114, measured)."""
_BOUNCE = 4 << 20
_SMALL = 16 * PAGE
"""Bytes of the two buffers that a header and a tail lie in. A large page takes the time to be filled with zeros, in a
virtual machine also that of asking the host for one: up to 5 ms, measured."""
_WORTH = 16 * PAGE
"""Bytes from which it is worth a write of its own not to copy them."""
_PATIENCE = 10.0
"""Seconds that a thread has to begin."""
_WAITING = 8
"""Pieces that may wait for the disk."""
_O_DIRECT = getattr(os, "O_DIRECT", 0)
_FULL = frozenset((errno.ENOSPC, errno.EDQUOT))
_NO_PREALLOCATION = frozenset((errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS))

MakeRoom = Callable[[], bool]
"""Called when the disk is full: frees what can be spared, and says whether there was any."""


def write_large(  # noqa: PLR0913 - the facts of one file
    fd: int, chunks: Iterable[Chunk], nbytes: int | None, make_room: MakeRoom, *, base: int | None, recycled: bool
) -> int:
    """Fill a file from its beginning; returns its bytes.

    Args:
        fd: of a new file, or of one that is written over; opened for writing.
        chunks: the content.
        nbytes: its size, if that is known, and it keeps its word: so much is reserved at once.
        make_room: for a full disk.
        base: a descriptor of the file that `Held` bytes can be had from.
        recycled: the file is the spare one that `Held` bytes in place are in.
    """
    with contextlib.suppress(OSError, AttributeError):
        fcntl.fcntl(fd, fcntl.F_SETFL, fcntl.fcntl(fd, fcntl.F_GETFL) | _O_DIRECT)
    if nbytes is not None:
        _preallocate(fd, nbytes, make_room)
    task = progress.current()
    with _Writer(fd, make_room) as writer:
        for chunk in chunks:
            if not isinstance(chunk, Held):
                writer.write(chunk)
            elif not chunk.in_place:
                writer.clone(chunk, base)
            elif recycled and chunk.begin == writer.position:
                writer.skip(chunk.data)
            else:
                writer.write(chunk.data)
            task.process(memoryview(chunk.data if isinstance(chunk, Held) else chunk).nbytes)
        written = writer.finish()
    if os.fstat(fd).st_size != written:
        os.ftruncate(fd, written)
    return written


def write_all(fd: int, data: Buffer, make_room: MakeRoom) -> int:
    """Write all of `data` where the descriptor stands; returns its bytes."""
    rest = memoryview(data).cast("B")
    written = len(rest)
    while rest:
        try:
            rest = rest[os.write(fd, rest) :]
        except OSError as error:
            if error.errno not in _FULL or not make_room():
                raise
    return written


def _preallocate(fd: int, nbytes: int, make_room: MakeRoom) -> None:
    if os.fstat(fd).st_size > nbytes:
        os.ftruncate(fd, nbytes)
    if not _is_direct(fd) or not hasattr(os, "posix_fallocate"):
        return  # without O_DIRECT, libc would put zeros in every block where the file system cannot do it
    while True:
        try:
            os.posix_fallocate(fd, 0, nbytes)
        except OSError as error:
            if error.errno in _FULL and make_room():
                continue
            if error.errno not in _NO_PREALLOCATION:
                raise
        return


def _is_direct(fd: int) -> bool:
    return bool(_O_DIRECT and fcntl.fcntl(fd, fcntl.F_GETFL) & _O_DIRECT)


def _without_direct(fd: int) -> None:
    if _is_direct(fd):
        fcntl.fcntl(fd, fcntl.F_SETFL, fcntl.fcntl(fd, fcntl.F_GETFL) & ~_O_DIRECT)


@dataclass(slots=True)
class _Run:
    """Bytes of the caller's that lie one after the other, from the beginning of a page on."""

    address: int = 0
    length: int = 0
    owners: list[object] = field(default_factory=list)
    """Keep the memory alive."""


class _Writer:
    """Writes a stream in whole pages. Used by one thread, and by its own helper."""

    def __init__(self, fd: int, make_room: MakeRoom) -> None:
        self._fd = fd
        self._at = 0
        """Where what is pending goes: always the beginning of a page."""
        self._run = _Run()
        self._fill = 0
        """Bytes in the bounce buffer; pending is either this or the run."""
        self._bounce: mmap.mmap | None = None
        self._disk = _Disk(fd, make_room)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: object, traceback: object) -> None:
        try:
            self._disk.end(write=kind is None)
        finally:
            self._disk.close()

    @property
    def position(self) -> int:
        """Bytes that were taken."""
        return self._at + self._run.length + self._fill

    def write(self, data: Buffer) -> None:
        """Take bytes, which stay as they are until `finish` returns."""
        view = memoryview(data).cast("B")
        if not view:
            return
        import numpy as np  # noqa: PLC0415 - who only looks at a run does without

        address = np.frombuffer(view, np.uint8).__array_interface__["data"][0]
        if not (self._run.length and address == self._run.address + self._run.length):
            self._end_run()
            missing = -self._fill % PAGE
            if (address + missing) % PAGE or len(view) - missing < _WORTH:
                self._copy(view)
                return
            self._copy(view[:missing])
            self._flush_bounce()
            view, address = view[missing:], address + missing
            self._run = _Run(address)
        self._run.length += len(view)
        self._run.owners.append(view)
        if self._run.length >= (_EAGER if self._disk.is_hungry else _PIECE):
            self._send_run()

    def skip(self, data: memoryview) -> None:
        """Pass over bytes that the file has there already; those on pages that others share are written."""
        head, whole = self._pages(len(data))
        self.write(data[:head])
        if whole:
            self._flush()
            self._at += whole
        self.write(data[head + whole :])

    def clone(self, held: Held, base: int | None) -> None:
        """Have the file system share the pages with `base`, or write the bytes."""
        data, position = held.data, self.position
        head, whole = self._pages(len(data))
        done = 0
        if base is not None and whole and held.begin % PAGE == position % PAGE:
            self.write(data[:head])
            self._flush()
            with contextlib.suppress(OSError, AttributeError):
                while done < whole:
                    copied = os.copy_file_range(base, self._fd, whole - done, held.begin + head + done, self._at + done)
                    if not copied:
                        break
                    done += copied
            done -= done % PAGE
            self._at += done
            done += head
        self.write(data[done:])

    def finish(self) -> int:
        """Write what is left, wait for the disk, and return the bytes of the file."""
        written = self.position
        self._end_run()
        tail = self._fill % PAGE
        rest = bytes(self._bounce[self._fill - tail : self._fill]) if self._bounce is not None and tail else b""
        self._fill -= tail
        self._flush_bounce()
        self._disk.end(write=True)
        if rest:
            _without_direct(self._fd)
            self._disk.write(memoryview(rest), written - len(rest))
        return written

    def _pages(self, nbytes: int) -> tuple[int, int]:
        """Return how many of the next bytes belong to the page under way, and how many after them fill whole pages."""
        head = min(-self.position % PAGE, nbytes)
        return head, (nbytes - head) // PAGE * PAGE

    def _flush(self) -> None:
        """Send off what is pending, which ends with a page."""
        self._end_run()
        self._flush_bounce()

    def _end_run(self) -> None:
        """Send the whole pages of the run; the rest of it goes to the bounce buffer."""
        if not self._run.length:
            return
        self._send_run()
        run, self._run = self._run, _Run()
        if run.length:
            self._copy(_view(run.address, run.length))

    def _send_run(self) -> None:
        run = self._run
        whole = run.length // PAGE * PAGE
        for begin in range(0, whole, _PIECE):
            piece = _view(run.address + begin, min(_PIECE, whole - begin))
            self._disk.send(piece, self._at, tuple(run.owners), None)
            self._at += len(piece)
        left = run.length - whole
        self._run = _Run(run.address + whole, left, run.owners if left else [])

    def _copy(self, view: memoryview) -> None:
        while view:
            if self._bounce is None:
                self._bounce = self._disk.bounce(len(view))
            taken = min(len(view), len(self._bounce) - self._fill)
            memoryview(self._bounce)[self._fill : self._fill + taken] = view[:taken]
            self._fill += taken
            view = view[taken:]
            if self._fill == len(self._bounce):
                self._flush_bounce()

    def _flush_bounce(self) -> None:
        """Send the bounce buffer, which holds whole pages."""
        if self._fill:
            assert self._bounce is not None
            assert self._fill % PAGE == 0
            self._disk.send(memoryview(self._bounce)[: self._fill], self._at, (), self._bounce)
            self._at += self._fill
            self._fill, self._bounce = 0, None


class _Disk:
    """The thread that waits for the disk. It has a descriptor of its own, so that it never writes to another file."""

    def __init__(self, fd: int, make_room: MakeRoom) -> None:
        self._fd = os.dup(fd)
        self._make_room = make_room
        self._jobs: queue.SimpleQueue[tuple[memoryview, int, object, mmap.mmap | None] | None] = queue.SimpleQueue()
        self._room = threading.Semaphore(_WAITING)
        self._free: queue.SimpleQueue[mmap.mmap] = queue.SimpleQueue()
        self._small = self._made = self._sent = self._written = 0
        self._error: BaseException | None = None
        self._stopped = False
        self._begun, self._ended = threading.Event(), threading.Event()
        try:
            helper.run(self._run, own_priority=_is_direct(fd))  # to the page cache it copies, which takes a core
        except BaseException:
            os.close(self._fd)
            raise

    @property
    def is_hungry(self) -> bool:
        """At most one write is under way, and none waits."""
        return self._sent - self._written < 2  # noqa: PLR2004

    def send(self, data: memoryview, offset: int, owners: object, bounce: mmap.mmap | None) -> None:
        """Have `data` written at `offset`, soon.

        Raises:
            OSError: something before could not be written; MemoryError: the thread cannot begin.
        """
        if not self._room.acquire(blocking=False):
            self._await_begin()
            self._room.acquire(blocking=self._error is None)
        if self._error is not None:
            raise self._error
        self._sent += 1
        self._jobs.put((data, offset, owners, bounce))

    def bounce(self, nbytes: int) -> mmap.mmap:
        """Return a buffer that begins on a page, for so many bytes and more; two large ones are used by turns.

        Raises:
            MemoryError: the thread cannot begin.
        """
        if nbytes <= _SMALL and self._small < 2:  # noqa: PLR2004 - a header and a tail
            self._small += 1
            return mmap.mmap(-1, _SMALL)
        if self._made < 2:  # noqa: PLR2004 - one is filled while the other is written
            self._made += 1
            return pages(_BOUNCE)
        self._await_begin()
        if not self._begun.is_set() and self._error is not None:
            raise self._error
        return self._free.get()

    def end(self, *, write: bool) -> None:
        """End the thread, after it wrote what waits, or at once.

        Raises:
            OSError: with `write`, something could not be written; MemoryError: likewise, the thread cannot begin.
        """
        self._stopped |= not write
        self._jobs.put(None)
        self._await_begin()
        if self._begun.is_set():
            self._ended.wait()
        if write and self._error is not None:
            raise self._error

    def close(self) -> None:
        """Let go of the file, unless an interruption left the thread at work on it."""
        if self._ended.is_set() or (self._stopped and not self._begun.is_set()):
            os.close(self._fd)

    def write(self, data: memoryview, offset: int) -> None:
        """Write all of it, in the calling thread, by whatever way is left."""
        _write_at(self._fd, data, offset, self._make_room)

    def _await_begin(self) -> None:
        """Wait for the thread to begin. One that has no memory to begin with never does, and nobody says so."""
        if not self._begun.wait(_PATIENCE if self._error is None else 0):
            self._stopped = True  # should it begin after all, it writes nothing
            self._error = MemoryError("the thread that writes to the disk could not begin")

    def _run(self) -> None:
        self._begun.set()
        try:
            self._work()
        finally:
            self._ended.set()

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            data, offset, _, bounce = job
            if not self._stopped and self._error is None:
                try:
                    _write_at(self._fd, data, offset, self._make_room)
                except BaseException as error:  # noqa: BLE001 - the thread that sends raises it
                    self._error = error
            if bounce is not None and len(bounce) == _BOUNCE:
                self._free.put(bounce)
            self._written += 1
            self._room.release()


def _write_at(fd: int, data: memoryview, offset: int, make_room: MakeRoom) -> None:
    while data:
        try:
            written = os.pwrite(fd, data, offset)
        except OSError as error:
            if error.errno == errno.EINVAL and _is_direct(fd):  # it wants larger blocks, or none of this
                _without_direct(fd)
                continue
            if error.errno in _FULL and make_room():
                continue
            raise
        data, offset = data[written:], offset + written


def _view(address: int, length: int) -> memoryview:
    return memoryview((ctypes.c_char * length).from_address(address)).cast("B")
