"""Mortal: a backend that dies with its process, at a call or when it is told to, and what a process leaves."""

from __future__ import annotations

import contextlib

from contracts.faults import Crash, CrashingBackend

from keepbest.core import checkpointer, saves
from keepbest.errors import KeepbestError


class Mortal(CrashingBackend):
    """As its base, and what was opened for appending dies with it."""

    def __init__(self, inner):
        super().__init__(inner, -1, "before")
        self._appenders = []

    @property
    def dead(self):
        """Nothing reaches the store any more."""
        return self._dead

    def doom(self, calls, moment):
        """Let it die after so many more calls."""
        self.at, self.moment = len(self.trace) + calls, moment

    def kill(self):
        """Die now. The kernel closes what was open."""
        self._dead = True
        for appender in self._appenders:
            appender.close()
        self.inner.settle()  # closes what waits to be synced; to other processes that changes nothing

    def write(self, appender, data):
        """Append through an appender of the inner backend, as one call among the others."""
        if self._dead:
            raise Crash("write")
        self.trace.append(("write", None))
        if len(self.trace) - 1 == self.at:
            self._dead = True
            appender.write(data[: {"before": 0, "during": len(data) // 2, "after": len(data)}[self.moment]])
            raise Crash("write")
        appender.write(data)

    def _call(self, name, *args, **kwargs):
        result = super()._call(name, *args, **kwargs)
        if name != "append":
            return result
        self._appenders.append(result)
        return MortalAppender(self, result)


class MortalAppender:
    """What `Mortal` opened for appending."""

    def __init__(self, owner, inner):
        self._owner, self._inner = owner, inner

    def write(self, data):
        """Append, unless the process is dead."""
        self._owner.write(self._inner, data)

    def close(self):
        """Close, unless the process is dead."""
        if self._owner.dead:
            raise Crash("close")
        self._inner.close()


@contextlib.contextmanager
def opened_through(wrap):
    """Let `wrap` put something around each backend that a Checkpointer opens."""
    door = checkpointer.open_backend
    checkpointer.open_backend = lambda url, options=None: wrap(door(url, options))
    try:
        yield
    finally:
        checkpointer.open_backend = door


def bury(ckpt, mortals):
    """Make sure that nothing of a dead process runs any more: its threads, and what would run at its exit."""
    for mortal in mortals:
        mortal.kill()
    if ckpt is None:
        return
    ckpt._closed = True
    saves._OPEN.discard(ckpt._saves)
    ckpt._saves._saver.run._drop_spares.detach()
    with contextlib.suppress(Crash, KeepbestError):
        ckpt._saves._writer.wait()
    ckpt._saves._writer.close()
    ckpt._saves._staging.release()
