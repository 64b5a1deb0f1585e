"""The protocol: killed or refused at any call of a save, nothing older is lost and nothing half is listed."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
import uuid
from pathlib import Path

import numpy as np
import pytest
from contracts.faults import Crash, CrashingBackend, FailingBackend, WrappedBackend
from contracts.runs import SmallRun, same, weights

from keepbest.errors import (
    ConcurrentWriterError,
    ObjectExistsError,
    ObjectNotFoundError,
    StorageError,
    StorageFullError,
    UnreachableError,
)
from keepbest.storage import commit
from keepbest.storage.backend import open_backend
from keepbest.storage.commit import BytesDraft, FileDraft, LinkDraft
from keepbest.storage.layout import checkpoint_of, commit_key, commit_sequence, data_key, temporary_of
from keepbest.storage.listing import UNINDEXED, read_listing
from keepbest.storage.run import Run
from keepbest.storage.run_writer import RunWriter

# ── killed at any call ───────────────────────────────────────────────────────────────────────────────────────────────
# Each scenario: how many checkpoints are there before, and what is saved and retired.

FEW = 4
SCENARIOS = {
    "worse": {"older": 4, "loss": 0.9, "going": [2, 3]},
    "better": {"older": 4, "loss": 0.05, "going": [1, 4]},
    "retires-all-others": {"older": 3, "loss": 0.05, "going": [1, 2, 3]},
    "retires-the-newest": {"older": 3, "loss": 0.9, "going": [3, 4]},
    "writes-an-index": {"older": UNINDEXED + 2, "loss": 0.9, "going": [2]},
}


def build(backend, older):
    """Write checkpoints of which the first is the best."""
    run = SmallRun(backend)
    for number in range(older):
        run.save(0.1 + number / 1000)
    return run.wrote


def save_and_retire(backend, loss, going):
    """Do what a save does, in its order; returns what was written."""
    run = SmallRun(backend)
    run.save(loss)
    run.writer.retire(going)
    run.writer.refresh_hints()
    return run.wrote


class Killed:
    """A run in a place of its own for each kill, all with the same content to begin with."""

    def __init__(self, kind, tmp_path, older):
        self.kind, self.tmp_path = kind, tmp_path
        self.template = self._place()
        self.wrote = build(open_backend(self.template), older)

    def fresh(self):
        place = self._place()
        if self.kind == "local":
            shutil.copytree(self.template, place, symlinks=True)
            return open_backend(place)
        old, new = open_backend(self.template), open_backend(place)
        for entry in old.list(""):
            new.put(entry.key, [old.read(entry.key)])
        return new

    def _place(self):
        name = uuid.uuid4().hex
        return str(self.tmp_path / name) if self.kind == "local" else f"memory://test-{name}"


def assert_sound(backend, wrote, older, going):
    """Check all that is owed after a crash, with nothing but what is stored."""
    run = Run(backend)
    assert run.verify().ok, str(run.verify())
    held = {found.sequence: found for found in run.checkpoints()}
    before, new = set(range(1, older + 1)), older + 1
    assert before - set(going) <= set(held) <= before | {new}
    if new not in held and new not in going:  # nothing is retired before the new one is there
        assert set(held) == before
    for found in (run.best, run.latest):
        assert same(found.load("model"), weights(found.sequence))
        assert found.name in wrote or found.sequence == new
    assert run.best.scores[0].value == min(found.scores[0].value for found in held.values())
    assert run.latest.sequence == max(held)


def assert_usable(backend):
    """Check that a new save works, and that garbage collection leaves what is committed and nothing else."""
    before = {found.sequence for found in Run(backend).checkpoints()}
    run = SmallRun(backend)
    again = run.save(0.5)
    assert {found.sequence for found in Run(backend).checkpoints()} == {*before, again.sequence}
    assert same(Run(backend).get(again.name).load("model"), run.wrote[again.name])
    Run(backend).gc(grace=0)
    names = {found.name for found in Run(backend).checkpoints()}
    for entry in backend.list(""):
        assert temporary_of(entry.key) is None
        assert checkpoint_of(entry.key) in {None, *names}
    assert Run(backend).verify().ok
    if not backend.url.startswith("memory:"):
        assert {path.name for path in Path(backend.url, "checkpoints").iterdir()} == names
        assert not [name for name in os.listdir(backend.url) if name.startswith(".tmp-")]


@pytest.mark.parametrize("moment", ["before", "during", "after"])
@pytest.mark.parametrize(
    ("kind", "scenario"),
    [
        (kind, name)
        for name in SCENARIOS
        for kind in ("memory", "local")
        if kind == "memory" or name != "writes-an-index"
    ],
)
def test_killed_at_any_call_of_a_save(kind, scenario, moment, tmp_path):
    """Wherever a save is killed: what is listed is whole, the best is there, the next save works, gc tidies up."""
    older, loss, going = SCENARIOS[scenario].values()
    runs = Killed(kind, tmp_path, older)
    watched = CrashingBackend(runs.fresh(), None, moment)
    wrote = runs.wrote | save_and_retire(watched, loss, going)
    calls = [name for name, _ in watched.trace]
    assert {"put", "put_if_absent", "settle", "delete"} <= set(calls)
    assert_sound(watched.inner, wrote, older, going)
    for at in range(calls.index("replace") if older > FEW else 0, len(calls)):
        backend = runs.fresh()
        with pytest.raises(Crash):
            save_and_retire(CrashingBackend(backend, at, moment), loss, going)
        assert_sound(backend, runs.wrote, older, going)
        assert_usable(backend)


def test_data_comes_before_its_commit_and_goes_after_it(backend):
    """The order of calls: data, settle, commit; and to retire: commit, settle, data."""
    SmallRun(backend).save()
    watched = CrashingBackend(backend, -1, "never")
    run = SmallRun(watched)
    watched.trace.clear()
    saved = run.save()
    changes = [(name, key) for name, key in watched.trace if name not in {"list", "read"}]
    assert set(changes[:2]) == {
        ("put", data_key(saved.name, "model.safetensors")),
        ("put", data_key(saved.name, "state.json")),
    }
    assert changes[2:] == [("settle", None), ("put_if_absent", commit_key(2))]
    deleted = []

    class Deletions(WrappedBackend):
        def _call(self, name, *args):
            if name == "delete":
                keys = list(args[0])
                deleted.append(keys)
                return super()._call(name, keys)
            if name == "settle":
                deleted.append("settle")
            return super()._call(name, *args)

    commit.retire(Deletions(backend), [saved])
    assert deleted == [
        [commit_key(2)],
        "settle",
        [data_key(saved.name, "model.safetensors"), data_key(saved.name, "state.json")],
    ]


# ── refused at any call ──────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("after", [False, True], ids=["not-done", "reply-lost"])
@pytest.mark.parametrize("kind", ["memory", "local"])
def test_refused_at_any_call_of_a_save(kind, after, tmp_path):
    """Wherever the store refuses once: an error says so, nothing older is harmed, no orphan stays, a new save works."""
    runs = Killed(kind, tmp_path, 4)
    for at in range(1000):
        backend = runs.fresh()
        failing = FailingBackend(backend, at, after=after)
        run = SmallRun(failing)
        failed = None
        try:
            run.save(0.05)
        except StorageError as error:
            failed = error
        if len(failing.trace) <= at:
            break
        listed = {found.sequence for found in Run(backend).checkpoints()}
        assert Run(backend).verify().ok
        lost_reply = after and failing.trace[at] == "put_if_absent"
        assert (failed is None) == lost_reply, failing.trace
        assert listed == ({1, 2, 3, 4, 5} if lost_reply else {1, 2, 3, 4})
        if failed is not None:
            assert "no answer (a test)" in str(failed)
            names = {found.name for found in Run(backend).checkpoints()}
            assert {checkpoint_of(entry.key) for entry in backend.list("checkpoints/")} == names
        run.save(0.04)
        assert Run(backend).best.scores[0].value == 0.04
        assert len(Run(backend).checkpoints()) == len(listed) + 1
    assert at >= 4


@pytest.mark.parametrize("after", [False, True], ids=["not-done", "reply-lost"])
def test_a_retirement_that_was_refused_is_tried_again(backend, after):
    """Wherever the store refuses to delete: nothing is listed without its data, and the next time it is gone."""
    for at in range(1000):
        for entry in backend.list(""):
            backend.delete([entry.key])
        build(backend, 4)
        failing = FailingBackend(backend, at, after=after)
        writer = RunWriter(failing)
        try:
            writer.retire([2, 3])
        except StorageError:
            assert Run(backend).verify().ok
            assert {1, 4} <= {found.sequence for found in Run(backend).checkpoints()}
            writer.retire([2, 3])
        else:
            assert at > 3
            break
        assert {found.sequence for found in Run(backend).checkpoints()} == {1, 4}
        assert len({checkpoint_of(entry.key) for entry in backend.list("checkpoints/")}) == 2


class NoReply(WrappedBackend):
    """Stores the manifest, then says that something went wrong, and does not let it be read back either."""

    def __init__(self, inner, *, stores):
        super().__init__(inner)
        self.stores = stores
        self.silent = False

    def _call(self, name, *args):
        if self.silent and name == "put_if_absent":
            if self.stores:
                super()._call(name, *args)
            raise StorageError(self.url, "connection reset (a test).")
        if self.silent and name == "read":
            raise StorageError(self.url, "connection reset (a test).")
        return super()._call(name, *args)


@pytest.mark.parametrize("stores", [True, False])
def test_while_nobody_knows_whether_it_is_committed_its_data_stays(backend, stores):
    """The connection breaks at the commit and stays broken: a checkpoint that turns out to be there is whole."""
    build(backend, 2)
    broken = NoReply(backend, stores=stores)
    run = SmallRun(broken)
    broken.silent = True
    with pytest.raises(StorageError, match="connection reset"):
        run.save(0.01)
    assert Run(backend).verify().ok
    assert len(Run(backend).checkpoints()) == 2 + stores
    broken.silent = False
    after = run.save(0.005)  # by the same training, once the connection is back
    assert Run(backend).best.sequence == after.sequence
    Run(backend).gc(grace=0)
    assert Run(backend).verify().ok
    assert len({checkpoint_of(entry.key) for entry in backend.list("checkpoints/")}) == 3 + stores


class Late(WrappedBackend):
    """The request that creates a manifest is given up, and arrives afterwards."""

    def __init__(self, inner):
        super().__init__(inner)
        self.on_its_way = None

    def _call(self, name, *args):
        if name != "put_if_absent":
            return super()._call(name, *args)
        self.on_its_way = args
        raise UnreachableError(self.url, "no answer (a test)")

    def arrive(self):
        self.inner.put_if_absent(*self.on_its_way)


def test_a_commit_that_arrives_after_it_was_given_up_finds_its_data(backend):
    """Nobody answered, and the manifest is not there yet: the save fails, and what comes to be listed is whole."""
    build(backend, 2)
    late = Late(backend)
    with pytest.raises(UnreachableError):
        SmallRun(late).save(0.01)
    assert len(Run(backend).checkpoints()) == 2
    late.arrive()
    assert len(Run(backend).checkpoints()) == 3
    assert Run(backend).verify().ok


def test_a_commit_whose_settling_fails_keeps_its_data(tmp_path):
    """The manifest is there and its folder cannot be synced: the save fails, and what is listed is whole."""

    class Unsettling(WrappedBackend):
        def _call(self, name, *args):
            result = super()._call(name, *args)
            if name == "put_if_absent" or (name == "settle" and self.inner.list("commits/")):
                raise StorageError(self.url, "Input/output error (a test).")
            return result

    backend = open_backend(str(tmp_path / "run"))
    with pytest.raises(StorageError, match="Input/output"):
        SmallRun(Unsettling(backend)).save()
    assert Run(backend).verify().ok
    assert len(Run(backend).checkpoints()) == 1


def test_an_interrupted_commit_loses_no_data(backend):
    """Ctrl-C at the very moment of the commit leaves a whole checkpoint, or none."""

    class Interrupting(WrappedBackend):
        def _call(self, name, *args):
            result = super()._call(name, *args)
            if name == "put_if_absent":
                raise KeyboardInterrupt
            return result

    with pytest.raises(KeyboardInterrupt):
        SmallRun(Interrupting(backend)).save()
    assert Run(backend).verify().ok


# ── two writers ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_second_of_two_writers_is_told_and_harms_nothing(backend):
    """Another training took the number: ours is refused by name, theirs is whole, and nothing of ours stays."""
    build(backend, 2)
    ours, theirs = SmallRun(backend), SmallRun(backend)
    first = theirs.save(0.01)
    for _ in range(2):
        with pytest.raises(ConcurrentWriterError, match=first.name) as caught:
            ours.save(0.001)
        assert (caught.value.sequence, caught.value.url) == (3, backend.url)
    assert Run(backend).verify().ok
    assert same(Run(backend).best.load("model"), theirs.wrote[first.name])
    names = {found.name for found in Run(backend).checkpoints()}
    assert {checkpoint_of(entry.key) for entry in backend.list("checkpoints/")} == names


def test_the_second_of_two_writers_is_told_also_if_the_first_has_retired_its_own(backend):
    """The number was taken, and what took it is gone by the time one looks: it is a writer's doing all the same."""
    build(backend, 1)
    first = SmallRun(backend)

    class Overtaken(WrappedBackend):
        def _call(self, name, *args):
            if name != "put_if_absent":
                return super()._call(name, *args)
            sequence = first.save(0.5).sequence
            try:
                return super()._call(name, *args)
            finally:
                first.save(0.4)
                first.writer.retire([sequence])

    with pytest.raises(ConcurrentWriterError, match="number 3"):
        SmallRun(Overtaken(backend)).save(0.01)
    assert Run(backend).verify().ok
    assert {found.sequence for found in Run(backend).checkpoints()} == {1, 3}
    assert len({checkpoint_of(entry.key) for entry in backend.list("checkpoints/")}) == 2


