"""Children: forked processes that say on a pipe what they have done, and that somebody kills.

A fork costs some milliseconds where a start of Python costs hundreds: so thousands can be killed in minutes.
"""

from __future__ import annotations

import contextlib
import faulthandler
import gc
import importlib
import json
import os
import signal
import sys
import traceback
import warnings
from collections.abc import Callable, Collection
from typing import Any, Self

DEADLINE = 60
"""Seconds after which a child counts as hung."""

_ALL_THREADS = 0x40000000
"""__WALL of waitpid(2)."""


class Voice:
    """The child's end: lines to the parent, and the wait for its word."""

    def __init__(self, out: int, word: int) -> None:
        self.out, self._word = out, word

    def say(self, line: str) -> None:
        """Tell the parent, in one system call: what was said is said, even if the child dies next."""
        os.write(self.out, line.encode() + b"\n")

    def ready(self) -> None:
        """Say that the interesting part begins, and wait until the parent says go."""
        self.say("ready")
        os.read(self._word, 1)


def fork() -> int:
    """Fork, as `os.fork`; the child never collects what its parent left.

    The end of such an object may wait for a thread that a child does not have: one of s3fs does, for a second.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a parent with threads: what they hold is not used by any job
        gc.freeze()
        pid = -1  # as long as there is no child
        try:
            pid = os.fork()
        finally:
            if pid:
                gc.unfreeze()
    return pid


class Child:
    """A forked process that runs `job(voice)` in a process group of its own. Its end is 0, or 1 after an exception.

    One that takes longer than `deadline` seconds says where every thread of it is, and dies by SIGALRM.
    """

    def __init__(self, job: Callable[[Voice], object], *, deadline: int = DEADLINE) -> None:
        heard, out = os.pipe()
        word, mine = os.pipe()
        self.pid = fork()
        if self.pid == 0:
            os.close(heard)
            os.close(mine)
            _be_child(job, Voice(out, word), deadline)
        os.close(out)
        os.close(word)
        with contextlib.suppress(OSError):
            os.setpgid(self.pid, self.pid)  # the child does so too: whoever comes first
        self._heard, self._word, self._text = heard, mine, b""
        self.status: int | None = None
        """As `os.waitpid` gives it, once it has ended."""

    @property
    def said(self) -> list[str]:
        """Every whole line it said, once it has ended."""
        return self._text.decode().split("\n")[:-1]

    @property
    def hung(self) -> bool:
        """It took too long."""
        return self.status is not None and os.WIFSIGNALED(self.status) and os.WTERMSIG(self.status) == signal.SIGALRM

    def wait_until_ready(self) -> bool:
        """Return whether it said that it is; False if it ended before."""
        while not self._text.endswith(b"ready\n"):
            if not self._hear():
                return False
        return True

    def go(self) -> None:
        """Let it do what it is ready for."""
        os.write(self._word, b"g")

    def kill(self) -> None:
        """SIGKILL, to it and all that it started."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)

    def wait(self) -> int:
        """Return how it ended, as `os.waitpid` gives it, and hear what it said to the end."""
        while self._hear():
            pass
        if self.status is None:
            self.status = os.waitpid(self.pid, 0)[1]
        return self.status

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        if self.status is None:
            self.kill()
            with contextlib.suppress(ChildProcessError):
                while os.waitpid(-self.pid, _ALL_THREADS)[0] != self.pid:
                    pass  # threads that were traced
        os.close(self._heard)
        os.close(self._word)

    def _hear(self) -> bool:
        """Take in more; False: there will be none."""
        more = os.read(self._heard, 1 << 16)
        self._text += more
        return bool(more)


def ask(job: Callable[[], Any], *, deadline: int = DEADLINE) -> Any:
    """Return what `job` returns, JSON, from a forked child.

    Raises:
        TimeoutError: it took longer than `deadline`; RuntimeError: it raised, or died; has the traceback.
    """
    with Child(lambda voice: voice.say(json.dumps(job())), deadline=deadline) as child:
        status = child.wait()
        if child.hung:
            raise TimeoutError("\n".join([f"no answer within {deadline} s", *child.said]))
        if status != 0:
            raise RuntimeError("\n".join(child.said) or f"it ended with {status}")
        return json.loads(child.said[-1])


def import_for(job: Callable[[], object], *, but: Collection[str] = ()) -> None:
    """Import here, once, what a job imports late: each fork would do so by itself.

    Args:
        job: is done in a fork.
        but: beginnings of names of modules that each fork has to import by itself.
    """

    def use() -> list[str]:
        job()
        return list(sys.modules)  # in their order: some are not to be imported before others

    for name in ask(use):
        if name not in sys.modules and not name.startswith(tuple(but)):
            with contextlib.suppress(Exception):  # some are made, and not imported
                importlib.import_module(name)


class Mute:
    """A voice that nobody hears."""

    def say(self, line: str) -> None:
        """Say nothing."""

    def ready(self) -> None:
        """Go on."""


def _be_child(job: Callable[[Voice], object], voice: Voice, deadline: int) -> None:
    code = 1
    try:
        os.setpgid(0, 0)
        nowhere = os.open(os.devnull, os.O_WRONLY)
        for stream in (1, 2):  # what is of interest is said by the voice
            os.dup2(nowhere, stream)
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        faulthandler.register(signal.SIGALRM, voice.out, chain=True)  # where it hung; then it dies
        signal.alarm(deadline)
        job(voice)
        code = 0
    except BaseException:  # noqa: BLE001 - told to the parent, who judges it
        voice.say(traceback.format_exc())
    finally:
        os._exit(code)
