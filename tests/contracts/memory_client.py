"""A bucket in memory, as a `Client`: it counts what is asked, and fails or waits where a test says so."""

from __future__ import annotations

import hashlib
import threading
import time
from collections import Counter
from dataclasses import dataclass, field

from keepbest.errors import ObjectExistsError, ObjectNotFoundError
from keepbest.storage.backend import Entry
from keepbest.storage.client import Source, Upload


@dataclass
class MemoryClient:
    """Safe to use from several threads; requests of one kind can be made to wait, or to fail."""

    url: str = "mem://bucket"
    bucket: str = "bucket"
    copy_limit: int | None = None
    part_limit: int = 10_000
    put_stream: None = None
    page: int = 1000
    """Entries of one page of a listing."""
    before: object = lambda what, key: None
    """Called with the kind of each request and its key before it has an effect: may wait, and may raise."""
    after: object = lambda what, key: None
    """The same when it had its effect."""
    objects: dict = field(default_factory=dict)
    parts: dict = field(default_factory=dict)
    """Upload → number → bytes."""
    asked: Counter = field(default_factory=Counter)
    at_once: int = 0
    most_at_once: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def _request(self, what, key, effect):
        with self.lock:
            self.asked[what] += 1
            self.at_once += what == "put_part"
            self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            self.before(what, key)
            with self.lock:
                found = effect()
            self.after(what, key)
            return found
        finally:
            with self.lock:
                self.at_once -= what == "put_part"

    def _held(self, key):
        if key not in self.objects:
            raise ObjectNotFoundError(f"{self.url}/{key}")
        return self.objects[key]

    def put(self, key, data, *, if_absent):
        def effect():
            if if_absent and key in self.objects:
                raise ObjectExistsError(f"{self.url}/{key}")
            self.objects[key] = bytes(data)

        self._request("put", key, effect)

    def start_upload(self, key, *, copied=False):
        def effect():
            upload = f"{key}#{len(self.parts)}"
            self.parts[upload] = {}
            return upload

        return self._request("start_upload", key, effect)

    def put_part(self, key, upload, number, data):
        self._request("put_part", f"{key}:{number}", lambda: self.parts[upload].__setitem__(number, bytes(data)))
        return number

    def finish_upload(self, key, upload, parts):
        def effect():
            if upload not in self.parts:
                raise ObjectNotFoundError(f"{self.url}/{key}")
            held = self.parts.pop(upload)
            assert list(parts) == sorted(held)
            self.objects[key] = b"".join(held[number] for number in parts)

        self._request("finish_upload", key, effect)

    def abort_upload(self, key, upload):
        self._request("abort_upload", key, lambda: self.parts.pop(upload, None))

    def uploads(self, prefix):
        return [
            Upload(key=name.partition("#")[0], id=name, started=time.time())
            for name in self.parts
            if name.startswith(prefix)
        ]

    def get(self, key):
        return self._request("get", key, lambda: self._held(key))

    def get_into(self, key, begin, target):
        def effect():
            data = self._held(key)[begin : begin + len(target)]
            target[: len(data)] = data
            return len(data)

        return self._request("get_into", f"{key}:{begin}+{len(target)}", effect)

    def head(self, key):
        return self._request("head", key, lambda: Entry(key=key, size=len(self._held(key)), modified=0.0))

    def source(self, key):
        def effect():
            data = self._held(key)
            return Source(self, key, size=len(data), tag=_tag(data))

        return self._request("source", key, effect)

    def _copied(self, source):
        data = source.client._held(source.key)
        if source.tag not in {None, _tag(data)}:
            raise ObjectExistsError(f"{self.url}/{source.key}")
        return data

    def list(self, prefix, start):
        def effect():
            names = sorted(name for name in self.objects if name.startswith(prefix))
            begin = int(start or 0)
            entries = [Entry(key=name, size=len(self.objects[name]), modified=0.0) for name in names]
            more = begin + self.page < len(names)
            return entries[begin : begin + self.page], str(begin + self.page) if more else None

        return self._request("list", f"{prefix}@{start}", effect)

    def has_any(self, prefix):
        return any(name.startswith(prefix) for name in self.objects)

    def delete(self, keys):
        self._request("delete", keys[0], lambda: [self.objects.pop(key, None) for key in keys])

    def copy(self, source, key):
        self._request("copy", key, lambda: self.objects.__setitem__(key, self._copied(source)))

    def copy_part(self, source, span, key, upload, number):
        def effect():
            self.parts[upload][number] = self._copied(source)[slice(*span)]
            return number

        return self._request("copy_part", f"{key}:{number}", effect)


def _tag(data):
    return hashlib.md5(data).hexdigest()
