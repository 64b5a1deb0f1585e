"""`keepbest verify`: is everything in a run as it was written?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, TypedDict

import click
from msgspec.structs import replace

from . import machine, screen, words
from .app import NO, OK, answer
from .options import run_verb

if TYPE_CHECKING:
    from ..storage.listing import Listing
    from ..storage.run import Run
    from ..storage.trust import Trusted
    from ..storage.verify import Problem, Report

_SHOWN = 50
"""Whole checkpoints that are named; damaged ones all are."""
_DAMAGED, _UNSIGNED, _WRONG = "DAMAGED", "UNSIGNED", "WRONG"
"""What stands before a checkpoint that is not whole or not signed, and before what lies beside the checkpoints."""


class ProblemJson(TypedDict):
    """One thing that is not as it was written."""

    checkpoint: str
    """Its name; or the key of what is wrong: of a manifest that cannot be read, the best link, the journal."""
    file: str | None
    """null: the manifest, or what is no checkpoint's."""
    tensor: str | None
    """null: the file as a whole."""
    message: str
    untrusted: bool
    """true: it is not what the key's holder signed."""
    part: Literal["checkpoint", "best", "journal"]
    """Of the run: what it is. "best": the pointer to the best checkpoint, a link or best.json."""


class VerifyJson(TypedDict):
    """What `keepbest verify --json` prints, as keepbest.verify/1."""

    run: str
    ok: bool
    """true: there are no problems, and all is signed if a key was given; the exit code is 0, else 1."""
    key: str | None
    """The public key by which everything must be signed; null: none was given."""
    bytes: int
    """How many were read."""
    whole: list[str]
    """Names of the checkpoints that are as they were written, oldest first."""
    problems: list[ProblemJson]


@click.command(epilog="Example: keepbest verify runs/7 && keepbest export runs/7 best.safetensors")
@run_verb
@click.argument("checkpoint", required=False)
@click.option(
    "--key", "key", metavar="FILE", help="A public key (Ed25519, PEM): what is not signed by it counts as damaged."
)
@click.option(
    "--run", "run_name", metavar="NAME", help="What the signer called the run, if it is not the last part of the URL."
)
def verify(  # noqa: PLR0913, PLR0917 - one for each word of the command line
    url: str,
    storage_options: Mapping[str, Any],
    as_json: bool,  # noqa: FBT001
    checkpoint: str | None,
    key: str | None,
    run_name: str | None,
) -> int:
    """Read every byte of all checkpoints and say which are whole.

    Also whether `best` shows the best checkpoint, and whether the lines of the journal can be read and none is missing;
    what a crash leaves, or a training that goes on, is as it should be. CHECKPOINT is best, latest, a name or its
    unique beginning, or a sequence number: only that one is read. The exit code is 1 if anything is not as it was
    written; with --key, also if a checkpoint is not as the key's holder signed it.
    """
    if run_name is not None and key is None:
        raise click.UsageError("--run says what a signer called the run, and without --key no signature is looked at.")
    from ..storage.run import open_run  # noqa: PLC0415 - help needs none of it
    from ..storage.trust import Trusted  # noqa: PLC0415
    from ..storage.verify import verify as check  # noqa: PLC0415
    from ..storage.verify import with_rest  # noqa: PLC0415

    run = open_run(url, storage_options=storage_options)
    trusted = None if key is None else Trusted(key, run=run_name)
    chosen = _chosen(run, checkpoint)
    report = check(run.backend, chosen, trusted)
    if checkpoint is None:
        report = with_rest(report, run.backend, trusted)
    code = answer(OK if report.ok else NO)
    if as_json:
        machine.emit(
            "verify/1",
            VerifyJson(
                run=run.url,
                ok=report.ok,
                key=None if trusted is None else str(trusted.key),
                bytes=report.nbytes,
                whole=list(report.whole),
                problems=[_problem_to_json(problem) for problem in report.problems],
            ),
        )
    elif chosen.checkpoints or chosen.damaged:
        _show(run.url, report, trusted)
    else:
        but = " but its journal" if _show_problems(report.problems) else ""
        screen.line(f"{run.url}: it holds no checkpoint, so there is nothing to verify{but}.{_gone(run)}")
    return code


def _problem_to_json(problem: Problem) -> ProblemJson:
    return ProblemJson(
        checkpoint=problem.checkpoint,
        file=problem.file,
        tensor=problem.tensor,
        message=problem.message,
        untrusted=problem.untrusted,
        part=problem.part,
    )


def _chosen(run: Run, checkpoint: str | None) -> Listing:
    """Return the listing of what is to be read."""
    listing = run.listing()
    if checkpoint is None:
        return listing
    return replace(listing, checkpoints=(run.get(checkpoint).info,), damaged=())


def _gone(run: Run) -> str:
    """Return that a run without checkpoints had some: its policy would have kept the newest."""
    from ..storage.notes import Saved  # noqa: PLC0415 - most runs have checkpoints

    saved = sum(isinstance(entry, Saved) for entry in run.journal())
    many = words.count(saved, "save")
    told = f" Its journal tells of {many} that ended well: what was kept has been deleted since, and not by its policy."
    return told if saved else ""


def _show(url: str, report: Report, trusted: Trusted | None) -> None:
    whole = report.whole
    for name in whole[-_SHOWN:]:
        screen.line(f"whole    {name}", "green")
    if len(whole) > _SHOWN:
        screen.line(f"whole    and {len(whole) - _SHOWN:,} older", "green")
    found = _show_problems(report.problems)
    damaged, unsigned, wrong = (found.get(label, []) for label in (_DAMAGED, _UNSIGNED, _WRONG))
    verdict = f"{words.count(len(damaged), 'checkpoint')} damaged, " if damaged else ""
    verdict += f"{words.count(len(unsigned), 'checkpoint')} not as signed, " if unsigned else ""
    verdict += f"{words.listed(wrong)} wrong, " if wrong else ""
    signed = "" if trusted is None else f" and signed by {trusted.key}"
    screen.line(
        f"{url}: {verdict}{words.count(len(whole), 'checkpoint')} whole{signed}, {words.size(report.nbytes)} read."
    )
    if damaged:
        other = f"; training can go on from a whole one by ckpt.restore('{whole[-1]}')" if whole else ""
        screen.line(f"What is damaged can be put back from a copy, if there is one{other}.", "dim")


def _show_problems(problems: Sequence[Problem]) -> dict[str, list[str]]:
    """Show what is wrong with what; returns the names of that by the word that stands before them."""
    of: dict[str, list[Problem]] = {}
    for problem in problems:
        of.setdefault(problem.checkpoint, []).append(problem)
    found: dict[str, list[str]] = {}
    for name, own in of.items():
        label = _WRONG if own[0].part != "checkpoint" else _UNSIGNED if own[0].untrusted else _DAMAGED
        screen.line(f"{label:8} {name}", "bold red")
        for problem in own:
            screen.line(f"         - {problem.message}")
        found.setdefault(label, []).append(name)
    return found
