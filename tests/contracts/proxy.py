"""A proxy before a server of buckets that does what a bad day does, by rules that a test writes down.

    with FaultProxy(server.url) as proxy:
        proxy.on(lose_reply(), method="PUT", path="commits/", times=1)
        backend = …                            # with proxy.url as its endpoint
        assert proxy.count(method="PUT", path="commits/") == 2

What no rule is for passes byte for byte, the header Host too, so that signatures stay valid.
"""

from __future__ import annotations

import contextlib
import os
import re
import select
import signal
import socket
import struct
import threading
import time
import urllib.parse
from collections.abc import Callable
from dataclasses import dataclass, replace

from . import sigv4
from .http1 import BrokenStreamError, Piece, Stream
from .http_faults import NOTHING, Fault
from .servers import HOST, free_ports

# ── which requests, and what became of them ──────────────────────────────────────────────────────────────────────


@dataclass(slots=True, kw_only=True)
class Record:
    """A request that came."""

    method: str
    target: str
    """Path and query, percent-encoded."""
    connection: int
    """The number of the connection it came on."""
    start: float
    """When its head had come; seconds, monotonic."""
    end: float | None = None
    """When it was done with; None while it is not."""
    status: int | None = None
    """Of the reply that was begun to be given to the client; None when there was none."""
    received: int = 0
    """Bytes of the request's body, framing included."""
    sent: int = 0
    """Bytes of the reply's body that were sent to the client, framing included."""
    fault: str = ""
    """The name of the fault that happened to it."""


@dataclass(slots=True, kw_only=True)
class Rule:
    """Which requests a fault happens to; made by `FaultProxy.on`."""

    fault: Fault
    method: str | None
    path: str
    when: Callable[[Record], bool]
    after: int
    times: int | None
    seen: int = 0
    """How many requests it would be for, by method, path and `when`."""
    hits: int = 0
    """How many of them its fault happened to."""

    def takes(self, record):
        """Count a request, and say whether the fault happens to it."""
        if not (_matches(record, self.method, self.path) and self.when(record)):
            return False
        self.seen += 1
        if self.seen <= self.after or (self.times is not None and self.hits >= self.times):
            return False
        self.hits += 1
        return True


def _matches(record, method, path):
    return method in {None, record.method} and re.search(path, record.target) is not None


def busy(records):
    """Return how many requests were under way over time, as (seconds, how many from then on)."""
    now = time.monotonic()
    ends = [(now if record.end is None else record.end, -1) for record in records]
    count, steps = 0, []
    for moment, change in sorted([(record.start, 1) for record in records] + ends):
        count += change
        steps.append((moment, count))
    return steps


def most_at_once(records):
    """Return how many requests were under way at the busiest moment."""
    return max((count for _, count in busy(records)), default=0)


# ── what is changed before the server sees it ────────────────────────────────────────────────────────────────────

CONDITIONS = ("if-none-match", "if-match", "x-amz-copy-source-if-none-match", "x-amz-copy-source-if-match")


def without_s3_conditions(secrets):
    """Return the `edit` that makes a server one that knows no conditional writes: it ignores them, as such servers do.

    Clients sign these headers (botocore and obstore do), so the request is signed again.

    Args:
        secrets: Access key → secret key, as `S3Server.secrets`.
    """

    def edit(head):
        if head.first[0] in {"GET", "HEAD"} or not any(name in CONDITIONS for name, _ in head.headers):
            return head
        return sigv4.signed_again(head.without(*CONDITIONS), secrets)

    return edit


def without_gcs_conditions(head):
    """Leave the preconditions out of the query: the `edit` that makes a server one that ignores them."""
    path, mark, query = head.first[1].partition("?")
    left = "&".join(
        pair for pair in query.split("&") if not re.match(r"if(Source)?(Meta)?[gG]enerationN?o?t?Match=", pair)
    )
    return head.asking_for(path + mark + left) if left != query else head


# ── the proxy ────────────────────────────────────────────────────────────────────────────────────────────────────


