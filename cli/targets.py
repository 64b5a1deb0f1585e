"""Targets: where a verb may put the files that it makes out of a run."""

from __future__ import annotations

from pathlib import Path

import click

from ..storage.backend import open_backend
from ..storage.layout import run_around
from ..storage.printable import printable
from ..storage.run import Run


def check_target(folder: Path) -> None:
    """Let nothing be put into a run, where only keepbest's own files are: its readers and `gc` pass others over.

    Raises:
        click.BadParameter: `folder` is a run, or a part of one.
    """
    for place in (str(folder), run_around(str(folder))):
        if place is not None and Run(open_backend(place)).exists():
            raise click.BadParameter(
                f"{printable(place)} is itself a run, and nothing is put into one from outside, so nothing was "
                f"written. Give a place beside it, such as {printable(place)}-weights/. To copy a whole run, "
                "copy its folder.",
                param_hint="TARGET",
            )
