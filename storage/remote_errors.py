"""Remote errors: what the filesystems of fsspec raise, told in our words, with no secret in them.

They are of many packages, none of which is imported here: what an error is, its type's name says, or an HTTP status.
"""

from __future__ import annotations

import errno
import re
import socket
import ssl
from collections.abc import Callable, Iterator, Mapping
from typing import Any
from urllib.parse import quote

from ..errors import (
    CredentialsError,
    KeepbestError,
    NotARunError,
    ObjectExistsError,
    ObjectNotFoundError,
    StorageError,
    StorageFullError,
    StoragePermissionError,
    UnreachableError,
)
from .printable import without_password as without_password  # noqa: PLC0414 - others find it here
from .printable import without_passwords
from .sockets import causes

_REFUSED = {
    "asyncssh.PermissionDenied", "azure.ClientAuthenticationError", "azure.CredentialUnavailableError",
    "paramiko.AuthenticationException", "smbprotocol.LogonFailure", "smbprotocol.SMBAuthenticationError",
}  # fmt: skip
_STRANGERS = {"asyncssh.HostKeyNotVerifiable", "paramiko.BadHostKeyException"}
_UNREACHABLE = {
    "aiohttp.ClientConnectionError", "aiohttp.ClientPayloadError", "asyncssh.ConnectionLost",
    "asyncssh.DisconnectError", "azure.ServiceRequestError", "azure.ServiceResponseError", "builtins.ConnectionError",
    "builtins.EOFError", "builtins.TimeoutError", "httpx.TransportError", "httpx2.TransportError",
    "paramiko.NoValidConnectionsError", "paramiko.SSHException", "requests.ConnectionError", "requests.Timeout",
}  # fmt: skip
_UNREACHABLE_NUMBERS = {errno.ENETUNREACH, errno.ENETDOWN, errno.EHOSTUNREACH, errno.EHOSTDOWN, errno.ESHUTDOWN}
_PASSING = {408, 425, 429, 500, 502, 503, 504}
_FULL = {errno.ENOSPC, errno.EDQUOT}

_SECRET_NAME = re.compile(
    r"pass|pwd|secret|token|sas|cred|auth|cookie|header|connection_string|(^|_)key$|pkey", re.IGNORECASE
)
_SECRET_IN_TEXT = re.compile(
    r"(?i)\b(AccountKey|SharedAccessSignature|sig|signature|password|passwd|token)=[^\s;&'\"]+"
)
_LONGEST = 300
"""Characters that are shown of what an error says."""
_SHORTEST = 3
"""Characters of a secret that is looked for: those of a shorter one are found in any text."""


class Secrets:
    """What of a URL and of storage options must not be seen."""

    def __init__(self, url: str, options: Mapping[str, Any]) -> None:
        found = {_password(url), *_texts_of_secrets(options)}
        found |= {quote(text, safe="") for text in found}
        self._texts = sorted((text for text in found if len(text) >= _SHORTEST), key=len, reverse=True)

    def hide(self, text: str) -> str:
        """Return `text` with `***` in the place of each secret."""
        text = without_passwords(text)
        for secret in self._texts:
            text = text.replace(secret, "***")
        return _SECRET_IN_TEXT.sub(r"\1=***", text)

    def show(self, error: BaseException) -> bool:
        """Say whether a traceback may show `error`: neither it nor what led to it holds a secret."""
        return all(self.hide(text) == text for text in map(str, causes(error)))


def text_of(error: BaseException, hide: Callable[[str], str]) -> str:
    """Return an error's text, short and without a full stop; its type where it has none."""
    return shortened(str(error), hide).rstrip(".") or type(error).__name__


def shortened(text: str, hide: Callable[[str], str]) -> str:
    """Return the beginning of a text. What is secret is hidden before: half a secret would not be known for one."""
    return hide(text.strip().rstrip("."))[:_LONGEST]


def unresolved(error: BaseException) -> str:
    """Return the words for a server whose name cannot be resolved, with the name where the chain has it."""
    hosts = (getattr(cause, "host", None) for cause in causes(error))
    name = next((f", {host}," for host in hosts if isinstance(host, str) and host), "")
    return f"the name of the server{name} cannot be resolved"


def translate(error: BaseException, location: str, action: str, secrets: Secrets) -> KeepbestError:
    """Return our error for what a filesystem raised.

    Args:
        error: what was raised.
        location: URL of the object, as it may be shown.
        action: what was done, as in "cannot write".
        secrets: what the text must not hold.
    """
    if isinstance(error, KeepbestError):
        return error
    for cause in causes(error):  # some filesystems say "not found" whatever went wrong
        found = _of_the_connection(cause, error, location, action, secrets)
        if found is not None:
            return found
    return _of_the_object(error, location, action, secrets)