class FaultProxy:
    """Listens from its making until `close`, on a port of its own; safe to use from every thread.

    Args:
        server: The URL of the server it stands before.
        edit: Head of a request → the head that the server sees; the body passes as it is.
    """

    def __init__(self, server, *, edit=None):
        parts = urllib.parse.urlsplit(server)
        self._server = (parts.hostname, parts.port)
        self._edit = edit or (lambda head: head)
        self._lock = threading.Lock()
        self._rules, self._records = [], []
        self._sockets = set()
        self._accepted = 0
        self._dead = threading.Event()
        self._dead.set()
        (self._port,) = free_ports(1)
        self.url = f"http://{HOST}:{self._port}"
        self.revive()

    def on(self, fault, *, method=None, path="", when=lambda _record: True, after=0, times=None):  # noqa: PLR0913 - all of them say which
        """Let a fault happen to requests; of several rules, the first that takes a request has it.

        Args:
            fault: What happens, or None: the request passes, and no later rule has it.
            method: "PUT", …, or None: all.
            path: A regular expression that is found in path and query, as they are on the wire.
            when: A further condition, on the `Record`.
            after: How many such requests pass first.
            times: How many then do not; None for all.

        Returns:
            The rule, which counts.
        """
        rule = Rule(fault=fault or NOTHING, method=method, path=path, when=when, after=after, times=times)
        with self._lock:
            self._rules.append(rule)
        return rule

    def clear(self):
        """Forget all rules and records."""
        with self._lock:
            self._rules, self._records = [], []

    def records(self, *, method=None, path=""):
        """Return what is known of the requests that came, in order of coming."""
        with self._lock:
            return [replace(record) for record in self._records if _matches(record, method, path)]

    def count(self, *, method=None, path=""):
        """Return how many requests came."""
        return len(self.records(method=method, path=path))

    def kill(self):
        """Refuse new connections, then break all that are open."""
        self._dead.set()
        self._listening.join()
        with self._lock:
            open_ones = list(self._sockets)
        for one in open_ones:
            _break(one)

    def revive(self):
        """Listen again, on the same port."""
        if not self._dead.is_set():
            return
        listener = socket.create_server((HOST, self._port), backlog=128)
        self._dead.clear()
        self._listening = threading.Thread(target=self._listen, args=(listener,), daemon=True)
        self._listening.start()

    def close(self):
        """End it, for good."""
        self.kill()

    def __enter__(self):
        return self

    def __exit__(self, *_error):
        self.close()

    def _listen(self, listener):
        with listener:
            while not self._dead.is_set():
                if select.select([listener], [], [], 0.02)[0]:
                    client, _ = listener.accept()
                    threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    @contextlib.contextmanager
    def _open(self, one):
        """Keep a socket where `kill` finds it, and close it."""
        one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with one:
            with self._lock:
                self._sockets.add(one)
                dead = self._dead.is_set()
            if dead:
                _break(one)
            try:
                yield one
            finally:
                with self._lock:
                    self._sockets.discard(one)

    def _serve(self, client):
        with self._lock:
            self._accepted += 1
            connection = self._accepted
        with contextlib.suppress(OSError, BrokenStreamError), self._open(client):
            stream, upstream = Stream(client), _Upstream(self._server, self._open)
            with upstream:
                while (head := stream.head()) is not None:
                    if len(head.first) < 3:  # the rest of a request that was broken off
                        raise BrokenStreamError
                    method, target, _ = head.first
                    record = Record(method=method, target=target, connection=connection, start=time.monotonic())
                    fault = self._fault(record)
                    try:
                        if not _Exchange(stream, upstream, record, fault).run(head, self):
                            break
                    finally:
                        record.end = time.monotonic()

    def _fault(self, record):
        with self._lock:
            self._records.append(record)
            rule = next((rule for rule in self._rules if rule.takes(record)), None)
        fault = rule.fault if rule else NOTHING
        record.fault = fault.name
        return fault

    def edited(self, head):
        """Return the head of a request as the server is to see it."""
        return self._edit(head)

    def sleep(self, seconds):
        """Wait, but not beyond a `kill`."""
        self._dead.wait(seconds)


class _Upstream:
    """The connection to the server that belongs to one of a client, opened anew when the server had closed it."""

    def __init__(self, address, keep):
        self._address, self._keep = address, keep
        self._stack = contextlib.ExitStack()
        self._stream = None

    def stream(self):
        """Return a connection that is open, as far as one can know."""
        if self._stream is None or self._stream.rest or select.select([self._stream.socket], [], [], 0)[0]:
            self.close()
            self._stream = Stream(self._stack.enter_context(self._keep(socket.create_connection(self._address))))
        return self._stream

    def close(self):
        """Close it."""
        self._stack.close()
        self._stream = None

    def __enter__(self):
        return self

    def __exit__(self, *_error):
        self.close()


