"""Copying between two runs: what the target lists is whole, whatever breaks off in between."""

from __future__ import annotations

import json
import uuid

import numpy as np
import pytest
from contracts.faults import CountingBackend, Crash, CrashingBackend, FailingBackend, WrappedBackend
from contracts.runs import SmallRun, same

from keepbest.errors import (
    CheckpointNotFoundError,
    ConcurrentWriterError,
    DamagedFileError,
    DivergedError,
    ObjectExistsError,
    StorageError,
)
from keepbest.storage.backend import open_backend
from keepbest.storage.history import Row
from keepbest.storage.journal import Journal
from keepbest.storage.layout import JOURNAL, checkpoint_of, commit_key, data_key, data_prefix, temporary_of
from keepbest.storage.mirror import Copier, check_same_run
from keepbest.storage.run import Run
from keepbest.storage.run_writer import RunWriter
from keepbest.storage.segments import read_appended

WAYS = ["local to memory", "memory to local", "local to s3", "gcs to local"]
BUCKETS = ("s3", "gcs")


@pytest.fixture(
    params=[pytest.param(way, marks=[pytest.mark.bucket] * any(kind in way for kind in BUCKETS)) for way in WAYS]
)
def tiers(request, tmp_path):
    """Two empty places: the source and the target, as functions that open them anew."""
    first, second = (place(kind, request, tmp_path) for kind in request.param.split(" to "))
    return lambda: open_backend(first), lambda: open_backend(second)


def place(kind, request, tmp_path):
    if kind == "local":
        return str(tmp_path / "run")
    return f"memory://test-{uuid.uuid4().hex}" if kind == "memory" else request.getfixturevalue(f"{kind}_url")


def rows(*losses, start=0):
    return [
        Row(kind="epoch", epoch=start + number, step=number, time=1.7e9, metrics={"val_loss": loss})
        for number, loss in enumerate(losses)
    ]


def log(backend, *losses, after=None, start=0):
    """Append rows as a training does; returns the place after the last."""
    journal = Journal(backend)
    if after is not None:
        journal.continue_from(after)
    for row in rows(*losses, start=start):
        journal.append(row)
    journal.close()
    return journal.mark


def logged(*losses):
    """Return the lines that `log` appends."""
    backend = open_backend(f"memory://test-{uuid.uuid4().hex}")
    log(backend, *losses)
    return backend.read(JOURNAL)


def losses(backend):
    return Run(backend).history()["val_loss"]


def bytes_of(backend, prefix):
    return {entry.key: backend.read(entry.key) for entry in backend.list(prefix)}


# ── checkpoints ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_copy_is_the_same_byte_for_byte(tiers):
    """Files and manifest of a copy are those of the original: same name, same number, same write id."""
    source, target = tiers[0](), tiers[1]()
    run = SmallRun(source)
    saved = [run.save(loss) for loss in (3.0, 1.0)]
    copier = Copier(source, RunWriter(target))
    for checkpoint in saved:
        assert copier.copy(checkpoint) == checkpoint
    for prefix in ("checkpoints/", "commits/"):
        assert bytes_of(target, prefix) == bytes_of(source, prefix)
    held = Run(target)
    assert held.verify().ok
    assert same(held.best.load("model"), run.wrote[saved[1].name])


def test_copies_may_come_in_any_order(tiers):
    """The newest may be copied first: list, latest and best are as in the original all the same."""
    source, target = tiers[0](), tiers[1]()
    run = SmallRun(source)
    saved = [run.save(loss) for loss in (2.0, 1.0, 1.0, 4.0)]
    writer = RunWriter(target)
    for checkpoint in reversed(saved):
        Copier(source, writer).copy(checkpoint)
    assert writer.checkpoints == saved
    assert writer.next_sequence == 5
    writer.refresh_hints()
    assert Run(target).best.name == saved[1].name
    assert Run(target).latest.name == saved[3].name


