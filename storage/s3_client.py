"""S3 client: the requests of a bucket at Amazon, or at whatever speaks its protocol, on the connection that s3fs makes.

The requests go to the aiobotocore client of s3fs directly: its own copy the data more often, retry whole objects, and
cache listings.
"""

from __future__ import annotations

import base64
import os
import time
import zlib
from collections.abc import Callable, Coroutine, Iterator, Sequence
from datetime import datetime
from typing import Any, NoReturn, TypeVar

from ..errors import CredentialsError, ObjectNotFoundError, StorageError, UnexpectedAnswerError
from . import event_loop
from .backend import Buffer, Entry
from .client import Source, Upload, receive
from .remote_errors import Secrets
from .s3_errors import translate

T = TypeVar("T")

_READ = 1 << 20
_MARKS = ("KeyMarker", "UploadIdMarker")
"""Where the next page of a listing of uploads begins; the answers have them with "Next" in front."""
_PART = ("ETag", "ChecksumCRC32")
"""What is told of a part that was copied, and has to be told of it in the end."""
_ENDPOINTS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")
_ENVIRONMENT = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")


class S3Client:
    """The requests of one bucket."""

    copy_limit: int | None = 256 << 20  # S3 takes 5 GiB, but who copies the bytes says nothing until all are copied
    part_limit = 10_000

    def __init__(self, scheme: str, bucket: str, filesystem: Any) -> None:
        self.url = f"{scheme}://{bucket}"
        self.bucket = bucket
        self._fs = filesystem
        self._prepared: Any = None

    @property
    def put_stream(self) -> Callable[[str, Iterator[Buffer]], None] | None:
        """None: parts are sent one by one."""
        return None

    def put(self, key: str, data: Buffer, *, if_absent: bool) -> None:
        """PutObject, with If-None-Match."""
        condition = {"IfNoneMatch": "*"} if if_absent else {}
        checksum = _crc32(data)
        answer = self._call("put_object", key, Key=key, Body=bytes(data), ChecksumCRC32=checksum, **condition)
        self._expect(answer, "ETag", key)

    def start_upload(self, key: str, *, copied: bool = False) -> str:
        """CreateMultipartUpload; with checksums, unless nobody here knows them."""
        checksum = {} if copied else {"ChecksumAlgorithm": "CRC32"}
        answer = self._call("create_multipart_upload", key, Key=key, **checksum)
        return str(self._expect(answer, "UploadId", key))

    def put_part(self, key: str, upload: str, number: int, data: Buffer) -> Any:
        """UploadPart."""
        checksum = _crc32(data)
        answer = self._call(
            "upload_part", key, Key=key, UploadId=upload, PartNumber=number, Body=bytes(data), ChecksumCRC32=checksum
        )
        tag = {"PartNumber": number, "ETag": self._expect(answer, "ETag", key)}
        return tag | ({"ChecksumCRC32": checksum} if "ChecksumCRC32" in answer else {})

    def finish_upload(self, key: str, upload: str, parts: Sequence[Any]) -> None:
        """CompleteMultipartUpload."""
        answer = self._call(
            "complete_multipart_upload", key, Key=key, UploadId=upload, MultipartUpload={"Parts": list(parts)}
        )
        self._expect(answer, "ETag", key)

    def abort_upload(self, key: str, upload: str) -> None:
        """AbortMultipartUpload."""
        try:
            self._call("abort_multipart_upload", key, Key=key, UploadId=upload)
        except ObjectNotFoundError:  # finished or aborted already
            return

    def uploads(self, prefix: str) -> list[Upload]:
        """ListMultipartUploads."""
        found: list[Upload] = []
        start: dict[str, Any] = {}
        while True:
            page = self._page("list_multipart_uploads", prefix, **start)
            found += [
                Upload(key=upload["Key"], id=upload["UploadId"], started=_moment(upload.get("Initiated")))
                for upload in page.get("Uploads", ())
            ]
            if not page.get("IsTruncated"):
                return found
            start = {name: page[f"Next{name}"] for name in _MARKS if page.get(f"Next{name}")}

    def get(self, key: str) -> bytes:
        """GetObject."""
        return self._run("get_object", key, self._read(key))

    def get_into(self, key: str, begin: int, target: memoryview) -> int:
        """GetObject with a range; the bytes go from the socket's chunks into `target`."""
        return self._run("get_object", key, self._read_into(key, begin, target))

    def head(self, key: str) -> Entry:
        """HeadObject."""
        answer = self._head(key)
        return Entry(key=key, size=answer["ContentLength"], modified=_moment(answer.get("LastModified")))

    def source(self, key: str) -> Source:
        """HeadObject, for the ETag."""
        answer = self._head(key)
        return Source(self, key, size=answer["ContentLength"], tag=answer["ETag"])

    def _head(self, key: str) -> Any:
        try:
            answer = self._call("head_object", key, Key=key)
        except ObjectNotFoundError:
            raise
        except StorageError:
            self._run("get_object", key, self._read_into(key, 0, memoryview(bytearray(1))))  # it can say what is wrong
            raise
        self._expect(answer, "ETag", key)
        return answer

    def list(self, prefix: str, start: str | None) -> tuple[Sequence[Entry], str | None]:
        """ListObjectsV2."""
        page = self._page("list_objects_v2", prefix, **({} if start is None else {"ContinuationToken": start}))
        entries = [
            Entry(key=found["Key"], size=found["Size"], modified=_moment(found.get("LastModified")))
            for found in page.get("Contents", ())
        ]
        return entries, page["NextContinuationToken"] if page.get("IsTruncated") else None

    def has_any(self, prefix: str) -> bool:
        """ListObjectsV2 of one key."""
        return bool(self._page("list_objects_v2", prefix, MaxKeys=1).get("Contents"))

    def delete(self, keys: Sequence[str]) -> None:
        """DeleteObjects, or DeleteObject for one."""
        if len(keys) == 1:
            self._call("delete_object", keys[0], Key=keys[0])
            return
        objects = {"Objects": [{"Key": key} for key in keys], "Quiet": True}
        answer = self._call("delete_objects", keys[0], Delete=objects)
        for failed in answer.get("Errors", ()):
            if failed.get("Code") not in {"NoSuchKey", "NoSuchVersion"}:
                location = f"{self.url}/{failed.get('Key', '')}"
                raise translate(failed, "delete_objects", location, self.bucket, self._secrets().hide)

    def copy(self, source: Source, key: str) -> None:
        """CopyObject."""
        answer = self._call("copy_object", source.key, Key=key, **_origin(source))
        self._expect(answer, "CopyObjectResult", source.key)

    def copy_part(self, source: Source, span: tuple[int, int], key: str, upload: str, number: int) -> Any:
        """UploadPartCopy."""
        answer = self._call(
            "upload_part_copy",
            source.key,
            Key=key,
            UploadId=upload,
            PartNumber=number,
            CopySourceRange=f"bytes={span[0]}-{span[1] - 1}",
            **_origin(source),
        )
        result = self._expect(answer, "CopyPartResult", source.key)
        self._expect(result, "ETag", source.key)
        return {"PartNumber": number} | {name: result[name] for name in _PART if name in result}

    # ── the event loop of fsspec ──────────────────────────────────────────────────────────────────────────────────

    def _call(self, method: str, key: str, **parameters: Any) -> Any:
        answer = self._run(method, key, self._send(method, **parameters))
        if "html" in _content_type(answer):
            self._refuse(answer, key, method)
        return answer

    def _page(self, method: str, prefix: str, **parameters: Any) -> Any:
        page = self._call(method, prefix, Prefix=prefix, **parameters)
        if not page.keys() & {"IsTruncated", "MaxKeys", "MaxUploads", "Name", "Bucket"}:
            self._refuse(page, prefix, "a listing")  # and none of an empty bucket
        return page

    def _run(self, method: str, key: str, work: Coroutine[Any, Any, T]) -> T:
        try:
            return event_loop.run(self._fs.loop, work)
        except Exception as error:
            secrets = self._secrets()
            told = translate(error, method, f"{self.url}/{key}".rstrip("/"), self.bucket, secrets.hide)
            if isinstance(told, CredentialsError) or not secrets.show(error):
                raise told from None
            raise told from error

    def _secrets(self) -> Secrets:
        """Return what must not be shown: from the options, the environment, and what the session found elsewhere."""
        held = getattr(self._fs.session, "_credentials", None)
        found = [os.environ.get(name, "") for name in _ENVIRONMENT]
        options = {**self._fs.storage_options, "secrets": found, "held": {} if held is None else vars(held)}
        return Secrets(self._endpoint(), options)

    def _endpoint(self) -> str:
        """Return where the store is, as it was given, or nothing if it is Amazon's."""
        given = (self._fs.endpoint_url, (self._fs.client_kwargs or {}).get("endpoint_url"))
        found = (*given, *(os.environ.get(name) for name in _ENDPOINTS))
        return next((str(endpoint) for endpoint in found if endpoint), "")

    async def _send(self, method: str, **parameters: Any) -> Any:
        client = await self._fs.set_session()
        if client is not self._prepared:
            client.meta.events.register("before-send.s3", _send_at_once, unique_id="keepbest")
            self._prepared = client
        return await getattr(client, method)(Bucket=self.bucket, **self._extras(client, method), **parameters)

    def _extras(self, client: Any, method: str) -> dict[str, Any]:
        """Return those of the user's `s3_additional_kwargs` (encryption, ACL) that this method takes."""
        asked = dict(self._fs.s3_additional_kwargs or {})
        if self._fs.req_kw:
            asked |= self._fs.req_kw
        if not asked:
            return asked
        shape = client.meta.service_model.operation_model(client.meta.method_to_api_mapping[method]).input_shape
        return {name: value for name, value in asked.items() if name in shape.members}

    async def _read(self, key: str) -> bytes:
        answer = await self._send("get_object", Key=key)
        async with answer["Body"] as body:
            self._expect(answer, "ETag", key)
            data: bytes = await body.read()
        return data

    async def _read_into(self, key: str, begin: int, target: memoryview) -> int:
        try:
            answer = await self._send("get_object", Key=key, Range=f"bytes={begin}-{begin + len(target) - 1}")
        except Exception as error:
            if getattr(error, "response", {}).get("Error", {}).get("Code") in {"InvalidRange", "416"}:
                return 0  # the object ends before it
            raise
        async with answer["Body"] as body:
            if not str(self._expect(answer, "ContentRange", key)).startswith(f"bytes {begin}-"):
                raise UnexpectedAnswerError(f"{self.url}/{key}", "another range than the one asked for")
            return await receive(body.iter_chunks(_READ), target, f"{self.url}/{key}")

    def _expect(self, answer: Any, name: str, key: str) -> Any:
        """Return what every answer of the kind has; one without it is not from an S3."""
        if answer.get(name) is None:
            self._refuse(answer, key, name)
        return answer[name]

    def _refuse(self, answer: Any, key: str, name: str) -> NoReturn:
        what = "a web page" if "html" in _content_type(answer) else f"one without {name}"
        raise UnexpectedAnswerError(f"{self.url}/{key}".rstrip("/"), what)


def _send_at_once(request: Any, **_: Any) -> None:
    """Send the body without asking first whether it may come: aiohttp waits for the answer to that for ever."""
    request.headers.pop("Expect", None)


def _content_type(answer: Any) -> str:
    found: str = answer.get("ResponseMetadata", {}).get("HTTPHeaders", {}).get("content-type", "")
    return found


def _moment(found: datetime | None) -> float:
    """Return a time as seconds since 1970; that of what has none is now: nothing is collected that may be new."""
    return time.time() if found is None else found.timestamp()


def _origin(source: Source) -> dict[str, Any]:
    """Return what to copy, by If-Match where it has to be what it was."""
    condition = {} if source.tag is None else {"CopySourceIfMatch": source.tag}
    return {"CopySource": {"Bucket": source.client.bucket, "Key": source.key}, **condition}


def _crc32(data: Buffer) -> str:
    return base64.b64encode(zlib.crc32(data).to_bytes(4, "big")).decode()
