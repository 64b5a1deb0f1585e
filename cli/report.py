"""`keepbest report`: one or more runs as one HTML file."""

from __future__ import annotations

import contextlib
import os
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

import click

from ..storage.printable import printable
from . import machine, screen, words
from .options import run_verb
from .page import GENERATOR

if TYPE_CHECKING:
    from .page.source import Source

_STDOUT = "-"
_LOOK = 4096
"""Bytes of a file within which a report says that it is one."""


class ReportedJson(TypedDict):
    """A run in the report."""

    run: str
    checkpoints: int
    rows: int
    """Logged; the curves are drawn from fewer points where there are many."""
    notes: int
    """0: a keepbest wrote it that kept none."""
    damaged: int
    """Manifests that cannot be read."""


class ReportJson(TypedDict):
    """What `keepbest report --json` prints, as keepbest.report/1."""

    path: str
    """Absolute."""
    bytes: int
    charts: int
    runs: list[ReportedJson]


@click.command(epilog="Example: keepbest report runs/7 runs/8 -o compare.html --open")
@run_verb
@click.argument("more", metavar="[URL]...", nargs=-1)
@click.option(
    "-o",
    "--output",
    metavar="FILE",
    default="report.html",
    show_default=True,
    help="Where to write it; - for standard output.",
)
@click.option("--open", "show", is_flag=True, help="Open it in the browser.")
@click.option("--force", is_flag=True, help="Replace a file that is no report.")
def report(  # noqa: PLR0913, PLR0917 - one for each word of the command line
    url: str,
    storage_options: Mapping[str, Any],
    as_json: bool,  # noqa: FBT001
    more: tuple[str, ...],
    output: str,
    show: bool,  # noqa: FBT001
    force: bool,  # noqa: FBT001
) -> None:
    """Write one HTML page about a run, or about several.

    It holds the curves with the best, saved, resumed and stopped marked, the generalisation gap, the checkpoints, what
    saving cost, and the policy in words. It needs no network, and can be mailed or printed. Of several runs the same
    metrics share a chart.
    """
    if output == _STDOUT and (as_json or show):
        raise click.UsageError("-o - writes the report itself to standard output: leave out --json and --open.")
    target = Path(output)
    if output != _STDOUT:
        _check(target, force=force)
    import minijinja  # noqa: F401, PLC0415 - an extra of its own: whoever lacks it is told before anything is read

    from .page import data, page  # noqa: PLC0415 - help needs none of it

    sources = data.read_all(list(dict.fromkeys((url, *more))), storage_options)
    held = data.page_of(sources)
    text = page.render(held).encode()
    if output == _STDOUT:
        click.echo(text, nl=False)
        return
    path = _write(target, text)
    if as_json:
        machine.emit("report/1", _to_json(path, len(text), len(held.charts.charts), sources))
    else:
        runs, charts = words.count(len(sources), "run"), words.count(len(held.charts.charts), "chart")
        screen.line(f"Wrote {output} ({words.size(len(text))}): {runs}, {charts}.")
    if show and not _open(path):
        click.echo(f"Warning: no browser was found to open {printable(str(path))} with.", err=True)


def _open(path: Path) -> bool:
    import webbrowser  # noqa: PLC0415 - a page that is only written needs none

    return webbrowser.open(path.as_uri())


def _to_json(path: Path, nbytes: int, charts: int, sources: Sequence[Source]) -> ReportJson:
    return ReportJson(
        path=str(path),
        bytes=nbytes,
        charts=charts,
        runs=[
            ReportedJson(
                run=source.url,
                checkpoints=len(source.listing.checkpoints),
                rows=source.rows,
                notes=len(source.entries) - source.rows,
                damaged=len(source.listing.damaged),
            )
            for source in sources
        ],
    )


def _check(target: Path, *, force: bool) -> None:
    """Refuse a target that cannot be written, or holds something else; before anything is read."""
    name = printable(str(target))
    if target.is_dir():
        raise click.ClickException(
            f"{name} is a folder. Name a file in it: -o {printable(str(target / 'report.html'))}"
        )
    if target.exists() and not target.is_file():
        raise click.ClickException(f"{name} is no file that can be replaced. Name another with -o.")
    if not target.absolute().parent.is_dir():
        raise click.ClickException(f"{name} cannot be written, as its folder does not exist. Make the folder first.")
    if target.exists() and not force and not _is_report(target):
        raise click.ClickException(
            f"{name} exists and is no report of keepbest, so it is left as it is. Name another file with -o, or "
            "replace it with --force."
        )


def _is_report(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return f'<meta name="generator" content="{GENERATOR}">'.encode() in file.read(_LOOK)
    except OSError:
        return False


def _write(target: Path, text: bytes) -> Path:
    """Write the file whole or not at all; returns its absolute path."""
    path = target.resolve()
    partial = path.with_name(f".tmp-{uuid.uuid4().hex}")
    try:
        partial.write_bytes(text)
        os.replace(partial, path)  # noqa: PTH105 - says what it does
    except OSError as error:
        raise click.ClickException(f"{printable(str(path))} cannot be written: {error.strerror or error}.") from error
    finally:
        with contextlib.suppress(OSError):  # where nothing can be written, nothing can be removed
            partial.unlink(missing_ok=True)
    return path