def test_a_writer_that_was_asleep_is_told_though_its_number_is_free_again(backend):
    """Another training went on and retired what had the number: whoever wakes up commits nothing in between."""
    build(backend, 1)
    asleep, awake = SmallRun(backend), SmallRun(backend)
    for loss in (0.5, 0.4, 0.3):
        newest = awake.save(loss).sequence
    awake.writer.retire([newest - 2, newest - 1])
    with pytest.raises(ConcurrentWriterError, match=f"number {newest}"):
        asleep.save(0.01)
    assert Run(backend).verify().ok
    assert {found.sequence for found in Run(backend).checkpoints()} == {1, newest}
    assert len({checkpoint_of(entry.key) for entry in backend.list("checkpoints/")}) == 2


def test_a_damaged_manifest_in_the_way_is_not_overwritten(backend):
    """A number that is taken by something unreadable is not ours to use; nothing is deleted on a guess."""
    run = SmallRun(backend)
    run.save()
    backend.put_if_absent(commit_key(2), b"half a manif")
    with pytest.raises(ConcurrentWriterError, match="manifest is damaged"):
        run.save()
    assert backend.read(commit_key(2)) == b"half a manif"


def test_after_a_damaged_manifest_training_goes_on(backend):
    """A writer that finds an unreadable manifest takes the next number."""
    SmallRun(backend).save()
    backend.put_if_absent(commit_key(2), b"half a manif")
    assert SmallRun(backend).save().sequence == 3


