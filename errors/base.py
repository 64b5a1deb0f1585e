"""Base: what every error of keepbest is, and the words that several of them use."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any


class KeepbestError(Exception):
    """The base of every error keepbest raises on purpose."""

    def __str__(self) -> str:
        # KeyError shows the repr of its argument and OSError its errno: ours always show the sentence.
        return str(self.args[0]) if self.args else ""

    def __reduce__(self) -> tuple[Any, ...]:
        # The constructors take facts, not the text: rebuild without calling them, so errors cross processes.
        return (_rebuild, (type(self), self.args, self.__dict__))


def _rebuild(kind: type[KeepbestError], args: tuple[Any, ...], facts: dict[str, Any]) -> KeepbestError:
    error = kind.__new__(kind, *args)
    error.args = args
    error.__dict__.update(facts)
    return error


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return `" Did you mean 'val_loss'?"`, or an empty string when nothing known is close to `word`."""
    close = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f" Did you mean '{close[0]}'?" if close else ""


def listed(names: Iterable[object]) -> str:
    """Return the names as they stand in a sentence."""
    return ", ".join(str(name) for name in names) or "nothing"
