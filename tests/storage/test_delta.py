"""Deltas: what an older file has is not written again, and every checkpoint is whole by itself, whatever goes."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import uuid
from pathlib import Path

import numpy as np
import pytest
from contracts.backend_contract import Stream, noise
from contracts.faults import Crash, CrashingBackend, FailingBackend
from contracts.runs import SmallRun, same, staged
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from keepbest.errors import StorageError
from keepbest.storage import tensorfile, tensorstream
from keepbest.storage.backend import Held, bytes_of, open_backend
from keepbest.storage.layout import temporary_of
from keepbest.storage.run import Run

MIB = 1 << 20


@pytest.fixture
def backend(tmp_path):
    return open_backend(str(tmp_path / "run"))


@pytest.fixture
def written(monkeypatch):
    """Count the bytes that are given to the kernel to be written."""
    total = [0]

    def counting(call):
        def counted(fd, data, *args):
            done = call(fd, data, *args)
            total[0] += done
            return done

        return counted

    for name in ("write", "pwrite"):
        monkeypatch.setattr(os, name, counting(getattr(os, name)))
    return total


def finetuned(number, mib=20):
    """Return a model of which 95 % never change: a frozen backbone with small and large tensors, and a trained head."""
    frozen = np.random.default_rng(0)
    held = {f"backbone.{n}.weight": frozen.random(mib * MIB * 9 // 400, np.float32) for n in range(10)}
    held |= {f"backbone.{n}.bias": frozen.random(mib * MIB // 1000, np.float32) for n in range(10)}
    return held | {"head": np.random.default_rng(number + 1).random(mib * MIB // 86, np.float32)}


def path_of(backend, saved):
    return Path(backend.url, "checkpoints", saved.name, "model.safetensors")


def retained(run):
    """Return what keep_last=1 and keep_best=1 let go."""
    held = run.writer.checkpoints
    best = min(held, key=lambda found: found.scores[0].value)
    kept = {best.sequence, held[-1].sequence}
    return [found.sequence for found in held if found.sequence not in kept]


# ── what is not written ──────────────────────────────────────────────────────────────────────────────────────────────

LOSSES = {
    "better-each-time": [1 / n for n in range(1, 15)],
    "never-better": list(range(1, 15)),
    "now-and-then": [5, 4, 6, 7, 3, 8, 2, 2.5, 2.4, 1, 3, 3, 0.5, 0.6],
}


@pytest.mark.parametrize("losses", LOSSES)
def test_a_frozen_backbone_is_not_written_again(backend, written, losses):
    """With 95 % of the parameters frozen, a save writes no more than 7 % once the files that take turns are there."""
    run = SmallRun(backend)
    whole = None
    for number, loss in enumerate(LOSSES[losses]):
        before = written[0]
        run.save(loss, arrays=finetuned(number))
        run.writer.retire(retained(run))
        nbytes = written[0] - before
        whole = nbytes if whole is None else whole
        if number > 3:
            assert nbytes <= 0.07 * whole, number
        assert same(Run(backend).latest.load("model"), finetuned(number))
    assert whole > 19 * MIB
    assert Run(backend).verify().ok


def test_a_file_that_did_not_change_is_linked(backend, written):
    """A second save of the same weights writes no file, and stands when the first is retired and others follow."""
    run = SmallRun(backend)
    first = run.save(arrays=finetuned(0))
    before = written[0]
    second = run.save(arrays=finetuned(0))
    assert written[0] - before < 100_000
    assert path_of(backend, second).samefile(path_of(backend, first))
    run.writer.retire([1])
    for number in range(1, 5):
        run.save(arrays=finetuned(number))
        run.writer.retire([found.sequence for found in run.writer.checkpoints[1:-1]])
    assert Run(backend).verify().ok
    assert same(Run(backend).get(second.name).load("model"), finetuned(0))


def test_a_small_file_that_did_not_change_is_written(backend):
    """A link is not worth it for what is small."""
    run = SmallRun(backend)
    first, second = (run.save(arrays={"w": np.zeros(10)}) for _ in range(2))
    assert not path_of(backend, second).samefile(path_of(backend, first))


def test_the_first_save_after_a_start_is_whole(backend, written):
    """What an earlier process left may be damaged by now: nothing is made of it."""
    first = SmallRun(backend).save(arrays=finetuned(0))
    before = written[0]
    again = SmallRun(backend)
    second = again.save(arrays=finetuned(0))
    assert written[0] - before > 19 * MIB
    assert not path_of(backend, second).samefile(path_of(backend, first))
    again.writer.retire([1])
    assert not [entry for entry in backend.list("") if temporary_of(entry.key)]


def test_a_base_that_somebody_deleted_is_no_error(backend):
    """When the older checkpoint is gone, by hand, the new one is written."""
    run = SmallRun(backend)
    first = run.save(arrays=finetuned(0))
    path_of(backend, first).unlink()
    second = run.save(arrays=finetuned(0))
    assert same(Run(backend).get(second.name).load("model"), finetuned(0))


# ── what the stream says ─────────────────────────────────────────────────────────────────────────────────────────────


def streamed(arrays, base=None, spare=None, training=(), newest=None):
    """Return the chunks of a file, its bytes and its stream."""
    plan, data = staged(arrays)
    stream = tensorstream.TensorStream(plan.header, plan.offsets, data, base=base, spare=spare, training=training)
    if newest is not None:
        stream.is_all_of(newest)
    chunks = list(stream)
    return chunks, b"".join(bytes_of(chunk) for chunk in chunks), stream


SIZES = st.sampled_from([0, 1, 100, 70_000, 300_000, MIB, 3 * MIB])


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(old=st.lists(SIZES, max_size=9), new=st.lists(SIZES, max_size=9), seed=st.integers(0, 99))
def test_held_bytes_are_where_they_are_said_to_be(old, new, seed):
    """Of any two files: the stream is the new one, digests are right, and what is held lies in the old one there."""
    chance = random.Random(seed)
    first = {f"t{n}": np.full(size, n, np.uint8) for n, size in enumerate(old)}
    second = {f"t{n}": np.full(size, n if chance.random() < 0.7 else 99, np.uint8) for n, size in enumerate(new)}
    backend = open_backend(f"memory://delta-{uuid.uuid4().hex}")
    plan, data = staged(first)
    record = tensorfile.write(backend, "a", plan, data)
    older = backend.read("a")
    plain = streamed(second)
    training = {name for name in second if chance.random() < 0.3}
    for helps in (
        {"base": record},
        {"spare": record},
        {"base": record, "spare": record},
        {"base": record, "spare": record, "training": training, "newest": record},
    ):
        chunks, whole, stream = streamed(second, **helps)
        assert whole == plain[1]
        assert stream.hasher.digests == plain[2].hasher.digests
        assert stream.hasher.file_digest() == plain[2].hasher.file_digest()
        assert list(map(bytes_of, stream)) == list(map(bytes_of, chunks))  # a second time
        place = 0
        for chunk in chunks:
            if isinstance(chunk, Held):
                assert older[chunk.begin : chunk.begin + len(chunk.data)] == chunk.data
                assert chunk.in_place == (chunk.begin == place if "spare" in helps else False)
                assert len(chunk.data) >= (65536 if chunk.in_place else MIB)
            place += len(bytes_of(chunk))


class Read:
    """Data that says which of it was asked for."""

    def __init__(self, data):
        self.data, self.upto = memoryview(data), 0

    def __len__(self):
        return len(self.data)

    def __getitem__(self, span):
        self.upto = max(self.upto, span.stop)
        return self.data[span]


def test_what_trains_is_sent_while_it_is_hashed():
    """A large tensor that is not compared is on its way before its end was read; one that is compared is not."""
    plan, data = staged({"w": np.zeros(40 * MIB, np.uint8)})
    backend = open_backend(f"memory://delta-{uuid.uuid4().hex}")
    record = tensorfile.write(backend, "a", plan, data)
    for training, upto in ((("w",), 8 * MIB), ((), 40 * MIB)):
        read = Read(data)
        stream = tensorstream.TensorStream(plan.header, plan.offsets, read, spare=record, training=training)
        chunks = iter(stream)
        assert [bytes_of(next(chunks)), len(bytes_of(next(chunks)))] == [plan.header, 8 * MIB if training else 40 * MIB]
        assert read.upto == upto


def test_what_trained_before_is_expected_to_train(backend, monkeypatch):
    """A tensor that differs between the newest file and the spare one is not compared: one that rests again is soon."""
    seen, plain = [], tensorstream.TensorStream

    def stream(*args, training, **named):
        seen.append(sorted(training))
        return plain(*args, training=training, **named)

    monkeypatch.setattr(tensorfile, "TensorStream", stream)
    run = SmallRun(backend)
    for number in (1, 2, 3, 3, 3, 3):
        arrays = {"w": np.full(4 * MIB, number, np.uint8), "frozen": np.full(4 * MIB, 7, np.uint8)}
        saved = run.save(arrays=arrays | {"b": np.full(4 * MIB, len(seen), np.uint8)})
        run.writer.retire([found.sequence for found in run.writer.checkpoints][:-1])
        assert same(Run(backend).latest.load("model"), arrays | {"b": np.full(4 * MIB, saved.sequence - 1, np.uint8)})
    assert seen == [[], [], ["b", "w"], ["b", "w"], ["b"], ["b"]]


def test_only_a_backend_that_can_use_it_is_told_what_is_held(memory_url):
    """Where nothing is gained, everything is sent."""
    run = SmallRun(open_backend(memory_url))
    for _ in range(2):
        run.save(arrays=finetuned(0))
    assert Run(run.backend).verify().ok


# ── blocks that are shared ───────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("lead", [0, 4096, 5000])
@pytest.mark.parametrize("copies", ["all", "some", "none"])
def test_shared_blocks_make_the_same_file(backend, monkeypatch, lead, copies):
    """Where the file system can share blocks, the file is what it would be anyway, also if it refuses half-way."""
    old = noise(9 * MIB, 1)
    backend.put("checkpoints/c/a", Stream([old]))
    backend.settle()
    plain = os.copy_file_range
    shared = [0]

    def copy_file_range(source, target, count, *offsets):
        if copies == "none" or (copies == "some" and shared[0]):
            raise OSError(95, "Operation not supported")
        done = plain(source, target, min(count, 100_000) if copies == "some" else count, *offsets)
        shared[0] += done
        return done

    monkeypatch.setattr(os, "copy_file_range", copy_file_range)
    held = Held(data=old[MIB + 3 : 8 * MIB + 1], begin=MIB + 3)
    chunks = Stream([noise(MIB + 3 + lead, 2), held, noise(7, 3)])
    backend.put("checkpoints/d/a", chunks, base="checkpoints/c/a")
    backend.settle()
    assert backend.read("checkpoints/d/a") == b"".join(map(bytes_of, chunks))
    assert bool(shared[0]) == (copies != "none" and lead % 4096 == 0)


def test_a_run_on_a_file_system_that_shares_blocks(backend):
    """Every checkpoint of a run that shares blocks is whole, and stays so when those before it go."""
    run = SmallRun(backend)
    for number in range(6):
        run.save(arrays=finetuned(number))
        backend.capabilities = replace(backend.capabilities, delta=True, recycles=False)
        run.writer.retire([found.sequence for found in run.writer.checkpoints[:-2]])
        assert Run(backend).verify().ok
        assert same(Run(backend).latest.load("model"), finetuned(number))


# ── whatever goes ────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("seed", range(4))
def test_of_any_history_every_checkpoint_is_whole(backend, tmp_path, seed):
    """Save, publish, load, retire, in any order: what is listed, was published or is being read is what was saved."""
    chance = random.Random(seed)
    run, current, version = SmallRun(backend), {}, 0
    published, readers = {}, []
    for turn in range(25):
        for name, size in (("a", 2 * MIB), ("b", 700_000), ("c", 300), ("d", MIB + 5), ("e", 400_000)):
            if not turn or chance.random() < 0.3:
                version += 1
                current[name] = np.full(size, version % 251, np.uint8)
        saved = run.save(chance.random(), arrays=dict(current))
        if chance.random() < 0.3:
            published[turn] = path_of(backend, saved).read_bytes()
            backend.publish(f"checkpoints/{saved.name}/model.safetensors", str(tmp_path / f"published-{turn}"))
        if chance.random() < 0.3:
            readers.append((Run(backend).latest.load("model"), dict(current)))
        if chance.random() < 0.2:
            readers.clear()
        others = [found.sequence for found in run.writer.checkpoints]
        run.writer.retire(chance.sample(others, min(len(others) - 1, chance.choice([0, 1, 1, 2]))))
        assert Run(backend).verify().ok
        for found in Run(backend).checkpoints():
            assert same(found.load("model"), run.wrote[found.name])
        assert all(same(*reader) for reader in readers)
        assert all((tmp_path / f"published-{turn}").read_bytes() == held for turn, held in published.items())
    run.writer.close()
    names = {found.name for found in Run(backend).checkpoints()}
    assert {path.name for path in Path(backend.url, "checkpoints").iterdir()} == names
    assert not [entry for entry in backend.list("") if temporary_of(entry.key)]


def steady(backend):
    """Bring a run to where files take turns; returns it and what it saves next."""
    run = SmallRun(backend)
    for number in range(3):
        run.save(1 / (number + 1), arrays=finetuned(number, mib=3))
        run.writer.retire([found.sequence for found in run.writer.checkpoints[:-1]])
    return run


def go_on(run):
    for number in (3, 4, 4):
        run.save(1 / (number + 1), arrays=finetuned(number, mib=3))
        run.writer.retire([found.sequence for found in run.writer.checkpoints[:-1]])
    run.writer.close()


@pytest.mark.parametrize("moment", ["before", "during", "after"])
def test_killed_at_any_call_while_files_take_turns(tmp_path, moment):
    """Wherever a save over a spare file is killed: what is listed is whole, and the next training goes on."""
    for at in range(1000):
        backend = open_backend(str(tmp_path / str(at)))
        watched = CrashingBackend(backend, -1, moment)
        run = steady(watched)  # at -1: not at all
        watched.at = len(watched.trace) + at
        try:
            go_on(run)
            break
        except Crash:
            run.writer._drop_spares.detach()  # nothing of ours runs after a kill
            assert Run(backend).verify().ok, watched.trace
            assert Run(backend).latest.sequence >= 3
        saved = SmallRun(backend).save(arrays=finetuned(9, mib=3))
        assert same(Run(backend).get(saved.name).load("model"), finetuned(9, mib=3))
        Run(backend).gc(grace=0)
        assert Run(backend).verify().ok
        assert not [entry for entry in backend.list("") if temporary_of(entry.key)]
    assert at > 15


@pytest.mark.parametrize("after", [False, True], ids=["not-done", "reply-lost"])
def test_refused_at_any_call_while_files_take_turns(tmp_path, after):
    """Wherever the store refuses once: nothing listed is harmed, the training goes on, and nothing stays behind."""
    for at in range(1000):
        backend = open_backend(str(tmp_path / str(at)))
        failing = FailingBackend(backend, -1, after=after)
        run = steady(failing)
        failing.at = len(failing.trace) + at
        for number in range(3, 7):
            try:
                run.save(1 / (number + 1), arrays=finetuned(number, mib=3))
                run.writer.retire([found.sequence for found in run.writer.checkpoints[:-1]])
            except StorageError:
                assert Run(backend).verify().ok
        if len(failing.trace) <= failing.at:
            break
        saved = run.save(arrays=finetuned(7, mib=3))
        assert Run(backend).verify().ok
        assert same(Run(backend).get(saved.name).load("model"), finetuned(7, mib=3))
        run.writer.close()
        Run(backend).gc(grace=0)
        assert not [entry for entry in backend.list("") if temporary_of(entry.key)]
    assert at > 15


PROGRAM = """
import sys
sys.path.insert(0, sys.argv[2])
import numpy as np
from contracts.runs import SmallRun
from keepbest.storage.backend import open_backend
run = SmallRun(open_backend(sys.argv[1]))
while True:
    number = run.writer.next_sequence
    arrays = {"frozen": np.arange(3 << 20, dtype=np.uint8), "w": np.full(1 << 20, number, np.float32)}
    saved = run.save(1.0 / number, arrays=arrays)
    print(saved.sequence, flush=True)
    run.writer.retire([found.sequence for found in run.writer.checkpoints[:-1]])
"""


def test_sigkill_at_any_moment_while_files_take_turns(tmp_path):
    """Kill a training, ten times at random: what it said was saved is there, and all that is listed is whole."""
    url, moments = str(tmp_path / "run"), random.Random(0)
    for _ in range(10):
        training = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, url, str(Path(__file__).parents[1])], stdout=subprocess.PIPE, text=True
        )
        try:
            for _ in range(moments.randrange(3, 9)):
                assert training.stdout.readline()
            with pytest.raises(subprocess.TimeoutExpired):
                training.wait(timeout=moments.random() / 50)
        finally:
            training.kill()
            said = training.stdout.read().split()
            training.stdout.close()
            training.wait(timeout=30)
        run = Run(open_backend(url))
        assert run.verify().ok, str(run.verify())
        assert run.latest.sequence >= int(said[-1] if said else 1)
        assert np.all(run.latest.load("model")["w"] == run.latest.sequence)
    run.gc(grace=0)
    assert {path.name for path in Path(url, "checkpoints").iterdir()} == {found.name for found in run.checkpoints()}
    assert not [name for name in os.listdir(url) if name.startswith(".tmp-")]
