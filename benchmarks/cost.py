"""What this process spends on a piece of work: time, processor time, bytes written; and its memory. Linux only."""

from __future__ import annotations

import ctypes
import gc
import os
import time
from dataclasses import dataclass
from pathlib import Path

import psutil

_M_MMAP_THRESHOLD = -3


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """Of one piece of work."""

    seconds: float
    cpu: float
    """Seconds of all threads and of all child processes, user and system."""
    written: int
    """Bytes sent to the disk, or dirtied in the page cache to be sent there; those of children are not seen."""


class Stopwatch:
    """Measures what happens between its making and `stop`."""

    def __init__(self) -> None:
        gc.collect()
        self._written = written()
        self._cpu = _children_cpu() + time.process_time()  # in this order: asking takes a millisecond
        self._begin = time.perf_counter()

    def lap(self) -> float:
        """Return the seconds so far."""
        return time.perf_counter() - self._begin

    def stop(self) -> Cost:
        """Return the cost."""
        seconds = self.lap()
        cpu = time.process_time() + _children_cpu() - self._cpu
        return Cost(seconds=seconds, cpu=cpu, written=written() - self._written)


def _children_cpu() -> float:
    """Return the processor time of all child processes, those that ended and those that run."""
    used = os.times()
    total = used.children_user + used.children_system
    for child in psutil.Process().children(recursive=True):
        times = child.cpu_times()
        total += times.user + times.system
    return total


def written() -> int:
    """Return the bytes that this process has sent to disks."""
    fields = dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())
    return int(fields["write_bytes"])


def forget_peak() -> None:
    """Give freed memory back, and set the high-water mark to what is resident now."""
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")


def keep_no_freed_memory() -> None:
    """Have the allocator give back at once what is larger than 1 MiB, so that the peak is what was in use at a time."""
    ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, 1 << 20)


def peak() -> int:
    """Return the most bytes that were resident since `forget_peak`: the kernel's own mark, so none is missed."""
    return _status("VmHWM")


def resident() -> int:
    """Return what is resident now, in bytes."""
    return _status("VmRSS")


def forget_pages(folder: Path) -> None:
    """Drop the files of a folder from the page cache, so that reading them is reading the disk."""
    for path in folder.rglob("*"):
        if path.is_file():
            fd = os.open(path, os.O_RDONLY)
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(fd)


def _status(name: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(name):
            return int(line.split()[1]) << 10
    raise OSError(f"/proc/self/status shows no {name}")
