"""The verbs there are, and how whatever happens in one of them becomes a message and an exit code.

A verb is one file beside this one and one line in `VERBS`: the module `ls` holds the click command `ls`. A verb's
module is imported when it is called, so the others cost it no time.
"""

from __future__ import annotations

import contextlib
import importlib
import sys
import traceback
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from .. import __version__
from ..errors import DamagedFileError, DamagedManifestError, KeepbestError, StateMismatchError, did_you_mean
from ..storage.printable import printable
from . import install, output
from .words import printable_lines

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

VERBS = {
    "ls": "List the checkpoints of a run.",
    "show": "Show everything about one checkpoint.",
    "explain": "Say what happened in a run, and why.",
    "diff": "Say which tensors changed between two checkpoints, and by how much.",
    "verify": "Read every byte of all checkpoints and say which are whole.",
    "sign": "Sign the checkpoints of a run, or one of them.",
    "export": "Copy the weights of a checkpoint out of its run, as plain files.",
    "convert": "Bring a checkpoint of others into a run, or give a checkpoint of a run back in their format.",
    "gc": "Delete what a crash left in a run and no checkpoint needs.",
    "plot": "Draw the curves of a run in the terminal.",
    "report": "Write one HTML page about a run, or about several.",
    "watch": "Follow a training while it runs, and end when it has ended.",
    "completion": "Print the script that completes keepbest's verbs, options and runs in a shell.",
}
"""Each verb's name and the first sentence of its help."""

ELSEWHERE = {
    "check": "verify",
    "clean": "gc",
    "compare": "diff",
    "copy": "export",
    "cp": "export",
    "download": "export",
    "follow": "watch",
    "import": "convert",
    "info": "show",
    "list": "ls",
    "load": "export",
    "prune": "gc",
    "restore": "export",
    "tail": "watch",
    "why": "explain",
}
"""What other tools call it: the verb here."""

NEEDED = {
    "rich": ("what moves in a terminal needs rich; --json works without.", "cli"),
    "plotille": ("curves need plotille; --json works without.", "cli"),
    "minijinja": ("a page needs minijinja.", "report"),
}
"""Each package that a verb imports only when it needs it: what cannot be done without, and the extra that has it."""

TRACEBACK = "keepbest.traceback"
"""Where click keeps whether `--traceback` was given."""

OK, NO, ERROR, BUG, INTERRUPTED = 0, 1, 2, 70, 130
"""Exit codes; see `main`."""


class Verbs(click.Group):
    """The group of all verbs."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """Return the verbs in the order of `VERBS`."""
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the verb."""
        if cmd_name not in VERBS:
            other = ELSEWHERE.get(cmd_name)
            meant = did_you_mean(cmd_name, VERBS) if other is None else f" Did you mean '{other}'?"
            ctx.fail(f"no such verb '{printable(cmd_name)}'.{meant}")
        command: click.Command = getattr(importlib.import_module(f".{cmd_name}", __package__), cmd_name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """Write the verbs without importing them."""
        with formatter.section("Verbs"):
            formatter.write_dl(list(VERBS.items()))

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Return the verbs that begin so, without importing them, and the options."""
        from click.shell_completion import CompletionItem  # noqa: PLC0415 - nothing else needs it

        verbs = [CompletionItem(verb, help=help_) for verb, help_ in VERBS.items() if verb.startswith(incomplete)]
        return [*verbs, *super(click.Group, self).shell_complete(ctx, incomplete)]

    def invoke(self, ctx: click.Context) -> Any:
        """Run a verb; an error of keepbest becomes its sentence."""
        try:
            return super().invoke(ctx)
        except KeepbestError as error:
            if ctx.meta.get(TRACEBACK):
                click.echo(printable_lines("".join(traceback.format_exception(error))), err=True, nl=False)
            raise click.ClickException(_in_words_of_the_shell(error)) from error
        except ModuleNotFoundError as error:
            package = (error.name or "").partition(".")[0]
            if package not in NEEDED:
                raise
            what, extra = NEEDED[package]
            raise click.ClickException(f"{what} {install(extra)}") from error


def _in_words_of_the_shell(error: KeepbestError) -> str:
    """Return what an error says, with advice for who types it in place of that for who writes a program."""
    match error:
        case DamagedFileError() | DamagedManifestError():
            return printable(f"{error.fact} `keepbest verify` lists which checkpoints of the run are whole.")
        case StateMismatchError():  # a line for each difference; their names are quoted in it
            return printable_lines(f"{error.fact}\nNothing was written. Give the --model that it was saved from.")
        case _:
            return printable(str(error))


@click.group(
    cls=Verbs,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    subcommand_metavar="VERB URL …",
    epilog=(
        "A run's URL is what the Checkpointer was given. `keepbest VERB --help` explains a verb, with an example. Exit "
        "codes: 0 fine, 1 the answer is no (verify found damage, diff --exit-code a difference), 2 an error."
    ),
)
@click.version_option(__version__, prog_name="keepbest", message="%(prog)s %(version)s")
def keepbest() -> None:
    """Look into the runs that keepbest wrote: what is there, what is best, whether it is whole."""


def run(arguments: Sequence[str] | None) -> int:
    """Run the command line and return the exit code; see `main`."""
    _never_fail_to_print()
    found = _Answer()
    try:
        with _warnings_as_sentences():
            code = keepbest.main(arguments, prog_name="keepbest", standalone_mode=False, obj=found)
    except click.exceptions.Abort:
        return INTERRUPTED
    except click.ClickException as error:
        error.show()
        return ERROR
    except SystemExit as leaving:
        # click's answer to a reader that went away (`keepbest ls … | head -1`), which is no "no".
        return found.code if leaving.code == 1 else int(leaving.code or OK)
    except BrokenPipeError:
        output.let_go()
        return found.code
    except Exception as error:  # noqa: BLE001 - the user sees it whole; Python's own exit code for it would read as "no"
        return _unexpected(error)
    return code if isinstance(code, int) else OK


def _unexpected(error: Exception) -> int:
    """Say what no verb foresaw, and return the exit code."""
    if isinstance(error, OSError) and output.is_full(error):
        output.unwritten(error).show()
        return ERROR
    click.echo(printable_lines("".join(traceback.format_exception(error))), err=True, nl=False)
    click.echo(f"This is a bug of keepbest {__version__}.", err=True)
    return BUG


@dataclass(slots=True)
class _Answer:
    code: int = OK


def answer(code: int) -> int:
    """Remember, before a verb prints, with which code it will exit, and return it; a reader may go away meanwhile."""
    click.get_current_context().ensure_object(_Answer).code = code
    return code


def _never_fail_to_print() -> None:
    """Where the terminal cannot show a character, show its number; a name must not end the command."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


@contextlib.contextmanager
def _warnings_as_sentences() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("always", UserWarning)
        warnings.showwarning = _show_warning
        yield


def _show_warning(message: Warning | str, *_: object, **__: object) -> None:
    click.echo(f"Warning: {printable(str(message))}", err=True)
