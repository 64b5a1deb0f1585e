"""Obstore client: S3 whose bulk bytes go through obstore, a client written in Rust, where that is installed.

Only what is long goes its way, streams of many parts and ranges: there it takes a half to a third of the processor time
of aiohttp. Conditions, listings, copies and whatever is short stay with s3fs, which also finds the credentials.
(obstore's own wrapper for fsspec is not used: it overwrites silently with mode="create".)
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Iterator, Mapping
from typing import Any

from ..errors import CredentialsError, KeepbestError, ObjectNotFoundError, StorageError, UnreachableError
from .backend import Buffer
from .client import TransientError
from .s3 import S3Client
from .s3_errors import translate
from .sockets import words
from .transfer import TransferSettings

_UNDERSTOOD = {"key", "secret", "token", "anon", "endpoint_url", "profile", "client_kwargs"}
_UNDERSTOOD_BY_CLIENT = {"region_name", "endpoint_url"}
_SLOWEST = 128 << 10
"""Bytes per second on one connection below which a request counts as stalled: its time includes sending the body."""
_FRESH = dt.timedelta(minutes=5)
_CODE = re.compile(r"<Code>(\w+)</Code>")
_MESSAGE = re.compile(r"<Message>([^<]*)</Message>")
_STATUS = re.compile(r"non-2xx status code: (\d{3})")


def understands(options: Mapping[str, Any]) -> bool:
    """Say whether obstore is installed and can do all that these options of s3fs ask for."""
    try:
        import obstore  # noqa: F401, PLC0415 - an extra
    except ImportError:
        return False
    return options.keys() <= _UNDERSTOOD and (options.get("client_kwargs") or {}).keys() <= _UNDERSTOOD_BY_CLIENT


class ObstoreClient(S3Client):
    """The requests of one bucket."""

    def __init__(self, scheme: str, bucket: str, filesystem: Any, settings: TransferSettings) -> None:
        super().__init__(scheme, bucket, filesystem)
        self._settings = settings
        self._held: Any = None

    def put_stream(self, key: str, parts: Iterator[Buffer]) -> None:
        """Send parts, with a window, a checksum and retries of obstore's own, and nothing copied on the way."""
        import obstore  # noqa: PLC0415 - an extra

        try:
            obstore.put(
                self._store(),
                key,
                self._counted(key, parts),
                use_multipart=True,
                chunk_size=self._settings.part_size,
                max_concurrency=self._settings.connections,
            )
        except obstore.exceptions.BaseError as error:
            raise self._told(error, "upload_part", key) from error

    def _counted(self, key: str, parts: Iterator[Buffer]) -> Iterator[Buffer]:
        size, most = 0, self._settings.part_size * self.part_limit
        for part in parts:
            size += len(part)
            if size > most:
                need = -(-size // self.part_limit)
                raise StorageError(
                    f"{self.url}/{key}",
                    f"it is larger than {self.part_limit:,} parts. Give storage_options={{'part_size': …}} of more "
                    f"than {need:,} bytes, or {{'client': 's3fs'}}, whose parts grow.",
                )
            yield part

    def get_into(self, key: str, begin: int, target: memoryview) -> int:
        """Read a range, and copy it into `target`."""
        import obstore  # noqa: PLC0415 - an extra

        try:
            found = obstore.get_range(self._store(), key, start=begin, end=begin + len(target))
        except Exception as error:
            if _STATUS.search(str(error)) and "416" in str(error):
                return 0  # the object ends before it
            raise self._told(error, "get_object", key) from error
        view = memoryview(found)
        target[: len(view)] = view
        return len(view)

    def _store(self) -> Any:
        if self._held is None:
            from obstore.store import S3Store  # noqa: PLC0415 - an extra

            meta = self._run("connect", "", self._fs.set_session()).meta
            idle = max(self._settings.deadline, self._settings.part_size / _SLOWEST)
            options: Any = {
                "allow_http": True,
                "connect_timeout": dt.timedelta(seconds=min(5.0, self._settings.idle)),
                "timeout": dt.timedelta(seconds=idle),
            }
            retry: Any = {
                "max_retries": 20,
                "retry_timeout": dt.timedelta(seconds=self._settings.deadline * 0.63),
                "backoff": {
                    "init_backoff": dt.timedelta(seconds=0.1),
                    "max_backoff": dt.timedelta(seconds=3),
                    "base": 2,
                },
            }
            identity = {"skip_signature": True} if self._fs.anon else {"credential_provider": self._credentials}
            self._held = S3Store(
                self.bucket,
                endpoint=meta.endpoint_url,
                region=meta.region_name or "us-east-1",
                virtual_hosted_style_request=False,
                client_options=options,
                retry_config=retry,
                **identity,
            )
        return self._held

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
        """Return our error; obstore has tried again by itself, so it is final."""
        text, location = str(error), f"{self.url}/{key}"
        code, status = _CODE.search(text), _STATUS.search(text)
        if isinstance(error, KeepbestError):
            return error
        if isinstance(error, FileNotFoundError) and code is None:
            return ObjectNotFoundError(location)
        if code or status:
            message = _MESSAGE.search(text)
            facts = {"Code": code[1] if code else status[1] if status else "", "Message": message[1] if message else ""}
            found = translate(facts, method, location, self.bucket)
        else:
            found = UnreachableError(location, f"the store cannot be reached ({words(error).splitlines()[0]})")
        return found.error if isinstance(found, TransientError) else found
