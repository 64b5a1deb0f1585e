"""`keepbest explain`: why things are as they are in a run, or what was decided about an epoch, in plain words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from . import machine
from .options import run_verb


@click.command(epilog="Example: keepbest explain runs/7 --epoch 12")
@run_verb
@click.option(
    "--epoch",
    "numbers",
    metavar="N",
    type=click.IntRange(min=1),
    multiple=True,
    help="Explain this epoch instead, counted from 1; repeat it for more.",
)
@click.option(
    "--checkpoint",
    "checkpoints",
    metavar="WHICH",
    multiple=True,
    help="Explain the epoch of this checkpoint: best, latest, a name or its unique beginning, or a sequence number.",
)
def explain(
    url: str,
    storage_options: Mapping[str, Any],
    as_json: bool,  # noqa: FBT001
    numbers: tuple[int, ...],
    checkpoints: tuple[str, ...],
) -> None:
    """Say what happened in a run, and why.

    Which epoch is the best, what was passed over and why, whether it overfits, and why training ended; or, of one
    epoch, what was logged, what the monitors made of it, and what became of its save.
    """
    from . import explanation  # noqa: PLC0415 - help needs none of it

    found = explanation.read(url, storage_options, numbers, checkpoints)
    if as_json:
        machine.emit("explain/1", explanation.to_json(found))
    else:
        explanation.show(found)