def test_a_name_that_is_taken_costs_the_older_nothing(backend):
    """Should a new checkpoint get the name of an older one, the save fails, and the older one is as it was."""
    run = SmallRun(backend)
    facts = run.save()
    with pytest.raises(ObjectExistsError):
        commit.write(
            backend, facts.name, [BytesDraft(file="new.json", data=b"x"), BytesDraft(file="state.json", data=b"x")]
        )
    assert Run(backend).verify().ok
    assert same(Run(backend).latest.load("model"), run.wrote[facts.name])
    assert sorted(entry.key for entry in backend.list("checkpoints/")) == [
        data_key(facts.name, "model.safetensors"),
        data_key(facts.name, "state.json"),
    ]


# ── what can be written ──────────────────────────────────────────────────────────────────────────────────────────────


def test_files_are_moved_in_and_links_share_bytes(backend, tmp_path):
    """A file that a framework wrote, and one that an older checkpoint holds, become files of the new checkpoint."""
    (tmp_path / "model.keras").write_bytes(b"weights")
    drafts = [FileDraft(file="model.keras", path=str(tmp_path / "model.keras")), BytesDraft(file="a", data=b"")]
    first = commit.write(backend, "epoch-001_aaaaaa", drafts)
    assert first["model.keras"].size == 7
    link = LinkDraft(file="m", source=data_key("epoch-001_aaaaaa", "model.keras"), artifact=first["model.keras"])
    assert commit.write(backend, "epoch-002_bbbbbb", [link]) == {"m": first["model.keras"]}
    backend.delete([data_key("epoch-001_aaaaaa", "model.keras")])
    assert backend.read(data_key("epoch-002_bbbbbb", "m")) == b"weights"
    assert not (tmp_path / "model.keras").exists()


