"""Spare files: blocks are written over only when nobody can see them any more, and no more are kept than promised."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from contracts.backend_contract import Stream, noise
from contracts.faults import WrappedBackend
from contracts.runs import SmallRun, same

from keepbest.errors import ObjectExistsError, StorageError
from keepbest.storage import spare_files
from keepbest.storage.backend import open_backend
from keepbest.storage.layout import commit_key, temporary_of
from keepbest.storage.run import Run

MIB = 1 << 20


@pytest.fixture
def backend(tmp_path):
    found = open_backend(str(tmp_path / "run"))
    found.put("probe", Stream([noise(2 * MIB, 0)]))
    found.delete(["probe"])
    if not found.capabilities.recycles:
        pytest.skip("this file system cannot say who uses a file")
    return found


def stored(backend, key="checkpoints/c/a", nbytes=2 * MIB, seed=1):
    backend.put(key, Stream([noise(nbytes, seed)]))
    backend.settle()
    return Path(backend.url, key)


def arrays(number, mib=2):
    """Return arrays of a large file, different for each number."""
    return {"w": np.full(mib * MIB // 4, number, np.float32), "b": np.full(3, number, np.int64)}


def spares(backend):
    return [entry.key for entry in backend.list("") if temporary_of(entry.key)]


# ── one file ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("nbytes", [MIB, 2 * MIB, 2 * MIB + 7, 5 * MIB, 100])
def test_a_spare_file_is_written_over(backend, nbytes):
    """The next file, of whatever size, takes the blocks of the old one, and is exactly what was given."""
    inode = stored(backend).stat().st_ino
    spare = backend.recycle("checkpoints/c/a")
    backend.put("checkpoints/d/a", Stream([noise(nbytes, 2)]), spare=spare)
    backend.settle()
    assert backend.read("checkpoints/d/a") == noise(nbytes, 2)
    assert Path(backend.url, "checkpoints/d/a").stat().st_ino == inode
    assert backend.free_bytes() is not None
    assert [entry.key for entry in backend.list("")] == ["checkpoints/d/a"]


def publish(backend, tmp_path):
    backend.publish("checkpoints/c/a", str(tmp_path / "published"))
    return (tmp_path / "published").read_bytes


def link(backend, _):
    backend.copy("checkpoints/c/a", "checkpoints/d/linked")
    return lambda: backend.read("checkpoints/d/linked")


def view(backend, _):
    return backend.read_ranges("checkpoints/c/a", [(0, 2 * MIB)])[0].tobytes


def opened(backend, _):
    file = Path(backend.url, "checkpoints/c/a").open("rb")  # noqa: SIM115 - closed with the test

    def read():
        with file:
            return file.read()

    return read


def read_elsewhere(backend, _):
    program = (
        "import sys; file = open(sys.argv[1], 'rb'); print(flush=True); input(); sys.stdout.buffer.write(file.read())"
    )
    reader = subprocess.Popen(
        [sys.executable, "-c", program, f"{backend.url}/checkpoints/c/a"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    reader.stdout.readline()
    return lambda: reader.communicate(b"\n", timeout=30)[0]


@pytest.mark.parametrize("use", [publish, link, view, opened, read_elsewhere])
def test_what_somebody_can_see_is_never_written_over(backend, tmp_path, use):
    """A published file, one that another checkpoint shares, one that anybody has open or mapped: all are left alone."""
    stored(backend)
    still_there = use(backend, tmp_path)
    spare = backend.recycle("checkpoints/c/a")
    backend.put("checkpoints/d/a", Stream([noise(2 * MIB, 2)]), spare=spare)
    backend.settle()
    assert spare is None
    assert still_there() == noise(2 * MIB, 1)
    assert spares(backend) == []


def test_a_spare_file_that_was_linked_is_not_written_over(backend, tmp_path):
    """Should a backup link the spare file itself, it keeps what it linked."""
    stored(backend)
    spare = backend.recycle("checkpoints/c/a")
    os.link(f"{backend.url}/{spare}", tmp_path / "backup")
    backend.put("checkpoints/d/a", Stream([noise(2 * MIB, 2)]), spare=spare)
    assert (tmp_path / "backup").read_bytes() == noise(2 * MIB, 1)
    assert backend.read("checkpoints/d/a") == noise(2 * MIB, 2)
    assert spares(backend) == []


def test_a_spare_file_that_is_gone_is_no_error(backend):
    """Garbage collection may take a spare file: the next file is made anew."""
    stored(backend)
    spare = backend.recycle("checkpoints/c/a")
    Run(backend).gc(grace=0)
    assert spares(backend) == []
    backend.put("checkpoints/d/a", Stream([noise(2 * MIB, 2)]), spare=spare)
    assert backend.read("checkpoints/d/a") == noise(2 * MIB, 2)


def test_a_spare_file_takes_no_key_that_is_taken(backend):
    """A key that is taken keeps its content, and the spare file is gone."""
    stored(backend)
    stored(backend, "checkpoints/d/a", seed=3)
    spare = backend.recycle("checkpoints/c/a")
    with pytest.raises(ObjectExistsError):
        backend.put("checkpoints/d/a", Stream([noise(2 * MIB, 2)]), spare=spare)
    assert backend.read("checkpoints/d/a") == noise(2 * MIB, 3)
    assert spares(backend) == []


def test_a_write_over_a_spare_file_that_fails_leaves_nothing(backend):
    """When the stream raises, neither the new file nor the spare one is left."""

    class Failing:
        nbytes = 2 * MIB

        def __iter__(self):
            yield noise(MIB, 2)
            raise ZeroDivisionError

    stored(backend)
    with pytest.raises(ZeroDivisionError):
        backend.put("checkpoints/d/a", Failing(), spare=backend.recycle("checkpoints/c/a"))
    assert backend.list("") == []


def test_where_nobody_knows_who_uses_a_file_none_is_recycled(tmp_path, monkeypatch):
    """On a network file system a file may be in use by somebody whom this machine does not know: it is deleted."""
    monkeypatch.setattr(spare_files, "file_system", lambda _: "nfs4")
    backend = open_backend(str(tmp_path))
    stored(backend)
    assert not backend.capabilities.recycles
    assert backend.recycle("checkpoints/c/a") is None
    assert backend.list("") == []


def test_the_file_system_of_a_path_is_known(tmp_path):
    """The innermost mount that a path lies in decides, names with spaces included."""
    known = subprocess.run(["stat", "-f", "-c", "%T", str(tmp_path)], capture_output=True, text=True, check=True).stdout
    assert spare_files.file_system(str(tmp_path))[:3] == known[:3]
    assert spare_files.file_system("/proc/self") == "proc"


# ── a run ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_run_that_keeps_its_last_writes_into_the_same_blocks(backend):
    """With keep_last=1 two files take turns, nothing is read wrong, and never are there more than before."""
    run, inodes, most = SmallRun(backend), set(), 0
    for number in range(1, 8):
        saved = run.save(arrays=arrays(number))
        inodes.add(Path(backend.url, "checkpoints", saved.name, "model.safetensors").stat().st_ino)
        run.writer.retire([found.sequence for found in run.writer.checkpoints[:-1]])
        assert same(Run(backend).latest.load("model"), arrays(number))
        most = max(most, len([entry for entry in backend.list("") if entry.size > MIB]))
        assert Run(backend).verify().ok
    assert most == 2
    assert len(inodes) == 2


def test_no_more_is_kept_than_the_run_took_before(backend):
    """Retiring many at once gives their space back, but for what the next saves will take anyway."""
    run = SmallRun(backend)
    for number in range(1, 8):
        run.save(arrays=arrays(number))
    run.writer.retire([1, 2, 3, 4, 5, 6])
    assert len(spares(backend)) == 2
    for number in range(8, 12):
        run.save(arrays=arrays(number))
        assert len([entry for entry in backend.list("") if entry.size > MIB]) <= 7
    assert spares(backend) == []
    assert Run(backend).verify().ok


def test_small_files_are_only_deleted(backend):
    """What is not worth it is deleted at once."""
    run = SmallRun(backend)
    run.save(arrays=arrays(0))
    for _ in range(3):
        run.save()
    run.writer.retire([2, 3])
    assert spares(backend) == []


def test_a_file_is_recycled_only_when_its_deletion_is_durable(backend):
    """Blocks are not touched before the commit that named them is gone for good, whenever the power goes."""
    calls = []

    class Watching(WrappedBackend):
        def _call(self, name, *args, **kwargs):
            if name in {"delete", "settle", "recycle"}:
                calls.append((name, list(args[0]) if name == "delete" else None))
                args = [calls[-1][1]] if name == "delete" else args
            return super()._call(name, *args, **kwargs)

    run = SmallRun(Watching(backend))
    for number in range(3):
        run.save(arrays=arrays(number))
    calls.clear()
    run.writer.retire([1])
    assert [name for name, _ in calls] == ["delete", "settle", "recycle", "delete"]
    assert calls[0][1] == [commit_key(1)]


def test_closing_a_writer_gives_the_space_back(backend):
    """After `close`, and after a writer that nobody closed is gone, no spare file is left."""
    for how in ("closed", "forgotten"):
        run = SmallRun(backend)
        for number in range(3):
            run.save(arrays=arrays(number))
        run.writer.retire([found.sequence for found in run.writer.checkpoints[:-1]])
        assert spares(backend)
        if how == "closed":
            run.writer.close()
            assert spares(backend) == []
            run.save(arrays=arrays(9))
        del run
        assert spares(backend) == []
    assert Run(backend).verify().ok


PROGRAM = """
import os, signal, sys
sys.path.insert(0, sys.argv[2])
import numpy as np
from contracts.runs import SmallRun
from keepbest.storage.backend import open_backend
run = SmallRun(open_backend(sys.argv[1]))
for number in range(3):
    run.save(arrays={"w": np.full(1 << 19, number, np.float32)})
