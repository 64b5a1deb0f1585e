"""Strikes: what can happen to one request of a story, on its way to a server of buckets or back."""

from __future__ import annotations

import re
import threading
import urllib.parse
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from contracts import http_faults
from contracts.http_faults import Fault
from contracts.proxy import Record, Rule
from contracts.stores import Store

DEADLINE = 4.0
"""Seconds, as `storage_options` have it: a try that stalls is given up after one of them."""
LATE = 1.5 * DEADLINE
"""Seconds after which a late request arrives: whoever sent it has given up by then."""

GROUPS = {
    "late, or never answered": ("delay", "late", "stall", "silence"),
    "cut off": ("reset", "lose reply", "truncate", "gone"),
    "refused": ("503", "500", "429", "409", "412", "403"),
    "altered": ("corrupt request", "corrupt reply"),
}
"""What the faults of a row have in common."""
NAMES = tuple(name for names in GROUPS.values() for name in names)

_DIGITS = re.compile(r"[0-9a-f]{5,}(-[0-9a-f]{5,})*|epoch-[0-9]+")
_FOR_GOOD = frozenset(("silence", "gone"))
"""The store answers nothing any more until the story has ended."""
_FAULTS = {
    "delay": http_faults.delay(0.3),
    "late": http_faults.delay(LATE),
    "stall": http_faults.stall(3 * DEADLINE),
    "silence": http_faults.stall(3 * DEADLINE),
    "reset": http_faults.reset(),
    "gone": http_faults.reset(),
    "lose reply": http_faults.lose_reply(),
    "truncate": http_faults.truncate(),
    "corrupt request": http_faults.corrupt_request(),
    "corrupt reply": http_faults.corrupt_reply(),
}
_REFUSALS = {
    "503": (503, "SlowDown", "backendError"),
    "500": (500, "InternalError", "backendError"),
    "429": (429, "TooManyRequests", "rateLimitExceeded"),
    "409": (409, "ConditionalRequestConflict", "conflict"),
    "412": (412, "PreconditionFailed", "conditionNotMet"),
    "403": (403, "AccessDenied", "forbidden"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Strike:
    """One fault at one request."""

    name: str
    number: int
    """Of the request in its story, from 1."""
    request: str
    """What the story without faults asks there, for people."""

    def __str__(self) -> str:
        return f"{self.name} at request {self.number} ({self.request})"

    def arm(self, store: Store) -> Rule:
        """Let it happen to the requests that come from now on; returns the rule, which counts."""
        fault = self._fault(store)
        if self.name == "late":
            return store.proxy.on(fault, when=_SameRequest(self.number).takes)
        return store.proxy.on(fault, after=self.number - 1, times=None if self.name in _FOR_GOOD else 1)

    def _fault(self, store: Store) -> Fault:
        if self.name in _FAULTS:
            return _FAULTS[self.name]
        status, of_s3, of_gcs = _REFUSALS[self.name]
        return store.refuse(status, of_s3 if store.is_s3 else of_gcs)

    def struck(self, store: Store, rule: Rule) -> bool:
        """Say whether it did something: there may be fewer requests, or no bytes to alter."""
        if self.name not in {"corrupt request", "corrupt reply", "truncate"}:
            return rule.hits > 0
        hit = [record for record in store.proxy.records() if record.fault == rule.fault.name]
        return any(record.received if self.name == "corrupt request" else record.sent for record in hit)


class _SameRequest:
    """Takes the request of a number, and from then on what asks the same: its further tries."""

    def __init__(self, number: int) -> None:
        self._number, self._seen = number, 0
        self._asked: tuple[str, str] | None = None
        self._lock = threading.Lock()

    def takes(self, record: Record) -> bool:
        asked = (record.method, record.target.partition("?")[0])
        with self._lock:
            self._seen += 1
            if self._seen == self._number:
                self._asked = asked
            return self._asked == asked


def strikes(
    records: list[Record], *, chosen: Callable[[Record], bool] = lambda _: True, every: int = 4
) -> Iterator[Strike]:
    """Yield each fault at each request of a story that may mean anything there.

    Of requests that ask the same, say for a listing, the first two are struck.

    Args:
        records: the story's requests, without faults.
        chosen: which of them.
        every: of those after which the store does not answer any more, only each so many-th.
    """
    seen: Counter[str] = Counter()
    for number, record in enumerate(records, start=1):
        what = f"{record.method} {_DIGITS.sub('#', urllib.parse.unquote(record.target))[:120]}"
        seen[what] += 1
        if not chosen(record) or (seen[what] > 2 and "/upload/" not in what):  # GCS has the names in the bodies
            continue
        for name in NAMES:
            if name in _FOR_GOOD and number % every:
                continue
            if name == "corrupt request" and not record.received:
                continue
            if name in {"corrupt reply", "truncate"} and not record.sent:
                continue
            yield Strike(name=name, number=number, request=what)
