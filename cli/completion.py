"""`keepbest completion`: the script with which a shell completes keepbest's verbs, options and runs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ..storage.layout import CHECKPOINTS, COMMITS, JOURNAL

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

_INSTALL = {
    "bash": """To install it, put this line into ~/.bashrc:  eval "$(keepbest completion bash)\"""",
    "zsh": """To install it, put this line into ~/.zshrc, after compinit:  eval "$(keepbest completion zsh)\"""",
    "fish": "To install it:  keepbest completion fish > ~/.config/fish/completions/keepbest.fish",
}

_DEEPEST, _MOST_FOLDERS = 3, 500
"""How far below what was typed runs are looked for: levels, and folders in all. Whoever presses Tab is waiting."""


@click.command(epilog="Example: keepbest completion bash >> ~/.bashrc")
@click.argument("shell", type=click.Choice(tuple(_INSTALL)))
def completion(shell: str) -> None:
    """Print the script that completes keepbest's verbs, options and runs in a shell.

    Its last line says how to install it.
    """
    from click.shell_completion import get_completion_class  # noqa: PLC0415 - only this verb needs it

    from .app import keepbest  # noqa: PLC0415

    kind = get_completion_class(shell)
    assert kind is not None
    click.echo(kind(keepbest, {}, "keepbest", "_KEEPBEST_COMPLETE").source().strip())
    click.echo(f"# {_INSTALL[shell]}")


def complete_url(_ctx: click.Context, _param: click.Parameter, typed: str) -> list[CompletionItem]:
    """Return the runs on disk whose path begins so; where there are none, the shell offers folders."""
    from click.shell_completion import CompletionItem  # noqa: PLC0415 - see above

    if "://" in typed:
        return []
    folder, slash, beginning = typed.rpartition("/")
    runs = [CompletionItem(run) for run in _runs(folder + slash, beginning)]
    return runs or [CompletionItem(typed, type="dir")]


def _runs(prefix: str, beginning: str) -> Iterator[str]:
    """Yield the runs in the folder `prefix`, and below those of its folders that are none; nearest first.

    Args:
        prefix: as it was typed, with the slash at its end; "": here.
        beginning: of the names in it.
    """
    level, looked_at = [(prefix, beginning)], 0
    for _ in range(_DEEPEST):
        below: list[tuple[str, str]] = []
        for parent, start in level:
            for path in _folders(parent, start):
                looked_at += 1
                if looked_at > _MOST_FOLDERS:
                    return
                if any((Path(path).expanduser() / inside).exists() for inside in (COMMITS, CHECKPOINTS, JOURNAL)):
                    yield path
                else:
                    below.append((f"{path}/", ""))
        level = below


def _folders(prefix: str, start: str) -> list[str]:
    """Return the folders in `prefix` whose names begin so; hidden ones only where the beginning says so."""
    try:
        found = sorted(path.name for path in Path(prefix).expanduser().iterdir() if path.is_dir())
    except (OSError, RuntimeError):  # not readable, or nobody's home
        return []
    return [prefix + name for name in found if name.startswith(start) and (start or not name.startswith("."))]
