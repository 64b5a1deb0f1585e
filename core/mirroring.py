"""Mirroring: keeps the mirror up to date behind training, in a thread of its own; training never waits for it.

What is uploaded next is chosen when the upload before has ended: the newest of what the mirror lacks. So what has not
begun is superseded by what is newer, and what has begun is finished: the first tier deletes it only afterwards.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Iterable, Sequence

from ..errors import (
    CheckpointNotFoundError,
    ConcurrentWriterError,
    DamagedError,
    KeepbestError,
    MirrorFailedError,
    UnreachableError,
)
from ..storage import progress
from ..storage.manifest import CheckpointInfo
from .mirror import Mirror

_log = logging.getLogger(__name__)


class Mirroring:
    """Uploads to one mirror. `offer` and `spare` are called when a save has been committed, the rest by training."""

    def __init__(self, mirror: Mirror, held: Sequence[CheckpointInfo]) -> None:
        self.started = False
        """Training has gone on in this run."""
        self.notices: list[str] = []
        """What the user should hear of; whoever tells takes them out."""
        self._mirror = mirror
        self._held = tuple(held)
        self._state = threading.Condition()
        self._thread: threading.Thread | None = None
        """While there is something to upload."""
        self._uploading: CheckpointInfo | None = None
        self._failure: Exception | None = None
        """Why nothing is uploaded until the next save."""
        self._over: ConcurrentWriterError | None = None
        """Why nothing is uploaded any more."""
        self._damaged: dict[int, DamagedError] = {}
        """Sequence → why this one cannot be uploaded."""
        self._told = False
        """Of what fails now; it may go on for many saves."""
        self._tried_again = False
        self._hurrying = False
        self._closed = False

    @property
    def pending(self) -> tuple[str, ...]:
        """The names of the checkpoints that are still to come to the mirror, the newest first."""
        with self._state:
            return tuple(checkpoint.name for checkpoint in self._mirror.lacks(self._held))

    def offer(self, held: Sequence[CheckpointInfo]) -> None:
        """Say what the first tier holds. What failed before is tried again."""
        with self._state:
            self.started = True
            self._held = tuple(held)
            self._failure = None
            self._tried_again = False
            self._begin()

    def spare(self, going: Iterable[int]) -> set[int]:
        """Return which of `going` the first tier may delete now: all but what is being uploaded. No other is begun."""
        with self._state:
            now = set(going)
            if self._uploading is not None:
                now.discard(self._uploading.sequence)
            self._held = tuple(checkpoint for checkpoint in self._held if checkpoint.sequence not in now)
            return now

    def finish(self, *, hurry: bool = False) -> None:
        """Wait until the mirror has all that it should have; what failed is tried once more.

        Args:
            hurry: little time is left: an older checkpoint whose upload has begun makes way for the newest.

        Raises:
            MirrorFailedError: something is missing there. How long that takes to be known is the store's deadline.
        """
        if not self.started:
            return
        try:
            with progress.waiting(), self._state:
                self._hurrying = hurry
                failed_before = self._failure
                self._begin()
                self._state.wait_for(lambda: self._thread is None)
                if self._worth_another_try(failed_before):
                    self._failure = None
                    self._tried_again = True
                    self._begin()
                    self._state.wait_for(lambda: self._thread is None)
        finally:
            self._hurrying = False
        missing = self.pending
        if missing or self._over is not None:
            cause = self._over or self._failure or next(iter(self._damaged.values()), None)
            raise MirrorFailedError(self._mirror.first_url, self._mirror.url, missing, cause)

    def copy_rows(self) -> None:
        """Copy the rows logged since the last upload. After `finish`.

        Raises:
            MirrorFailedError: the mirror did not take them.
        """
        if not self.started:
            return
        try:
            self._mirror.copy_rows()
        except KeepbestError as error:
            raise MirrorFailedError(self._mirror.first_url, self._mirror.url, ["the last rows"], error) from error

    def close(self) -> None:
        """Begin no more. An upload under way is broken off: call `finish` first."""
        with self._state:
            self._closed = True
            if self._thread is None and self._failure is None:  # else that would only wait for the store once more
                with contextlib.suppress(KeepbestError):  # `copy_rows` has told what is missing
                    self._mirror.close()

    def _worth_another_try(self, failed_before: Exception | None) -> bool:
        """Say so once for what failed; but a store that just now gave no answer for its whole deadline is gone."""
        just_now = self._failure is not failed_before
        gone = just_now and isinstance(self._failure, UnreachableError)
        return self._failure is not None and not self._tried_again and not gone

    # ── the thread ────────────────────────────────────────────────────────────────────────────────────────────────

    def _begin(self) -> None:
        """Have a thread, if there is something to upload. Under the lock."""
        if self._thread is None and self._choose() is not None:
            self._thread = threading.Thread(target=self._run, name="keepbest-mirror", daemon=True)
            self._thread.start()

    def _run(self) -> None:
        try:
            while (chosen := self._next()) is not None:
                self._upload(chosen)
        except BaseException:
            self._end()
            raise

    def _end(self) -> None:
        with self._state:
            self._uploading = self._thread = None
            self._state.notify_all()

    def _next(self) -> CheckpointInfo | None:
        """Claim what is to be uploaded; None: the thread ends, and the next one that is offered begins another."""
        with self._state:
            self._uploading = self._choose()
            if self._uploading is None:
                self._end()
            return self._uploading

    def _choose(self) -> CheckpointInfo | None:
        if self._closed or self._over is not None or self._failure is not None:
            return None
        lacks = self._mirror.lacks(self._held)
        return next((checkpoint for checkpoint in lacks if checkpoint.sequence not in self._damaged), None)

    def _upload(self, chosen: CheckpointInfo) -> None:
        mirror = self._mirror
        try:
            mirror.upload(chosen, self._go_on)
        except _MadeWayError:
            _log.info("mirror.made_way mirror=%s name=%s", mirror.url, chosen.name)
        except CheckpointNotFoundError:  # somebody else retired it
            with self._state:
                self._held = tuple(held for held in self._held if held.sequence != chosen.sequence)
        except ConcurrentWriterError as error:
            self._over = error
            self.notices.append(f"{error} Nothing more is copied to the mirror; training goes on.")
        except DamagedError as error:
            self._damaged[chosen.sequence] = error
            self.notices.append(f"{chosen.name} cannot be copied to the mirror {mirror.url}: {error}")
        except Exception as error:  # noqa: BLE001 - whatever it was, `notices` and `finish` have it, and training goes on
            self._failure = error
            self._tell_once(error)
        else:
            self._tidy()

    def _tidy(self) -> None:
        try:
            self._mirror.tidy(self._held)
        except KeepbestError as error:
            self._tell_once(error)
        else:
            self._told = False

    def _go_on(self) -> None:
        with self._state:
            if self._closed or (self._hurrying and self._choose() != self._uploading):
                raise _MadeWayError

    def _tell_once(self, error: Exception) -> None:
        _log.info("mirror.failed mirror=%s error=%s", self._mirror.url, error)
        if not self._told:
            self._told = True
            self.notices.append(
                f"the mirror {self._mirror.url} is not up to date: {error} Training goes on, and its checkpoints are "
                f"safe in {self._mirror.first_url}; what is missing in the mirror is tried again after each save."
            )


class _MadeWayError(Exception):
    """An upload is broken off: the newest goes first, or nobody waits for it any more."""
