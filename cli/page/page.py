"""Page: the report as one HTML file that needs nothing else: style, script and data stand in it.

Everything that came from a run is escaped by the template, and in the data for the script by writing no
`<`, `>` or `&`. The content security policy allows the file's own script and style by their digests, and no request.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ... import __version__
from .. import words
from . import GENERATOR
from .data import Page, PageJson

if TYPE_CHECKING:
    from minijinja import Environment

_HERE = Path(__file__).parent
_STYLES = ("vendor/uPlot.min.css", "style.css")
_TEMPLATE = "page.html.j2"
_SCRIPTS = ("vendor/uPlot.iife.min.js", "page.js")


def render(page: Page) -> str:
    """Return the file's text.

    Raises:
        ModuleNotFoundError: minijinja is not installed.
    """
    style, script = (_texts(names) for names in (_STYLES, _SCRIPTS))
    return _environment().render_template(
        _TEMPLATE,
        page=page,
        generator=GENERATOR,
        version=__version__,
        made=words.moment(time.time()),
        csp="; ".join(
            (
                "default-src 'none'",
                f"script-src {_digest(script)}",
                f"style-src {_digest(style)}",
                "img-src data:",
                "base-uri 'none'",
                "form-action 'none'",
            )
        ),
        style=_ours(style),
        script=_ours(script),
        data=_ours(_json(page.json)),
        licence=_text("vendor/LICENSE").strip(),
    )


def _json(data: PageJson) -> str:
    """Return data as JSON that cannot end the element it stands in."""
    text = json.dumps(data, allow_nan=False, ensure_ascii=True, separators=(",", ":"))
    for char in "<>&":
        text = text.replace(char, f"\\u{ord(char):04x}")
    return text


def _digest(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _texts(names: tuple[str, ...]) -> str:
    return "\n".join(_text(name) for name in names)


@functools.cache
def _text(name: str) -> str:
    return (_HERE / name).read_text(encoding="utf-8")


@functools.cache
def _environment() -> Environment:
    from minijinja import Environment  # noqa: PLC0415 - an extra of its own

    return Environment(
        loader=_text,
        auto_escape_callback=lambda _: "html",
        undefined_behavior="strict",
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _ours(text: str) -> Any:
    """Return text that is HTML already: it is ours, or holds nothing that HTML would read."""
    from minijinja import safe  # noqa: PLC0415 - an extra of its own

    return safe(text)
