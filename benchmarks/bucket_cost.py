"""What one upload or download costs: time, processor time, memory. Each is measured in a process of its own.

The process is forked from one that holds the state, so that none pays for making it, and ends with the measurement, so
that none inherits another's memory, connections or caches. Memory is the kernel's own high-water mark, reset before
the work: no sampling, so no peak is missed. Linux only. The parent must not compute with torch: the threads that it
would start do not survive the fork, and the child would wait for them.
"""

from __future__ import annotations

import ctypes
import gc
import multiprocessing
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, TypeVar

import psutil

_T = TypeVar("_T")

TIMEOUT = 180.0
"""Seconds for one process, its warm-up included."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """Of one upload or download."""

    seconds: float
    cpu: float
    """Seconds, of all threads of the client's process."""
    server_cpu: float
    """Seconds, of the server; counted in steps of 10 ms."""
    memory: int
    """Bytes, the peak above what was held before."""


class Stopwatch:
    """Measures what happens between `start` and `stop`."""

    def __init__(self, server_pid: int) -> None:
        self._server = psutil.Process(server_pid)

    def start(self) -> None:
        """Begin, with nothing left over from before."""
        gc.collect()
        ctypes.CDLL(None).malloc_trim(0)  # freed memory that the allocator kept would hide a peak
        Path("/proc/self/clear_refs").write_text("5")  # sets the high-water mark to what is held now
        self._held = _resident("VmRSS")
        self._server_cpu = self._used_by_server()
        self._cpu = time.process_time()
        self._begin = time.perf_counter()

    def stop(self) -> Cost:
        """End, and return the cost."""
        seconds = time.perf_counter() - self._begin
        return Cost(
            seconds=seconds,
            cpu=time.process_time() - self._cpu,
            server_cpu=self._used_by_server() - self._server_cpu,
            memory=_resident("VmHWM") - self._held,
        )

    def _used_by_server(self) -> float:
        times = self._server.cpu_times()
        return times.user + times.system


def in_child(work: Callable[[], _T]) -> _T:
    """Do `work` in a forked process and return what it returns.

    Raises:
        RuntimeError: it failed, with the last line of its traceback, or took longer than `TIMEOUT`.
    """
    fork = multiprocessing.get_context("fork")
    here, there = fork.Pipe()
    process = fork.Process(target=_report, args=(work, there))
    process.start()
    there.close()
    try:
        if not here.poll(TIMEOUT):
            raise RuntimeError(f"took longer than {TIMEOUT:.0f} s")
        result, error = here.recv()
    except EOFError:
        raise RuntimeError("the process died") from None
    finally:
        process.join(5)
        process.kill()
        process.join()
    if error is not None:
        raise RuntimeError(error)
    return result


def _report(work: Callable[[], Any], pipe: Connection) -> None:
    gc.freeze()  # what the parent made is not looked at, and so not copied
    try:
        pipe.send((work(), None))
    except BaseException as error:  # noqa: BLE001 - the parent shows it in the table
        traceback.print_exc()
        pipe.send((None, f"{type(error).__name__}: {error}"))


def _resident(field: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1]) << 10
    raise OSError(f"/proc/self/status shows no {field}")
