"""`keepbest convert`: checkpoints of others into a run, and a run's checkpoints into their formats."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from ..storage.printable import printable
from . import machine
from .options import run_verb

_INTO = {"append": "--append", "epoch": "--epoch", "step": "--step"}
_OUT = {"which": "--checkpoint", "to": "--to", "force": "--force", "shard": "--max-shard-size", "model": "--model"}
"""What goes with one direction only."""


def _object_name(ctx: click.Context, param: click.Parameter, name: str | None) -> str | None:
    if name is None:
        return None
    from ..core import object_names  # noqa: PLC0415 - help needs none of it

    why = object_names.why_not(name)
    if why is not None:
        raise click.BadParameter(f"no object can be called '{printable(name)}': {why}.", ctx, param)
    return name


def _count(ctx: click.Context, param: click.Parameter, count: int | None) -> int | None:
    from ..core.position import LONGEST  # noqa: PLC0415 - help needs none of it

    if count is not None and count > LONGEST:
        raise click.BadParameter(f"no training is that long: {count} is more than 2**62.", ctx, param)
    return count


@click.command(epilog="Example: keepbest convert old/last.ckpt runs/7 && keepbest convert runs/7 weights.pth")
@run_verb
@click.argument("target")
@click.option("--name", callback=_object_name, metavar="NAME", help="The object that has the weights. [default: model]")
@click.option(
    "--epoch",
    type=click.IntRange(1),
    callback=_count,
    help="Into a run: the epoch that ended there, counted from 1.",
)
@click.option("--step", type=click.IntRange(0), callback=_count, help="Into a run: the steps of training until then.")
@click.option("--append", is_flag=True, default=None, help="Into a run: one that holds checkpoints already.")
@click.option(
    "--checkpoint",
    "which",
    metavar="WHICH",
    help="Out of a run: best (default; the latest if none is ranked), latest, …",
)
@click.option(
    "--to", type=click.Choice(["hf"]), help="Out of a run: TARGET is a folder, laid out as Hugging Face does."
)
@click.option(
    "--max-shard-size",
    "shard",
    metavar="SIZE",
    help="Out of a run, to a folder: the largest file. [default: 5GB]",
)
@click.option(
    "--model",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Out of a run, to .weights.h5: the model, as a .keras file or the .json of model.to_json(). It is built, in "
    "Keras' safe mode: give one that you trust.",
)
@click.option("--force", is_flag=True, default=None, help="Out of a run: replace files that exist.")
@click.pass_context
def convert(
    ctx: click.Context,
    /,
    url: str,
    storage_options: Mapping[str, Any],
    as_json: bool,  # noqa: FBT001
    target: str,
    **settings: Any,
) -> None:
    """Bring a checkpoint of others into a run, or give a checkpoint of a run back in their format.

    A SOURCE that is a .pth, .pt, .bin, .ckpt (Lightning), .h5, .keras or .safetensors file, or a folder of
    torch.distributed.checkpoint or Hugging Face, becomes a new checkpoint of the run TARGET. A SOURCE that is a run
    becomes TARGET: .pth or .pt, .weights.h5, or a folder (with a / at its end). Nothing that is in a file of others is
    run: what only running it could tell is refused.
    """
    from . import conversion, converting  # noqa: PLC0415 - help needs nothing of it

    source = converting.source_of(url)
    wrong = [say for key, say in (_INTO if source is None else _OUT).items() if settings[key] is not None]
    if wrong:
        way = "out of a run; it goes" if source is None else "into a run; it goes"
        raise click.UsageError(f"this converts {way} without {', '.join(wrong)}.", ctx)
    if source is None:
        done = conversion.out(url, storage_options, target, settings)
    else:
        done = conversion.into(source, target, storage_options, settings)
    if as_json:
        machine.emit("convert/1", done)
    else:
        conversion.show(done)


for _parameter in convert.params:
    if _parameter.name == "url":
        _parameter.metavar = "SOURCE"
