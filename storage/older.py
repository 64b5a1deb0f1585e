"""Older: the object that parts of an upload are copied from, and what to think of a store that does not copy them.

A copy that fails never fails a save: its bytes are sent after all, by `transfer.py`.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Any, Protocol, TypeVar

from ..errors import (
    ConfigError,
    CredentialsError,
    KeepbestError,
    StorageError,
    StoragePermissionError,
    UnreachableError,
)
from .client import Client, Source
from .parts import Part

_log = logging.getLogger(__name__)

T = TypeVar("T")

_NO = {StorageError, ConfigError}
"""What stores say that do not know the request, or want parts to be otherwise: these very types."""


class Call(Protocol):
    """`Transfer.call`."""

    def __call__(self, request: Callable[[], T], *, small: bool = ...) -> T:
        """Send a request until it is answered."""


class NotCopiedError(Exception):
    """Bytes that nobody holds any more were not copied: the stream has to be gone through again. Never leaves storage.

    `error` is what the store said.
    """

    def __init__(self, error: KeepbestError) -> None:
        super().__init__(str(error))
        self.error = error


class Older:
    """An object, as it was when the first part was copied from it. Safe to use from several threads."""

    def __init__(self, client: Client, key: str, call: Call) -> None:
        self.failure: KeepbestError | None = None
        """Why nothing more is copied from it."""
        self.refused = False
        """Nor will be from another one: the store cannot do it, or may not."""
        self._client = client
        self._key = key
        self._call = call
        self._lock = threading.Lock()
        self._found: Source | None = None

    def copy(self, part: Part, key: str, upload: str, number: int) -> Any:
        """Copy a part; returns what `finish_upload` wants to know of it, or None: it has to be sent."""
        assert part.begin is not None
        span = part.begin, part.begin + part.nbytes
        return self._try(lambda source: self._client.copy_part(source, span, key, upload, number))

    def copy_whole(self, part: Part, key: str) -> bool:
        """Copy all of it in one request, if that is what the part is; says whether it was done."""

        def request(source: Source) -> bool:
            whole = (part.begin, part.nbytes) == (0, source.size)
            if whole:
                self._client.copy(source, key)
            return whole

        return bool(self._try(request))

    def spoils(self, error: KeepbestError) -> bool:
        """Say whether the store may not have taken an upload because parts of it are copies; then none are made again.

        Some want all parts to be of one size, others checksums that they do not tell.
        """
        if self._found is None or type(error) not in _NO:
            return False
        self._give_up(error)
        return True

    def _try(self, request: Callable[[Source], T]) -> T | None:
        if self.failure is not None:
            return None
        try:
            source = self._source()
            return self._call(lambda: request(source))
        except CredentialsError:
            raise
        except KeepbestError as error:
            if isinstance(error, UnreachableError) and not self._answers():
                raise
            self._give_up(error)
            return None

    def _answers(self) -> bool:
        """Say whether the store is there: then it is only too slow at copying, of which nothing is heard meanwhile."""
        try:
            self._call(lambda: self._client.source(self._key), small=True)
        except UnreachableError:
            return False
        except KeepbestError:
            return True
        return True

    def _source(self) -> Source:
        with self._lock:
            if self._found is None:
                self._found = self._call(lambda: self._client.source(self._key), small=True)
            return self._found

    def _give_up(self, error: KeepbestError) -> None:
        self.failure = error
        self.refused |= type(error) in {*_NO, StoragePermissionError, UnreachableError}
        _log.debug("bucket.not_copied key=%s reason=%s refused=%s", self._key, error, self.refused)
