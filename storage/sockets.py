"""Sockets: those that notice when the other side takes no more bytes, and what is said of those that failed."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import Any


class Sockets:
    """Makes them for aiohttp. Equal ones print alike, so that fsspec takes clients with equal settings for one.

    A request's own timeout begins when its body is sent; before that only the kernel sees a stall
    (TCP_USER_TIMEOUT, RFC 5482; Linux).
    """

    def __init__(self, idle: float) -> None:
        self._idle = idle

    def __call__(self, address: Any) -> socket.socket:
        """Return a socket for an entry of `getaddrinfo`."""
        family, kind, protocol, _, _ = address
        made = socket.socket(family, kind, protocol)
        if hasattr(socket, "TCP_USER_TIMEOUT"):
            made.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(self._idle * 1000))
        return made

    def __repr__(self) -> str:
        return f"Sockets({self._idle})"


def send_once(session: Any) -> None:
    """Keep a session of aiohttp from sending a PUT, GET or DELETE again by itself: we do, and stop in time.

    Where there is no such switch, it goes on doing so; a second try that meets the first is recognised anyway.
    """
    if hasattr(session, "_retry_connection"):
        session._retry_connection = False  # noqa: SLF001 - no argument does it


def causes(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error and those that led to it, down to the operating system's."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__ or getattr(error, "os_error", None)


def words(error: BaseException) -> str:
    """Return an error's text, short and without a full stop; its type where it has none."""
    return str(error).strip().rstrip(".")[:300] or type(error).__name__
