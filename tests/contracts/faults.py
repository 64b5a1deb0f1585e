"""Backends that go wrong: each wraps another, counts the calls, and at the n-th does what a bad day does."""

from __future__ import annotations

from collections import Counter

from keepbest.errors import StorageError
from keepbest.storage.backend import bytes_of


class Crash(BaseException):
    """The process was killed: nothing of ours runs after it."""


CHANGES = frozenset(
    (
        "put",
        "put_file",
        "put_if_absent",
        "replace",
        "delete",
        "recycle",
        "copy",
        "publish",
        "link",
        "append",
        "settle",
    )
)
"""The methods that change something."""

READS = ("read", "read_ranges", "read_link", "head", "list", "unfinished", "free_bytes")
METHODS = (*sorted(CHANGES), *READS, "scratch", "abort_stale")


class WrappedBackend:
    """Passes every call on to another backend, through `_call`."""

    def __init__(self, inner):
        self.inner = inner
        self.url = inner.url

    @property
    def capabilities(self):
        return self.inner.capabilities  # some are known only later

    def __getattr__(self, name):
        if name not in METHODS:
            raise AttributeError(name)
        return lambda *args, **kwargs: self._call(name, *args, **kwargs)

    def _call(self, name, *args, **kwargs):
        return getattr(self.inner, name)(*args, **kwargs)


class CountingBackend(WrappedBackend):
    """Counts the calls of each method, and remembers the keys that were read."""

    def __init__(self, inner):
        super().__init__(inner)
        self.calls = Counter()
        self.keys = []

    def _call(self, name, *args, **kwargs):
        self.calls[name] += 1
        if name in {"read", "read_ranges"}:
            self.keys.append(args[0])
        return super()._call(name, *args, **kwargs)


class CrashingBackend(WrappedBackend):
    """Is killed before, during or after the call with the number `at`; every later call is refused.

    During: a half of what the call does has happened, as far as a kill can leave it so.
    """

    def __init__(self, inner, at, moment):
        super().__init__(inner)
        self.at, self.moment = at, moment
        self.trace = []
        self._dead = False

    def _call(self, name, *args, **kwargs):
        if self._dead:
            raise Crash(name)
        self.trace.append((name, args[0] if args and isinstance(args[0], str) else None))
        if len(self.trace) - 1 != self.at:
            return super()._call(name, *args, **kwargs)
        self._dead = True
        if self.moment == "after":
            super()._call(name, *args, **kwargs)
        elif self.moment == "during":
            self._half(name, *args, **kwargs)
        raise Crash(name)

    def _half(self, name, *args, spare=None, **_):
        if name == "put":
            whole = b"".join(bytes_of(chunk) for chunk in args[1])
            self.inner.put(args[0], [whole[: len(whole) // 2]], spare=spare)
        elif name in {"put_if_absent", "replace"}:
            folder = args[0].rpartition("/")[0]
            temporary = ".tmp-0123456789abcdef0123456789abcdef"
            self.inner.put(f"{folder}/{temporary}" if folder else temporary, [args[1][: len(args[1]) // 2]])
        elif name == "delete":
            keys = list(args[0])
            self.inner.delete(keys[: len(keys) // 2])


class FailingBackend(WrappedBackend):
    """Raises StorageError once, before or after the effect of the changing call with the number `at`."""

    def __init__(self, inner, at, *, after):
        super().__init__(inner)
        self.at, self.after = at, after
        self.trace = []

    def _call(self, name, *args, **kwargs):
        if name not in CHANGES:
            return super()._call(name, *args, **kwargs)
        self.trace.append(name)
        failing = len(self.trace) - 1 == self.at
        if failing and not self.after:
            raise StorageError(self.url, "no answer (a test).")
        result = super()._call(name, *args, **kwargs)
        if failing:
            raise StorageError(self.url, "no answer (a test).")
        return result
