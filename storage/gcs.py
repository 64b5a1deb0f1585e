"""GCS: the client for `gs://`, with the credentials and the endpoint that gcsfs finds.

gcsfs takes the options and finds and renews credentials. The requests are ours, as gcsfs sends a large object through
one connection, and caches listings: those of the JSON API (https://cloud.google.com/storage/docs/json_api).

An upload in parts is a parallel composite upload: each part is an object under a temporary name beside the one they
become; 32 of them make one, and they are deleted.
Source: https://cloud.google.com/storage/docs/parallel-composite-uploads
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import functools
import json
import os
import threading
import urllib.parse
import uuid
import weakref
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeVar

from ..errors import (
    ConfigError,
    CredentialsError,
    KeepbestError,
    ObjectNotFoundError,
    UnexpectedAnswerError,
    UnreachableError,
)
from . import event_loop, retry
from .backend import Buffer, Entry
from .bucket import BucketBackend, no_secrets_in
from .client import Source, TransientError, Upload
from .gcs_errors import answered, unanswered
from .layout import TEMPORARY_PREFIX
from .options import check_known
from .remote_errors import Secrets, text_of
from .sockets import Sockets, send_once
from .transfer import TransferSettings

T = TypeVar("T")

_SCHEMES = ("gs", "gcs")
_COMPOSED = 32
"""Objects that one compose request takes."""
_DELETES = 16
_SLICE = 256 << 10
_FACTS = "name,size,updated"


def open_backend(url: str, storage_options: Mapping[str, Any]) -> BucketBackend:
    """Return the backend for a `gs://` URL; nothing is contacted yet.

    Args:
        url: `gs://bucket/prefix`.
        storage_options: what `gcsfs.GCSFileSystem` takes (token, project, endpoint_url, requester_pays, session_kwargs,
            …), and the fields of `TransferSettings`.
    """
    settings, options = TransferSettings.split(storage_options)
    scheme, _, path = url.partition("://")
    bucket, _, prefix = path.partition("/")
    no_secrets_in(bucket, scheme)
    if not bucket:
        raise ConfigError(f"{url} names no bucket. Give gs://bucket/run.")
    clean = "/".join(part for part in (bucket, prefix.strip("/")) if part)
    scheme = _SCHEMES[0]  # one name for one place
    clean = f"{scheme}://{clean}"
    _filesystem(clean, options)  # what is wrong with the options is said at once

    def connect(bucket: str) -> GcsClient:
        return GcsClient(scheme, bucket, _Service(_filesystem(clean, options), settings))

    return BucketBackend(clean, connect, settings, _SCHEMES)


def _filesystem(url: str, options: Mapping[str, Any]) -> Any:
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
        raise ConfigError(f"storage_options do not fit gcsfs: {text_of(error, Secrets('', options).hide)}.") from None
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


@dataclass(frozen=True, slots=True)
class _Answer:
    status: int
    headers: Mapping[str, str]
    body: bytes


class _Service:
    """The HTTP session. Belongs to the event loop of fsspec."""

    def __init__(self, filesystem: Any, settings: TransferSettings) -> None:
        self.fs = filesystem
        self._settings = settings
        self._session: Any = None
        self._renewing = asyncio.Lock()

    async def session(self) -> Any:
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
        payer = self.fs.requester_pays
        if not payer:
            return {}
        return {"userProject": payer if isinstance(payer, str) else self.fs.project}

    @property
    def endpoint(self) -> str:
        location: str = self.fs._location  # noqa: SLF001 - argument, environment or Google's, as gcsfs decides
        return location.rstrip("/")


def _renew(credentials: Any, idle: float) -> None:
    from google.auth.transport.requests import Request  # noqa: PLC0415 - comes with gcsfs

    credentials.refresh(functools.partial(Request(), timeout=idle))  # gcsfs would wait for two minutes


def _close(loop: asyncio.AbstractEventLoop, session: Any) -> None:
    """Close a session, from whichever thread lets go of it, at exit too."""
    with contextlib.suppress(RuntimeError, TimeoutError):  # a loop that has stopped, or is stopping
        closing = asyncio.run_coroutine_threadsafe(session.close(), loop)
        if getattr(loop, "_thread_id", None) != threading.get_ident():
            closing.result(timeout=0.5)


class GcsClient:
    """The requests of one bucket."""

    copy_limit: int | None = None
    part_limit = _COMPOSED**3

    def __init__(self, scheme: str, bucket: str, service: _Service) -> None:
        self.url = f"{scheme}://{bucket}"
        self.bucket = bucket
        self._service = service

    @property
    def put_stream(self) -> Callable[[str, Iterator[Buffer]], None] | None:
        """None: parts are sent one by one."""
        return None

    def put(self, key: str, data: Buffer, *, if_absent: bool) -> None:
        """Insert, with ifGenerationMatch=0, and the CRC32C that the server shall find."""
        import google_crc32c  # noqa: PLC0415 - comes with gcsfs

        content = bytes(data)
        checksum = base64.b64encode(google_crc32c.value(content).to_bytes(4, "big")).decode()
        boundary = uuid.uuid4().hex
        facts = json.dumps({"name": key, "crc32c": checksum, "contentType": "application/octet-stream"})
        head = (
            f"--{boundary}\r\nContent-Type: application/json; charset=UTF-8\r\n\r\n{facts}\r\n"
            f"--{boundary}\r\nContent-Type: application/octet-stream\r\n\r\n"
        ).encode()
        tail = f"\r\n--{boundary}--\r\n".encode()
        condition = {"ifGenerationMatch": "0"} if if_absent else {}
        answer = self._ask(
            "crc32c",
            "POST",
            f"/upload/storage/v1/b/{_quote(self.bucket)}/o",
            key,
            "storage.objects.create",
            {"uploadType": "multipart", "fields": "crc32c", **condition},
            data=[head, content, tail],
            headers={
                "Content-Type": f"multipart/related; boundary={boundary}",
                "Content-Length": str(len(head) + len(content) + len(tail)),
            },
        )
        if answer["crc32c"] != checksum:  # a server that does not look at ours
            self.delete([key])
            raise TransientError(UnreachableError(f"{self.url}/{key}", "the bytes arrive altered"))

    def start_upload(self, key: str, *, copied: bool = False) -> str:  # noqa: ARG002 - no copy is made of parts
        """Choose where the parts go. Until they are sent there is nothing."""
        folder = key.rpartition("/")[0]
        return f"{folder}{'/' if folder else ''}{TEMPORARY_PREFIX}{uuid.uuid4().hex}/"

    def put_part(self, key: str, upload: str, number: int, data: Buffer) -> Any:  # noqa: ARG002 - the upload says where
        """Insert a component."""
        name = f"{upload}{number:06d}"
        self.put(name, data, if_absent=False)
        return name

    def finish_upload(self, key: str, upload: str, parts: Sequence[Any]) -> None:
        """Compose, 32 at a time, then delete the components; what cannot be deleted is left to `gc`."""
        level, names = 0, list(parts)
        while len(names) > _COMPOSED:
            groups = [names[begin : begin + _COMPOSED] for begin in range(0, len(names), _COMPOSED)]
            names = []
            for number, group in enumerate(groups):
                names.append(f"{upload}level-{level}-{number:06d}")
                self._compose(group, names[-1])
            level += 1
        self._compose(names, key)
        with contextlib.suppress(KeepbestError, TransientError):
            self.abort_upload(key, upload)

    def _compose(self, sources: Sequence[str], target: str) -> None:
        request = {
            "sourceObjects": [{"name": name} for name in sources],
            "destination": {"contentType": "application/octet-stream"},
        }
        path = f"{self._object(target)}/compose"
        needs = "storage.objects.create"
        self._ask("size", "POST", path, target, needs, {"fields": "size"}, body=request, slow=True)

    def abort_upload(self, key: str, upload: str) -> None:  # noqa: ARG002 - the upload says where
        """Delete the components."""
        start: str | None = None
        while True:
            page, start = self.list(upload, start)
            if page:
                self.delete([entry.key for entry in page])
            if start is None:
                return

    def uploads(self, prefix: str) -> list[Upload]:  # noqa: ARG002 - as the contract has it
        """Return none: components are objects with temporary names, which `gc` sees in the listing."""
        return []

    def get(self, key: str) -> bytes:
        """Get the media."""
        return self._call("GET", self._object(key), key, "storage.objects.get", {"alt": "media"}).body

    def get_into(self, key: str, begin: int, target: memoryview) -> int:
        """Get a range of the media; the bytes go from the socket's chunks into `target`."""
        return self._run(key, self._read_into(key, begin, target))

    def head(self, key: str) -> Entry:
        """Get the metadata."""
        return _entry(self._ask("size", "GET", self._object(key), key, "storage.objects.get", {"fields": _FACTS}))

    def source(self, key: str) -> Source:
        """Never asked for: no part can be copied out of an object."""
        raise NotImplementedError

    def list(self, prefix: str, start: str | None) -> tuple[Sequence[Entry], str | None]:
        """List."""
        begin = {} if start is None else {"pageToken": start}
        page = self._list(prefix, {"fields": f"kind,items({_FACTS}),nextPageToken", **begin})
        return [_entry(found) for found in page.get("items", ())], page.get("nextPageToken")

    def has_any(self, prefix: str) -> bool:
        """List one object."""
        return bool(self._list(prefix, {"maxResults": "1", "fields": "kind,items(name)"}).get("items"))

    def _list(self, prefix: str, parameters: Mapping[str, str]) -> Any:
        path = f"/storage/v1/b/{_quote(self.bucket)}/o"
        return self._ask("kind", "GET", path, prefix, "storage.objects.list", {"prefix": prefix, **parameters})

    def delete(self, keys: Sequence[str]) -> None:
        """Delete, several at a time."""

        async def all_of_them() -> None:
            gate = asyncio.Semaphore(_DELETES)
            await asyncio.gather(*(one(key, gate) for key in keys))

        async def one(key: str, gate: asyncio.Semaphore) -> None:
            async with gate:
                try:
                    await self._send("DELETE", self._object(key), key, "storage.objects.delete", {})
                except ObjectNotFoundError:
                    return

        self._run(keys[0], all_of_them())

    def copy(self, source: Source, key: str) -> None:
        """Rewrite, which copies any size in as many requests as the server likes."""
        origin = f"/storage/v1/b/{_quote(source.client.bucket)}/o/{_quote(source.key)}"
        path = f"{origin}/rewriteTo/b/{_quote(self.bucket)}/o/{_quote(key)}"
        token: dict[str, str] = {}
        while True:
            needs = "storage.objects.get of the source, or storage.objects.create of the target"
            answer = self._ask("done", "POST", path, source.key, needs, token, body={})
            if answer["done"]:
                return
            token = {"rewriteToken": answer["rewriteToken"]}

    def copy_part(self, source: Source, span: tuple[int, int], key: str, upload: str, number: int) -> Any:
        """Never asked for: `copy` takes any size."""
        raise NotImplementedError

    # ── the event loop of fsspec ──────────────────────────────────────────────────────────────────────────────────

    def _object(self, key: str) -> str:
        return f"/storage/v1/b/{_quote(self.bucket)}/o/{_quote(key)}"

    def _ask(self, name: str, method: str, path: str, key: str, *arguments: Any, **what: Any) -> Any:
        """Send a request whose answer is JSON, and has `name`; one without is not from GCS."""
        try:
            found = json.loads(self._call(method, path, key, *arguments, **what).body)
        except ValueError:
            found = None
        if not isinstance(found, dict) or name not in found:
            raise UnexpectedAnswerError(f"{self.url}/{key}".rstrip("/"), f"one without {name}")
        return found

    def _call(  # noqa: PLR0913 - an HTTP request has these parts
        self,
        method: str,
        path: str,
        key: str,
        needs: str,
        parameters: Mapping[str, str],
        *,
        body: Any = None,
        data: Sequence[bytes] | None = None,
        headers: Mapping[str, str] | None = None,
        slow: bool = False,
    ) -> _Answer:
        what = {"body": body, "data": data, "headers": headers, "slow": slow}
        return self._run(key, self._send(method, path, key, needs, parameters, **what))

    def _run(self, key: str, work: Coroutine[Any, Any, T]) -> T:
        try:
            return event_loop.run(self._service.fs.loop, work)
        except Exception as error:
            secrets = self._service.secrets()
            told = unanswered(error, f"{self.url}/{key}".rstrip("/"), secrets.hide)
            if isinstance(told, CredentialsError) or not secrets.show(error):
                raise told from None
            raise told from error

    async def _send(
        self,
        method: str,
        path: str,
        key: str,
        needs: str,
        parameters: Mapping[str, str],
        **what: Any,
    ) -> _Answer:
        async with await self._request(method, path, parameters, **what) as answer:
            content = await answer.read()
        return self._checked(_Answer(answer.status, answer.headers, content), key, needs)

    async def _request(  # noqa: PLR0913 - as above
        self,
        method: str,
        path: str,
        parameters: Mapping[str, str],
        *,
        body: Any = None,
        data: Sequence[bytes] | None = None,
        headers: Mapping[str, str] | None = None,
        slow: bool = False,
    ) -> Any:
        import yarl  # noqa: PLC0415 - comes with gcsfs

        session = await self._service.session()
        query = urllib.parse.urlencode({**self._service.parameters(), **parameters})
        url = yarl.URL(f"{self._service.endpoint}{path}?{query}", encoded=True)
        return session.request(
            method,
            url,
            json=body,
            data=None if data is None else _stream(data),
            headers={**await self._service.headers(), **(headers or {})},
            timeout=self._service.timeout(slow=slow),
        )

    async def _read_into(self, key: str, begin: int, target: memoryview) -> int:
        wanted = {"Range": f"bytes={begin}-{begin + len(target) - 1}"}
        position = 0
        request = await self._request("GET", self._object(key), {"alt": "media"}, headers=wanted)
        async with request as answer:
            if answer.status == 416:  # noqa: PLR2004 - the object ends before the range
                return 0
            if answer.status != 206:  # noqa: PLR2004 - a part of it
                self._checked(_Answer(answer.status, answer.headers, await answer.read()), key, "storage.objects.get")
                raise UnexpectedAnswerError(f"{self.url}/{key}", "the whole object instead of a range")
            async for chunk in answer.content.iter_any():
                if position + len(chunk) > len(target):
                    raise UnexpectedAnswerError(f"{self.url}/{key}", "longer than the range that was asked for")
                target[position : position + len(chunk)] = chunk
                position += len(chunk)
        return position

    def _checked(self, answer: _Answer, key: str, needs: str) -> _Answer:
        location, hide = f"{self.url}/{key}".rstrip("/"), self._service.secrets().hide
        failed = answered(answer.status, answer.headers, answer.body, location, self.bucket, needs, hide)
        if failed is not None:
            raise failed
        return answer


async def _stream(pieces: Sequence[bytes]) -> AsyncIterator[memoryview]:
    """Yield pieces little by little, so that other requests are served in between."""
    for piece in pieces:
        view = memoryview(piece)
        for begin in range(0, len(view), _SLICE):
            yield view[begin : begin + _SLICE]


def _quote(name: str) -> str:
    return urllib.parse.quote(name, safe="")


def _entry(found: Mapping[str, Any]) -> Entry:
    changed = datetime.fromisoformat(found["updated"]).timestamp()
    return Entry(key=found["name"], size=int(found["size"]), modified=changed)
