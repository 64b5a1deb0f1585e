"""`keepbest verify`: is everything in a run as it was written?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypedDict

import click

from ..storage.run import open_run
from ..storage.verify import Problem
from ..storage.verify import verify as check
from . import machine, screen, words
from .app import NO
from .options import run_verb

_SHOWN = 50
"""Whole checkpoints that are named; damaged ones all are."""


class ProblemJson(TypedDict):
    """One thing that is not as it was written."""

    checkpoint: str
    """Its name, or the key of a manifest that cannot be read."""
    file: str | None
    """null: the manifest."""
    tensor: str | None
    """null: the file as a whole."""
    message: str


class VerifyJson(TypedDict):
    """What `keepbest verify --json` prints, as keepbest.verify/1."""

    run: str
    ok: bool
    """true: everything is whole; the exit code is 0, else 1."""
    bytes: int
    """How many were read."""
    whole: list[str]
    """Names of the checkpoints that are as they were written, oldest first."""
    problems: list[ProblemJson]


@click.command(epilog="Example: keepbest verify runs/7 && keepbest export runs/7 best.safetensors")
@run_verb
@click.pass_context
def verify(ctx: click.Context, /, url: str, storage_options: Mapping[str, Any], as_json: bool) -> None:  # noqa: FBT001
    """Read every byte of a run and say which checkpoints are whole.

    The exit code is 1 if anything is not as it was written.
    """
    run = open_run(url, storage_options=storage_options)
    report = check(run.backend, run.listing())
    if as_json:
        machine.emit(
            "verify/1",
            VerifyJson(
                run=run.url,
                ok=report.ok,
                bytes=report.nbytes,
                whole=list(report.whole),
                problems=[_problem_to_json(problem) for problem in report.problems],
            ),
        )
    else:
        _show(run.url, report.whole, report.problems, report.nbytes)
    if not report.ok:
        ctx.exit(NO)


def _problem_to_json(problem: Problem) -> ProblemJson:
    return ProblemJson(checkpoint=problem.checkpoint, file=problem.file, tensor=problem.tensor, message=problem.message)


def _show(url: str, whole: Sequence[str], problems: Sequence[Problem], nbytes: int) -> None:
    for name in whole[-_SHOWN:]:
        screen.line(f"whole    {name}", "green")
    if len(whole) > _SHOWN:
        screen.line(f"whole    and {len(whole) - _SHOWN:,} older", "green")
    damaged = dict.fromkeys(problem.checkpoint for problem in problems)
    for name in damaged:
        screen.line(f"DAMAGED  {name}", "bold red")
        for problem in problems:
            if problem.checkpoint == name:
                screen.line(f"         - {problem.message}")
    verdict = f"{words.count(len(damaged), 'checkpoint')} damaged, " if damaged else ""
    screen.line(f"{url}: {verdict}{words.count(len(whole), 'checkpoint')} whole, {words.size(nbytes)} read.")
