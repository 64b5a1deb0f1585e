"""Printable: text that cannot steer a terminal, made of text that strangers wrote, and URLs without their passwords."""

from __future__ import annotations

import re

USER = re.compile(r"(\w[\w+.-]*://[^/\s:@]*):[^/\s]*@")
"""A URL as far as the "@" behind its user, who has a password."""


def without_password(url: str) -> str:
    """Return a URL as it may be shown: with the user's name, but no password."""
    return url if url.startswith("github://") else USER.sub(r"\1@", url, count=1)  # github://org:repo@branch


def without_passwords(text: str) -> str:
    """Return a text, such as a stranger's error, without the passwords of the URLs in it."""
    return USER.sub(r"\1@", text)


def printable(text: str) -> str:
    r"""Return `text` with everything that could steer a terminal written out, as in `\x1b`.

    Names come from runs that strangers wrote; escape sequences, line breaks and marks that reverse the reading
    direction must not reach the terminal.
    """
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)
