"""A real terminal for tests: a program runs in one, and what it wrote can be looked at as a person would see it."""

from __future__ import annotations

import codecs
import fcntl
import os
import re
import struct
import subprocess
import sys
import tempfile
import termios
import time
from dataclasses import dataclass

_SEQUENCE = re.compile(r"\x1b\[([0-9;?]*)([A-Za-z])|\r|\n|\x1b|[^\x1b\r\n]+")

_PRELUDE = """
import fcntl, os, termios, time
fcntl.ioctl(2, termios.TIOCSCTTY, 0)  # so that Ctrl-C reaches it
def go():
    os.write({fd}, repr(time.monotonic()).encode())
    os.close({fd})
"""

COMMAND = "import sys; from keepbest.cli import main; go(); sys.exit(main(sys.argv[1:]))"
"""The program that is the command line, for `run_in_terminal`."""

_SETTINGS = ("FORCE_COLOR", "NO_COLOR", "COLUMNS", "KEEPBEST_PROGRESS", "TTY_COMPATIBLE", "TTY_INTERACTIVE")


@dataclass(frozen=True)
class Ran:
    """What a program left behind."""

    code: int
    """Exit code; minus the signal's number if one ended it."""
    moments: list[tuple[float, str]]
    """Seconds since it said `go`, and what the terminal got then."""
    out: str
    """Its standard output, if that was no terminal."""

    @property
    def written(self):
        """All that the terminal got."""
        return "".join(text for _, text in self.moments)

    @property
    def screen(self):
        """The lines that a person sees at the end."""
        return screen(self.written)


def run_in_terminal(program, *arguments, columns=100, interrupt=None, redirect=False, **environment):
    """Run a Python program whose standard streams are a terminal.

    Args:
        program: its text; it calls `go()` when the clock shall start.
        arguments: for its sys.argv.
        columns: the terminal's width.
        interrupt: a text; when it has been written, Ctrl-C is pressed, once.
        redirect: standard output goes to a file, as with `> file`.
        environment: variables to set.
    """
    terminal, inner = os.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    ready, told = os.pipe()
    clean = {name: value for name, value in os.environ.items() if name not in _SETTINGS}
    with (
        tempfile.TemporaryFile() as file,
        subprocess.Popen(
            [sys.executable, "-c", _PRELUDE.format(fd=told) + program, *map(str, arguments)],
            stdin=inner,
            stdout=file if redirect else inner,
            stderr=inner,
            start_new_session=True,
            pass_fds=[told],
            env={**clean, "TERM": "xterm-256color", **environment},
        ) as running,
    ):
        os.close(inner)
        os.close(told)
        began, moments = float(os.read(ready, 64) or "nan"), []
        decoder = codecs.getincrementaldecoder("utf-8")()  # what is read may end within a letter
        while data := _read(terminal):
            moments.append((time.monotonic() - began, decoder.decode(data)))
            if interrupt is not None and interrupt in "".join(text for _, text in moments):
                os.write(terminal, b"\x03")
                interrupt = None
        running.wait(60)
        file.seek(0)
        out = file.read().decode()
    os.close(ready)
    os.close(terminal)
    return Ran(running.returncode, moments, out)


def _read(terminal):
    try:
        return os.read(terminal, 65536)
    except OSError:  # that is how Linux says that nobody holds the other end any more
        return b""


def screen(written):
    """Return the lines that a terminal shows after `written`; knows what we use, and refuses all else."""
    lines, row, column = [""], 0, 0
    for found in _SEQUENCE.finditer(written):
        text, numbers, kind = found[0], found[1], found[2]
        if text == "\r":
            column = 0
        elif text == "\n":
            row += 1
            lines.extend([""] * (row + 1 - len(lines)))
        elif kind == "A":
            row = max(0, row - int(numbers or 1))
        elif kind == "K":
            assert numbers == "2", text
            lines[row] = ""
        elif kind is None:
            assert text != "\x1b", written
            lines[row] = lines[row].ljust(column)[:column] + text + lines[row][column + len(text) :]
            column += len(text)
        else:
            assert kind == "m", text
    while len(lines) > 1 and not lines[-1].strip():
        lines.pop()
    return [line.rstrip() for line in lines]
