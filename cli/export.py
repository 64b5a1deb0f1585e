"""`keepbest export`: a checkpoint's weights as plain files."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypedDict

import click

from ..errors import ObjectExistsError
from ..storage.printable import printable
from . import machine, screen, words
from .options import run_verb


class ExportedJson(TypedDict):
    """A file that was written."""

    path: str
    """Absolute."""
    bytes: int
    digest: str


class ExportJson(TypedDict):
    """What `keepbest export --json` prints, as keepbest.export/1."""

    run: str
    checkpoint: str
    sequence: int
    files: list[ExportedJson]


def _words(ctx: click.Context, param: click.Parameter, given: tuple[str, ...]) -> tuple[str, str]:
    if len(given) > 2:  # noqa: PLR2004 - a checkpoint and a target
        raise click.BadParameter("give at most a checkpoint and a target after the URL.", ctx, param)
    if given[-1] == "-":
        raise click.BadParameter(
            "nothing is written to standard output: name a folder, or a file that ends in .safetensors (a folder that "
            "is called so is ./-).",
            ctx,
            param,
        )
    return given[0] if len(given) > 1 else "best", given[-1]


@click.command(epilog="Example: keepbest export runs/7 best model.safetensors")
@run_verb
@click.argument("checkpoint_target", metavar="[CHECKPOINT] TARGET", nargs=-1, required=True, callback=_words)
@click.option(
    "--object",
    "objects",
    metavar="NAME",
    multiple=True,
    help="The object whose tensors to copy, as it was given to the Checkpointer; repeat it for more.",
)
@click.option("--all", "with_records", is_flag=True, help="Copy state.json and the manifest too. For a folder.")
@click.option("--force", is_flag=True, help="Replace files that exist.")
def export(  # noqa: PLR0913, PLR0917 - one for each word of the command line
    url: str,
    storage_options: Mapping[str, Any],
    as_json: bool,  # noqa: FBT001
    checkpoint_target: tuple[str, str],
    objects: tuple[str, ...],
    with_records: bool,  # noqa: FBT001
    force: bool,  # noqa: FBT001
) -> None:
    """Copy the weights of a checkpoint out of its run, as plain files.

    CHECKPOINT is best (default), latest, a name or its unique beginning, or a sequence number. A TARGET that ends in
    .safetensors takes the model's weights; any other is a folder, made if need be, and takes all tensor files. Every
    file is checked against its digest, and none appears before all are right.
    """
    from ..storage.export import folder_of  # noqa: PLC0415 - help needs none of it
    from ..storage.run import open_run  # noqa: PLC0415
    from .targets import check_target  # noqa: PLC0415

    which, target = checkpoint_target
    run = open_run(url, storage_options=storage_options)
    check_target(folder_of(target))
    checkpoint = run.get(which)
    try:
        files = checkpoint.export(target, objects=objects or None, with_records=with_records, overwrite=force)
    except ObjectExistsError as error:
        raise click.ClickException(f"{printable(str(error))} To replace it, say --force.") from error
    if as_json:
        machine.emit(
            "export/1",
            ExportJson(
                run=run.url,
                checkpoint=checkpoint.name,
                sequence=checkpoint.sequence,
                files=[ExportedJson(path=file.path, bytes=file.nbytes, digest=file.digest) for file in files],
            ),
        )
        return
    screen.line(f"Exported from {checkpoint.name}:")
    for file in files:
        screen.line(f"  {file.path} ({words.size(file.nbytes)})")
