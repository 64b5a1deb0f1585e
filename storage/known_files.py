"""Known files: tensor files that this writer wrote itself, which the next save need not write again, or writes over.

Only what was written in this process counts: what an earlier one left may have been damaged since, and would be carried
on. The first save after a start is therefore a whole one.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections import defaultdict
from collections.abc import Iterable, Mapping

from ..errors import KeepbestError
from .backend import Backend
from .layout import data_key, data_prefix
from .manifest import Artifact

_LARGE = 1 << 20
"""Bytes from which it is worth to keep a file's blocks."""
_MOST = 2
"""So many spare files of one name are kept at most."""

KnownFile = tuple[str, Artifact]
"""A key, and what is there."""


class KnownFiles:
    """What one writer knows of its files. Safe to use from several threads.

    Spare files never take a run beyond what it took before: there are, of one name, at most as many as make up for
    what retention deleted since the run was largest.
    """

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._written: dict[str, Mapping[str, Artifact]] = {}
        """Of the checkpoint that is being written."""
        self._held: dict[str, Mapping[str, Artifact]] = {}
        """Name of a committed checkpoint → its files, the newest last."""
        self._leaving: dict[str, Mapping[str, Artifact]] = {}
        """Of those that are being retired."""
        self._most: dict[str, int] = defaultdict(int)
        """File → how many checkpoints had it at once."""
        self._spares: dict[str, list[KnownFile]] = defaultdict(list)
        self._lock = threading.Lock()
        self._process = os.getpid()

    def wrote(self, name: str, artifacts: Mapping[str, Artifact]) -> None:
        """Take note of what lies in a checkpoint that may yet be committed."""
        self._written = {name: artifacts}

    def committed(self, name: str) -> None:
        """Take note that a checkpoint is committed; one that was not written here is of no interest."""
        with self._lock:
            if name in self._written:
                self._held[name] = self._written.pop(name)
                for file in self._held[name]:
                    self._most[file] = max(self._most[file], self._count(file))

    def base(self, file: str) -> KnownFile | None:
        """Return the file of this name in the newest checkpoint that has it."""
        with self._lock:
            for name in reversed(self._held):
                if file in self._held[name]:
                    return data_key(name, file), self._held[name][file]
        return None

    def retiring(self, names: Iterable[str]) -> None:
        """Take note that these checkpoints are going: nothing new is made of their files."""
        with self._lock:
            self._leaving = {name: self._held.pop(name) for name in names if name in self._held}

    def recycle(self, name: str, keys: Iterable[str]) -> list[str]:
        """Keep files of a checkpoint whose commit is gone for good, as far as there is use for them; return the rest.

        Args:
            name: of one that was `retiring`.
            keys: of its files.
        """
        artifacts = self._leaving.pop(name, {})
        rest = []
        for key in keys:
            file = key.removeprefix(data_prefix(name))
            if file not in artifacts or not self._has_use(file, artifacts[file]):
                rest.append(key)
                continue
            spare = self._backend.recycle(key)
            if spare is not None:
                self.give_back(file, (spare, artifacts[file]))
        return rest

    def _has_use(self, file: str, artifact: Artifact) -> bool:
        with self._lock:
            room = min(_MOST, self._most[file] - self._count(file)) - len(self._spares.get(file, ()))
        return artifact.size >= _LARGE and room > 0 and self._backend.capabilities.recycles

    def take_spare(self, file: str) -> KnownFile | None:
        """Return a spare file that was called so; it is the caller's from now on."""
        with self._lock:
            spares = self._spares.get(file)
            return spares.pop() if spares else None

    def give_back(self, file: str, spare: KnownFile) -> None:
        """Keep a spare file that was not used."""
        with self._lock:
            self._spares[file].append(spare)

    def drop(self, spares: Iterable[KnownFile]) -> None:
        """Delete spare files; what cannot be deleted is left to `gc`."""
        with contextlib.suppress(KeepbestError):
            self._backend.delete([key for key, _ in spares])

    def drop_all(self) -> None:
        """Delete all spare files, unless this process is a child of the one they belong to."""
        if os.getpid() != self._process:
            return
        with self._lock:
            spares, self._spares = self._spares, defaultdict(list)
        going = [spare for found in spares.values() for spare in found]
        if going:
            self.drop(going)

    def _count(self, file: str) -> int:
        return sum(file in artifacts for artifacts in self._held.values())
