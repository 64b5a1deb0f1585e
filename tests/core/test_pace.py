"""Pace: what a Checkpointer may take of memory and cores, and what it does where that is not enough."""

from __future__ import annotations

import errno
import mmap
import os
import sys
import threading
import uuid
import warnings

import numpy as np
import pytest

import keepbest
from keepbest import Checkpointer, CheckpointPolicy
from keepbest.core.pace import Pace
from keepbest.errors import ConfigError, NotARunError
from keepbest.storage import direct

ALL = CheckpointPolicy(every_n_epochs=None, at_end=False, keep_all=True)
LARGE = "training waits until each save is written"


@pytest.fixture
def url():
    return f"memory://pace-{uuid.uuid4().hex}"


@pytest.mark.parametrize(
    "settings",
    [
        {"mode": "later"}, {"mode": None}, {"mode": True},
        {"snapshot": "live"}, {"snapshot": None},
        {"max_staging_bytes": -1}, {"max_staging_bytes": 1.5}, {"max_staging_bytes": "1 GB"},
        {"max_staging_bytes": True},
        {"writer_share": 0}, {"writer_share": -0.1}, {"writer_share": 0.51}, {"writer_share": float("nan")},
        {"writer_share": "half"}, {"writer_share": None}, {"writer_share": True},
    ],
    ids=str,
)  # fmt: skip
def test_a_wrong_setting_is_refused_by_name(url, settings):
    """It is named when the Checkpointer is made, and nothing is written."""
    with pytest.raises(ConfigError, match=next(iter(settings))):
        Checkpointer(url, ALL, state={}, **settings)
    with pytest.raises(NotARunError):
        keepbest.open_run(url)


@pytest.mark.parametrize(
    "settings",
    [
        {"max_staging_bytes": 0},
        {"max_staging_bytes": None},
        {"writer_share": 0.5},
        {"writer_share": 1e-9},
        {"mode": "sync"},
    ],
    ids=str,
)
def test_the_bounds_themselves_are_fine(settings):
    """The least and the most that are allowed are allowed."""
    assert Pace(**settings)


def test_a_state_beyond_the_limit_is_saved_while_training_waits(url):
    """It is durable when `save` returns, nothing was staged, and that is said once, where the save was asked for."""
    state = {"w": np.zeros(100_000)}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with Checkpointer(url, ALL, state=state, max_staging_bytes=799_999) as ckpt:
            for value in range(3):
                state["w"][:] = value
                assert ckpt.save().done()
                assert ckpt._saves._staging.nbytes == 0
    assert [LARGE in str(warning.message) for warning in caught] == [True]
    assert caught[0].filename == __file__
    found = sorted(keepbest.open_run(url).checkpoints(), key=lambda checkpoint: checkpoint.sequence)
    assert [set(checkpoint.load("state")["w"].tolist()) for checkpoint in found] == [{0.0}, {1.0}, {2.0}]


def test_without_memory_for_a_copy_training_waits(url, monkeypatch):
    """Where the copy cannot be had, a save reads the state where it lies, and that is said; later it may be had."""
    state, plain = {"w": np.zeros(100_000)}, mmap.mmap

    def refuse(*args, **kwargs):
        raise OSError(errno.ENOMEM, "Cannot allocate memory")

    with Checkpointer(url, ALL, state=state) as ckpt:
        with pytest.warns(UserWarning, match="no memory for a copy of the state"):
            monkeypatch.setattr(mmap, "mmap", refuse)
            state["w"][:] = 1
            assert ckpt.save().done()
        monkeypatch.setattr(mmap, "mmap", plain)
        state["w"][:] = 2
        ckpt.save().result(60)
    found = sorted(keepbest.open_run(url).checkpoints(), key=lambda checkpoint: checkpoint.sequence)
    assert [set(checkpoint.load("state")["w"].tolist()) for checkpoint in found] == [{1.0}, {2.0}]


def test_a_state_of_just_the_limit_is_staged(url):
    """The limit itself is not beyond it: nobody is warned, and training does not wait."""
    with Checkpointer(url, ALL, state={"w": np.zeros(100_000)}, max_staging_bytes=800_000) as ckpt:
        ckpt.save().result(60)
        assert ckpt._saves._staging.nbytes >= 800_000