def says_absent(error: FileNotFoundError) -> bool:
    """Say whether an object is absent, or only could not be reached: some filesystems say the one for the other."""
    for cause in causes(error):
        found = _of_the_connection(cause, error, "", "", Secrets("", {}))
        if found is not None:
            return isinstance(found, ObjectNotFoundError)
    return True


def _of_the_connection(  # noqa: PLR0911 - a table, written as one
    error: BaseException, whole: BaseException, location: str, action: str, secrets: Secrets
) -> KeepbestError | None:
    """Tell one error of the chain `whole`."""
    said = "no answer in time" if isinstance(error, TimeoutError) else text_of(error, secrets.hide)
    names = {f"{kind.__module__.partition('.')[0]}.{kind.__name__}" for kind in type(error).__mro__}
    if isinstance(error, socket.gaierror):
        return UnreachableError(location, unresolved(whole))
    if isinstance(error, ssl.SSLError):
        return UnreachableError(location, f"no safe connection can be made ({said})")
    if names & _STRANGERS or "not found in known_hosts" in said:
        return StorageError(location, f"the server is not the one that is known under this name ({said}).")
    if names & _REFUSED:
        return CredentialsError(location, f"the server does not accept the credentials ({said}).")
    if any(name.startswith("ftplib.") for name in names):
        return _of_ftp(said, location, action)
    status = _status(error)
    if status is not None:
        return _of_status(status, said, location, action)
    number = getattr(error, "errno", None)
    if names & _UNREACHABLE or number in _UNREACHABLE_NUMBERS or said == "Socket is closed":
        return UnreachableError(location, f"the server cannot be reached ({said})")
    return None


def _of_ftp(said: str, location: str, action: str) -> KeepbestError | None:
    match said[:3]:
        case "430" | "530" | "532":
            return CredentialsError(location, f"the server does not accept the credentials ({said}).")
        case "421" | "425" | "426":
            return UnreachableError(location, f"the server cannot be reached ({said})")
        case "452" | "552":
            return StorageFullError(location)
        case "550" if "ermission" in said or "enied" in said:
            return StoragePermissionError(location, action)
    return None


def _status(error: BaseException) -> int | None:
    """Return the HTTP status that an error of any client stands for."""
    for holder in (error, getattr(error, "response", None)):
        for name in ("status", "status_code"):
            status = getattr(holder, name, None)
            if isinstance(status, int) and status >= 400:  # noqa: PLR2004 - an error
                return status
    return None


def _of_status(  # noqa: PLR0911 - as above
    status: int, said: str, location: str, action: str
) -> KeepbestError | None:
    match status:
        case 401 | 407:
            return CredentialsError(location, f"the server does not accept the credentials ({said}).")
        case 403 if "authenticat" in said.lower():  # Azure, of a wrong key
            return CredentialsError(location, f"the server does not accept the credentials ({said}).")
        case 403:
            return StoragePermissionError(location, action)
        case 404 | 410:
            return ObjectNotFoundError(location)
        case 507:
            return StorageFullError(location)
        case _ if status in _PASSING:
            return UnreachableError(location, f"the server answers {status} ({said})")
    return None


def _of_the_object(  # noqa: PLR0911 - as above
    error: BaseException, location: str, action: str, secrets: Secrets
) -> KeepbestError:
    said = text_of(error, secrets.hide)
    number = getattr(error, "errno", None)
    if number in _FULL:
        return StorageFullError(location)
    if number == errno.EROFS:
        return StorageError(location, "the file system is read-only. Give another URL.")
    match error:
        case FileNotFoundError():
            return ObjectNotFoundError(location)
        case FileExistsError():
            return ObjectExistsError(location)
        case NotADirectoryError():
            return NotARunError(location, "cannot be used: a part of it is a file, not a folder")
        case PermissionError():
            return StoragePermissionError(location, action)
        case NotImplementedError():
            return StorageError(location, f"this kind of store cannot {action}.")
        case OSError() if said == "Failure":  # all that SFTP has to say
            return StorageError(
                location,
                f"cannot {action}: the server does not say why. Often no space or quota is left, or a part of the path "
                "is a file.",
            )
    return StorageError(location, f"cannot {action}: {type(error).__name__}: {said}.")


def _password(url: str) -> str:
    user = url.rpartition("://")[2].partition("/")[0].rpartition("@")[0]
    return user.partition(":")[2]


def _texts_of_secrets(options: Any, *, secret: bool = False) -> Iterator[str]:
    match options:
        case str() if secret:
            yield options
        case bytes() if secret:
            yield options.decode(errors="replace")
        case Mapping():
            for name, value in options.items():
                yield from _texts_of_secrets(value, secret=secret or _SECRET_NAME.search(str(name)) is not None)
        case list() | tuple():
            for value in options:
                yield from _texts_of_secrets(value, secret=secret)
