"""Viewers: who is shown what a follower finds: programs, a file or a pipe, a terminal."""

from __future__ import annotations

import time

from ..storage.history import Row
from ..storage.jsonfloat import plain
from . import machine, screen, telling, words
from .follower import Follower, follow

SHOWN = 8
"""Events that are shown; of those from before it began, too."""


def emit(follower: Follower) -> None:
    """Print one object for each new entry, as keepbest.watch/1.

    Its fields: `run`; `kind`, `time`, `epoch` and `step` of the entry; of a row (kind "epoch" or "step") `metrics`; of
    a note its other fields, as docs/format.md has them, all of them present. Where training went back to a checkpoint,
    or was resumed from one, what follows takes the place of what was printed of epochs and steps behind it.
    """
    for entry in follower.new:
        machine.emit("watch/1", {"run": follower.run.url, **plain(entry)})


class Lines:
    """Prints a line for each event."""

    def __init__(self) -> None:
        self._begun = False

    def show(self, follower: Follower) -> None:
        """Print what is new; the first time how things stand, and what happened last."""
        account, new = follower.account, list(follower.new)
        last_step = next((entry for entry in reversed(new) if isinstance(entry, Row)), None)
        # Of single steps the newest is enough: there may be thousands from look to look.
        told = [entry for entry in new if not telling.is_step(entry) or entry is last_step]
        lines = [f"{words.moment(entry.time)}  {text}" for entry in told for text in telling.told(entry, account)]
        if not self._begun:
            self._begun = True
            epochs = words.count(len(account.closed), "epoch")
            screen.line(f"{account.url}: {epochs}; {telling.state(account, time.time())}")
            lines = lines[-SHOWN:]
        for line in lines:
            screen.line(line)


def follow_on_screen(follower: Follower, interval: float) -> bool:
    """Draw how things stand and what happened last, after each look in the same place, until the run has ended.

    Returns:
        False: nothing can be drawn here, and nothing was done.
    """
    from .redraw import Redraw  # noqa: PLC0415 - rich takes 0.1 s to import

    screen_part = Redraw()
    if not screen_part.possible:
        return False
    with screen_part:

        def draw(found: Follower) -> None:
            account, now = found.account, time.time()
            happened = [entry for entry in found.entries if not telling.is_step(entry)]
            last = happened[-4 * SHOWN :]
            told = [(telling.clock(entry), text) for entry in last for text in telling.told(entry, account)]
            screen_part.draw(found.run.url, list(telling.facts(account, found.problem, now)), told[-SHOWN:])

        follow(follower, interval, draw, warns=False)
    return True