def test_a_write_that_fails_leaves_no_file_and_no_folder(tmp_path):
    """A save that fails at its first or its second file leaves nothing, not even an empty folder, time after time."""
    backend = open_backend(str(tmp_path / "run"))

    class Full(WrappedBackend):
        def _call(self, name, *args):
            if name == "put" and b"".join(args[1]) == b"too much":
                self.inner.put(args[0], [b"x"])
                self.inner.delete([args[0]])
                (Path(self.url) / args[0]).parent.mkdir(exist_ok=True)
                raise StorageFullError(args[0])
            return super()._call(name, args[0], [b"x"]) if name == "put" else super()._call(name, *args)

    for drafts in (["too much"], ["fits", "too much"]):
        with pytest.raises(StorageFullError):
            commit.write(
                Full(backend),
                "epoch-001_aaaaaa",
                [BytesDraft(file=str(n), data=text.encode()) for n, text in enumerate(drafts)],
            )
        assert list(Path(backend.url, "checkpoints").iterdir()) == []


def test_a_link_to_what_was_retired_is_an_error(backend):
    """A file that is to be shared and is gone fails the save by name, and leaves nothing."""
    run = SmallRun(backend)
    facts = run.save()
    artifact = Run(backend).latest.manifest().artifacts["state.json"]
    with pytest.raises(ObjectNotFoundError, match="never"):
        commit.write(
            backend, "epoch-009_cccccc", [LinkDraft(file="a", source=data_key(facts.name, "never"), artifact=artifact)]
        )
    assert {checkpoint_of(entry.key) for entry in backend.list("checkpoints/")} == {facts.name}