def test_a_late_copy_leaves_a_listing_cheap(tiers):
    """When a number that an index covers is copied late, the index is written anew, and right."""
    source, target = tiers[0](), tiers[1]()
    run = SmallRun(source)
    saved = [run.save(1.0 + number) for number in range(66)]
    writer = RunWriter(target)
    for checkpoint in saved[1:]:
        Copier(source, writer).copy(checkpoint)
    writer.refresh_hints()
    Copier(source, writer).copy(saved[0])
    writer.refresh_hints()
    counted = CountingBackend(target)
    assert [found.name for found in Run(counted).checkpoints()] == [found.name for found in saved]
    assert counted.calls["read"] == 1


def test_large_files_come_over_whole(tiers):
    """A file of many pieces is copied in order."""
    source, target = tiers[0](), tiers[1]()
    run = SmallRun(source)
    arrays = {"big": np.random.default_rng(0).integers(0, 255, (80 << 20) + 17, np.uint8)}
    saved = run.save(arrays=arrays)
    pieces = []
    Copier(source, RunWriter(target)).copy(saved, lambda: pieces.append(1))
    assert len(pieces) >= 11
    assert same(Run(target).get(saved.name).load("model"), arrays)


@pytest.mark.parametrize("moment", ["before", "during", "after"])
def test_killed_at_any_call(tiers, moment):
    """Wherever a copy is killed: what the target lists is whole, the next try completes it, and nothing else stays."""
    source = tiers[0]()
    run = SmallRun(source)
    saved = [run.save(loss) for loss in (3.0, 1.0, 2.0)]
    mark = log(source, 3.0, 1.0)

    def copy(backend, wanted):
        copier = Copier(source, RunWriter(backend))
        copier.copy_rows()
        for checkpoint in wanted:
            copier.copy(checkpoint)
        copier.close()

    at, calls = 0, None
    while calls is None or at < calls:
        target = tiers[1]()
        target.delete([entry.key for entry in target.list("")])
        copy(target, saved[:1])
        log(source, 2.0, after=mark, start=2)
        watched = CrashingBackend(target, at if calls is not None else -1, moment)
        if calls is None:
            copy(watched, saved[1:])
            calls = len(watched.trace)
            continue
        with pytest.raises(Crash):
            copy(watched, saved[1:])
        after = tiers[1]()
        report = Run(after).verify()
        assert report.ok, (watched.trace[at], str(report))
        assert saved[0].sequence in {found.sequence for found in Run(after).checkpoints()}
        listed = {found.name for found in Run(after).checkpoints()}
        copy(after, [checkpoint for checkpoint in saved[1:] if checkpoint.name not in listed])
        assert [found.info for found in Run(after).checkpoints()] == saved
        assert Run(after).verify().ok
        assert losses(after) == [3.0, 1.0, 2.0]
        Run(after).gc(grace=0)
        for entry in after.list(""):
            assert temporary_of(entry.key) is None
            assert checkpoint_of(entry.key) in {None, *run.wrote}
        at += 1
    assert calls > 10


@pytest.mark.parametrize("after", [False, True], ids=["refused", "reply lost"])
def test_refused_at_any_call(tiers, after):
    """Whatever call fails, before or after its effect: what the target lists is whole, and the same copier goes on."""
    source = tiers[0]()
    run = SmallRun(source)
    saved = [run.save(loss) for loss in (3.0, 1.0)]
    log(source, 3.0, 1.0)
    at = 0
    while True:
        target = tiers[1]()
        target.delete([entry.key for entry in target.list("")])
        failing = FailingBackend(target, at, after=after)
        copier = Copier(source, RunWriter(failing))

        def catch_up(copier=copier):
            copier.copy_rows()
            for checkpoint in saved:
                copier.copy(checkpoint)
            copier.close()

        try:
            catch_up()
        except StorageError:
            assert Run(target).verify().ok
            listed = {found.name for found in Run(target).checkpoints()}
            left = {checkpoint_of(entry.key) for entry in target.list("")} - {None}
            assert left <= listed
            catch_up()
        assert [found.info for found in Run(target).checkpoints()] == saved
        assert Run(target).verify().ok
        assert losses(target) == [3.0, 1.0]
        if len(failing.trace) <= at:
            return
        at += 1


