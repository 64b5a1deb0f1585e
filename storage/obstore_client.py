"""Obstore client: S3 whose bulk bytes go through obstore, a client written in Rust, where that is installed.

Only what is long goes its way, streams of many parts and ranges: there it takes a half to a third of the processor time
of aiohttp. Conditions, listings, copies and whatever is short stay with s3fs, which also finds the credentials.
(obstore's own wrapper for fsspec is not used: it overwrites silently with mode="create".)
"""

from __future__ import annotations

import contextlib
import datetime as dt
import os
import re
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from ..errors import (
    ConfigError,
    CredentialsError,
    KeepbestError,
    ObjectNotFoundError,
    StorageError,
    UnexpectedAnswerError,
    UnreachableError,
    WrongRegionError,
)
from .backend import Buffer
from .client import TransientError
from .s3_client import S3Client
from .s3_errors import translate
from .transfer import TransferSettings

_UNDERSTOOD = {"key", "secret", "token", "anon", "endpoint_url", "profile", "client_kwargs"}
_UNDERSTOOD_BY_CLIENT = {"region_name", "endpoint_url"}
_SLOWEST = 32 << 10
"""Bytes per second on one connection below which a range is not waited for, though bytes keep coming."""
_FRESH = dt.timedelta(minutes=5)
_SHARE = 0.8
"""Of the time of a stall: what obstore aborts stalls likewise, and then s3fs is asked."""
_ASIDE = 3600.0
"""Seconds for which obstore is left aside when it did not come through."""
_CODE = re.compile(r"<Code>(\w+)</Code>")
_MESSAGE = re.compile(r"<Message>([^<]*)</Message>")
_REGION = re.compile(r"<Region>([\w-]+)</Region>")
_STATUS = re.compile(r"non-2xx status code: (\d{3})")
_STRANGE = re.compile(
    r"ETag Header missing|missing field `\w+`|invalid \w+ response|range request not supported|Content-Range header"
)
_PROCESS = os.getpid()


