"""Options: what every verb takes, so that all take it alike."""

from __future__ import annotations

import contextlib
import functools
import json
import re
from collections.abc import Callable
from typing import Any

import click

from .app import TRACEBACK
from .completion import complete_url

_DURATION = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*([smhd]?)")
_SECONDS = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}

_LONGEST = 100 * 365 * 86400.0
"""Seconds, a hundred years: a clock waits no longer than some."""

_TEXT = frozenset(("key", "password", "passwd", "secret", "token", "username"))
"""Options that are text, even if they are all digits."""

_Command = Callable[..., Any]


def run_verb(function: _Command) -> _Command:
    """Give a verb the run's URL and the options that all verbs have: `url`, `storage_options` and `as_json`."""
    return verb_of_a_run(json_help="Print one JSON object, for programs.")(function)


def verb_of_a_run(*, json_help: str) -> Callable[[_Command], _Command]:
    """Return what does as `run_verb`, for a verb whose `--json` prints something else than one object."""
    return functools.partial(_decorated, json_help=json_help)


def _decorated(function: _Command, *, json_help: str) -> _Command:
    for decorate in reversed(
        (
            click.argument("url", type=str, shell_complete=complete_url),
            click.option("--json", "as_json", is_flag=True, help=json_help),
            click.option(
                "--storage-option",
                "storage_options",
                metavar="KEY=VALUE",
                multiple=True,
                callback=_storage_options,
                help="What fsspec takes for the URL's scheme, such as endpoint_url=https://…; repeat it for more. A "
                "VALUE that is JSON is read as JSON. It is never printed.",
            ),
            click.option(
                "--traceback",
                is_flag=True,
                envvar="KEEPBEST_TRACEBACK",
                expose_value=False,
                callback=_traceback,
                help="On an error, show where it came from. [env: KEEPBEST_TRACEBACK]",
            ),
        )
    ):
        function = decorate(function)
    return function


def duration(ctx: click.Context, param: click.Parameter, text: str) -> float:
    """Return the seconds in a span of time: seconds, or a number with s, m, h or d. A callback for an option.

    A span of more than a hundred years is one of a hundred years.
    """
    match = _DURATION.fullmatch(text.strip())
    if match is None:
        raise click.BadParameter(f"{text!r} is no span of time. Write seconds, or 90s, 15m, 1h, 7d.", ctx, param)
    return min(float(match[1]) * _SECONDS[match[2]], _LONGEST)


def _storage_options(ctx: click.Context, param: click.Parameter, words: tuple[str, ...]) -> dict[str, Any]:
    options: dict[str, Any] = {}
    for word in words:
        key, found, value = word.partition("=")
        if not found or not key:
            # The word itself is not shown: it may be a secret.
            raise click.BadParameter("it must have the form KEY=VALUE.", ctx, param)
        options[key] = value
        with contextlib.suppress(ValueError):
            read = json.loads(value)
            if key not in _TEXT or not isinstance(read, (int, float)):
                options[key] = read
    return options


def _traceback(ctx: click.Context, _param: click.Parameter, wanted: bool) -> None:  # noqa: FBT001 - click's signature
    ctx.meta[TRACEBACK] = wanted