def test_what_an_earlier_try_left_is_not_believed(tiers):
    """A file that a killed copy left half-written is written anew."""
    source, target = tiers[0](), tiers[1]()
    saved = SmallRun(source).save()
    target.put(data_key(saved.name, "model.safetensors"), [b"half"])
    Copier(source, RunWriter(target)).copy(saved)
    assert Run(target).verify().ok


def test_a_copy_that_is_there_already_is_not_touched(tiers):
    """A copy whose commit came through, though nobody was told so, is never deleted again, not for a moment."""
    source, target = tiers[0](), tiers[1]()
    saved = SmallRun(source).save()
    writer = RunWriter(target)  # lists now, and does not see what comes
    Copier(source, RunWriter(tiers[1]())).copy(saved)
    counted = CountingBackend(target)
    writer.backend = counted
    assert Copier(source, writer).copy(saved) == saved
    assert not {"put", "delete"} & set(counted.calls)


def test_anothers_commit_is_left_alone(tiers):
    """Where the target has another checkpoint of that number, ours is not listed, and theirs is whole."""
    source, target = tiers[0](), tiers[1]()
    saved, other = SmallRun(source).save(), SmallRun(target)
    writer = RunWriter(target)
    theirs = other.save()
    with pytest.raises(ConcurrentWriterError, match=theirs.name):
        Copier(source, writer).copy(saved)
    assert [found.name for found in Run(target).checkpoints()] == [theirs.name]
    assert Run(target).verify().ok
    assert target.list(data_prefix(saved.name)) == []


class Overtaken(WrappedBackend):
    """Somebody else creates each tensor file a moment before we do."""

    def _call(self, name, *args):
        if name == "put" and args[0].endswith(".safetensors"):
            self.inner.put(args[0], [b"theirs"])
        return super()._call(name, *args)


def test_a_file_that_somebody_else_put_there_meanwhile_is_left_alone(tiers):
    """What another process wrote is not deleted when our copy breaks off on it."""
    source, target = tiers[0](), tiers[1]()
    saved = SmallRun(source).save()
    with pytest.raises(ObjectExistsError, match="model.safetensors"):
        Copier(source, RunWriter(Overtaken(target))).copy(saved)
    assert bytes_of(target, "") == {data_key(saved.name, "model.safetensors"): b"theirs"}


def damage(backend, key, content):
    backend.delete([key])
    if content is not None:
        backend.put(key, [content])


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        pytest.param(lambda data: data[:-1] + bytes([data[-1] ^ 1]), "not those that were written", id="altered"),
        pytest.param(lambda data: data[:-1], "it has", id="cut short"),
        pytest.param(lambda _: None, "does not exist", id="missing"),
    ],
)
def test_damage_is_not_copied(tiers, spoil, words):
    """A damaged original is named, and never becomes an object in the target."""
    source, target = tiers[0](), tiers[1]()
    saved = SmallRun(source).save()
    key = data_key(saved.name, "model.safetensors")
    damage(source, key, spoil(source.read(key)))
    with pytest.raises(DamagedFileError, match=f"model.safetensors.*{words}"):
        Copier(source, RunWriter(target)).copy(saved)
    assert target.list("") == []


class RetiringBackend(WrappedBackend):
    """Retires a checkpoint when its data is read for the first time."""

    def __init__(self, inner, checkpoint):
        super().__init__(inner)
        self.checkpoint = checkpoint

    def _call(self, name, *args):
        if name == "read_ranges":
            self.inner.delete([commit_key(self.checkpoint.sequence)])
            self.inner.delete([entry.key for entry in self.inner.list(data_prefix(self.checkpoint.name))])
        return super()._call(name, *args)