def serves(asked: str | None, options: Mapping[str, Any]) -> bool:
    """Say whether obstore is to be used: it can do all that these options of s3fs ask for.

    Not in a process that was forked: obstore's threads do not survive that, and it would wait for them for ever.

    Raises:
        ConfigError: it was asked for and is not installed, or would leave out an option (encryption, a storage class).
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
    of_client = options.get("client_kwargs") or {}
    strange = sorted([*(options.keys() - _UNDERSTOOD), *(of_client.keys() - _UNDERSTOOD_BY_CLIENT)])
    if asked is not None and strange:
        raise ConfigError(
            f"storage_options['client'] is 'obstore', which does not understand {', '.join(strange)}. Leave 'client' "
            "out: then s3fs carries the bytes."
        )
    return not strange and (asked is not None or not os.environ.get("AWS_CA_BUNDLE"))


class ObstoreClient(S3Client):
    """The requests of one bucket."""

    def __init__(self, scheme: str, bucket: str, filesystem: Any, settings: TransferSettings) -> None:
        super().__init__(scheme, bucket, filesystem)
        self._settings = settings
        self._longest = _SHARE * settings.idle
        """Seconds that one request of a stream may take."""
        self._retrying = 0.9 * self._longest
        """Seconds within which obstore sends one again: what stalled for longer is not."""
        self._stores: dict[str, Any] = {}
        self._turn = threading.Semaphore()
        """Of the streams that have parts to hand over: one at a time, for each fills all connections."""
        self._again = 0.0
        """When obstore is to be used, after it did not come through; seconds, monotonic."""

    @property
    def put_stream(self) -> Callable[[str, Iterator[Buffer]], None] | None:
        """What sends the parts of an object; None while they better go one by one."""
        return self._put_stream if time.monotonic() >= self._again else None

    def _put_stream(self, key: str, parts: Iterator[Buffer]) -> None:
        """Send parts, with a window, a checksum and retries of obstore's own, and nothing copied on the way.

        It is given little time: whether a part stalls or the link is slow cannot be told here, but by `put_part`.
        Streams begin one after another, each when the one before has no more parts to hand over: then the connections
        that it leaves, one by one, are taken at once.
        """
        import obstore  # noqa: PLC0415 - an extra

        size, most = self._settings.part_size, self._settings.connections
        store = self._store("up", timeout=self._longest)
        with contextlib.ExitStack() as turn:
            turn.enter_context(self._turn)
            source = _Source(self._counted(key, parts), turn.close)
            try:
                obstore.put(store, key, source, use_multipart=True, chunk_size=size, max_concurrency=most)
            except Exception as error:
                if error is source.failure:
                    raise
                told = self._told(error, "upload_part", key)
                raise told from None  # the text of obstore's is the answer itself, with all that is in it

    def _counted(self, key: str, parts: Iterator[Buffer]) -> Iterator[Buffer]:
        size, most = 0, self._settings.part_size * self.part_limit
        for part in parts:
            size += len(part)
            if size > most:
                other = f"'part_size' of more than {self._settings.part_size:,} bytes, or 'client': 's3fs'"
                raise StorageError(
                    f"{self.url}/{key}", f"it is larger than {self.part_limit:,} parts. Give storage_options {other}."
                )
            yield part

    def get_into(self, key: str, begin: int, target: memoryview) -> int:
        """Read a range, and copy it into `target`; by s3fs where obstore does not come through."""
        import obstore  # noqa: PLC0415 - an extra

        if time.monotonic() < self._again:
            return super().get_into(key, begin, target)
        longest = self._settings.part_size / _SLOWEST
        store = self._store("down", timeout=longest, read_timeout=self._settings.idle)
        try:
            found = obstore.get_range(store, key, start=begin, end=begin + len(target))
        except Exception as error:  # noqa: BLE001 - told in other words below, whatever it is
            if "416" in _STATUS.findall(str(error)):
                return 0  # the object ends before it
            told = self._told(error, "get_object", key)
            if isinstance(told, TransientError):
                return super().get_into(key, begin, target)
            raise told from None  # as above
        view = memoryview(found)
        target[: len(view)] = view
        return len(view)

    def _store(self, way: str, **times: float) -> Any:
        if way not in self._stores:
            from obstore.store import S3Store  # noqa: PLC0415 - an extra

            meta = self._run("connect", "", self._fs.set_session()).meta
            times["connect_timeout"] = min(5.0, self._settings.idle)
            client: Any = {name: dt.timedelta(seconds=seconds) for name, seconds in times.items()}
            client["allow_http"] = True
            waits = {"init_backoff": 0.1, "max_backoff": self._settings.deadline / 15}
            backoff = {name: dt.timedelta(seconds=seconds) for name, seconds in waits.items()}
            tries: Any = {
                "max_retries": 100,
                "retry_timeout": dt.timedelta(seconds=self._retrying),
                "backoff": {**backoff, "base": 2},
            }
            identity: Any = {"skip_signature": True} if self._fs.anon else {"credential_provider": _Credentials(self)}
            self._stores[way] = S3Store(
                self.bucket,
                endpoint=meta.endpoint_url,
                region=meta.region_name or "us-east-1",
                virtual_hosted_style_request=False,
                checksum_algorithm="SHA256",  # without, some servers compare nothing
                client_options=client,
                retry_config=tries,
                **identity,
            )
        return self._stores[way]

    def credentials(self) -> dict[str, Any]:
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

    def _told(self, error: Exception, method: str, key: str) -> KeepbestError | TransientError:
        """Return our error for obstore's; transient if s3fs may come through, which is asked for a while then."""
        told = self._translated(error, method, key)
        if isinstance(told, WrongRegionError):  # s3fs finds the right one by itself
            self._again = time.monotonic() + _ASIDE
            return TransientError(told)
        if isinstance(told, TransientError) and told.tried:
            self._again = time.monotonic() + _ASIDE
        return told

    def _translated(self, error: Exception, method: str, key: str) -> KeepbestError | TransientError:
        if isinstance(error, KeepbestError):
            return error
        text, location, hide = str(error), f"{self.url}/{key}", self._secrets().hide
        code, status = _found(_CODE, text), _found(_STATUS, text)
        if isinstance(error, FileNotFoundError) and not code and "<html" not in text.lower():
            return ObjectNotFoundError(location)
        if not code and not status:
            strange = _STRANGE.search(text)
            if "redirect without LOCATION" in text:
                return WrongRegionError(location, None)
            if strange:
                return UnexpectedAnswerError(location, f"one without what it should hold ({strange[0]})")
            said = hide(text.partition("\n")[0])[:300]
            error = UnreachableError(location, f"the store cannot be reached ({said})")
            return TransientError(error, tried=self._retrying + self._longest)
        kind = "text/html" if "<html" in text.lower() else ""
        answer = {"Code": code or status, "Message": _found(_MESSAGE, text), "Region": _found(_REGION, text)}
        facts = {"HTTPStatusCode": int(status or 0), "HTTPHeaders": {"content-type": kind}}
        told = translate({**answer, "ResponseMetadata": facts}, method, location, self.bucket, hide)
        tried = self._retrying if status >= "500" else 0.0
        return TransientError(told.error, tried=tried) if isinstance(told, TransientError) else told


class _Credentials:
    """What obstore asks. It does not hold the client, which holds what asks it: Python sees no circle through Rust."""

    def __init__(self, client: ObstoreClient) -> None:
        self._client = weakref.ref(client)

    def __call__(self) -> dict[str, Any]:
        client = self._client()
        if client is None:
            raise ReferenceError("the run that these credentials belong to was let go")
        return client.credentials()


class _Source:
    """The parts, and what went wrong where they come from."""

    def __init__(self, parts: Iterator[Buffer], ended: Callable[[], None]) -> None:
        self.failure: BaseException | None = None
        self._parts = parts
        self._ended = ended

    def __iter__(self) -> Iterator[Buffer]:
        return self

    def __next__(self) -> Buffer:
        try:
            return next(self._parts)
        except StopIteration:
            self._ended()
            raise
        except BaseException as error:
            self.failure = error
            raise


def _found(pattern: re.Pattern[str], text: str) -> str:
    match = pattern.search(text)
    return match[1] if match else ""
