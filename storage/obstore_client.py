"""Obstore client: S3 whose bulk bytes go through obstore, a client written in Rust, where that is installed.

Only what is long goes its way, streams of many parts and ranges: there it takes a half to a third of the processor time
of aiohttp. Conditions, listings, copies and whatever is short stay with s3fs, which also finds the credentials.
(obstore's own wrapper for fsspec is not used: it overwrites silently with mode="create".)
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import os
import re
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from queue import Empty, SimpleQueue
from typing import Any

from ..errors import ConfigError, CredentialsError, KeepbestError, ObjectNotFoundError, UnreachableError
from . import event_loop, retry
from .backend import Buffer
from .client import TransientError
from .s3 import S3Client
from .s3_errors import translate
from .transfer import TransferSettings

_UNDERSTOOD = {"key", "secret", "token", "anon", "endpoint_url", "profile", "client_kwargs"}
_UNDERSTOOD_BY_CLIENT = {"region_name", "endpoint_url"}
_SLOWEST = 32 << 10
"""Bytes per second on one connection below which bytes are sent again: a request's time includes sending its body."""
_TRIES = 10
_FRESH = dt.timedelta(minutes=5)
_CODE = re.compile(r"<Code>(\w+)</Code>")
_MESSAGE = re.compile(r"<Message>([^<]*)</Message>")
_REGION = re.compile(r"<Region>([\w-]+)</Region>")
_STATUS = re.compile(r"non-2xx status code: (\d{3})")
_PROCESS = os.getpid()


def serves(asked: str | None, options: Mapping[str, Any]) -> bool:
    """Say whether obstore is to be used: it was asked for, or can do all that these options of s3fs ask for.

    Not in a process that was forked: obstore's threads do not survive that, and it would wait for them for ever.

    Raises:
        ConfigError: it was asked for and is not installed.
    """
    if asked == "s3fs" or os.getpid() != _PROCESS:
        return False
    try:
        import obstore  # noqa: F401, PLC0415 - an extra
    except ImportError:
        if asked is None:
            return False
        missing = "storage_options['client'] is 'obstore', which is not installed: pip install 'keepbest[obstore]'."
        raise ConfigError(missing) from None
    client = options.get("client_kwargs") or {}
    return asked is not None or (options.keys() <= _UNDERSTOOD and client.keys() <= _UNDERSTOOD_BY_CLIENT)


