"""Output: standard output, and what becomes of it when its reader goes away or its disk is full."""

from __future__ import annotations

import errno
import os
import sys

import click

_FULL = frozenset((errno.EDQUOT, errno.EFBIG, errno.EIO, errno.ENOSPC))


def write(text: str) -> None:
    """Write text at once, so that it stands before what is then said about an error; nothing where there is no output.

    Not by click, which takes an output of ASCII for a mistake and writes UTF-8 to it.

    Raises:
        BrokenPipeError: the reader went away.
        click.ClickException: it cannot be written, as on a full disk.
    """
    if sys.stdout is None:  # `keepbest … >&-`
        return
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        raise unwritten(error) from error


def is_full(error: OSError) -> bool:
    """Say whether an error is one of the output that click writes help to: no other write is without a file's name."""
    return error.filename is None and error.errno in _FULL


def unwritten(error: OSError) -> click.ClickException:
    """Give up the output, and return what to say about it."""
    let_go()
    return click.ClickException(f"the output cannot be written: {error.strerror or error}.")


def let_go() -> None:
    """Give up what is still buffered; without this, Python complains about it when it exits."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
