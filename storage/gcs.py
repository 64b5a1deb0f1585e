"""GCS: the client for `gs://`, with the credentials and the endpoint that gcsfs finds.

The requests are ours, as gcsfs sends a large object through one connection, and caches listings: those of the JSON API
(https://cloud.google.com/storage/docs/json_api).

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
import urllib.parse
import uuid
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, TypeVar

from msgspec import Struct

from ..errors import (
    ConfigError,
    CredentialsError,
    KeepbestError,
    ObjectNotFoundError,
    UnexpectedAnswerError,
    UnreachableError,
)
from . import assembly, event_loop
from .assembly import Assembly
from .backend import Buffer, Entry
from .bucket import BucketBackend, no_secrets_in
from .client import Source, TransientError, Upload, receive
from .gcs_errors import answered, unanswered
from .gcs_service import Service, filesystem
from .layout import TEMPORARY_PREFIX
from .transfer import TransferSettings

T = TypeVar("T")

_SCHEMES = ("gs", "gcs")
_MADE_BY = "keepbest-upload"
"""The metadata by which an object that was composed tells of which upload: no reply may have come."""
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
    filesystem(clean, options)  # what is wrong with the options is said at once

    def connect(bucket: str) -> GcsClient:
        return GcsClient(scheme, bucket, Service(filesystem(clean, options), settings))

    return BucketBackend(clean, connect, settings, _SCHEMES)


class _Answer(Struct, frozen=True):
    status: int
    headers: Mapping[str, str]
    body: bytes


class GcsClient:
    """The requests of one bucket."""

    copy_limit: int | None = None
    part_limit = assembly.AT_ONCE**3

    def __init__(self, scheme: str, bucket: str, service: Service) -> None:
        self.url = f"{scheme}://{bucket}"
        self.bucket = bucket
        self._service = service
        self._assemblies: dict[str, Assembly] = {}
        """By upload, of those that are being finished."""

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
        """Compose, 32 at a time, then delete the components; what cannot be deleted is left to `gc`.

        Called again after a failure, it goes on where it was.
        """
        made = self._assemblies.setdefault(upload, Assembly(functools.partial(self._compose, upload), self._is_made))
        made.make(parts, key, upload)
        with contextlib.suppress(KeepbestError, TransientError):
            self.abort_upload(key, upload)

    def _compose(self, upload: str, sources: Sequence[str], target: str) -> None:
        request = {
            "sourceObjects": [{"name": name} for name in sources],
            "destination": {"contentType": "application/octet-stream", "metadata": {_MADE_BY: upload}},
        }
        path = f"{self._object(target)}/compose"
        needs = "storage.objects.create"
        self._ask("size", "POST", path, target, needs, {"fields": "size"}, body=request, slow=True)

    def _is_made(self, target: str, upload: str) -> bool:
        path, needs = self._object(target), "storage.objects.get"
        try:
            found = self._ask("name", "GET", path, target, needs, {"fields": "name,metadata"}, slow=True)
        except ObjectNotFoundError:
            return False
        return (found.get("metadata") or {}).get(_MADE_BY) == upload

    def abort_upload(self, key: str, upload: str) -> None:  # noqa: ARG002 - the upload says where
        """Delete the components."""
        self._assemblies.pop(upload, None)
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
        request = await self._request("GET", self._object(key), {"alt": "media"}, headers=wanted)
        async with request as answer:
            if answer.status == 416:  # noqa: PLR2004 - the object ends before the range
                return 0
            if answer.status != 206:  # noqa: PLR2004 - a part of it
                self._checked(_Answer(answer.status, answer.headers, await answer.read()), key, "storage.objects.get")
                raise UnexpectedAnswerError(f"{self.url}/{key}", "the whole object instead of a range")
            return await receive(answer.content.iter_any(), target, f"{self.url}/{key}")

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