run.writer.retire([1, 2])
if sys.argv[3] == "killed":
    os.kill(os.getpid(), signal.SIGKILL)
if sys.argv[3] == "forks":
    child = os.fork()
    if not child:
        sys.exit()
    os.waitpid(child, 0)
    print(len([name for name in os.listdir(sys.argv[1]) if name.startswith(".tmp-")]))
"""


@pytest.mark.parametrize("how", ["ends", "killed", "forks"])
def test_a_program_that_ends_gives_the_space_back(backend, how):
    """Spare files go with the program that keeps them, not with its children; after a kill `gc` takes them."""
    ended = subprocess.run(
        [sys.executable, "-c", PROGRAM, backend.url, str(Path(__file__).parents[1]), how],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == (-signal.SIGKILL if how == "killed" else 0), ended.stderr
    left = spares(backend)
    assert len(left) == (2 if how == "killed" else 0)
    if how == "forks":
        assert ended.stdout == "2\n"
    assert Run(backend).gc(grace=3600).removed == ()
    Run(backend).gc(grace=0)
    assert spares(backend) == []
    assert Run(backend).verify().ok


def test_a_save_that_fails_keeps_no_spare_file_that_nobody_knows(backend):
    """When a save over a spare file fails, that file is gone, and the next save works."""
    refuse = []

    class Refusing(WrappedBackend):
        def _call(self, name, *args, **kwargs):
            if name == "put" and refuse and "spare" in kwargs:
                raise StorageError(self.url, refuse.pop())
            return super()._call(name, *args, **kwargs)

    run = SmallRun(Refusing(backend))
    for number in range(3):
        run.save(arrays=arrays(number))
    run.writer.retire([1])
    assert len(spares(backend)) == 1
    refuse.append("no answer (a test).")
    with pytest.raises(StorageError, match="no answer"):
        run.save(arrays=arrays(3))
    assert spares(backend) == []
    run.save(arrays=arrays(4))
    assert same(Run(backend).latest.load("model"), arrays(4))
