"""Errors of checkpoints that other programs wrote."""

from __future__ import annotations

from .base import KeepbestError


class ForeignFileError(KeepbestError, ValueError):
    """A checkpoint in another program's format is damaged, cannot be read safely, or does not fit. Nothing was done.

    When: when `keepbest convert` reads it, or cannot write it in the format that was asked for.

    Do: See `problem`. What cannot be read safely can be loaded in the program that wrote it, and saved again.
    """

    def __init__(self, location: str, problem: str) -> None:
        self.location, self.problem = location, problem
        super().__init__(f"{location} was not converted: {problem}")
