"""Large files: written past the page cache from where the bytes lie, and none is lost or left half, whatever comes."""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
import random
import threading
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
from contracts import disks
from contracts.backend_contract import Stream, noise

from keepbest.errors import ObjectExistsError, StorageError, StorageFullError
from keepbest.storage import direct, helper, tensorfile
from keepbest.storage.backend import open_backend
from keepbest.storage.tensorfile import TensorSpec

PAGE = 4096


@pytest.fixture
def backend(tmp_path):
    return open_backend(str(tmp_path / "run"))


@pytest.fixture
def refused(monkeypatch, request):
    """How the file system refuses O_DIRECT, if it does."""
    if request.param == "at-once":
        monkeypatch.setattr(direct, "_O_DIRECT", 0)
    if request.param == "when-written":
        plain = os.pwrite

        def pwrite(fd, data, offset):
            if fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_DIRECT:
                raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
            return plain(fd, data, offset)

        monkeypatch.setattr(os, "pwrite", pwrite)


def chunks_of(seed):
    """Return a random mixture: neighbours in memory, gaps, unaligned views, small and large ones."""
    chance = random.Random(seed)
    memory = memoryview(mmap.mmap(-1, 40 << 20))
    memory[:] = chance.randbytes(len(memory))
    chunks, place = [], 0
    while place < len(memory):
        length = chance.choice([0, 1, 100, PAGE, 3 * PAGE, 70_001, 1 << 20, 5 << 20, chance.randrange(9 << 20)])
        chunks.append(memory[place : place + length])
        if chance.random() < 0.2:
            chunks.append(bytearray(chance.randbytes(chance.choice([1, 5000, 200_000, 6 << 20]))))
        place += length + chance.choice([0, 0, 0, 1, PAGE, 777])
    return chunks


@pytest.mark.parametrize("refused", ["not", "at-once", "when-written"], indirect=True)
@pytest.mark.parametrize("seed", range(6))
def test_any_stream_is_stored_as_it_came(backend, seed, refused):
    """However the chunks lie in memory, and whatever the file system takes, the file is their concatenation."""
    chunks = Stream(chunks_of(seed))
    assert backend.put("checkpoints/c/a", chunks) == chunks.nbytes
    backend.settle()
    assert backend.read("checkpoints/c/a") == b"".join(chunks)


@pytest.mark.parametrize("says", [-(3 << 20), 3 << 20], ids=["more-comes", "less-comes"])
def test_a_stream_that_does_not_keep_its_word(backend, says):
    """A stream of another length than it said is stored as it came."""

    class Lying(list):
        nbytes = (8 << 20) + says

    data = noise(8 << 20, 1)
    assert backend.put("checkpoints/c/a", Lying([data])) == 8 << 20
    assert backend.read("checkpoints/c/a") == data


def test_staging_is_written_as_it_lies(backend, monkeypatch):
    """A large tensor file goes from staging to the disk without a copy and past the page cache, but for its edges."""
    seen, plain = [], os.pwrite

    def pwrite(fd, data, offset):
        address = np.frombuffer(data, np.uint8).__array_interface__["data"][0]
        seen.append((address, len(data), offset, bool(fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_DIRECT)))
        return plain(fd, data, offset)

    monkeypatch.setattr(os, "pwrite", pwrite)
    specs = [TensorSpec(name=f"t{n}", dtype="U8", shape=(size,)) for n, size in enumerate([3_000_001, 17, 9 << 20, 5])]
    plan = tensorfile.plan(specs, {})
    staging = memoryview(mmap.mmap(-1, plan.data_bytes))
    begin = np.frombuffer(staging, np.uint8).__array_interface__["data"][0]
    tensorfile.write(backend, "checkpoints/c/a", plan, staging)
    if not any(entry[3] for entry in seen):
        pytest.skip("this file system has no O_DIRECT")
    at_home = [entry for entry in seen if begin <= entry[0] < begin + plan.data_bytes]
    assert sum(length for _, length, _, _ in at_home) == plan.data_bytes // PAGE * PAGE
    assert all(past_cache for *_, past_cache in at_home)
    assert len(seen) <= 5


@pytest.mark.parametrize("nbytes", [1000, (1 << 20) - 1, 1 << 20, 3_000_001])
def test_large_data_begins_on_a_page_and_others_read_it(backend, nbytes):
    """The header is padded with spaces, to a page where that pays, and the safetensors library takes it."""
    plan = tensorfile.plan([TensorSpec(name="w", dtype="U8", shape=(nbytes,))], {"format": "pt"})
    assert len(plan.header) % (PAGE if nbytes >= 1 << 20 else 64) == 0
    tensorfile.write(backend, "checkpoints/c/a.safetensors", plan, noise(nbytes, 1))
    found = safetensors.numpy.load_file(f"{backend.url}/checkpoints/c/a.safetensors")
    assert found["w"].tobytes() == noise(nbytes, 1)


# ── what goes wrong ──────────────────────────────────────────────────────────────────────────────────────────────────


def state_of_process():
    return len(os.listdir("/proc/self/fd")), threading.active_count()


@pytest.mark.parametrize("error", [ZeroDivisionError, KeyboardInterrupt])
def test_a_stream_that_fails_leaves_nothing(backend, error):
    """An error or Ctrl-C in the middle of a large file arrives; no half of it stays, no thread, no descriptor."""

    class Failing:
        nbytes = 64 << 20

        def __iter__(self):
            yield noise(20 << 20, 1)
            raise error

    backend.put("checkpoints/c/b", [b"x"])
    backend.settle()
    before = state_of_process()
    with pytest.raises(error):
        backend.put("checkpoints/c/a", Failing())
    assert [entry.key for entry in backend.list("")] == ["checkpoints/c/b"]
    assert state_of_process() == before


