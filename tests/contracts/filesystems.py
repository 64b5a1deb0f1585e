"""Filesystems for fsspec, of the kinds there are: each under a scheme that only fsspec knows.

shelf   a local folder, `shelf:///path`
attic   memory, where what is written appears whole
depot   one of which nothing is known: an object store of the plainest kind, whose listings are cached
azure   memory that behaves as adlfs does
"""

from __future__ import annotations

import contextlib
import threading
import time

import fsspec
from fsspec import AbstractFileSystem
from fsspec.implementations.local import LocalFileSystem
from fsspec.implementations.memory import MemoryFileSystem
from fsspec.spec import AbstractBufferedFile


class Shelf(LocalFileSystem):
    """A local folder."""

    protocol = "shelf"

    @classmethod
    def _strip_protocol(cls, path):
        return super()._strip_protocol(path.removeprefix(f"{cls.protocol}://"))


class Attic(MemoryFileSystem):
    """Memory."""

    protocol = "attic"

    @classmethod
    def _strip_protocol(cls, path):
        return super()._strip_protocol(path.removeprefix(f"{cls.protocol}://"))

    def ls(self, path, **kwargs):
        while True:  # fsspec's own stumbles over what another thread deletes meanwhile
            with contextlib.suppress(KeyError):
                return super().ls(path, **kwargs)


class Azure(Attic):
    """What adlfs offers beyond fsspec: `overwrite=False`, decided by the store."""

    protocol = "azure"
    _creating = threading.Lock()

    def __init__(self, connection_timeout=None, read_timeout=None, **options):
        super().__init__(**options)
        self.timeouts = connection_timeout, read_timeout

    def pipe_file(self, path, value, mode="overwrite", *, overwrite=True):
        with self._creating:
            if not overwrite and self.isfile(path):
                raise FileExistsError(path)
            super().pipe_file(path, value, mode)


Azure.__module__, Azure.__qualname__ = "adlfs.spec", "AzureBlobFileSystem"  # by which its traits are found


class Depot(AbstractFileSystem):
    """Objects in a dict, by what every fsspec filesystem must have and nothing more."""

    protocol = "depot"
    objects: dict[str, tuple[bytes, float]] = {}  # noqa: RUF012 - one store for all instances
    made = 0
    """Instances so far."""

    def __init__(self, **options):
        super().__init__(**options)
        type(self).made += 1

    def ls(self, path, detail=True, **kwargs):  # noqa: FBT002 - fsspec's
        path = self._strip_protocol(path)
        if path not in self.dircache:
            inside = {}
            for name, (data, changed) in list(self.objects.items()):
                if name == path:
                    inside[name] = self._facts(name, data, changed)
                elif name.startswith(f"{path}/"):
                    child, deeper, _ = name[len(path) + 1 :].partition("/")
                    folder = {"name": f"{path}/{child}", "size": None, "type": "directory"}
                    inside[f"{path}/{child}"] = folder if deeper else self._facts(name, data, changed)
            if not inside:
                raise FileNotFoundError(path)
            self.dircache[path] = list(inside.values())
        return self.dircache[path] if detail else [found["name"] for found in self.dircache[path]]

    @staticmethod
    def _facts(name, data, changed):
        return {"name": name, "size": len(data), "type": "file", "LastModified": time.ctime(changed)}

    def invalidate_cache(self, path=None):
        self.dircache.clear()

    def _open(self, path, mode="rb", block_size=None, **kwargs):
        return _DepotFile(self, path, mode, block_size or 1 << 16)

    def cat_file(self, path, start=None, end=None, **kwargs):
        try:
            return self.objects[path][0][start:end]
        except KeyError:
            raise FileNotFoundError(path) from None

    def _rm(self, path):
        try:
            del self.objects[path]
        except KeyError:
            raise FileNotFoundError(path) from None


class _DepotFile(AbstractBufferedFile):
    """Its object appears when it is closed, or collected: the trap of fsspec."""

    def _initiate_upload(self):
        self.parts = []

    def _upload_chunk(self, final=False):  # noqa: FBT002 - fsspec's
        self.parts.append(self.buffer.getvalue())
        if final:
            self.fs.objects[self.path] = b"".join(self.parts), time.time()

    def discard(self):
        raise OSError("there is nothing to discard")


for kind in (Shelf, Attic, Azure, Depot):
    fsspec.register_implementation(kind.protocol, kind)
