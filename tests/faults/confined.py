"""Confined: cases tried in a forked child, each with a deadline, and with no more memory than the child is given."""

from __future__ import annotations

import json
import os
import resource
import select
import signal
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from faults.children import fork

Found = tuple[str, str]
"""A harm, and what it was."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a case may take."""

    seconds: float = 10.0
    address_space: int = 2 << 30
    """Bytes beyond those that the child begins with; more are refused to it."""
    growth: int = 200 << 20
    """Resident bytes beyond those that the child begins with; more are harm."""


LIMITS = Limits()


def try_all(
    cases: Sequence[Any], attempt: Callable[[Any], list[Found]], limits: Limits = LIMITS
) -> Iterator[tuple[Any, list[Found]]]:
    """Yield each case with what was found. A child goes on from case to case until one hangs, kills or swells it."""
    at = 0
    while at < len(cases):
        for found in _one_child(cases[at:], attempt, limits):
            yield cases[at], found
            at += 1


def _one_child(cases: Sequence[Any], attempt: Callable[[Any], list[Found]], limits: Limits) -> Iterator[list[Found]]:
    heard, out = os.pipe()
    pid = fork()
    if pid == 0:
        os.close(heard)
        _be_child(cases, attempt, out, limits)
    os.close(out)
    try:
        yield from _hear(heard, limits.seconds, len(cases))
    finally:
        os.close(heard)
        os.kill(pid, signal.SIGKILL)  # it has ended, or it is to
        os.waitpid(pid, 0)


def _hear(heard: int, seconds: float, many: int) -> Iterator[list[Found]]:
    text, told = b"", 0
    while told < many:
        if b"\n" not in text:
            if not select.select([heard], [], [], seconds)[0]:
                yield [("hung", f"not done after {seconds:g} s")]
                return
            piece = os.read(heard, 1 << 16)
            if not piece:
                yield [("broken", "the process died")]
                return
            text += piece
            continue
        line, _, text = text.partition(b"\n")
        found = [tuple(one) for one in json.loads(line)]
        told += 1
        yield found
        if any(harm == "hung" or "MB of memory" in what for harm, what in found):
            return  # the next one begins with a child that is as small as the first


def _be_child(cases: Sequence[Any], attempt: Callable[[Any], list[Found]], out: int, limits: Limits) -> None:
    try:
        begin, virtual = _resident(), _virtual()
        room = virtual + limits.address_space
        resource.setrlimit(resource.RLIMIT_AS, (room, room))
        for case in cases:
            try:
                found = list(attempt(case))
            except BaseException as error:  # noqa: BLE001 - the attempt itself tells what it expects
                found = [("broken", f"{type(error).__name__}: {str(error)[:500]}")]
            grown = (_peak() - begin) >> 20
            if _peak() - begin > limits.growth:
                found.append(("broken", f"it took {grown} MB of memory"))
            os.write(out, json.dumps(found).encode("ascii") + b"\n")
            if _peak() - begin > limits.growth:
                break
    finally:
        os._exit(0)


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10


def _resident() -> int:
    return _pages(1)


def _virtual() -> int:
    return _pages(0)


def _pages(column: int) -> int:
    return int(Path("/proc/self/statm").read_text().split()[column]) * resource.getpagesize()