def test_a_disk_that_fails_is_an_error(backend, monkeypatch):
    """What the disk refuses behind our back arrives as an error of ours, and nothing half is left."""
    plain, calls = os.pwrite, []

    def pwrite(fd, data, offset):
        calls.append(offset)
        if len(calls) == 3:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return plain(fd, data, offset)

    monkeypatch.setattr(os, "pwrite", pwrite)
    before = state_of_process()
    with pytest.raises(StorageError, match="Input/output error"):
        backend.put("checkpoints/c/a", Stream([noise(1 << 20, n) for n in range(40)]))
    assert backend.list("") == []
    assert state_of_process() == before


@pytest.mark.parametrize("tail", [False, True], ids=["whole-pages", "tail"])
def test_the_last_write_may_fail_too(backend, monkeypatch, tail):
    """An error at the end of a file is not lost."""
    plain = os.pwrite

    def pwrite(fd, data, offset):
        if tail == (len(data) < PAGE):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return plain(fd, data, offset)

    monkeypatch.setattr(os, "pwrite", pwrite)
    with pytest.raises(StorageError, match="Input/output error"):
        backend.put("checkpoints/c/a", Stream([noise((2 << 20) + 5, 1)]))
    assert backend.list("") == []


@pytest.mark.parametrize("lies", ["small", "on pages", "anywhere"])
def test_a_thread_that_cannot_begin_is_an_error(backend, monkeypatch, lies):
    """Where there is no memory for a thread to begin with, a save fails; begins it after all, it writes nothing."""
    memory = memoryview(mmap.mmap(-1, 10 * direct._PIECE))
    streams = {"small": [memory[: 2 << 20]], "on pages": [memory], "anywhere": [memory[1:]]}
    late, plain, written = [], os.pwrite, []
    monkeypatch.setattr(direct, "_PATIENCE", 0.05)
    monkeypatch.setattr(helper._thread, "start_new_thread", lambda run, _: late.append(run))
    monkeypatch.setattr(os, "pwrite", lambda *asked: written.append(asked) or plain(*asked))
    before = state_of_process()
    with pytest.raises(MemoryError, match="could not begin"):
        backend.put("checkpoints/c/a", Stream(streams[lies]))
    for run in late:
        run()
    assert (backend.list(""), written, len(late)) == ([], [], 1)
    assert state_of_process() == before


def test_writes_that_are_cut_short_go_on(backend, monkeypatch):
    """The kernel may take a part of a write: the rest follows."""
    plain = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda fd, data, offset: plain(fd, data[: max(1, len(data) // 3)], offset))
    data = noise((9 << 20) + 5, 1)
    backend.put("checkpoints/c/a", Stream([data]))
    assert backend.read("checkpoints/c/a") == data


def test_a_large_file_is_never_written_over_another(backend):
    """A key that is taken keeps its content, however large the second file."""
    backend.put("checkpoints/c/a", Stream([noise(2 << 20, 1)]))
    with pytest.raises(ObjectExistsError):
        backend.put("checkpoints/c/a", Stream([noise(3 << 20, 2)]))
    assert backend.read("checkpoints/c/a") == noise(2 << 20, 1)


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 8 MiB."""
    with disks.small(tmp_path / "disk", "8m") as folder:
        yield folder


def test_a_full_disk_leaves_no_half_of_a_large_file(small_disk):
    """When a large file does not fit, the error says so, the space is free again and the rest unharmed."""
    backend = open_backend(str(small_disk / "run"))
    backend.put("checkpoints/c/a", Stream([noise(5 << 20, 1)]))
    with pytest.raises(StorageFullError, match="no space is left"):
        backend.put("checkpoints/c/b", Stream([noise(4 << 20, 2)]))
    assert [entry.key for entry in backend.list("")] == ["checkpoints/c/a"]
    backend.put("checkpoints/c/c", Stream([noise(2 << 20, 2)]))
    assert backend.read("checkpoints/c/a") == noise(5 << 20, 1)


@pytest.mark.parametrize("how", ["large", "small", "commit", "rows", "copied-in"])
def test_on_a_full_disk_spare_files_make_room(small_disk, tmp_path, how):
    """Nothing fails for want of space that spare files hold."""
    backend = open_backend(str(small_disk / "run"))
    backend.put("checkpoints/c/a", Stream([noise(5 << 20, 1)]))
    backend.settle()
    assert backend.recycle("checkpoints/c/a") is not None
    assert backend.free_bytes() > 7 << 20
    data = noise(6 << 20, 2)
    if how == "large":
        backend.put("checkpoints/c/b", Stream([data]))
    elif how == "small":
        backend.put("checkpoints/c/b", (data[n : n + 65536] for n in range(0, len(data), 65536)))
    elif how == "commit":
        backend.put_if_absent("checkpoints/c/b", bytes(data))
    elif how == "rows":
        rows = backend.append("checkpoints/c/b")
        rows.write(bytes(data))
        rows.close()
    else:
        (tmp_path / "made").write_bytes(data)
        backend.put_file("checkpoints/c/b", str(tmp_path / "made"))
    assert backend.read("checkpoints/c/b") == data
    assert [entry.key for entry in backend.list("")] == ["checkpoints/c/b"]


def test_the_umask_decides_who_may_read_large_files(tmp_path):
    """A large file has the permissions that any other program's would have."""
    before = os.umask(0o027)
    try:
        backend = open_backend(str(tmp_path / "run"))
        backend.put("checkpoints/c/a", Stream([noise(2 << 20, 1)]))
    finally:
        os.umask(before)
    assert Path(backend.url, "checkpoints/c/a").stat().st_mode & 0o777 == 0o640
