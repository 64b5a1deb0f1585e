"""HTTP/1.1 as it passes through: heads kept byte for byte, and bodies in pieces, framing and payload told apart."""

from __future__ import annotations

from dataclasses import dataclass, field

PIECE = 64 * 1024
"""Bytes read at a time."""


class BrokenStreamError(Exception):
    """The other side went away in the middle of a message."""


@dataclass(frozen=True, slots=True)
class Head:
    """The first line of a message and its header lines, as they came, with their line ends."""

    lines: tuple[bytes, ...]

    @property
    def raw(self):
        """The bytes that came, the empty line included."""
        return b"".join((*self.lines, b"\r\n"))

    @property
    def first(self):
        """The words of the first line."""
        return self.lines[0].decode("latin-1").rstrip("\r\n").split(" ", 2)

    @property
    def headers(self):
        """(name in lower case, value) of each header line."""
        pairs = (line.decode("latin-1").partition(":") for line in self.lines[1:])
        return [(name.strip().lower(), value.strip()) for name, _, value in pairs]

    @property
    def status(self):
        """The number in a reply's first line."""
        return int(self.first[1])

    def get(self, name):
        """Return the value of a header, or ""."""
        return next((value for found, value in self.headers if found == name), "")

    def without(self, *names):
        """Return it with these headers left out."""
        return Head((self.lines[0], *(line for line in self.lines[1:] if _name(line) not in names)))

    def having(self, name, value):
        """Return it with this header in place of what it had under that name."""
        return Head((*self.without(name).lines, f"{name}: {value}\r\n".encode("latin-1")))

    def asking_for(self, target):
        """Return this request's head with another path and query."""
        method, _, version = self.first
        return Head((f"{method} {target} {version}\r\n".encode("latin-1"), *self.lines[1:]))


def _name(line):
    return line.partition(b":")[0].strip().lower().decode("latin-1")


@dataclass(frozen=True, slots=True)
class Piece:
    """Some bytes of a body on the wire."""

    data: bytes
    framing: bool = False
    """The lengths between the chunks of a chunked body, and its trailer: not payload."""


@dataclass(slots=True)
class Stream:
    """A socket, read message by message."""

    socket: object
    rest: bytes = field(default=b"")

    def head(self):
        """Read a head; None when the other side closed before the first byte of one."""
        lines = []
        while True:
            line = self._line(may_end=not lines)
            if line is None:
                return None
            if line in {b"\r\n", b"\n"}:
                return Head(tuple(lines))
            lines.append(line)

    def pieces(self, head, *, bodiless=False):
        """Yield the body that belongs to a head; `bodiless` for the reply to a HEAD, and for 1xx, 204 and 304."""
        if bodiless:
            return
        if "chunked" in head.get("transfer-encoding").lower():
            yield from self._chunks()
        elif length := head.get("content-length"):
            yield from (Piece(data) for data in self._exactly(int(length)))
        elif head.lines[0].startswith(b"HTTP/"):
            while data := self._some(PIECE):
                yield Piece(data)

    def _chunks(self):
        while True:
            line = self._line()
            yield Piece(line, framing=True)
            if not (length := int(line.split(b";")[0], 16)):
                break
            yield from (Piece(data) for data in self._exactly(length))
            yield Piece(self._line(), framing=True)
        while line not in {b"\r\n", b"\n"}:
            line = self._line()
            yield Piece(line, framing=True)

    def _exactly(self, length):
        while length:
            data = self._some(min(length, PIECE))
            if not data:
                raise BrokenStreamError
            length -= len(data)
            yield data

    def _some(self, most):
        if not self.rest:
            return self.socket.recv(most)
        data, self.rest = self.rest[:most], self.rest[most:]
        return data

    def _line(self, *, may_end=False):
        while b"\n" not in self.rest:
            data = self.socket.recv(PIECE)
            if not data:
                if may_end and not self.rest:
                    return None
                raise BrokenStreamError
            self.rest += data
        line, _, self.rest = self.rest.partition(b"\n")
        return line + b"\n"
