"""Overlap: one snapshot being copied beside training, whoever waits for it, and whatever happens meanwhile."""

from __future__ import annotations

import os
import threading
import time
from concurrent.futures import CancelledError

import numpy as np
import pytest

from keepbest.core import overlap as module
from keepbest.core.arriving import Arriving, BrokenOffError
from keepbest.core.overlap import Overlap, settle_all
from keepbest.core.snapshot import Snapshots
from keepbest.core.staging import Staging
from keepbest.core.tensor import TensorSource, numpy_source
from keepbest.storage.digest import digest
from keepbest.storage.file_hasher import PIECE


class Counting:
    """A tensor that a fence protects, and that counts its changes; `at` is called before it is copied."""

    def __init__(self, at=lambda: None):
        self.values, self.changes, self.at = np.zeros(100_000), 0, at

    def set(self, value):
        self.values[:] = value
        self.changes += 1

    def source(self, path):
        return CountingSource(dtype="F64", shape=self.values.shape, tensor=self)


class CountingSource(TensorSource, frozen=True, kw_only=True):
    tensor: Counting

    def copy_into(self, target):
        self.tensor.at()
        np.copyto(np.frombuffer(target, np.float64), self.tensor.values)

    def version(self):
        return self.tensor.changes


@pytest.fixture
def overlapping(monkeypatch):
    """Return what takes a snapshot of a tensor to be copied later, as its Overlap; none is left under way."""
    from keepbest.core import state

    find = state.source_of
    monkeypatch.setattr(
        "keepbest.core.state.source_of",
        lambda path, leaf: ("numpy", leaf.source(path)) if isinstance(leaf, Counting) else find(path, leaf),
    )
    monkeypatch.setattr("keepbest.core.capturing.source_of", state.source_of)

    def overlapping(tensor, again=None):
        snapshots, staging = Snapshots({"held": {"x": tensor}}), Staging()
        taken = snapshots.staged(staging, overlap=True)
        return Overlap(taken, again or (lambda: snapshots.staged(staging, overlap=False)))

    yield overlapping
    module._UNDER_WAY.clear()


def values(snapshot):
    [draft] = snapshot.files
    return set(np.frombuffer(draft.data[:], np.float64).tolist())


def in_thread(call):
    thread = threading.Thread(target=call)
    thread.start()
    return thread


def test_a_copy_that_nothing_disturbs_is_the_snapshot(overlapping):
    """The bytes are those of the tensor, and nobody is held up afterwards."""
    tensor = Counting()
    tensor.set(3)
    overlap = overlapping(tensor)
    assert not overlap.settled
    thread = in_thread(overlap.copy)
    assert values(overlap.result()) == {3.0}
    thread.join()
    settle_all()
    assert overlap.settled
    assert not overlap.retaken


def test_who_is_about_to_change_a_tensor_waits_for_the_copy(overlapping):
    """`settle_all` returns when it is copied, in any number of threads."""
    free, passed = threading.Event(), []
    tensor = Counting(lambda: free.wait(60))
    overlap = overlapping(tensor)
    copier = in_thread(overlap.copy)
    waiting = [in_thread(lambda: (settle_all(), passed.append(overlap.settled or overlap._copied.is_set())))
               for _ in range(3)]  # fmt: skip
    assert passed == []
    free.set()
    for thread in (copier, *waiting):
        thread.join(60)
    assert passed == [True] * 3
    tensor.set(5)
    assert values(overlap.result()) == {0.0}


def test_a_torn_copy_is_taken_again_once(overlapping):
    """However many threads come to it, one takes the snapshot again, and all go on after that."""
    tensor, taken = Counting(), []
    tensor.at = lambda: tensor.set(tensor.changes + 1) if not taken else None
    overlap = overlapping(tensor)
    again = overlap._again
    overlap._again = lambda: (taken.append(1), again())[1]
    overlap.copy()
    assert not overlap.settled
    threads = [in_thread(settle_all) for _ in range(4)]
    for thread in threads:
        thread.join(60)
    assert taken == [1]
    assert overlap.retaken
    assert values(overlap.result()) == {1.0}


def test_without_waiting_only_what_is_due_is_done(overlapping):
    """`settle(0)` returns at once while the copy runs, and takes a torn one again when it has run."""
    tensor = Counting()
    overlap = overlapping(tensor)
    overlap.settle(0)
    assert not overlap.settled
    tensor.set(1)
    overlap.copy()
    overlap.settle(0)
    assert overlap.settled
    assert overlap.retaken


