"""`keepbest diff`: which tensors changed between two checkpoints, and by how much."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from ..storage.printable import printable
from . import machine
from .app import NO, OK, answer
from .options import run_verb

SHOWN = 50
"""Tensors that are shown unless all are asked for; those that changed most."""


@click.command(epilog="Example: keepbest diff runs/7 best latest --only 'encoder.*'")
@run_verb
@click.argument("before", default="best")
@click.argument("after", default="latest")
@click.option("--other", metavar="URL", help="AFTER is a checkpoint of this run, not of the first one.")
@click.option(
    "--only",
    metavar="GLOB",
    multiple=True,
    help="Look only at tensors of such names, as 'encoder.*' or, with their object, 'model.encoder.*'; repeat it for "
    "more.",
)
@click.option(
    "--tensors", is_flag=True, help=f"List every tensor that differs, not only the {SHOWN} that changed most."
)
@click.option("--exit-code", is_flag=True, help="Exit with 1 if anything differs.")
def diff(  # noqa: PLR0913, PLR0917 - one for each word of the command line
    url: str,
    storage_options: Mapping[str, Any],
    as_json: bool,  # noqa: FBT001
    before: str,
    after: str,
    other: str | None,
    only: tuple[str, ...],
    tensors: bool,  # noqa: FBT001
    exit_code: bool,  # noqa: FBT001
) -> int:
    """Say which tensors changed between two checkpoints, and by how much.

    BEFORE (best, unless given) and AFTER (latest) are each best, latest, a name or its unique beginning, or a sequence
    number. Tensors with equal digests are not read; of the others both are, a piece at a time.
    """
    from ..storage.run import open_run  # noqa: PLC0415 - help needs none of it
    from . import comparison  # noqa: PLC0415

    run = open_run(url, storage_options=storage_options)
    second = run if other is None else open_run(other, storage_options=storage_options)
    old, new = comparison.side(run, before, only), comparison.side(second, after, only)
    if only and not (old.tensors or new.tensors):
        raise click.ClickException(
            f"no tensor of {printable(old.info.name)} or {printable(new.info.name)} is called "
            f"{printable(' or '.join(only))}. `keepbest show URL CHECKPOINT --tensors` lists their names."
        )
    found = comparison.compared(old, new)
    code = answer(NO if exit_code and not found.equal else OK)
    if as_json:
        machine.emit("diff/1", comparison.to_json(found))
    else:
        comparison.show(found, most=None if tensors else SHOWN)
    return code