class ObstoreClient(S3Client):
    """The requests of one bucket."""

    def __init__(self, scheme: str, bucket: str, filesystem: Any, settings: TransferSettings) -> None:
        super().__init__(scheme, bucket, filesystem)
        self._settings = settings
        self._stores: dict[str, Any] = {}

    # ── up ────────────────────────────────────────────────────────────────────────────────────────────────────────

    def put_stream(self, key: str, parts: Iterator[Buffer]) -> None:
        """Send parts, with a window, a checksum and retries of obstore's own, and nothing copied on the way."""
        loop = self._fs.loop
        wanted: SimpleQueue[asyncio.Future[Buffer | None] | None] = SimpleQueue()
        sending = asyncio.run_coroutine_threadsafe(self._put(self._store_up(), key, wanted), loop)
        sending.add_done_callback(lambda _: wanted.put(None))
        try:
            while (want := self._next(wanted, key)) is not None:
                loop.call_soon_threadsafe(_give, want, next(parts, None))
            sending.result()
        except BaseException as error:
            sending.cancel()
            if isinstance(error, Exception) and type(error).__module__.startswith("obstore"):
                raise self._told(error, "upload_part", key) from None  # its text is the whole answer, unchecked
            raise

    async def _put(self, store: Any, key: str, wanted: SimpleQueue[Any]) -> None:
        import obstore  # noqa: PLC0415 - an extra

        async def stream() -> AsyncIterator[Buffer]:
            while True:
                want = asyncio.get_running_loop().create_future()
                wanted.put(want)
                part = await want
                if part is None:
                    return
                yield part

        most = self._settings.connections
        size = self._settings.part_size
        await obstore.put_async(store, key, stream(), use_multipart=True, chunk_size=size, max_concurrency=most)

    def _next(self, wanted: SimpleQueue[Any], key: str) -> Any:
        """Wait until obstore wants a part, or has ended. If that takes long, ask whether the store is still there."""
        since = time.monotonic()
        while True:
            with contextlib.suppress(Empty):
                return wanted.get(timeout=max(since + self._settings.idle - time.monotonic(), self._settings.idle / 10))
            if self._answers(key):
                since = time.monotonic()
            elif time.monotonic() - since > retry.patience(self._settings.deadline):
                raise UnreachableError(f"{self.url}/{key}", "the store does not answer any more")

    def _answers(self, key: str) -> bool:
        try:
            with event_loop.limited(self._settings.idle):
                self.head(key)
        except (TransientError, UnreachableError):
            return False
        except KeepbestError:  # that there is no such object, for one
            return True
        return True

    # ── down ──────────────────────────────────────────────────────────────────────────────────────────────────────

    def get_into(self, key: str, begin: int, target: memoryview) -> int:
        """Read a range, and copy it into `target`."""

        async def get(store: Any) -> Any:
            import obstore  # noqa: PLC0415 - an extra

            return await obstore.get_range_async(store, key, start=begin, end=begin + len(target))

        store = self._store_down()
        try:
            found = event_loop.run(self._fs.loop, get(store))
        except Exception as error:  # noqa: BLE001 - told in other words below, whatever it is
            if "416" in _STATUS.findall(str(error)):
                return 0  # the object ends before it
            raise self._told(error, "get_object", key) from None  # as above
        view = memoryview(found)
        target[: len(view)] = view
        return len(view)

    # ── obstore ───────────────────────────────────────────────────────────────────────────────────────────────────

    def _store_up(self) -> Any:
        # Within its time a request that is answered badly is sent again some times, one that is not answered, once.
        slowest = self._settings.part_size / _SLOWEST
        return self._store(timeout=slowest, retry_timeout=slowest + retry.patience(self._settings.deadline))

    def _store_down(self) -> Any:
        slowest = self._settings.part_size / _SLOWEST
        patience = retry.patience(self._settings.deadline)
        return self._store(timeout=slowest, retry_timeout=patience, read_timeout=self._settings.idle)

    def _store(self, *, retry_timeout: float, **timeouts: float) -> Any:
        way = "down" if "read_timeout" in timeouts else "up"
        if way not in self._stores:
            from obstore.store import S3Store  # noqa: PLC0415 - an extra

            meta = self._run("connect", "", self._fs.set_session()).meta
            times = {"connect_timeout": min(5.0, self._settings.idle), **timeouts}
            client: Any = {name: dt.timedelta(seconds=seconds) for name, seconds in times.items()}
            client["allow_http"] = True
            backoff = {
                "init_backoff": dt.timedelta(seconds=0.1),
                "max_backoff": dt.timedelta(seconds=self._settings.deadline / 15),
                "base": 2,
            }
            tries: Any = {
                "max_retries": _TRIES,
                "retry_timeout": dt.timedelta(seconds=retry_timeout),
                "backoff": backoff,
            }
            identity: Any = {"skip_signature": True} if self._fs.anon else {"credential_provider": self._credentials}
            self._stores[way] = S3Store(
                self.bucket,
                endpoint=meta.endpoint_url,
                region=meta.region_name or "us-east-1",
                virtual_hosted_style_request=False,
                checksum_algorithm="SHA256",
                client_options=client,
                retry_config=tries,
                **identity,
            )
        return self._stores[way]

    def _credentials(self) -> dict[str, Any]:
        """Return what s3fs goes by, renewed if it has expired; obstore asks again when these are five minutes old."""

        async def frozen() -> Any:
            await self._fs.set_session()
            held = await self._fs.session.get_credentials()
            return await held.get_frozen_credentials() if held is not None else None

        if self._fs.key:
            key, secret, token, expires = self._fs.key, self._fs.secret, self._fs.token, None
        else:
            found = self._run("connect", "", frozen())
            if found is None:
                raise CredentialsError(self.url, "no credentials were found.")
            key, secret, token = found.access_key, found.secret_key, found.token
            expires = dt.datetime.now(dt.UTC) + _FRESH
        return {"access_key_id": key, "secret_access_key": secret, "token": token, "expires_at": expires}

    def _told(self, error: BaseException, method: str, key: str) -> KeepbestError | TransientError:
        """Return our error for obstore's; transient if it has not sent the request again by itself."""
        if isinstance(error, KeepbestError):
            return error
        text, location, hide = str(error), f"{self.url}/{key}", self._secrets().hide
        code, status = _found(_CODE, text), _found(_STATUS, text)
        if isinstance(error, FileNotFoundError) and not code:
            return ObjectNotFoundError(location)
        if not code and not status:
            said = hide(text.partition("\n")[0])[:300]
            return UnreachableError(location, f"the store cannot be reached ({said})")
        answer = {"Code": code or status, "Message": _found(_MESSAGE, text), "Region": _found(_REGION, text)}
        told = translate(answer, method, location, self.bucket, hide)
        return told.error if isinstance(told, TransientError) and status.startswith("5") else told


def _found(pattern: re.Pattern[str], text: str) -> str:
    match = pattern.search(text)
    return match[1] if match else ""


def _give(want: asyncio.Future[Buffer | None], part: Buffer | None) -> None:
    if not want.done():  # called off
        want.set_result(part)