def test_settling_waits_no_longer_than_it_may(overlapping):
    """`settle` with a timeout returns after it, though the copy still runs, and takes nothing again."""
    free = threading.Event()
    overlap = overlapping(Counting(lambda: free.wait(60)), lambda: pytest.fail("taken again"))
    copier = in_thread(overlap.copy)
    begin = time.monotonic()
    overlap.settle(0.05)
    assert 0.05 <= time.monotonic() - begin < 20
    assert not overlap.settled
    free.set()
    copier.join(60)
    overlap.settle(60)
    assert overlap.settled


@pytest.mark.parametrize("kind", [ValueError, KeyboardInterrupt, SystemExit], ids=lambda kind: kind.__name__)
def test_a_copy_that_fails_holds_nobody_up(overlapping, kind):
    """Whatever the copier meets, steps go on, and whoever asks for the result is told."""

    def fail():
        raise kind("of the test")

    overlap = overlapping(Counting(fail))
    overlap.copy()
    settle_all()
    with pytest.raises(kind, match="of the test"):
        overlap.result()


def test_a_second_try_that_fails_holds_nobody_up(overlapping):
    """The step goes on, and whoever asks for the result is told."""

    def again():
        raise ValueError("of the test")

    tensor = Counting()
    overlap = overlapping(tensor, again)
    tensor.set(1)
    overlap.copy()
    settle_all()
    with pytest.raises(ValueError, match="of the test"):
        overlap.result()


def test_an_interrupted_second_try_is_made_again(overlapping):
    """Ctrl-C in it ends the step, not the protection: the next step takes the snapshot."""
    tensor, interrupted = Counting(), []
    overlap = overlapping(tensor)
    again = overlap._again

    def once():
        if not interrupted:
            interrupted.append(1)
            raise KeyboardInterrupt
        return again()

    overlap._again = once
    tensor.set(1)
    overlap.copy()
    with pytest.raises(KeyboardInterrupt):
        settle_all()
    assert not overlap.settled
    settle_all()
    assert values(overlap.result()) == {1.0}


def test_one_that_was_abandoned_holds_nobody_up(overlapping):
    """Where no thread could be had that copies it, steps go on, and a copier that comes late copies nothing."""
    overlap = overlapping(Counting(lambda: pytest.fail("copied")))
    overlap.abandon()
    settle_all()
    overlap.copy()
    assert overlap.settled


# ── called off ────────────────────────────────────────────────────────────────────────────────────────────────────


def test_one_that_was_called_off_holds_nobody_up(overlapping):
    """Whoever waits for the result is told at once, steps go on, and what was begun to be read breaks off."""
    free = threading.Event()
    overlap = overlapping(Counting(lambda: free.wait(60)))
    copier = in_thread(overlap.copy)
    [draft] = overlap.begun().files
    assert overlap.cancel()
    settle_all()
    with pytest.raises(CancelledError):
        overlap.result()
    free.set()
    copier.join(60)
    with pytest.raises(BrokenOffError):
        draft.data[:]


def test_one_that_was_called_off_is_not_taken_again(overlapping):
    """A torn copy that nobody wants costs training nothing."""
    tensor = Counting()
    overlap = overlapping(tensor, lambda: pytest.fail("taken again"))
    tensor.set(1)
    assert overlap.cancel()
    overlap.copy()
    settle_all()
    assert not overlap.retaken
    with pytest.raises(CancelledError):
        overlap.result()


def test_calling_off_after_the_result_comes_too_late(overlapping):
    """Who has the result may commit it, so `cancel` says no; before, it says yes as often as it is asked."""
    overlap, other = overlapping(Counting()), overlapping(Counting())
    overlap.copy()
    overlap.result()
    assert not overlap.cancel()
    assert other.cancel()
    assert other.cancel()


# ── what is arriving ──────────────────────────────────────────────────────────────────────────────────────────────


def reading(arriving, span, found):
    """Read a range in a thread; `found` gets the bytes, or the error."""

    def read():
        try:
            found.append(bytes(arriving[span]))
        except BrokenOffError as error:
            found.append(error)

    return in_thread(read)