def test_numbers_are_not_given_out_twice(backend):
    """Numbers go on from the highest that is there, over gaps."""
    run = SmallRun(backend)
    for _ in range(3):
        run.save()
    run.writer.retire([1, 2])
    assert SmallRun(backend).save().sequence == 4
    assert [commit_sequence(entry.key) for entry in backend.list("commits/")] == [3, 4]
    assert read_listing(backend).last_sequence == 4


# ── the real thing ───────────────────────────────────────────────────────────────────────────────────────────────────

PROGRAM = """
import sys
sys.path.insert(0, sys.argv[2])
from contracts.runs import SmallRun
from keepbest.storage.backend import open_backend
run = SmallRun(open_backend(sys.argv[1]))
print("ready", flush=True)
while True:
    facts = run.save(1.0 / run.writer.next_sequence)
    print(facts.sequence, flush=True)
    run.writer.retire([found.sequence for found in run.writer.checkpoints[1:-2]])
    run.writer.refresh_hints()
"""


def test_sigkill_at_any_moment(tmp_path):
    """Kill a training, ten times at random: what it said was saved is there, and all that is listed is whole."""
    url = str(tmp_path / "run")
    moments = random.Random(0)
    for _ in range(10):
        training = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, url, str(Path(__file__).parents[1])], stdout=subprocess.PIPE, text=True
        )
        try:
            assert training.stdout.readline() == "ready\n"
            training.stdout.readline()
            for _ in range(moments.randrange(5)):
                training.stdout.readline()
        finally:
            training.kill()
            said = training.stdout.read().split()
            training.stdout.close()
            training.wait(timeout=30)
        run = Run(open_backend(url))
        assert run.verify().ok, str(run.verify())
        held = [found.sequence for found in run.checkpoints()]
        assert held[0] == 1
        assert held[-1] >= int(said[-1] if said else 1)
        assert np.all(run.latest.load("model")["layer.weight"] == run.latest.sequence)
        assert run.latest.sequence == run.best.sequence
    Run(open_backend(url)).gc(grace=0)
    names = {found.name for found in run.checkpoints()}
    assert {path.name for path in Path(url, "checkpoints").iterdir()} == names
