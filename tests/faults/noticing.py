"""Noticing: small checks by which the suite notices a mutation; each returns what was harmed, if anything was."""

from __future__ import annotations

import contextlib
import itertools
import os
import uuid
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from contracts.faults import Crash, CrashingBackend, FailingBackend, WrappedBackend
from contracts.memory_client import MemoryClient
from contracts.runs import SmallRun, same, weights

from keepbest.errors import KeepbestError, StorageError
from keepbest.storage.backend import Backend, open_backend
from keepbest.storage.layout import commit_key, data_key
from keepbest.storage.run import Run
from keepbest.storage.transfer import Transfer, TransferSettings

MIB = 1 << 20
SETTINGS = {"part_size": 5 * MIB, "connections": 2, "deadline": 4.0}


def _memory() -> Backend:
    return open_backend(f"memory://noticing-{uuid.uuid4().hex}")


def _whole(backend: Backend) -> Iterator[str]:
    report = Run(backend).verify()
    if not report.ok:
        yield f"torn: {report}"
        return
    for found in Run(backend).checkpoints():
        if not same(found.load("model"), weights(found.sequence)):
            yield f"torn: {found.name}"


def kill(folder: Path) -> Iterator[str]:
    """Kill a save and a retirement before, during and after each call."""
    for moment in ("before", "during", "after"):
        for at in itertools.count():
            backend = _memory()
            run = SmallRun(backend)
            older = {run.save(0.5 + number).name for number in range(3)}
            gone = run.writer.checkpoints[1].name
            crashing = CrashingBackend(backend, at, moment)
            try:
                second = SmallRun(crashing)
                second.save(0.1)
                second.writer.retire([2])
            except Crash:
                Late.waiting.clear()  # it was in the memory of who was killed
            else:
                break
            yield from _whole(backend)
            if lost := older - {gone} - {found.name for found in Run(backend).checkpoints()}:
                yield f"lost: {lost}"
            SmallRun(backend).save(0.01)
            Run(backend).gc(grace=0)
            yield from _whole(backend)


def two_writers(folder: Path) -> Iterator[str]:
    """Let two writers commit under one number."""
    backend = _memory()
    SmallRun(backend).save()
    first, second = SmallRun(backend), SmallRun(backend)
    saved = [first.save().name]
    with contextlib.suppress(KeepbestError):
        saved.append(second.save().name)
    if lost := set(saved) - {found.name for found in Run(backend).checkpoints()}:
        yield f"lost: {lost}"
    yield from _whole(backend)


def a_lost_reply(folder: Path) -> Iterator[str]:
    """Let the store do what it is asked and say that it failed, at each call."""
    for at in itertools.count():
        backend = _memory()
        failing = FailingBackend(backend, at, after=True)
        with contextlib.suppress(KeepbestError):
            SmallRun(failing).save()
        if len(failing.trace) <= at:
            return
        yield from _whole(backend)


def no_reply(folder: Path) -> Iterator[str]:
    """Let the store take the commit, and answer nothing any more."""

    class Silent(WrappedBackend):
        silent = False

        def _call(self, name, *args, **kwargs):
            result = super()._call(name, *args, **kwargs)
            self.silent |= name == "put_if_absent"
            if self.silent and name in {"put_if_absent", "read"}:
                raise StorageError(self.url, "no answer (a test).")
            return result

    backend = _memory()
    with contextlib.suppress(KeepbestError):
        SmallRun(Silent(backend)).save()
    yield from _whole(backend)


def gc_during_a_save(folder: Path) -> Iterator[str]:
    """Collect garbage between the data and its commit; and save between what gc lists."""

    class Collecting(WrappedBackend):
        def _call(self, name, *args, **kwargs):
            if name == "put_if_absent":
                Run(self.inner).gc()
            return super()._call(name, *args, **kwargs)

    class Saving(WrappedBackend):
        saved = False

        def _call(self, name, *args, **kwargs):
            result = super()._call(name, *args, **kwargs)
            if name == "list" and not self.saved:
                self.saved = True
                SmallRun(self.inner).save()
            return result

    backend = _memory()
    SmallRun(Collecting(backend)).save()
    yield from _whole(backend)
    Run(Saving(backend)).gc(grace=-60)  # by a clock that is a minute ahead of the store's
    yield from _whole(backend)


