"""What can happen to a request on its way: one value for each bad day."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """What happens to a request; made by the functions below."""

    name: str
    delay: float = 0.0
    """Seconds before the server hears of it."""
    answer: tuple[int, bytes, dict] | None = None
    """Status, body and headers of a reply that the server knows nothing of."""
    reset: bool = False
    """The connection breaks before the server hears of it."""
    kill: bool = False
    """The proxy is killed before the server hears of it."""
    victim: int | None = None
    """The process that is killed before the server hears of it, by its number; with `lose_reply` after it answered."""
    corrupt_request: bool = False
    """A bit of the request's body arrives at the server as its opposite."""
    late: float = 0.0
    """Seconds between the server's reply and its arrival at the client."""
    lose_reply: bool = False
    """The server did it, the connection breaks before the reply."""
    truncate: bool = False
    """The connection ends in the middle of the reply's body."""
    corrupt_reply: bool = False
    """A bit of the reply's body arrives at the client as its opposite."""
    pace: Callable[[int], None] | None = None
    """Waits as long as so many bytes take."""


NOTHING = Fault(name="")


def answer(status, body=b"", **headers):
    """Answer in the server's place, after the request was received whole; `content_type="…"` gives a header."""
    return Fault(name=f"answer {status}", answer=(status, body, {k.replace("_", "-"): v for k, v in headers.items()}))


def s3_error(status, code, message="", *, extra="", **headers):
    """Answer as S3 does when it says no; `extra` is more XML for the body."""
    body = f"<Error><Code>{code}</Code><Message>{message or code}</Message>{extra}<RequestId>0</RequestId></Error>"
    return answer(
        status, f'<?xml version="1.0" encoding="UTF-8"?>\n{body}'.encode(), content_type="application/xml", **headers
    )


def precondition_failed():
    """Say that the object is there already."""
    return s3_error(412, "PreconditionFailed", "At least one of the pre-conditions you specified did not hold")


def conflict():
    """Say that another conditional request on this key is under way."""
    return s3_error(409, "ConditionalRequestConflict", "A conflicting conditional operation is currently in progress")


def slow_down():
    """Say that there are too many requests."""
    return s3_error(503, "SlowDown", "Please reduce your request rate.")


def internal_error():
    """Say that something broke."""
    return s3_error(500, "InternalError", "We encountered an internal error. Please try again.")


def access_denied():
    """Say that one may not."""
    return s3_error(403, "AccessDenied", "Access Denied")


def expired_token(status=400):
    """Say that the credentials were good once; S3 says 400, others 403."""
    return s3_error(status, "ExpiredToken", "The provided token has expired.")


def moved_region(region="eu-central-1"):
    """Say that the bucket lies in another region."""
    return s3_error(301, "PermanentRedirect", "Use another endpoint.", x_amz_bucket_region=region)


def wrong_region(region="eu-central-1"):
    """Say that the signature is for another region."""
    message = f"The authorization header is malformed; the region 'us-east-1' is wrong; expecting '{region}'"
    extra = f"<Region>{region}</Region>"
    return s3_error(400, "AuthorizationHeaderMalformed", message, extra=extra, x_amz_bucket_region=region)


def html(status=200):
    """Answer as the log-in page of a network does."""
    return answer(status, b"<!DOCTYPE html><html><body>Please log in.</body></html>", content_type="text/html")


def reset():
    """Break the connection (RST) when the request came, before the server hears of it."""
    return Fault(name="reset", reset=True)


def lose_reply():
    """Let the server do it, and break the connection before its reply."""
    return Fault(name="lose reply", lose_reply=True)


def truncate():
    """End the connection in the middle of the reply's body; a body in chunks, in the middle of its first piece."""
    return Fault(name="truncate", truncate=True)


def corrupt_request():
    """Flip a bit in the middle of the request's body; of a body in chunks, in the middle of its first piece."""
    return Fault(name="corrupt request", corrupt_request=True)


def corrupt_reply():
    """Flip a bit in the middle of the reply's body; of a body in chunks, in the middle of its first piece."""
    return Fault(name="corrupt reply", corrupt_reply=True)


def stall(seconds):
    """Take the request, say nothing for so long, and break the connection; the server never hears of it."""
    return Fault(name="stall", delay=seconds, reset=True)


def delay(seconds):
    """Let the server hear of it so much later."""
    return Fault(name="delay", delay=seconds)


def late_reply(seconds):
    """Let the server do it at once, and its reply arrive so much later."""
    return Fault(name="late reply", late=seconds)


def throttle(rate):
    """Let all the bodies that this fault is for pass through one link of so many bytes per second."""
    return Fault(name="throttle", pace=_Link(rate).wait)


def kill():
    """Kill the proxy, as `FaultProxy.kill` does, when the request's head came."""
    return Fault(name="kill", kill=True)


def kill_process(number, *, answered=False):
    """Kill a process, the client's say (SIGKILL), when the request's head came, and break the connection.

    With `answered` the server does what it is asked first, and its reply is lost.
    """
    return Fault(name="kill process", victim=number, reset=not answered, lose_reply=answered)


class _Link:
    def __init__(self, rate):
        self._rate, self._lock, self._free = rate, threading.Lock(), 0.0

    def wait(self, count):
        with self._lock:
            self._free = max(self._free, time.monotonic()) + count / self._rate
            free = self._free
        time.sleep(max(0.0, free - time.monotonic()))
