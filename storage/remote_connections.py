"""Remote connections: the instances of a filesystem, lent for one call at a time, and made anew where one is lost.

Most filesystems of fsspec hold one connection that takes one request at a time; the asynchronous ones may be shared.
What they raise is translated here, and nowhere else.
"""

from __future__ import annotations

import contextlib
import os
import weakref
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

from ..errors import BucketNotFoundError, ConfigError, ObjectNotFoundError, UnreachableError
from .remote_errors import Secrets, text_of, translate
from .remote_traits import Traits
from .transfer import TransferSettings

T = TypeVar("T")

_IDLE = 8
"""Connections that wait for the next call; those beyond are closed."""

_OF_PARENTS: list[Any] = []
"""Those of a process that this one was forked off. Were they closed or collected here, the parent's would be, too."""


class Connections:
    """Makes and lends instances of one filesystem. May be used by any thread, and in a process that was forked."""

    def __init__(
        self, kind: Any, options: Mapping[str, Any], traits: Traits, settings: TransferSettings, secrets: Secrets
    ) -> None:
        """Make none yet.

        Args:
            kind: the filesystem's class.
            options: what it is made with.
            traits: how it is set up and let go of.
            settings: when a server that hangs is given up.
            secrets: what no error may show.
        """
        self._kind = kind
        self._options = options
        self._traits = traits
        self._settings = settings
        self._secrets = secrets
        self._shared = bool(kind.async_impl)
        self._lost = False
        """One has failed: the shared ones that fsspec remembers are not to be trusted."""
        self._begin()

    def call(self, location: str, action: str, work: Callable[[Any], T]) -> T:
        """Do something that can be done twice: if the connection is lost, once more with a new one.

        Args:
            location: URL of the object, for errors.
            action: what is done, as in "cannot write".
            work: takes the filesystem.
        """
        with contextlib.suppress(UnreachableError), self.lent(location, action) as fs:
            return work(fs)
        with self.lent(location, action) as fs:
            return work(fs)

    @contextlib.contextmanager
    def lent(self, location: str, action: str) -> Iterator[Any]:
        """Lend a filesystem to the block, and translate what it raises."""
        fs = None
        try:
            fs = self._take()
            yield fs
        except Exception as error:
            translated = translate(error, location, action, self._secrets)
            if action == "write" and isinstance(translated, ObjectNotFoundError) and not self._traits.folders:
                translated = BucketNotFoundError(location, location.partition("://")[2].partition("/")[0])
            if isinstance(translated, UnreachableError):
                self._lose(fs)
            else:
                self._give_back(fs)
            if translated is error:
                raise
            raise translated from (error if self._secrets.show(error) else None)
        except BaseException:  # in the middle of a request, perhaps
            self._lose(fs)
            raise
        else:
            self._give_back(fs)

    def _begin(self) -> None:
        self._owner = os.getpid()
        self._idle: deque[Any] = deque()
        weakref.finalize(self, _close_all, self._idle, self._traits.close, self._owner)

    def _take(self) -> Any:
        if self._owner != os.getpid():
            _OF_PARENTS.append(self._idle)
            self._begin()
        try:
            return self._idle[-1] if self._shared else self._idle.pop()
        except IndexError:
            made = self._make()
        if self._shared:
            self._idle.append(made)
        return made

    def _make(self) -> Any:
        options = self._traits.options(self._options, self._settings)
        # A connection of one's own cannot be shared with other users of fsspec; those that can are made once.
        options["skip_instance_cache"] = self._lost or not self._shared
        try:
            fs = self._kind(**options)
        except (TypeError, ValueError, ImportError) as error:
            said = text_of(error, self._secrets.hide)
            raise ConfigError(f"the URL and the storage_options do not fit {self._kind.__name__}: {said}.") from (
                error if self._secrets.show(error) else None
            )
        self._traits.opened(fs, self._settings)
        return fs

    def _give_back(self, fs: Any) -> None:
        if fs is None or self._shared:
            return
        if len(self._idle) < _IDLE:
            self._idle.append(fs)
        else:
            self._close(fs)

    def _lose(self, fs: Any) -> None:
        """Let go of one that does not work any more; those that wait have probably been lost with it."""
        self._lost = True
        self._close(fs)
        while self._idle:
            with contextlib.suppress(IndexError):
                self._close(self._idle.pop())

    def _close(self, fs: Any) -> None:
        with contextlib.suppress(Exception):
            self._traits.close(fs)


def _close_all(idle: deque[Any], close: Callable[[Any], None], owner: int) -> None:
    while idle and owner == os.getpid():
        with contextlib.suppress(Exception):
            close(idle.pop())
