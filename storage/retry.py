"""Retry: how often one request is tried, for how long, and what is asked of a store that the operation has given up.

All of it fits into the deadline: tries that fail (45 %), the pause before the last one (7 %), a stall in that one
(25 %), and two requests that tidy up behind it (10 % each). Where the store has to put a large object together, nothing
is heard for longer (38 %, twice).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from tenacity import RetryCallState, Retrying, retry_if_exception_type, wait_random_exponential

from ..errors import CredentialsError, KeepbestError
from . import event_loop, operation
from .client import TransientError

T = TypeVar("T")

RETRIED = "The request had been sent before, without a reply."
"""The note on an error that a second or later try raised."""

TRIES, PAUSE, STALL, ASSEMBLY, TIDYING = 0.45, 0.07, 0.25, 0.38, 0.1
"""Parts of the deadline."""


def stall(deadline: float) -> float:
    """Return the seconds without an answer after which one try is given up: a stall is met by a second one."""
    return deadline * STALL


def assembly(deadline: float) -> float:
    """Return the same for a request by which the store makes an object of others."""
    return deadline * ASSEMBLY


def patience(deadline: float) -> float:
    """Return the seconds within which a request that failed is tried again."""
    return deadline * TRIES


class Retry:
    """Tries requests to one store again, and remembers when it gave up. Safe to use from several threads."""

    def __init__(self, deadline: float) -> None:
        self._deadline = deadline
        self.refused = False
        """The store did not accept the credentials: there may be others by now."""
        self._given_up: float | None = None
        """When a request was given up, if none was answered since; seconds, monotonic."""

    def attempt(self, request: Callable[[], T], *, small: bool = False, failing: float = 0.0) -> tuple[T, bool]:
        """Send a request until it is answered, or the deadline is near.

        After one was given up, others of the same operation (`one_operation`) are tried once: what tidies up behind it
        does not wait as long again. An operation that begins afterwards knows nothing of it.

        Args:
            request: one try.
            small: it moves no data, so that after one was given up it can be cut short.
            failing: seconds for which the same was tried in another way before.

        Returns:
            Its answer, and whether it was sent more than once: then an earlier one may have had its effect.

        Raises:
            StorageError: with a note `RETRIED` if it was sent more than once.
        """
        began = operation.began()
        limit = max(1.0, self._deadline * TIDYING) if small and self._is_down(began) else None
        retrying = Retrying(
            retry=retry_if_exception_type(TransientError),
            stop=self._enough(began, failing),
            wait=wait_random_exponential(multiplier=0.1, max=self._deadline * PAUSE),
            reraise=True,
        )
        try:
            with event_loop.limited(limit):
                answer = retrying(request)
        except TransientError as last:
            self.give_up()
            raise last.error from last.__cause__
        except KeepbestError as error:
            self._given_up = None
            self.refused |= isinstance(error, CredentialsError)
            if retrying.statistics["attempt_number"] > 1:
                error.add_note(RETRIED)
            raise
        self._given_up = None
        return answer, retrying.statistics["attempt_number"] > 1

    def give_up(self) -> None:
        """Remember that the store does not answer."""
        self._given_up = time.monotonic()

    def _is_down(self, began: float) -> bool:
        """Say whether a request was given up since an operation began, and none was answered after it."""
        return self._given_up is not None and self._given_up > began

    def _enough(self, began: float, failing: float) -> Callable[[RetryCallState], bool]:
        """Return what says when to stop trying. Time counts from when nothing came: bytes may have moved for long."""
        since: float | None = None

        def enough(state: RetryCallState) -> bool:
            nonlocal since
            now = time.monotonic()
            if since is None:
                since = max(state.start_time, now - stall(self._deadline)) - failing
            return self._is_down(began) or now - since >= patience(self._deadline)

        return enough
