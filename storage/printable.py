"""Printable: text that cannot steer a terminal, made of text that strangers wrote."""

from __future__ import annotations


def printable(text: str) -> str:
    r"""Return `text` with everything that could steer a terminal written out, as in `\x1b`.

    Names come from runs that strangers wrote; escape sequences, line breaks and marks that reverse the reading
    direction must not reach the terminal.
    """
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)
