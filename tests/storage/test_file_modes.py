"""File modes: who else may read a run on a disk, the umask says, and nothing that keepbest makes goes by anything else.

Files are made with 0666 and folders with 0777, less the umask: fresh ones, recycled, linked, published, exported and
mirrored ones, and those that are only there while something is being written.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

import numpy as np
import pytest
from contracts.faults import CHANGES, WrappedBackend
from contracts.runs import SmallRun
from contracts.signers import Signer

import keepbest
from keepbest import Checkpointer, CheckpointPolicy
from keepbest.storage.backend import open_backend
from keepbest.storage.listing import UNINDEXED

UMASKS = [0o022, 0o077, 0o007, 0o000]
LARGE = 2 << 20
"""Bytes; enough for recycling and for writing past the page cache."""


@pytest.fixture(params=UMASKS, ids=lambda umask: f"{umask:03o}")
def umask(request):
    """The umask of the process while the test runs."""
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


class Frozen:
    """State that changes in one half: the file of the other is a link."""

    def __init__(self):
        self.weight = np.zeros(LARGE // 4, np.float32)

    def state_dict(self):
        return {"weight": self.weight}

    def load_state_dict(self, state):
        self.weight = state["weight"]


def modes(folder):
    """Return path → permissions of a folder and all in it; of links, nobody asks."""
    paths = [folder, *folder.rglob("*")]
    return {path: stat.S_IMODE(path.lstat().st_mode) for path in paths if not path.is_symlink()}


def assert_by_umask(folder, umask):
    """Check that everything in a folder has the permissions that the umask leaves."""
    found = modes(folder)
    wrong = {
        str(path): f"{mode:03o}"
        for path, mode in found.items()
        if mode != ((0o777 if path.is_dir() else 0o666) & ~umask)
    }
    assert not wrong
    assert len(found) > 1


def test_a_whole_training_goes_by_the_umask(tmp_path, umask):
    """Data, recycled and linked data, manifests, rows, hints and the mirror's: all as the umask says, at every time."""
    run, mirror = tmp_path / "run", tmp_path / "mirror"
    policy = CheckpointPolicy(monitor="val_loss", keep_best=1, keep_last=2)
    changing, same = Frozen(), Frozen()
    with Checkpointer(run, policy, mirror=mirror, changing=changing, same=same) as ckpt:
        for epoch in ckpt.epochs(6):
            changing.weight[:] = epoch
            ckpt.log(val_loss=1 / (epoch + 1))
            ckpt.wait()
            assert_by_umask(run, umask)
    assert_by_umask(run, umask)
    assert_by_umask(mirror, umask)
    assert len(list((run / "commits").iterdir())) < 6, "nothing was retired, so nothing was recycled"
    assert any(path.stat().st_nlink > 1 for path in run.rglob("same.safetensors")), "nothing was linked"


class Watched(WrappedBackend):
    """Looks at the modes of a folder after every call that changes it, and in the middle of each `put`."""

    def __init__(self, inner, look):
        super().__init__(inner)
        self._look = look
        self.looked = 0

    def _call(self, name, *args, **kwargs):
        if name == "put":
            args = (args[0], self._looking(args[1]))
        result = super()._call(name, *args, **kwargs)
        if name in CHANGES:
            self._look()
            self.looked += 1
        return result

    def _looking(self, chunks):
        for chunk in chunks:
            yield chunk
            self._look()


def test_what_is_being_written_goes_by_the_umask(tmp_path, umask):
    """No file is open to others for the time that it is written, whatever it becomes."""
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "a").touch()
    backend = Watched(open_backend(folder), lambda: assert_by_umask(folder, umask))
    run = SmallRun(backend)
    for number in range(4):
        run.save(arrays={"w": np.full(LARGE, number, np.uint8)})
        if number:
            run.writer.retire([number])
        run.writer.refresh_hints()
    backend.append("metrics.jsonl").write(b"{}\n")
    backend.replace("best.json", b"{}")
    assert backend.looked > 20
    run.writer.close()


@pytest.mark.parametrize("umask", [0o077], indirect=True)
def test_an_index_goes_by_the_umask(tmp_path, umask):
    """A long run has an index, too."""
    run = SmallRun(open_backend(tmp_path / "run"))
    for _ in range(UNINDEXED):
        run.save()
    run.writer.refresh_hints()
    assert list((tmp_path / "run" / "commits").glob("index-*"))
    assert_by_umask(tmp_path / "run", umask)


def test_what_leaves_a_run_goes_by_the_umask(tmp_path, umask):
    """Exported, published and signed: what is made anew has the permissions of its time."""
    (tmp_path / "out").mkdir()
    signer = Signer(tmp_path)
    backend = open_backend(tmp_path / "run")
    SmallRun(backend).save(arrays={"w": np.zeros(LARGE, np.uint8)})
    run = keepbest.open_run(tmp_path / "run")
    run.best.sign(signer.private)
    run.best.export(tmp_path / "out" / "folder", with_records=True)
    run.best.export(tmp_path / "out" / "one.safetensors")
    run.best.export(tmp_path / "out" / "one.safetensors", overwrite=True)
    run.publish(run.best, "model.safetensors", str(tmp_path / "out" / "published.safetensors"))
    run.publish(run.best, "model.safetensors", str(tmp_path / "out" / "deep" / "published.safetensors"))
    scratch = Path(backend.scratch())
    (scratch / "made").write_bytes(b"made elsewhere")
    backend.put_file("checkpoints/c/made", str(scratch / "made"))
    scratch.rmdir()
    assert_by_umask(tmp_path / "out", umask)
    assert_by_umask(tmp_path / "run", umask)


def test_what_somebody_opened_to_others_is_not_handed_on(tmp_path):
    """Blocks of a checkpoint that its owner let everybody read or write are not those of the next one."""
    before = os.umask(0o022)
    try:
        run = SmallRun(open_backend(tmp_path / "run"))
        for number in (1, 2, 3, 4):
            name = run.save(arrays={"w": np.full(LARGE, number, np.uint8)}).name
            (path,) = (tmp_path / "run" / "checkpoints" / name).glob("model.safetensors")
            assert stat.S_IMODE(path.stat().st_mode) == 0o644
            path.chmod(0o666)
            run.writer.retire([number - 1] if number > 1 else [])
        run.writer.close()
    finally:
        os.umask(before)


def test_a_narrower_umask_is_kept_by_what_is_recycled(tmp_path):
    """Blocks of a file that all could read do not make the next one readable, when the umask was narrowed between."""
    before = os.umask(0o022)
    try:
        backend = open_backend(tmp_path / "run")
        run = SmallRun(backend)
        for number in (1, 2, 3, 4):
            os.umask(0o022 if number < 3 else 0o077)
            name = run.save(arrays={"w": np.full(LARGE, number, np.uint8)}).name
            run.writer.retire([number - 2] if number > 2 else [])
        (path,) = (tmp_path / "run" / "checkpoints" / name).glob("model.safetensors")
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        run.writer.close()
    finally:
        os.umask(before)
