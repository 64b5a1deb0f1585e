"""`keepbest watch`: follows a training while it runs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from . import screen
from .options import duration, verb_of_a_run

_SHORTEST = 0.1
"""Seconds between two looks."""


def _interval(ctx: click.Context, param: click.Parameter, text: str) -> float:
    found = duration(ctx, param, text)
    if found < _SHORTEST:
        raise click.BadParameter(f"{_SHORTEST:g} s is the least.", ctx, param)
    return found


@click.command(epilog="Example: keepbest watch s3://bucket/run-7 --interval 10s --wait")
@verb_of_a_run(json_help="Print a JSON object for each row and note, one on a line, for programs.")
@click.option(
    "--interval", metavar="SPAN", default="2s", callback=_interval, help="How long from look to look: 2s, 1m."
)
@click.option("--wait", is_flag=True, help="Wait for a run that does not exist yet.")
def watch(
    url: str,
    storage_options: Mapping[str, Any],
    as_json: bool,  # noqa: FBT001
    interval: float,
    wait: bool,  # noqa: FBT001
) -> None:
    """Follow a training while it runs, and end when it has ended.

    Shows where it is, what it logged last, what is the best, the patience used, and the last checkpoint. Where no
    terminal reads it prints a line for whatever happens; with --json one object for each row and note, those from
    before it began first.

    A look costs a listing of the commits and of the journal, and reads the whole journal if it has grown; in a bucket
    rows are seen some seconds late. A run that a keepbest without notes writes never says that it ended.
    """
    from ..storage.backend import open_backend  # noqa: PLC0415 - help needs none of it
    from ..storage.run import Run, open_run  # noqa: PLC0415
    from . import viewers  # noqa: PLC0415
    from .follower import Follower, follow, wait_for  # noqa: PLC0415

    follower = Follower(Run(open_backend(url, storage_options)))
    if not follower.look() or not follower.exists:
        wait_for(follower, wait=wait, interval=interval, missing=lambda: open_run(url, storage_options=storage_options))
    if as_json:
        follow(follower, interval, viewers.emit)
    elif not (screen.is_terminal() and viewers.follow_on_screen(follower, interval)):
        follow(follower, interval, viewers.Lines().show)
