"""GCS errors: HTTP answers and what gcsfs and aiohttp raise, told in our words; and whether to try again.

Codes: https://cloud.google.com/storage/docs/json_api/v1/status-codes
"""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Callable, Mapping

from ..errors import (
    BucketNotFoundError,
    ConditionalWriteError,
    ConfigError,
    CredentialsError,
    KeepbestError,
    ObjectExistsError,
    ObjectNotFoundError,
    StorageError,
    StoragePermissionError,
    UnexpectedAnswerError,
    UnreachableError,
)
from .client import TransientError
from .remote_errors import shortened, text_of, unresolved
from .sockets import causes

_PASSING = {408, 409, 425, 429, 500, 502, 503, 504}
_GOOD = range(200, 300)


def answered(  # noqa: PLR0911, PLR0912, PLR0913, PLR0917, C901 - a table, written as one
    status: int,
    headers: Mapping[str, str],
    body: bytes,
    location: str,
    bucket: str,
    needs: str,
    hide: Callable[[str], str],
) -> KeepbestError | TransientError | None:
    """Return the error that an answer stands for; None if it is good.

    Args:
        status: of HTTP.
        headers: of the answer.
        body: of the answer.
        location: URL of the object.
        bucket: its bucket.
        needs: the permission that the request needs.
        hide: takes what is secret out of a text.
    """
    if "html" in headers.get("content-type", headers.get("Content-Type", "")):
        unexpected = UnexpectedAnswerError(location, f"a web page (status {status})")
        return TransientError(unexpected) if status in _PASSING else unexpected
    if status in _GOOD:
        return None
    said = _message(body, hide) or f"status {status}"
    match status:
        case 404 if needs == "storage.objects.list" or "bucket does not exist" in said.lower():
            return BucketNotFoundError(location, bucket)
        case 404 if needs == "storage.objects.create" and "object" not in said.lower():
            return BucketNotFoundError(location, bucket)
        case 404:
            return ObjectNotFoundError(location)
        case 412:
            return ObjectExistsError(location)
        case 401:
            return CredentialsError(location, f"the store does not accept the credentials ({said}).")
        case 403 if "ratelimit" in body.decode(errors="replace").lower().replace(" ", ""):
            return TransientError(UnreachableError(location, f"the store keeps answering 403 ({said})"))
        case 403:
            return StoragePermissionError(location, _ACTIONS.get(needs, needs), needs=needs)
        case 400 if "crc32c" in said.lower() or "md5" in said.lower() or "checksum" in said.lower():
            return TransientError(UnreachableError(location, f"the bytes arrive altered ({said})"))
        case 400 if "bucket name" in said.lower():
            return ConfigError(f"{location}: {said}.")
        case 501:
            return ConditionalWriteError(location, "'conditional_writes': False")
        case _ if status in _PASSING:
            return TransientError(UnreachableError(location, f"the store keeps answering {status} ({said})"))
    return StorageError(location, f"the store answered {status}: {said}.")


_ACTIONS = {
    "storage.objects.create": "write",
    "storage.objects.get": "read",
    "storage.objects.list": "list",
    "storage.objects.delete": "delete",
}


def unanswered(  # noqa: PLR0911 - as above
    error: BaseException, location: str, hide: Callable[[str], str]
) -> KeepbestError | TransientError:
    """Return our error for an exception that took the place of an answer."""
    if isinstance(error, (KeepbestError, TransientError)):
        return error
    if any(isinstance(cause, socket.gaierror) and cause.errno == socket.EAI_NONAME for cause in causes(error)):
        return UnreachableError(location, unresolved(error))
    module, said = type(error).__module__, text_of(error, hide)
    if module.startswith("google.auth"):
        if type(error).__name__ == "TransportError":
            return TransientError(UnreachableError(location, f"credentials cannot be renewed ({said})"))
        return CredentialsError(location, f"the credentials could not be renewed ({type(error).__name__}).")
    if isinstance(error, json.JSONDecodeError):
        return TransientError(UnexpectedAnswerError(location, "not JSON"))
    if isinstance(error, (OSError, asyncio.TimeoutError, EOFError)) or module.startswith("aiohttp"):
        return TransientError(UnreachableError(location, f"the store cannot be reached ({said})"))
    return StorageError(location, f"{type(error).__name__}: {said}.")


def _message(body: bytes, hide: Callable[[str], str]) -> str:
    try:
        found = json.loads(body)["error"]
        text = found if isinstance(found, str) else found.get("message", "")
    except (ValueError, LookupError, TypeError, AttributeError):
        text = body.decode(errors="replace")
    return shortened(" ".join(str(text).split()), hide)
