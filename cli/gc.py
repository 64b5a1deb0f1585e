"""`keepbest gc`: what a crash left in a run, and its removal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypedDict

import click

from ..storage.layout import commit_key, temporary_of
from . import machine, screen, words
from .options import duration, run_verb

if TYPE_CHECKING:
    from ..storage.gc import Orphan, Report


class OrphanJson(TypedDict):
    """Data that no checkpoint needs."""

    name: str
    """The folder below checkpoints/, or the key of a temporary file."""
    kind: str
    """"data": no commit names it; "temporary": it was being written when a process died; "upload": parts of one that
    was never finished, whose size the store does not say."""
    bytes: int
    age: float
    """Since it last changed."""
    files: list[str]
    """Keys."""


class GcJson(TypedDict):
    """What `keepbest gc --json` prints, as keepbest.gc/1."""

    run: str
    dry_run: bool
    """true: nothing was removed; `removed` and `bytes` are what would be."""
    grace: float
    bytes: int
    """Freed."""
    removed: list[OrphanJson]
    kept: list[OrphanJson]
    """Younger than the grace period."""
    damaged: list[str]
    """Keys of manifests that cannot be read. While there are any, only temporary files are removed."""
    missing: list[str]
    """Names of checkpoints whose files are gone, and whose commits stand: somebody deleted a folder by hand."""
    hidden: str | None
    """Why unfinished uploads could not be looked for."""


@click.command(epilog="Example: keepbest gc runs/7 --grace 1d --dry-run")
@run_verb
@click.option(
    "--grace",
    callback=duration,
    default="1h",
    metavar="TIME",
    help="Leave alone what changed within this time: it may belong to a save under way. Seconds, or 90s, 15m, 1h, 7d. "
    "[default: 1h]",
)
@click.option("--dry-run", is_flag=True, help="Only say what would be removed.")
def gc(
    url: str,
    storage_options: Mapping[str, Any],
    as_json: bool,  # noqa: FBT001
    grace: float,
    dry_run: bool,  # noqa: FBT001
) -> None:
    """Delete what a crash left in a run and no checkpoint needs.

    Checkpoints are never touched, nor is anything that keepbest did not write.
    """
    from ..storage.run import open_run  # noqa: PLC0415 - help needs none of it

    run = open_run(url, storage_options=storage_options)
    listing = run.listing()
    report = run.gc(grace=grace, dry_run=dry_run)
    damaged = [commit_key(sequence) for sequence, _ in listing.damaged]
    if as_json:
        machine.emit("gc/1", _to_json(run.url, report, grace, damaged))
    else:
        _show(run.url, report, grace, damaged)


def _to_json(url: str, report: Report, grace: float, damaged: list[str]) -> GcJson:
    return GcJson(
        run=url,
        dry_run=report.dry_run,
        grace=grace,
        bytes=report.nbytes,
        removed=[_orphan_to_json(orphan) for orphan in report.removed],
        kept=[_orphan_to_json(orphan) for orphan in report.kept],
        damaged=damaged,
        missing=[found.name for found in report.missing],
        hidden=report.hidden,
    )


def _orphan_to_json(orphan: Orphan) -> OrphanJson:
    kind = "upload" if orphan.upload else "data" if temporary_of(orphan.name) is None else "temporary"
    return OrphanJson(name=orphan.name, kind=kind, bytes=orphan.nbytes, age=orphan.age, files=list(orphan.files))


def _show(url: str, report: Report, grace: float, damaged: Sequence[str]) -> None:
    from ..storage.verify import gone_whole  # noqa: PLC0415 - help needs none of it

    verb = "would be removed" if report.dry_run else "removed"
    rows = [
        *(_row(orphan, verb) for orphan in report.removed),
        *(_row(orphan, f"kept: younger than {words.span(grace)}") for orphan in report.kept),
    ]
    if rows:
        columns = [screen.Column(title=title) for title in ("what", "why")]
        numbers = [screen.Column(title=title, number=True) for title in ("size", "unchanged for")]
        screen.table([*columns, *numbers, screen.Column(title="")], rows)
    if damaged:
        screen.line(
            f"{words.count(len(damaged), 'manifest')} cannot be read ({', '.join(damaged[:3])}), so nobody knows which "
            "data is theirs: only temporary files are removed until they are deleted or repaired.",
            "red",
        )
    for found in report.missing:
        screen.line(f"{found.name}: {gone_whole(url, found.sequence)}", "red")
    if report.hidden:
        screen.line(f"Unfinished uploads were not looked for: {report.hidden}", "yellow")
    if not report.removed:
        screen.line(f"{url}: nothing to remove.")
        return
    will = "would be freed" if report.dry_run else "freed"
    screen.line(f"{url}: {words.size(report.nbytes)} {will} ({report.nbytes:,} bytes).")


def _row(orphan: Orphan, what: str) -> screen.Row:
    why = "no commit names it" if temporary_of(orphan.name) is None else "left half-written"
    if orphan.upload:
        why = "an upload that was not finished"
    size = "unknown" if orphan.upload else words.size(orphan.nbytes)
    return screen.Row(cells=[orphan.name, why, size, words.span(orphan.age), what])