def test_a_range_is_read_once_it_is_there():
    """What has arrived is read at once; a range that has not, or not all of it, is waited for, and no longer."""
    region, found = memoryview(bytearray(b"abcdefgh")), []
    arriving = Arriving(region, 2, None)
    assert len(arriving) == 8
    assert bytes(arriving[0:2]) == b"ab"
    reader = reading(arriving, slice(1, 5), found)
    arriving.arrived(2, 4, hashed=False)
    reader.join(0.05)
    assert found == []
    region[4] = ord("E")
    arriving.arrived(4, 5, hashed=False)
    reader.join(60)
    assert found == [b"bcdE"]
    last = reading(arriving, slice(4, None), found)
    arriving.finish(failed=False)
    last.join(60)
    assert found == [b"bcdE", b"Efgh"]


class Viewed(Counting):
    """The same, whose bytes can be seen where they lie."""

    def source(self, path):
        return ViewedSource(dtype="F64", shape=self.values.shape, tensor=self)


class ViewedSource(CountingSource, frozen=True, kw_only=True):
    def view(self):
        self.tensor.at()
        return self.tensor.values.view(np.uint8).data


@pytest.mark.parametrize("tensor", [Counting, Viewed])
def test_who_copies_hashes(overlapping, tensor):
    """When all is copied the digests are there, made from what was in the cache."""
    overlap = overlapping({"a": tensor(), "b": tensor()})
    [draft] = overlap.begun().files
    in_thread(overlap.copy).join(60)
    assert draft.hasher.taken == len(draft.data) == 1_600_000
    assert draft.hasher.digests == dict.fromkeys(draft.plan.offsets, digest(bytes(800_000)))
    overlap.result()


def test_while_a_step_waits_nothing_is_hashed(overlapping):
    """The copy is what training waits for; the rest is made up for by who writes."""
    held, free = threading.Event(), threading.Event()
    first, second = Viewed(), Viewed(lambda: held.set() or free.wait(60))
    overlap = overlapping({"a": first, "b": second})
    [draft] = overlap.begun().files
    copier = in_thread(overlap.copy)
    held.wait(60)
    step = in_thread(settle_all)
    while not overlap.waited_for:
        time.sleep(0.001)
    free.set()
    step.join(60)
    copier.join(60)
    assert draft.hasher.taken == 800_000
    overlap.result()
    draft.hasher.feed(draft.data[:], 0)
    assert draft.hasher.digests == dict.fromkeys(draft.plan.offsets, digest(bytes(800_000)))


def test_a_busy_interpreter_is_waited_for_once_not_at_each_piece():
    """As soon as a piece takes far longer than copying does, the rest of the tensor is one piece."""
    values, told = np.arange(4 * PIECE, dtype=np.uint8), []

    def came(begin, end):
        told.append((begin, end))
        if len(told) == 2:
            time.sleep(0.02)

    target = memoryview(bytearray(len(values)))
    numpy_source(values, "x").fill(target, came)
    assert told == [(0, PIECE), (PIECE, 2 * PIECE), (2 * PIECE, 4 * PIECE)]
    assert target == values.data


def test_what_will_not_arrive_breaks_reading_off():
    """After a failed copy no range is given out, to those who wait for one and to those who come later."""
    found = []
    arriving = Arriving(memoryview(bytearray(8)), 4, None)
    readers = [reading(arriving, slice(low, 8), found) for low in (0, 6)]
    arriving.finish(failed=True)
    for reader in readers:
        reader.join(60)
    assert [type(error) for error in found] == [BrokenOffError, BrokenOffError]
    with pytest.raises(BrokenOffError):
        arriving[0:2]


def test_reading_begins_while_copying_goes_on(overlapping):
    """What comes first in the file can be read though the next tensor is still to be copied."""
    free, second = threading.Event(), Counting()
    second.at = lambda: free.wait(60)
    first = Counting()
    first.set(7)
    overlap = overlapping({"a": first, "b": second})
    copier = in_thread(overlap.copy)
    [draft] = overlap.begun().files
    assert set(np.frombuffer(draft.data[: first.values.nbytes], np.float64).tolist()) == {7.0}
    assert not overlap.settled
    free.set()
    copier.join(60)
    assert overlap.result().files == (draft,)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:os.fork")  # JAX, where another test has imported it
def test_a_forked_child_has_nothing_to_wait_for(overlapping):
    """The copier does not live on in a child, so nothing there waits for it."""
    overlap = overlapping(Counting())
    child = os.fork()
    if not child:
        os._exit(len(module._UNDER_WAY))
    assert os.waitpid(child, 0)[1] == 0
    assert overlap in module._UNDER_WAY