class _Exchange:
    """One request and its reply."""

    def __init__(self, client, upstream, record, fault):
        self._client, self._upstream, self._record, self._fault = client, upstream, record, fault

    def run(self, head, proxy):
        """Let it happen, and say whether the client may ask again on this connection."""
        proxy.sleep(self._fault.delay)
        if self._fault.kill:
            proxy.kill()
            return False
        if self._fault.victim is not None and not self._fault.lose_reply:
            os.kill(self._fault.victim, signal.SIGKILL)
        if self._fault.reset:
            return _reset(self._client.socket)
        if self._fault.answer is not None:
            return self._answer(head)
        server = self._upstream.stream()
        reply, heard = self._ask(server, head, proxy.edited(head))
        if self._fault.lose_reply:
            if self._fault.victim is not None:
                os.kill(self._fault.victim, signal.SIGKILL)
            return _reset(self._client.socket)
        proxy.sleep(self._fault.late)
        return self._relay(server, reply) and heard and head.get("connection").lower() != "close"

    def _answer(self, head):
        status, body, headers = self._fault.answer
        waits = "expect" in dict(head.headers)  # for a 100 that does not come, so its body does not either
        for piece in () if waits else self._client.pieces(head):
            self._record.received += len(piece.data)
        headers = headers | {"content-length": str(len(body)), "connection": "close" if waits else "keep-alive"}
        lines = [f"HTTP/1.1 {status} Fault", *(f"{name}: {value}" for name, value in headers.items()), "", ""]
        self._record.status = status
        self._client.socket.sendall("\r\n".join(lines).encode("latin-1") + body * (self._record.method != "HEAD"))
        return not waits

    def _ask(self, server, came, goes):
        """Send the request to the server; return the head of its reply, and whether the client's body was taken."""
        server.socket.sendall(goes.raw)
        if "expect" in dict(came.headers):
            reply = _head_of_reply(server)
            if reply.status != 100:  # the client does not send its body now, if it has one
                return reply, came.get("content-length") == "0"
            self._client.socket.sendall(reply.raw)
        body = self._client.pieces(came)
        refused = False
        for piece in _flipped(body, came) if self._fault.corrupt_request else body:
            self._record.received += len(piece.data)
            self._pace(piece)
            try:
                if not refused:
                    server.socket.sendall(piece.data)
            except OSError:  # it has said no before it had heard all, and the client is to hear that
                refused = True
        while (reply := _head_of_reply(server)).status < 200:
            self._client.socket.sendall(reply.raw)
        return reply, True

    def _relay(self, server, reply):
        """Send the server's reply to the client; say whether the connection can be used again."""
        self._record.status = reply.status
        self._client.socket.sendall(reply.raw)
        bodiless = self._record.method == "HEAD" or reply.status in {204, 304}
        body = server.pieces(reply, bodiless=bodiless)
        if self._fault.corrupt_reply:
            body = _flipped(body, reply)
        if self._fault.truncate:
            body = _first_half(body, reply)
        for piece in body:
            self._pace(piece)
            self._client.socket.sendall(piece.data)
            self._record.sent += len(piece.data)
        whole = bodiless or reply.get("content-length") or reply.get("transfer-encoding")
        lasting = bool(whole) and not self._fault.truncate and reply.get("connection").lower() != "close"
        if not lasting:
            self._upstream.close()
        return lasting

    def _pace(self, piece):
        if self._fault.pace:
            self._fault.pace(len(piece.data))


def _head_of_reply(server):
    if (head := server.head()) is None:
        raise BrokenStreamError
    return head


def _flipped(pieces, head):
    """Pass a body on, with one bit in the middle flipped."""
    for piece, middle in _middles(pieces, head):
        if middle is None:
            yield piece
        else:
            data = bytearray(piece.data)
            data[middle] ^= 1
            yield Piece(bytes(data))


def _first_half(pieces, head):
    """Pass a body on as far as its middle."""
    for piece, middle in _middles(pieces, head):
        if middle is not None:
            yield Piece(piece.data[:middle])
            return
        yield piece


def _middles(pieces, head):
    """Yield each piece, with the place in it that is the middle of the body; in chunks, the middle of the first."""
    length = head.get("content-length")
    middle, begin = int(length) // 2 if length else None, 0
    for piece in pieces:
        if piece.framing:
            yield piece, None
            continue
        if middle is None:
            middle = len(piece.data) // 2
        yield piece, (middle - begin if begin <= middle < begin + len(piece.data) else None)
        begin += len(piece.data)


def _reset(one):
    """Let the close of a socket be an RST; there is no other request on it."""
    one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    return False


def _break(one):
    """Break a connection that another thread uses, which then closes it."""
    with contextlib.suppress(OSError):
        _reset(one)
        one.shutdown(socket.SHUT_RDWR)
