"""Saves at every step while training goes on, each of which is the state of its step, bit for bit."""

import threading
import time

import numpy as np
import pytest
from contracts.witness import differences

from keepbest import Checkpointer, CheckpointPolicy, open_run
from keepbest.storage.memory import MemoryBackend

EVERY_STEP = CheckpointPolicy(every_n_epochs=None, every_n_steps=1, keep_all=True)


@pytest.fixture
def memory_url(request):
    return f"memory://tensorflow-overlap-{abs(hash((request.node.nodeid, time.monotonic())))}"


@pytest.fixture
def late(monkeypatch):
    """Have the tensors read late: the writer waits until training is a step ahead, or is waited for."""
    ahead, put = threading.Event(), MemoryBackend.put

    def held(self, key, chunks, **settings):
        assert ahead.wait(20)
        return put(self, key, chunks, **settings)

    ahead.set()
    monkeypatch.setattr(MemoryBackend, "put", held)
    return ahead


def record(objects):
    """Return copies of all that the objects hold, as a checkpoint loads it."""
    model, optimizer = objects["model"], objects["optimizer"]
    layers = {f"layers.{name}.{kind}": getattr(layer, kind) for name, layer in model.layers.items() for kind in "wb"}
    weights = {name: np.array(variable.numpy()) for name, variable in (layers | {"mean": model.mean}).items()}
    weights["random"] = {"algorithm": int(model.random.algorithm), "state": np.array(model.random.state.numpy())}
    return {
        "model": weights,
        "optimizer": [np.array(variable.numpy()) for variable in optimizer.variables],
        "ema": [np.array(variable.numpy()) for variable in objects["ema"]],
        "step": np.array(objects["step"].numpy()),
    }


def compare(url, seen):
    """Return where checkpoints are not what was seen, the oldest first."""
    found = sorted(open_run(url).checkpoints(), key=lambda checkpoint: checkpoint.sequence)
    assert len(found) == len(seen)
    wrong = []
    for checkpoint, expected in zip(found, seen, strict=True):
        loaded = {name: checkpoint.load(name) for name in expected}
        loaded["optimizer"] = list(loaded["optimizer"].values())
        for name in expected:
            ours = dict(sorted(expected[name].items())) if isinstance(expected[name], dict) else expected[name]
            theirs = dict(sorted(loaded[name].items())) if isinstance(loaded[name], dict) else loaded[name]
            wrong += [f"step {checkpoint.step}: {place}" for place in differences(ours, theirs, name)]
    return wrong


@pytest.mark.parametrize("jit", [False, True], ids=["plain", "compiled"])
def test_what_is_written_late_is_what_the_save_found(trainer, memory_url, late, jit):
    """The writer begins only when training is a step ahead, which has changed everything."""
    objects, step = trainer.build(jit=jit)
    seen = []
    with Checkpointer(memory_url, EVERY_STEP, **objects) as ckpt:
        for _ in range(6):
            step()
            seen.append(record(objects))
            ckpt.wait()
            late.clear()
            ckpt.log_step()
            step()
            late.set()
    assert compare(memory_url, seen) == []


@pytest.mark.parametrize("snapshot", ["overlap", "copy"])
def test_a_save_at_every_step_of_a_long_run(trainer, url, snapshot):
    """Saving at every one of sixty steps, on disk, with no pause: each checkpoint is its step, the iterator's too."""
    objects, step = trainer.build()
    batches, inner = [], objects["data"]
    seen = []
    with Checkpointer(url, EVERY_STEP, snapshot=snapshot, **objects) as ckpt:
        for _ in range(60):
            step()
            seen.append(record(objects))
            ckpt.log_step()
    assert compare(url, seen) == []
    assert inner is objects["data"]
    for sequence in (3, 30, 59):
        fresh, again = trainer.build()
        with Checkpointer(url, EVERY_STEP, **fresh) as ckpt:
            ckpt.restore(sequence)
            batches = [again() for _ in range(60 - ckpt.run.get(sequence).step)]
            assert len(batches) == 60 - ckpt.run.get(sequence).step
            expected = seen[-1]
            assert list(differences(expected, record(fresh))) == []
            ckpt.close(save=False)


def test_sparse_updates_and_every_way_to_assign(tf, memory_url, late):
    """Rows that change in place, by scatter or by a sparse gradient, change no snapshot."""
    module = tf.Module()
    module.rows, module.dense = tf.Variable(tf.zeros((300, 100))), tf.Variable(tf.zeros((300, 100)))
    module.half, module.wide = tf.Variable(tf.zeros(30_000, tf.bfloat16)), tf.Variable(tf.zeros(30_000, tf.complex128))

    @tf.function
    def change(by):
        module.rows.scatter_add(tf.IndexedSlices(tf.ones((2, 100)) * by, tf.constant([3, 200])))
        module.dense.assign_add(tf.ones_like(module.dense) * by)
        module.half.assign_add(tf.ones_like(module.half))
        module.wide.assign(module.wide + tf.cast(by, tf.complex128))

    names, seen = ("dense", "half", "rows", "wide"), []
    with Checkpointer(memory_url, EVERY_STEP, model=module) as ckpt:
        for number in range(6):
            change(tf.constant(float(number + 1)))
            module.rows[5].assign(tf.fill((100,), float(number)))
            seen.append({name: np.array(getattr(module, name).numpy()) for name in names})
            ckpt.wait()
            late.clear()
            ckpt.log_step()
            change(tf.constant(50.0))
            module.rows[5].assign(tf.fill((100,), -1.0))
            late.set()
    found = sorted(open_run(memory_url).checkpoints(), key=lambda checkpoint: checkpoint.sequence)
    loaded = [dict(sorted(checkpoint.load("model").items())) for checkpoint in found]
    assert [list(differences(one, other)) for one, other in zip(seen, loaded, strict=True)] == [[]] * 6