def test_what_is_retired_meanwhile_is_not_found(tiers):
    """A checkpoint that goes away while it is copied is not called damaged, and leaves nothing behind."""
    source, target = tiers[0](), tiers[1]()
    saved = SmallRun(source).save()
    with pytest.raises(CheckpointNotFoundError, match=saved.name):
        Copier(RetiringBackend(source, saved), RunWriter(target)).copy(saved)
    assert target.list("") == []
    with pytest.raises(CheckpointNotFoundError, match=saved.name):
        Copier(source, RunWriter(target)).copy(saved)


def test_a_copy_can_be_broken_off(tiers):
    """What the callback raises ends the copying, and nothing is left of it."""
    source, target = tiers[0](), tiers[1]()
    saved = SmallRun(source).save()

    def stop():
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        Copier(source, RunWriter(target)).copy(saved, stop)
    assert target.list("") == []


def test_what_did_not_change_is_not_sent_again(tiers):
    """A file that the target has in another checkpoint is copied there: a frozen part, or the weights of the best."""
    source, target = tiers[0](), tiers[1]()
    run, frozen = SmallRun(source), {"w": np.ones(100)}
    saved = [run.save(loss, arrays=frozen) for loss in (3.0, 2.0, 1.0)]
    counted = CountingBackend(target)
    writer = RunWriter(counted)
    copier = Copier(source, writer)
    copier.copy(saved[0])
    copier.copy(saved[1])
    assert (counted.calls["copy"], counted.calls["put"]) == (1, 3)
    writer.retire([1])
    copier.copy(saved[2])
    assert counted.calls["copy"] == 2
    writer.retire([2, 3])
    copier.copy(saved[2])
    assert counted.calls["copy"] == 2
    assert Run(target).verify().ok


def test_a_twin_that_vanished_is_no_trouble(tiers):
    """If the file to copy from is gone, the bytes are sent after all."""
    source, target = tiers[0](), tiers[1]()
    run, frozen = SmallRun(source), {"w": np.ones(100)}
    saved = [run.save(arrays=frozen) for _ in range(2)]
    copier = Copier(source, RunWriter(target))
    copier.copy(saved[0])
    target.delete([data_key(saved[0].name, "model.safetensors")])
    copier.copy(saved[1])
    assert same(Run(target).latest.load("model"), frozen)


# ── rows ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_rows_are_copied_once(tiers):
    """Each call appends the rows that came since; a copier that begins anew finds out where they end."""
    source, target = tiers[0](), tiers[1]()
    mark = log(source, 1.0, 2.0)
    copier = Copier(source, RunWriter(target))
    copier.copy_rows()
    mark = log(source, 3.0, after=mark, start=2)
    copier.copy_rows()
    copier.copy_rows()
    copier.close()
    assert read_appended(target, JOURNAL) == read_appended(source, JOURNAL)
    log(source, 4.0, after=mark, start=3)
    again = Copier(source, RunWriter(tiers[1]()))
    again.copy_rows()
    again.close()
    assert read_appended(target, JOURNAL) == read_appended(source, JOURNAL)
    assert losses(target) == [1.0, 2.0, 3.0, 4.0]


def test_rows_are_durable_on_return(tiers):
    """Rows are settled before a commit speaks of them, and with the last call of all."""
    source, target = tiers[0](), tiers[1]()
    log(source, 1.0)
    watched = CrashingBackend(target, -1, "never")
    Copier(source, RunWriter(watched)).copy_rows()
    calls = [name for name, _ in watched.trace]
    assert calls.index("append") < calls.index("settle")


def test_a_row_under_way_waits(tiers):
    """A line whose end was not written yet when it was copied comes again when it has one."""
    source, target = tiers[0](), tiers[1]()
    whole = logged(1.0, 2.0)
    copier = Copier(source, RunWriter(target))
    for length in (len(whole) - 30, len(whole)):
        source.replace(JOURNAL, whole[:length])
        copier.copy_rows()
    copier.close()
    assert losses(target) == [1.0, 2.0]
    assert json.loads(read_appended(target, JOURNAL).splitlines()[-1])["epoch"] == 1


