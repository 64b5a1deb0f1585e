"""What the filesystems of fsspec raise, in our words, and what of it is never shown."""

from __future__ import annotations

import errno
import ftplib
import socket
import ssl
from types import SimpleNamespace

import aiohttp
import paramiko
import pytest

from keepbest.errors import (
    CredentialsError,
    NotARunError,
    ObjectExistsError,
    ObjectNotFoundError,
    StorageError,
    StorageFullError,
    StoragePermissionError,
    UnreachableError,
)
from keepbest.storage.remote_errors import Secrets, says_absent, translate, without_password

NOTHING = Secrets("", {})


def foreign(package, name, **facts):
    """Return an error of a class of another package, as far as it is looked at."""
    error = type(name, (Exception,), {"__module__": f"{package}.exceptions"})("it went wrong")
    vars(error).update(facts)
    return error


def due_to(error, cause):
    error.__cause__ = cause
    return error


def answered(status):
    """Return what aiohttp raises for an HTTP status."""
    return aiohttp.ClientResponseError(SimpleNamespace(real_url="https://host/a"), (), status=status)


class Answer:
    def __init__(self, status_code):
        self.status_code = status_code


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (FileNotFoundError("a"), ObjectNotFoundError),
        (FileExistsError("a"), ObjectExistsError),
        (PermissionError("a"), StoragePermissionError),
        (NotADirectoryError("a"), NotARunError),
        (OSError(errno.ENOSPC, "full"), StorageFullError),
        (OSError(errno.EDQUOT, "quota"), StorageFullError),
        (OSError(errno.EROFS, "read-only"), StorageError),
        (NotImplementedError(), StorageError),
        (ConnectionResetError("reset"), UnreachableError),
        (TimeoutError(), UnreachableError),
        (EOFError(), UnreachableError),
        (OSError(errno.EHOSTUNREACH, "no route"), UnreachableError),
        (OSError("Socket is closed"), UnreachableError),
        (socket.gaierror(socket.EAI_NONAME, "unknown"), UnreachableError),
        (ssl.SSLCertVerificationError("expired"), UnreachableError),
        (paramiko.SSHException("no banner"), UnreachableError),
        (paramiko.ssh_exception.NoValidConnectionsError({("h", 22): OSError("refused")}), UnreachableError),
        (paramiko.AuthenticationException("no"), CredentialsError),
        (paramiko.SSHException("Server 'h' not found in known_hosts"), StorageError),
        (ftplib.error_perm("530 Login incorrect."), CredentialsError),
        (ftplib.error_temp("421 Too many users."), UnreachableError),
        (ftplib.error_perm("552 Quota exceeded."), StorageFullError),
        (ftplib.error_perm("550 Permission denied."), StoragePermissionError),
        (ftplib.error_perm("553 Bad name."), StorageError),
        (aiohttp.ClientConnectionError("gone"), UnreachableError),
        (aiohttp.ServerDisconnectedError(), UnreachableError),
        (answered(401), CredentialsError),
        (answered(403), StoragePermissionError),
        (answered(503), UnreachableError),
        (foreign("azure.core", "ClientAuthenticationError", status_code=403), CredentialsError),
        (foreign("azure.core", "HttpResponseError", status_code=403), StoragePermissionError),
        (foreign("azure.core", "ServiceRequestError"), UnreachableError),
        (foreign("requests", "HTTPError", response=Answer(404)), ObjectNotFoundError),
        (foreign("requests", "HTTPError", response=Answer(507)), StorageFullError),
        (foreign("asyncssh", "PermissionDenied"), CredentialsError),
        (foreign("asyncssh", "ConnectionLost"), UnreachableError),
        (
            due_to(RuntimeError("Failed to upload block"), foreign("azure.core", "ServiceResponseError")),
            UnreachableError,
        ),
        (due_to(FileNotFoundError("a"), aiohttp.ClientConnectionError("gone")), UnreachableError),
        (due_to(FileNotFoundError("a"), answered(404)), ObjectNotFoundError),
        (KeyError("a"), StorageError),
    ],
    ids=lambda value: value.__name__ if isinstance(value, type) else type(value).__name__,
)
def test_every_error_is_told_in_our_words(error, expected):
    """Whatever package raises it, the user meets the error that says what to do, with the object's URL."""
    found = translate(error, "sftp://host/run/a", "write", NOTHING)
    assert type(found) is expected
    assert str(found).startswith("sftp://host/run/a")


def test_an_error_of_ours_stays_as_it_is():
    """What was translated already is not translated again."""
    error = ObjectNotFoundError("x")
    assert translate(error, "y", "read", NOTHING) is error


def test_not_found_is_believed_only_if_nothing_else_went_wrong():
    """A filesystem that says "not found" when the server is gone does not make a run look empty."""
    assert says_absent(FileNotFoundError("a"))
    assert says_absent(due_to(FileNotFoundError("a"), answered(404)))
    assert says_absent(due_to(FileNotFoundError("a"), StopIteration()))
    assert not says_absent(due_to(FileNotFoundError("a"), aiohttp.ClientConnectionError("gone")))
    assert not says_absent(due_to(FileNotFoundError("a"), ftplib.error_temp("421 idle")))


@pytest.mark.parametrize(
    ("url", "options", "text"),
    [
        ("sftp://me:hunter2@host/run", {}, "cannot log in with hunter2"),
        ("sftp://me:hunt%21er2@host/run", {}, "sftp://me:hunt%21er2@host/run"),
        ("", {"password": "hunter2"}, "'hunter2'"),
        ("", {"secret": "hun/ter2"}, "?x=hun%2Fter2"),
        ("", {"client_kwargs": {"auth": ("me", "hunter2")}}, "auth hunter2"),
        ("", {"headers": [{"X": "hunter2"}]}, "X: hunter2"),
        ("", {"account_key": b"hunter2"}, "key=hunter2"),
        ("", {}, "AccountName=a;AccountKey=hunter2==;EndpointSuffix=b"),
        ("", {}, "https://host/a?sv=1&sig=hunter2&x=1"),
        ("", {}, "proxy https://me:p@hunter2@host:8080/"),
    ],
)
def test_secrets_are_hidden_in_texts(url, options, text):
    """A password, key or token is replaced, however it was given and wherever it stands."""
    shown = Secrets(url, options).hide(text)
    assert "hun" not in shown
    assert shown != text


def test_what_is_no_secret_is_shown():
    """Names that help to find what is wrong are left as they are."""
    secrets = Secrets(
        "sftp://me@host/run", {"username": "me", "host": "host", "key_filename": "/home/me/.ssh/id", "port": 22}
    )
    text = "cannot connect to host:22 as me with /home/me/.ssh/id"
    assert secrets.hide(text) == text
    assert without_password("sftp://me@host:22/a:b@c") == "sftp://me@host:22/a:b@c"
    assert without_password("github://org:repo@main/run") == "github://org:repo@main/run"
    assert without_password("sftp://me:hunter2@host:22/run") == "sftp://me@host:22/run"