def a_reader(folder: Path) -> Iterator[str]:
    """Map a file, and save until its blocks would be written over."""
    backend = open_backend(str(folder / "run"))
    run = SmallRun(backend)
    names = [run.save(arrays=_large(number)).name for number in range(3)]
    view = backend.read_ranges(data_key(names[0], "model.safetensors"), [(0, 2 * MIB)])[0]
    before = bytes(view)
    run.writer.retire([1])
    run.save(arrays=_large(3))
    if bytes(view) != before:
        yield "torn: what is being read changes"


def short_writes(folder: Path) -> Iterator[str]:
    """Have every write of the system write less than it was given."""
    backend = open_backend(str(folder / "run"))
    with _short_writes():
        SmallRun(backend).save(arrays=_large(1))
    if not Run(backend).verify().ok:
        yield f"torn: {Run(backend).verify()}"


@contextlib.contextmanager
def _short_writes() -> Iterator[None]:
    write, pwrite = os.write, os.pwrite
    os.write = lambda fd, data: write(fd, memoryview(data)[: max(1, len(data) // 2)])
    os.pwrite = lambda fd, data, offset: pwrite(fd, memoryview(data)[: max(4096, len(data) // 8192 * 4096)], offset)
    try:
        yield
    finally:
        os.write, os.pwrite = write, pwrite


def _large(number: int) -> dict[str, np.ndarray]:
    return {"w": np.full(MIB // 2, number, np.float32), "b": np.full(3, number, np.int64)}


def a_part_that_fails(folder: Path) -> Iterator[str]:
    """Let one part of an upload be refused."""
    client = MemoryClient()

    def refuse(what, key):
        if what == "put_part" and key.endswith(":2"):
            raise StorageError(f"{client.url}/{key}", "no (a test).")

    client.before = refuse
    data = np.arange(12 * MIB // 8, dtype=np.int64).view(np.uint8)
    with contextlib.suppress(KeepbestError):
        Transfer(client, TransferSettings(**SETTINGS)).upload("x", [data.data], if_absent=True)
    if client.objects.get("x") not in {None, data.tobytes()}:
        yield f"torn: {len(client.objects['x'])} of {len(data)} bytes"


def damage(folder: Path) -> Iterator[str]:
    """Change a byte of a tensor, of the state file, of the manifest; let a file grow."""
    for what, harm in {
        "model.safetensors": lambda data: data[:-3] + bytes([data[-3] ^ 1]) + data[-2:],
        "state.json": lambda data: data.replace(b'"number":1', b'"number":7'),
        "manifest": lambda data: data.replace(b'"step":10', b'"step":70'),
        "longer": lambda data: data + b"x",
    }.items():
        path = folder / what
        backend = open_backend(str(path))
        found = SmallRun(backend).save()
        keys = {"manifest": commit_key(1), "longer": data_key(found.name, "model.safetensors")}
        file = path / keys.get(what, data_key(found.name, what))
        before = file.read_bytes()
        file.write_bytes(harm(before))
        if file.read_bytes() == before:
            yield f"broken: nothing was done to {what}"
        if Run(backend).verify().ok:
            yield f"unnoticed: {what}, by verify"
        if what != "longer" and _loads(backend):
            yield f"unnoticed: {what}, when it was loaded"


def _loads(backend: Backend) -> bool:
    try:
        latest = Run(backend).latest
        latest.state()
        latest.load("model")
    except KeepbestError:
        return False
    return True


class Late(WrappedBackend):
    """Keeps what is put until `flush`."""

    waiting: list = []  # noqa: RUF012 - one for all: a mutated function has no other place for it

    def _call(self, name, *args, **kwargs):
        if name != "put":
            return super()._call(name, *args, **kwargs)
        pieces = [bytes(piece) for piece in args[1]]
        self.waiting.append((self.inner, args[0], pieces))
        return sum(map(len, pieces))

    @classmethod
    def flush(cls) -> None:
        """Put it."""
        waiting = cls.waiting[:]
        cls.waiting.clear()
        for backend, key, pieces in waiting:
            backend.put(key, pieces)


CHECKS = {
    "kill": kill,
    "two writers": two_writers,
    "a lost reply": a_lost_reply,
    "no reply": no_reply,
    "gc during a save": gc_during_a_save,
    "a reader": a_reader,
    "short writes": short_writes,
    "a part that fails": a_part_that_fails,
    "damage": damage,
}