def test_a_line_that_a_crash_cut_short_swallows_nothing(tiers):
    """Where the target's last line is torn, what follows begins a line of its own, and the torn row comes again."""
    source, target = tiers[0](), tiers[1]()
    whole = logged(1.0, 2.0, 3.0)
    source.replace(JOURNAL, whole)
    target.replace(JOURNAL, whole[: len(whole) // 2 + 5])
    copier = Copier(source, RunWriter(target))
    copier.copy_rows()
    copier.close()
    assert losses(target) == [1.0, 2.0, 3.0]


class Tearing(WrappedBackend):
    """Writes half of what is appended, once, and says that it failed."""

    torn = False

    def _call(self, name, *args):
        found = super()._call(name, *args)
        if name == "append" and not self.torn:
            self.torn, write = True, found.write
            found.write = lambda data: (write(data[: len(data) // 2]), self.fail())
        return found

    def fail(self):
        raise StorageError(self.url, "no space (a test).")


def test_rows_that_were_half_written_come_again(tiers):
    """A failure in the middle of a row costs none: the next call brings all of them."""
    source, target = tiers[0](), tiers[1]()
    mark = log(source, 1.0, 2.0)
    copier = Copier(source, RunWriter(Tearing(target)))
    with pytest.raises(StorageError, match="no space"):
        copier.copy_rows()
    log(source, 3.0, after=mark, start=2)
    copier.copy_rows()
    copier.close()
    assert losses(target) == [1.0, 2.0, 3.0]


def test_a_future_that_was_left_behind_does_not_become_the_history(tiers):
    """Rows of a branch that the target went on from without them stay where they are, until training goes on."""
    source, target = tiers[0](), tiers[1]()
    mark = log(source, 1.0, 2.0)
    copier = Copier(source, RunWriter(target))
    copier.copy_rows()
    copier.close()
    log(source, 9.0, after=mark, start=2)  # the disk's own, never mirrored
    log(target, 3.0, after=mark, start=2)  # another machine went on
    back = Copier(target, RunWriter(source))
    back.copy_rows()
    back.close()
    assert losses(source) == [1.0, 2.0, 3.0]
    again = Copier(source, RunWriter(target))
    again.copy_rows()
    again.close()
    assert losses(target) == [1.0, 2.0, 3.0]


# ── one run or two ────────────────────────────────────────────────────────────────────────────────────────────────


def check(tiers):
    first, second = tiers[0](), tiers[1]()
    held, mirrored = RunWriter(first).checkpoints, RunWriter(second).checkpoints
    check_same_run(first, held, second, mirrored)


def test_a_run_and_its_copy_are_one(tiers):
    """An empty side, and a side that lags behind, are no contradiction."""
    source, target = tiers[0](), tiers[1]()
    check(tiers)
    run = SmallRun(source)
    saved = [run.save() for _ in range(3)]
    check(tiers)
    Copier(source, RunWriter(target)).copy(saved[1])
    check(tiers)


def test_two_that_went_on_from_one_checkpoint_are_told_apart(tiers):
    """One number with two checkpoints: both are named, and where each lies."""
    source, target = tiers[0](), tiers[1]()
    run = SmallRun(source)
    Copier(source, RunWriter(target)).copy(run.save())
    ours, theirs = run.save(), SmallRun(target).save()
    with pytest.raises(DivergedError, match=f"number 2 is {ours.name} here, and {theirs.name} there") as caught:
        check(tiers)
    assert isinstance(caught.value, ConcurrentWriterError)
    assert (caught.value.ours, caught.value.other, caught.value.sequence) == (ours.name, theirs.name, 2)
    assert {caught.value.url, caught.value.mirror} == {source.url, target.url}
