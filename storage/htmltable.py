"""HTML table: what a notebook shows of an object. Every text in it is a stranger's, and is escaped."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence

from .printable import printable


def html_table(caption: str, head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table of texts; without a `head`, of rows alone."""
    first = f"<thead><tr>{_cells('th', head)}</tr></thead>" if head else ""
    body = "".join(f"<tr>{_cells('td', row)}</tr>" for row in rows)
    return f"<table><caption>{_safe(caption)}</caption>{first}<tbody>{body}</tbody></table>"


def _cells(tag: str, texts: Sequence[str]) -> str:
    return "".join(f"<{tag}>{_safe(text)}</{tag}>" for text in texts)


def _safe(text: str) -> str:
    return html.escape(printable(text))
