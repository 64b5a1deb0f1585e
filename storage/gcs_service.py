"""The service behind `gs://`: options and credentials as gcsfs takes and finds them, and one HTTP session."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import weakref
from collections.abc import Mapping
from typing import Any

from ..errors import ConfigError, CredentialsError
from . import retry
from .event_loop import close_behind
from .options import check_known
from .remote_errors import Secrets, text_of
from .sockets import Sockets, send_once
from .transfer import TransferSettings


def filesystem(url: str, options: Mapping[str, Any]) -> Any:
    """Return gcsfs' filesystem, of which the credentials and the endpoint are used.

    Raises:
        ConfigError: gcsfs is not installed, or the options do not fit it; CredentialsError: none that can be used.
    """
    try:
        # The class itself: gcsfs.GCSFileSystem may be one that speaks gRPC first, which no emulator understands.
        from gcsfs.core import GCSFileSystem  # noqa: PLC0415 - an extra, and slow to import
        from google.auth.exceptions import GoogleAuthError  # noqa: PLC0415 - comes with it
    except ImportError as error:
        raise ConfigError("gs:// needs gcsfs. Install it: pip install 'keepbest[gcs]'.") from error
    check_known(GCSFileSystem, options)
    asked = {"skip_instance_cache": True, **options}  # the one of before has the credentials of before
    if os.environ.get("STORAGE_EMULATOR_HOST") and not asked.get("endpoint_url"):
        asked.setdefault("token", "anon")
    asked["token"] = _token(asked.get("token"))
    if asked["token"] is None or asked["token"] == "google_default":  # noqa: S105 - a method, no secret
        _check_environment(url)
    endpoint = str(asked.get("endpoint_url") or "")
    if endpoint and not endpoint.startswith(("http://", "https://")):
        raise ConfigError(f"endpoint_url begins with http:// or https:// (got {Secrets(endpoint, {}).hide(endpoint)}).")
    try:
        return GCSFileSystem(**asked)
    except TypeError as error:
        raise ConfigError(
            f"storage_options do not fit gcsfs: {text_of(error, Secrets('', options).hide)}. Correct that one, "
            "or leave it out; docs/buckets.md says what there is."
        ) from None
    except (GoogleAuthError, ValueError, LookupError, OSError) as error:  # it looks for credentials, and may ask Google
        what = "no valid credentials were found, or they could not be read or renewed"
        raise CredentialsError(url, f"{what} ({type(error).__name__}).") from None


def _check_environment(url: str) -> None:
    """Refuse a key file that does not exist: gcsfs would go on without credentials, and the store say no to nobody."""
    path = os.environ.get(_KEY_FILE, "")
    if path and not os.path.isfile(path):  # noqa: PTH113 - what is not a path, too
        shown = path if len(path) < _LONGEST_PATH and "{" not in path else "…"  # a key itself, perhaps
        raise CredentialsError(url, f"{_KEY_FILE} names a file that does not exist: {shown}.")


_KEY_FILE = "GOOGLE_APPLICATION_CREDENTIALS"
_LONGEST_PATH = 256
_METHODS = {"google_default", "cache", "cloud", "anon", "browser"}


def _token(given: Any) -> Any:
    """Return what gcsfs takes; an access token as credentials: it would have Google look at it, in a URL."""
    if not isinstance(given, str) or given in _METHODS or os.path.exists(given):  # noqa: PTH110 - a path, perhaps
        return given
    if given.endswith(".json"):
        raise ConfigError(f"storage_options['token'] is no file: {given}.")
    from google.oauth2.credentials import Credentials  # noqa: PLC0415 - comes with gcsfs

    return Credentials(token=given)  # type: ignore[no-untyped-call]


class Service:
    """The HTTP session. Belongs to the event loop of fsspec."""

    def __init__(self, filesystem: Any, settings: TransferSettings) -> None:
        self.fs = filesystem
        self._settings = settings
        self._session: Any = None
        self._renewing = asyncio.Lock()

    async def session(self) -> Any:
        """Return the session, made at its first use."""
        import aiohttp  # noqa: PLC0415 - comes with gcsfs

        if self._session is None or self._session.closed:
            idle = self._settings.idle
            asked = {"trust_env": True} | (self.fs.session_kwargs or {})
            if "connector" not in asked:
                limit = self._settings.connections + 4
                try:
                    asked["connector"] = aiohttp.TCPConnector(limit=limit, socket_factory=Sockets(idle))
                except TypeError:  # an older aiohttp
                    asked["connector"] = aiohttp.TCPConnector(limit=limit)
            self._session = aiohttp.ClientSession(**asked)
            send_once(self._session)
            weakref.finalize(self, _close, self.fs.loop, self._session)
        return self._session

    def timeout(self, *, slow: bool) -> Any:
        """Return how long a request may be silent; `slow`: the store has a large object to put together."""
        import aiohttp  # noqa: PLC0415 - as above

        silence = retry.assembly(self._settings.deadline) if slow else self._settings.idle
        return aiohttp.ClientTimeout(total=None, sock_connect=min(5.0, self._settings.idle), sock_read=silence)

    async def headers(self) -> dict[str, str]:
        """Return what authorises a request; renews the credentials if they are about to expire."""
        held = self.fs.credentials.credentials
        headers: dict[str, str] = {}
        if held is not None:
            async with self._renewing:
                if not held.valid:  # in a thread: asking for others blocks
                    await asyncio.wait_for(asyncio.to_thread(_renew, held, self._settings.idle), self._settings.idle)
            held.apply(headers)
        return headers

    def secrets(self) -> Secrets:
        """Return what must not be shown."""
        held = self.fs.credentials.credentials
        found = [getattr(held, name, None) or "" for name in ("token", "refresh_token", "client_secret")]
        return Secrets(str(self.endpoint), {**self.fs.storage_options, "secrets": found})

    def parameters(self) -> dict[str, str]:
        """Return what every request says: who pays."""
        payer = self.fs.requester_pays
        if not payer:
            return {}
        return {"userProject": payer if isinstance(payer, str) else self.fs.project}

    @property
    def endpoint(self) -> str:
        """Where requests go."""
        location: str = self.fs._location  # noqa: SLF001 - argument, environment or Google's, as gcsfs decides
        return location.rstrip("/")


def _renew(credentials: Any, idle: float) -> None:
    from google.auth.transport.requests import Request  # noqa: PLC0415 - comes with gcsfs

    credentials.refresh(functools.partial(Request(), timeout=idle))  # gcsfs would wait for two minutes


def _close(loop: asyncio.AbstractEventLoop, session: Any) -> None:
    """Close a session behind whoever lets go of it; when the program ends, before it has ended."""
    if not close_behind(loop, session.close) and loop.is_running():
        with contextlib.suppress(RuntimeError, TimeoutError):  # the loop is stopping
            asyncio.run_coroutine_threadsafe(session.close(), loop).result(timeout=0.5)