def test_a_state_that_grows_beyond_the_limit_changes_over(url):
    """Each save is right, on either side of the limit."""
    state = {"w": np.zeros(0)}
    with pytest.warns(UserWarning, match=LARGE):
        with Checkpointer(url, ALL, state=state, max_staging_bytes=1 << 20) as ckpt:
            for number in (100_000, 200_000, 120_000, 300_000):
                state["w"] = np.full(number, float(number))
                ckpt.save()
    found = sorted(keepbest.open_run(url).checkpoints(), key=lambda checkpoint: checkpoint.sequence)
    loaded = [checkpoint.load("state")["w"] for checkpoint in found]
    assert [len(w) for w in loaded] == [100_000, 200_000, 120_000, 300_000]
    assert all((w == len(w)).all() for w in loaded)


class Watching:
    """A state that notes the niceness of whoever asks for it; and, in its file, of whoever writes."""

    def __init__(self):
        self.seen = {}

    def note(self):
        self.seen[threading.current_thread().name] = os.getpriority(os.PRIO_PROCESS, threading.get_native_id())

    def state_dict(self):
        self.note()
        return {"w": np.zeros(100_000)}

    def load_state_dict(self, state):
        pass


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has niceness by thread")
@pytest.mark.parametrize(("settings", "raised"), [({}, 10), ({"writer_share": 0.25}, 5), ({"writer_share": 0.5}, 0)])
def test_the_writer_leaves_the_cores_to_training(url, monkeypatch, settings, raised):
    """The thread that writes is nicer than training by its share; training, and whoever copies for it, are not."""
    from keepbest.storage.memory import MemoryBackend

    watching, put = Watching(), MemoryBackend.put

    def noting(self, *args, **more):
        watching.note()
        return put(self, *args, **more)

    monkeypatch.setattr(MemoryBackend, "put", noting)
    before = os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
    with Checkpointer(url, ALL, state=watching, **settings) as ckpt:
        ckpt._saves._writer._copier.submit(watching.note).result(60)
        for _ in range(2):
            ckpt.save().result(60)
    levels = {name.partition("_")[0]: level for name, level in watching.seen.items()}
    assert levels.pop("keepbest-writer") == min(19, before + raised)
    assert set(levels.values()) == {before}
    assert "keepbest-copier" in levels


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has niceness by thread")
def test_a_writer_that_training_waits_for_is_not_slowed(url, monkeypatch):
    """With mode="sync" it is in nobody's way."""
    from keepbest.storage.memory import MemoryBackend

    watching, put = Watching(), MemoryBackend.put

    def noting(self, *args, **more):
        watching.note()
        return put(self, *args, **more)

    monkeypatch.setattr(MemoryBackend, "put", noting)
    with Checkpointer(url, ALL, state=watching, mode="sync") as ckpt:
        ckpt.save()
    assert set(watching.seen.values()) == {os.getpriority(os.PRIO_PROCESS, threading.get_native_id())}


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has niceness by thread")
@pytest.mark.parametrize("refused", [False, True], ids=["past-the-page-cache", "through-it"])
def test_who_waits_for_the_disk_is_not_slowed(tmp_path, monkeypatch, refused):
    """It takes nothing from training; but where it copies to the page cache, it keeps to the writer's share."""
    levels, plain = {}, os.pwrite

    def pwrite(fd, data, offset):
        level = os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
        levels.setdefault(direct._is_direct(fd), set()).add(level)
        return plain(fd, data, offset)

    if refused:
        monkeypatch.setattr(direct, "_O_DIRECT", 0)
    before = os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
    state = {"w": np.zeros(1_000_001, np.uint8), "v": np.zeros(1 << 22)}
    with Checkpointer(tmp_path / "run", ALL, state=state) as ckpt:
        ckpt.save().result(60)
        monkeypatch.setattr(os, "pwrite", pwrite)
        for number in range(2):
            state["v"] = np.full(1 << 22, float(number))
            ckpt.save().result(60)
    assert levels == ({False: {before + 10}} if refused else {True: {before}, False: {before + 10}})
