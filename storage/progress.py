"""Progress: how far a long operation is, told to whoever watches: bars in a terminal, or callbacks.

    with progress.task("verify", url, nbytes): …      says who does something long, in the thread that does it
    progress.current().advance(n)                     says who moves bytes; costs well under 1 µs
    with progress.waiting(): …                        says who keeps somebody waiting

Callbacks are told of every task. Bars show the tasks under way while somebody waits, once that has taken a second; so
what goes on behind training is drawn only when training waits for it. This file is the door; behind it `progress_task`
counts, `progress_board` decides who sees what, and `progress_bar` draws.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager

from .progress_board import BEHIND, Board, Display, OpenDisplay, Subscription
from .progress_task import Action, Progress, Task, Unit, current

__all__ = ["Progress", "Task", "current", "on_progress", "task", "waiting", "work_behind"]

_OFF = frozenset(("0", "false", "no", "off"))


def task(
    action: Action, subject: str, total: int | None = None, *, unit: Unit = "bytes"
) -> AbstractContextManager[Task]:
    """Make the block one operation, which `current` returns inside it.

    Args:
        action: what is done.
        subject: what it is done to.
        total: how much there is to do; None: not known yet, see `Task.expect`.
        unit: what is counted. Inside a task that counts objects `current` returns one that nobody sees, so that bytes
            moved there are not taken for objects.
    """
    return _BOARD.task(action, subject, total, unit)


def waiting() -> AbstractContextManager[None]:
    """Say that somebody waits until the block ends: bars show what is under way, here and in other threads.

    They are gone when the block has ended, however it ends. Cost: in a terminal, the start of a thread.
    """
    return _BOARD.waiting()


def work_behind() -> None:
    """Say that nobody waits for what this thread does, whatever it calls: for threads that work behind training."""
    BEHIND.set(True)


def on_progress(callback: Callable[[Progress], object]) -> Subscription:
    r"""Have `callback` told how far saves, loads, uploads, exports, `verify` and `gc` are, instead of drawing bars.

    Args:
        callback: takes one `Progress`: `action`, `subject`, `done` of `total` (bytes; objects for gc), `seconds`,
            `finished`, and an `id` that tells operations apart. It is called up to ten times a second for each
            operation, saves behind training included, and once at its end; never twice at a time, and in a thread of
            its own or the one that does the work. Whatever it raises is warned about once, and it is dropped.

    Returns:
        A subscription: it ends with its `close()`, or with the `with` block that it is used for. While there is any,
        keepbest draws no bars; nor does it where the environment has `KEEPBEST_PROGRESS=0`.

    Example:
        >>> with keepbest.on_progress(lambda p: print(f"\r{p.action} {p.done:,} of {p.total:,} {p.unit}", end="")):
        ...     run.verify()
    """
    frame = sys._getframe(1)  # noqa: SLF001 - the documented way to learn who calls; warnings itself does so
    return _BOARD.subscribe(callback, (frame.f_code.co_filename, frame.f_lineno))


def _find_terminal() -> OpenDisplay | None:
    """Return what opens the bars of this process; None if nobody would see them, or nobody wants to."""
    if os.environ.get("KEEPBEST_PROGRESS", "").strip().lower() in _OFF:
        return None
    try:
        return _open_bars if sys.stderr.isatty() else None
    except (AttributeError, ValueError):  # there is none, or it was closed
        return None


def _open_bars() -> Display:
    from .progress_bar import Bars  # noqa: PLC0415 - rich takes 0.1 s to import, and need not be there

    return Bars(sys.stderr)


_BOARD = Board(time.monotonic, _find_terminal)
os.register_at_fork(after_in_child=_BOARD.start_afresh)
