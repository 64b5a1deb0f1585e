"""Kills: a job in a forked child that dies at a system call, or after a time; and what there is to tell of its end."""

from __future__ import annotations

import contextlib
import os
import random
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from faults.children import Child, Voice
from faults.ptrace import Moment, Tracer
from faults.syscalls import BY_NUMBER
from faults.tally import Tally

Job = Callable[[Voice], object]
_CUT = {call.name for call in BY_NUMBER.values() if call.length is not None}
"""Calls that may be carried out by half."""


@contextlib.contextmanager
def in_memory(folder: Path) -> Iterator[Path]:
    """Yield a folder on a file system in memory, where there is one, else `folder`.

    What a killed process has written is the kernel's, whether it was synced or not; but a sync takes its time.
    """
    memory = Path("/dev/shm")
    if not os.access(memory, os.W_OK):
        yield folder
        return
    with tempfile.TemporaryDirectory(dir=memory, prefix="keepbest-") as place:
        yield Path(place)


@dataclass(frozen=True, slots=True, kw_only=True)
class End:
    """How a job ended."""

    said: list[str]
    killed: bool
    """By us, and not by itself."""
    hung: bool = False
    failed: bool = False
    """It raised; `said` ends with the traceback."""
    calls: Sequence[str] = ()
    """The calls that changed files, up to the one at which it was killed."""


def at_call(job: Job, folder: str, number: int = 0, moment: Moment = "before") -> End:
    """Run a job, and from when it is ready on count its calls that change something below `folder`.

    Args:
        job: what is to be killed; it calls `voice.ready()` once.
        folder: a path.
        number: of the call at which it is killed, from 1; 0: at none.
        moment: of that call.
    """
    with Child(job) as child:
        if not child.wait_until_ready():
            return _end(child, killed=False)
        tracer = Tracer(child.pid, folder)
        tracer.attach()
        child.go()
        outcome = tracer.run(number, moment)
        child.status = outcome.status
        return _end(child, killed=outcome.killed and not child.hung, calls=outcome.calls)


def after_seconds(job: Job, seconds: float) -> End:
    """Run a job, and kill it so many seconds after it was ready."""
    with Child(job) as child:
        if child.wait_until_ready():
            child.go()
            time.sleep(seconds)
            child.kill()
        return _end(child, killed=True)


def to_the_end(job: Job) -> End:
    """Run a job, and let it live."""
    with Child(job) as child:
        child.go()
        return _end(child, killed=False)


def moments(calls: Sequence[str], *, most: int | None = None, seed: int = 0) -> list[tuple[int, Moment]]:
    """Return before, halfway through (where it writes bytes) and after each call; of these, some at random."""
    every = [
        (number, moment)
        for number, name in enumerate(calls, start=1)
        for moment in ("before", *(["halfway"] if name in _CUT else []), "after")
    ]
    if most is None or most >= len(every):
        return every
    return sorted(random.Random(seed).sample(every, most))


def tell(end: End, tally: Tally, where: str) -> None:
    """Note a job that hung or failed before anybody killed it."""
    if end.hung:
        tally.found("hung", where)
    if end.failed:
        tally.found("broken", f"{where}: {end.said[-2] if len(end.said) > 1 else end.said}")


def _end(child: Child, *, killed: bool, calls: Sequence[str] = ()) -> End:
    status = child.wait()
    if killed and not os.WIFSIGNALED(status):
        killed = False  # it was faster
    failed = os.WIFEXITED(status) and os.WEXITSTATUS(status) != 0
    return End(said=child.said, killed=killed, hung=child.hung, failed=failed, calls=calls)
