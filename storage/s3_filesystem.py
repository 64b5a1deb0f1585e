"""S3 filesystem: the one of s3fs that the requests to a bucket go through, as keepbest needs it.

It finds credentials, endpoint and region. What differs from s3fs' own: requests are sent once, by sockets that notice a
dead peer; times are read fast; and nobody waits for it to close.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from ..errors import ConfigError
from .event_loop import close_behind
from .options import check_known
from .remote_errors import Secrets, text_of
from .sockets import Sockets, send_once
from .transfer import TransferSettings

_SESSION = ("profile", "session_vars", "event_hooks", "include_builtin_handlers")
"""What s3fs hands on to the session of aiobotocore."""


def filesystem(options: Mapping[str, Any], settings: TransferSettings) -> Any:
    """Return a new filesystem; nothing is contacted yet.

    Raises:
        ConfigError: s3fs is not installed, or the options do not fit it.
    """
    try:
        import s3fs  # noqa: PLC0415 - an extra, and half a second to import
    except ImportError as error:
        raise ConfigError("s3:// needs s3fs. Install it: pip install 'keepbest[s3]'.") from error
    config = {
        "max_pool_connections": settings.connections + 4,
        "retries": {"total_max_attempts": 1},  # ours, with a deadline
        "connect_timeout": min(5.0, settings.idle),
        "read_timeout": settings.idle,
        "response_checksum_validation": "when_required",  # every byte is checked against the manifest
        "http_session_cls": _session_class(),
        **_connector({"socket_factory": Sockets(settings.idle)}),
    }
    check_known(s3fs.S3FileSystem, options, _SESSION)
    asked = {"skip_instance_cache": True, **options}  # the one of before has the credentials of before
    config |= asked.pop("config_kwargs", None) or {}
    try:
        if "session" not in asked:
            asked["session"] = _session({name: asked.pop(name) for name in _SESSION if name in asked})
        return _filesystem_class()(**asked, config_kwargs=config)
    except (TypeError, KeyError, ValueError) as error:
        raise ConfigError(
            f"storage_options do not fit s3fs: {text_of(error, Secrets('', options).hide)}. Correct that one, "
            "or leave it out; docs/buckets.md says what there is."
        ) from None


def _session(options: Mapping[str, Any]) -> Any:
    """Return a session that knows the services already, which is most of what a new client takes, and reads times fast.

    botocore guesses how a time is written: that is three quarters of what a page of a listing takes (80 ms of 106).
    """
    from aiobotocore.session import AioSession  # noqa: PLC0415 - comes with s3fs
    from botocore.exceptions import ProfileNotFound  # noqa: PLC0415 - likewise

    made = AioSession(**options)
    with contextlib.suppress(ProfileNotFound):  # said with the first request, as everything about credentials
        made.register_component("data_loader", _loader(made.get_config_variable("data_path")))
    made.get_component("response_parser_factory").set_parser_defaults(timestamp_parser=_time)
    return made


def _time(value: Any) -> datetime:
    """Read a time of an answer: as S3 writes it in its XML, or in any other way."""
    try:
        return datetime.fromisoformat(value)
    except (TypeError, ValueError):
        from botocore.utils import parse_timestamp  # noqa: PLC0415 - comes with s3fs

        found: datetime = parse_timestamp(value)
        return found


@functools.cache
def _loader(data_path: str | None) -> Any:
    from botocore.loaders import create_loader  # noqa: PLC0415 - comes with s3fs

    return create_loader(data_path)


@functools.cache
def _session_class() -> Any:
    from aiobotocore.httpsession import AIOHTTPSession  # noqa: PLC0415 - comes with s3fs

    class Session(AIOHTTPSession):  # type: ignore[misc]
        async def _get_session(self, *arguments: Any) -> Any:
            session = await super()._get_session(*arguments)
            send_once(session)
            return session

    return Session


def _connector(arguments: Mapping[str, Any]) -> Mapping[str, Any]:
    from aiobotocore.config import AioConfig  # noqa: PLC0415 - comes with s3fs
    from botocore.exceptions import ParamValidationError  # noqa: PLC0415 - likewise

    try:
        AioConfig(connector_args=dict(arguments))
    except ParamValidationError:  # an older one, that lets nobody make its sockets
        return {}
    return {"connector_args": arguments}


@functools.cache
def _filesystem_class() -> Any:
    import s3fs  # noqa: PLC0415 - an extra, as above

    class FileSystem(s3fs.S3FileSystem):  # type: ignore[misc]
        @staticmethod
        def close_session(loop: asyncio.AbstractEventLoop | None, s3: Any) -> None:
            """Close behind whoever collects this one. s3fs waits for the loop, a second for each."""
            if loop is None or not close_behind(loop, functools.partial(s3.__aexit__, None, None, None)):
                s3fs.S3FileSystem.close_session(loop, s3)

    return FileSystem
