"""Follower: looks at a run again and again, and says what is new. What is shown of it is `viewers`'."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import click

from ..errors import ObjectNotFoundError, UnreachableError
from ..storage.history import Row
from ..storage.journal import alike
from ..storage.layout import COMMITS, JOURNAL, segments_prefix
from ..storage.manifest import CheckpointInfo
from ..storage.notes import Ended, Note
from ..storage.printable import printable
from ..storage.run import Run
from .account import Account

_SHARE = 9
"""Looking and showing take at most one part in this many and one of the time, however long the journal is."""
_LONGEST = 60.0
"""Seconds of a pause, at most: who held the terminal up for a while is not left waiting for nine times it."""


class Follower:
    """Looks at a run again and again; reads only when something has changed."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.entries: Sequence[Row | Note] = ()
        self.new: Sequence[Row | Note] = ()
        """What the last look found that the one before did not have."""
        self.checkpoints: Sequence[CheckpointInfo] = ()
        self._holds_commits = False
        self.problem: str | None = None
        """Why the last look failed, though the next one may not."""
        self.took = 0.0
        """Seconds of the last look, if it was possible, and of showing what it found."""
        self.account = Account(run.url, (), ())
        """What is known of the run; another one only after it has changed."""
        self._stamp: object = None

    @property
    def exists(self) -> bool:
        """There is something."""
        return bool(self.entries) or self._holds_commits

    @property
    def ended(self) -> bool:
        """The process let go of the run, and none has taken it up again; or the run was converted: no process had it.

        Who trains writes that it began before its first checkpoint.
        """
        return isinstance(self.entries[-1], Ended) if self.entries else self._holds_commits

    def look(self) -> bool:
        """Look; returns whether it was possible.

        Raises:
            StorageError: it is not possible, and waiting does not help.
        """
        began, self.new = time.monotonic(), ()
        try:
            self._look()
        except UnreachableError as error:
            self.problem = str(error)
        else:
            self.problem = None
        self.took = time.monotonic() - began if self.problem is None else 0.0
        return self.problem is None

    def _look(self) -> None:
        stamp = _stamp(self.run)
        if stamp == self._stamp:
            return
        listing = self.run.listing()  # first: no commit of which the journal does not say that somebody trains
        entries = self.run.journal()
        self.checkpoints, self._holds_commits = listing.checkpoints, bool(listing.checkpoints or listing.damaged)
        self.new, self.entries = _new(self.entries, entries), entries
        self.account = Account(self.run.url, self.entries, self.checkpoints)
        self._stamp = stamp  # what came since is seen the next time

    def pause(self, interval: float) -> None:
        """Wait until the next look is due."""
        time.sleep(max(interval, min(_SHARE * self.took, _LONGEST)))


def _stamp(run: Run) -> object:
    """Return what changes when the run does. Cost: two listings and one look at the journal."""
    backend = run.backend
    try:
        journal = backend.head(JOURNAL)
    except ObjectNotFoundError:
        journal = None
    return journal, backend.list(COMMITS), backend.list(segments_prefix(JOURNAL))


def _new(old: Sequence[Row | Note], entries: Sequence[Row | Note]) -> Sequence[Row | Note]:
    """Return what follows on what both have: where training went back, that is less than was known."""
    pairs = enumerate(zip(old, entries, strict=False))
    same = next((at for at, pair in pairs if not alike(*pair)), min(len(old), len(entries)))
    return entries[same:]


def wait_for(follower: Follower, *, wait: bool, interval: float, missing: Callable[[], object]) -> None:
    """Return when there is a run; unless that shall be waited for, `missing` says what is wrong."""
    if not wait:
        missing()
        return
    click.echo(f"Waiting for a run at {printable(follower.run.url)}. Ctrl-C ends this.", err=True)
    told = _warned(follower, None)
    while not follower.exists:
        follower.pause(interval)
        follower.look()
        told = _warned(follower, told)


def follow(follower: Follower, interval: float, show: Callable[[Follower], None], *, warns: bool = True) -> None:
    """Show the run after each look until it has ended.

    Args:
        follower: has looked once, so there is something to show.
        interval: seconds from look to look.
        show: is given the follower after each look.
        warns: a look that failed becomes a warning, the first time that it fails so.
    """
    told: str | None = None
    while True:
        began = time.monotonic()
        show(follower)
        follower.took += time.monotonic() - began
        if follower.ended:
            return
        follower.pause(interval)
        follower.look()
        if warns:
            told = _warned(follower, told)


def _warned(follower: Follower, told: str | None) -> str | None:
    """Warn of a look that failed, unless that was `told`; returns what is told now."""
    if follower.problem not in {None, told}:
        click.echo(f"Warning: {printable(str(follower.problem))} Trying again.", err=True)
    return follower.problem
