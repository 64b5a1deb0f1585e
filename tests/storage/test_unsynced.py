"""Files that are made durable together: none is forgotten, and a failure is not forgotten either."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from keepbest.errors import StorageError, StorageFullError
from keepbest.storage.backend import open_backend
from keepbest.storage.unsynced import _MOST


@pytest.fixture
def backend(tmp_path):
    return open_backend(str(tmp_path))


@pytest.fixture
def synced(monkeypatch):
    """Record the names of the files that are fsynced; those in `fails` fail once, as a disk does."""
    names, fails, plain = [], set(), os.fsync

    def fsync(fd):
        name = Path(f"/proc/self/fd/{fd}").readlink().name
        if name in fails:
            fails.discard(name)
            raise OSError(errno.EIO, "Input/output error")
        plain(fd)
        names.append(name)

    monkeypatch.setattr(os, "fsync", fsync)
    return names, fails


def test_every_file_is_durable_after_settle(backend, synced):
    """However many files a checkpoint has, each is made durable once, and no descriptor stays open."""
    before = len(os.listdir("/proc/self/fd"))
    for number in range(_MOST + 5):
        backend.put(f"c/{number}", [b"x"])
    backend.settle()
    assert sorted(name for name in synced[0] if name.isdigit()) == sorted(map(str, range(_MOST + 5)))
    assert len(os.listdir("/proc/self/fd")) == before
    backend.settle()
    assert len([name for name in synced[0] if name.isdigit()]) == _MOST + 5


def test_a_deleted_file_is_forgotten(backend, synced):
    """What was deleted before settle is not waited for."""
    backend.put("c/a", [b"x"])
    backend.delete(["c/a"])
    backend.settle()
    assert "a" not in synced[0]


def test_a_file_that_could_not_be_stored_is_never_called_durable(backend, synced):
    """After a failed fsync the kernel would report success the next time: the error stays until the file is deleted."""
    synced[1].add("a")
    backend.put("c/a", [b"x"])
    backend.put("c/b", [b"x"])
    for _ in range(2):
        with pytest.raises(StorageError, match="c/a|Input/output"):
            backend.settle()
    assert "b" in synced[0]
    backend.delete(["c/a"])
    backend.settle()


def test_a_journal_that_grew_is_durable_after_settle(backend, synced):
    """Rows are made durable with the checkpoint that speaks of them, and only if there are new ones."""
    appender = backend.append("rows")
    appender.write(b"1\n")
    backend.settle()
    backend.settle()
    assert synced[0].count("rows") == 1
    appender.write(b"2\n")
    appender.close()
    assert synced[0].count("rows") == 2


def test_rows_that_could_not_be_stored_are_written_again(backend, synced):
    """After a failed fsync of the journal its next one counts only for what was written since: so all of it is."""
    appender = backend.append("rows")
    appender.write(b"1\n")
    backend.settle()
    appender.write(b"2\n")
    synced[1].add("rows")
    with pytest.raises(StorageError):
        backend.settle()
    appender.write(b"3\n")
    backend.settle()
    assert backend.read("rows") == b"1\n2\n3\n\n2\n3\n"
    appender.write(b"4\n")
    backend.settle()
    assert backend.read("rows").endswith(b"3\n4\n")


@pytest.mark.parametrize("method", ["put", "put_if_absent", "replace"])
def test_a_file_that_cannot_be_closed_is_not_left(backend, monkeypatch, method):
    """Some file systems say only at the close that there is no space: an error of ours, and nothing half-written."""
    before, plain = len(os.listdir("/proc/self/fd")), os.close

    def close(fd):
        name = Path(f"/proc/self/fd/{fd}").readlink().name
        plain(fd)
        if name == "a" or name.startswith(".tmp-"):
            monkeypatch.setattr(os, "close", plain)
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "close", close)
    with pytest.raises(StorageFullError):
        getattr(backend, method)("c/a", [b"x"] if method == "put" else b"x")
    assert backend.list("") == []
    backend.delete(["c/a"])
    backend.settle()
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_close_that_fails_keeps_no_other_file_from_being_stored(backend, synced, monkeypatch):
    """What fails for one file is that file's: the others are made durable, and nothing stays open."""
    before, plain = len(os.listdir("/proc/self/fd")), os.close
    for key in ("c/a", "c/b"):
        backend.put(key, [b"x"])

    def close(fd):
        name = Path(f"/proc/self/fd/{fd}").readlink().name
        plain(fd)
        if name == "a":
            raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "close", close)
    with pytest.raises(StorageError):
        backend.settle()
    monkeypatch.undo()
    assert "b" in synced[0]
    assert len(os.listdir("/proc/self/fd")) == before
