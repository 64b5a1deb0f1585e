"""The `keepbest` command. What it needs beyond the library is imported here, when it is called, and nowhere else."""

from __future__ import annotations

import gc as cycles  # not gc: when a verb is imported, its name becomes one of this package
import os
import sys
from collections.abc import Sequence

_COLLECT_AFTER = 200_000
"""New objects before the process looks for cycles among them: a listing makes as many, and all of them stay. To look
after each 700 took a sixth of the time of `keepbest ls` of 10,000 checkpoints."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        arguments: the words after `keepbest`; None: those the process was started with.

    Returns:
        The exit code: 0 fine, 1 the answer is no, 2 wrong usage or an error, 70 a bug of keepbest, 130 interrupted.
    """
    own = arguments is None  # the process is this command's, and ends with it
    if own:
        # pydantic looks through every installed package for plugins, which takes longer than to read a run.
        os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
        cycles.set_threshold(_COLLECT_AFTER, *cycles.get_threshold()[1:])
    try:
        from .app import run  # noqa: PLC0415 - the library must import without what the command needs
    except ModuleNotFoundError as error:
        if error.name != "click":
            raise
        sys.stderr.write(f"Error: the keepbest command needs {error.name}. {install('cli')}\n")
        return 2
    code = run(arguments)
    if own:
        cycles.freeze()  # Python looks for cycles once more when it exits: a tenth of the time of a short verb
    return code


def install(extra: str) -> str:
    """Return the sentence that says how to install what an extra has."""
    return f'Install it with: pip install "keepbest[{extra}]"'
