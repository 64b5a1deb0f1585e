"""Remote info: what filesystems say of an object, each under other names and in other forms."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

_TIMES = (
    "mtime", "modified", "last_modified", "LastModified", "Last-Modified", "modificationTime", "updated", "updated_at",
    "modify", "last_commit_date", "created", "created_at", "creation_time",
)  # fmt: skip
"""Names of the time of the last change, the most telling first; an object that never changes has the one it began."""
_FTP = re.compile(r"\d{14}(\.\d+)?")
_MILLISECONDS = 1e11
"""Larger numbers are no seconds: not before the year 5138."""


def is_folder(info: Mapping[str, Any]) -> bool:
    """Say whether it is a folder."""
    return info.get("type") == "directory"


def is_link(info: Mapping[str, Any]) -> bool:
    """Say whether an entry of a listing is a link, which listings do not follow."""
    return bool(info.get("islink")) or info.get("type") == "link"


def modified(info: Mapping[str, Any], now: float) -> float:
    """Return when an object last changed, seconds since 1970; `now` if the filesystem does not say.

    Who deletes what is old never takes an object of unknown age for old.
    """
    for name in _TIMES:
        time = _seconds(info.get(name))
        if time is not None:
            return time
    return now


def _seconds(value: Any) -> float | None:
    match value:
        case bool() | None:
            return None
        case int() | float():
            return float(value) / 1000 if value > _MILLISECONDS else float(value)
        case datetime():
            return (value if value.tzinfo else value.replace(tzinfo=UTC)).timestamp()
        case str():
            return _seconds_of_text(value)
    date = getattr(value, "date", None)  # such as the last commit that Hugging Face names
    return _seconds(date) if isinstance(date, datetime) else None


def _seconds_of_text(text: str) -> float | None:
    if _FTP.fullmatch(text):
        text = f"{text[:8]}T{text[8:14]}"
    for read in (datetime.fromisoformat, parsedate_to_datetime):
        with contextlib.suppress(ValueError, TypeError):
            return _seconds(read(text))
    return None
