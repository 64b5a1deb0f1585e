"""Transfer: how a stream becomes parts, how many are on their way, what is tried again, and what is left behind."""

from __future__ import annotations

import contextvars
import itertools
import mmap
import random
import threading
import time
import weakref
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from contracts.memory_client import MemoryClient
from hypothesis import given, settings
from hypothesis import strategies as st

from keepbest.errors import ConfigError, ObjectExistsError, ObjectNotFoundError, StorageError, UnreachableError
from keepbest.storage import commit
from keepbest.storage.bucket import BucketBackend
from keepbest.storage.client import Source, TransientError
from keepbest.storage.commit import BytesDraft
from keepbest.storage.operation import one_operation
from keepbest.storage.parts import PartSizes, parts
from keepbest.storage.retry import Retry
from keepbest.storage.transfer import Transfer, TransferSettings

MIB = 1 << 20
PART = 5 * MIB


@pytest.fixture
def client():
    """A bucket in memory."""
    return MemoryClient()


def transfer_to(client, **options):
    return Transfer(client, TransferSettings(**{"part_size": PART, "connections": 4, "deadline": 4.0} | options))


def numbered(count, size=PART):
    """Yield `count` buffers that differ."""
    for number in range(count):
        yield np.full(size, number, np.uint8)


def passing(location="mem://bucket/x"):
    return TransientError(UnreachableError(location, "it passes"))


def fails(what, times, kind=passing):
    """Return a hook that raises at the first requests of a kind."""
    left = itertools.count()

    def hook(asked, key):
        if asked == what and next(left) < times:
            raise kind()

    return hook


# ── into parts ───────────────────────────────────────────────────────────────────────────────────────────────────


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(0, 40), max_size=30), st.integers(1, 16))
def test_parts_hold_the_stream(sizes, size):
    """However a stream is cut, its parts are of one size but for the last, hold it in order, and none is empty."""
    whole = bytes(range(256)) * 5
    ends = list(itertools.accumulate(sizes))
    chunks = [whole[end - length : end] for end, length in zip(ends, sizes, strict=True)]
    found = [bytes(part.joined()) for part in parts(chunks, PartSizes(sent=size))]
    assert b"".join(found) == b"".join(chunks)
    assert all(len(part) == size for part in found[:-1])
    assert all(0 < len(part) <= size for part in found)


def test_a_chunk_that_is_a_part_is_not_copied():
    """A part of one buffer is that buffer's memory."""
    data = np.zeros(3 * 16, np.uint8)
    found = [part.joined() for part in parts([data[:16], data[16:]], PartSizes(sent=16))]
    for number, part in enumerate(found):
        assert np.shares_memory(np.frombuffer(part, np.uint8), data[16 * number : 16 * number + 16])


def sparse(tmp_path, size):
    """Return that many zeros, which take no memory."""
    with (tmp_path / "sparse").open("w+b") as file:
        file.truncate(size)
        return mmap.mmap(file.fileno(), size, access=mmap.ACCESS_READ)


def test_a_very_large_stream_has_no_more_parts_than_a_store_takes(tmp_path):
    """480 GiB at 8 MiB a part would be 61,440 parts: they grow, so that 10,000 are enough, and stay below 5 GiB."""
    found = [part.nbytes for part in parts([sparse(tmp_path, 480 << 30)], PartSizes(sent=8 * MIB))]
    assert len(found) <= 10_000
    assert sum(found) == 480 << 30
    assert found[:-1] == sorted(found[:-1])
    assert (found[0], max(found)) == (8 * MIB, 128 * MIB)


def test_no_part_is_larger_than_a_store_takes(tmp_path):
    """Also when the parts were asked to be large at first, none grows beyond 5 GiB."""
    found = parts([sparse(tmp_path, 12 << 40)], PartSizes(sent=4 << 30))
    assert max(part.nbytes for part in found) == 5 << 30


def test_a_stream_that_is_too_large_is_an_error_that_says_what_to_set(client):
    """One part too many for the store is named before it is sent, and the upload is aborted."""
    client.part_limit = 4
    with pytest.raises(StorageError, match=r"larger than 4 parts\. Give storage_options=\{'part_size': …\}"):
        transfer_to(client).upload("key", numbered(5), if_absent=True)
    assert (client.objects, client.parts) == ({}, {})


def test_parts_come_in_order_however_long_each_takes(client):
    """The object is the stream, also when later parts arrive before earlier ones."""
    waits = random.Random(1)
    client.before = lambda what, key: time.sleep(waits.random() * 0.05)
    assert transfer_to(client).upload("key", numbered(12), if_absent=True) == 12 * PART
    assert client.objects["key"] == b"".join(bytes(piece) for piece in numbered(12))


@pytest.mark.parametrize(("size", "requests"), [(0, "put"), (PART, "put"), (PART + 1, "put_part")])
def test_what_fits_into_a_part_is_one_request(client, size, requests):
    """A short stream, and an empty one, is one conditional request; a longer one is an upload in parts."""
    transfer_to(client).upload("key", [bytes(size)], if_absent=True)
    assert client.asked[requests] > 0
    assert client.asked["put" if requests == "put_part" else "put_part"] == 0
    assert len(client.objects["key"]) == size


# ── on their way ─────────────────────────────────────────────────────────────────────────────────────────────────


class Alive:
    """Makes buffers, and knows how many of them there are at most."""

    def __init__(self):
        self.now = self.most = 0
        self.lock = threading.Lock()

    def stream(self, count):
        for number in range(count):
            piece = np.full(PART, number, np.uint8)
            with self.lock:
                self.now += 1
                self.most = max(self.most, self.now)
            weakref.finalize(piece, self._gone)
            yield piece
            del piece

    def _gone(self):
        with self.lock:
            self.now -= 1


def test_memory_is_bounded_by_the_window(client):
    """However long the stream and however slow the store, no more parts are held than connections and two beside."""
    alive = Alive()
    client.before = lambda what, key: time.sleep(0.02)
    transfer_to(client).upload("key", alive.stream(40), if_absent=True)
    assert client.most_at_once == 4
    assert alive.most <= 4 + 2


def test_the_window_is_shared_by_all_uploads(client):
    """Several files at once use the same connections, and each holds but two parts more."""
    alive = Alive()
    client.before = lambda what, key: time.sleep(0.01)
    transfer = transfer_to(client)
    with ThreadPoolExecutor(3) as pool:
        list(pool.map(lambda n: transfer.upload(f"key-{n}", alive.stream(15), if_absent=True), range(3)))
    assert client.most_at_once == 4
    assert alive.most <= 4 + 1 + 3 * 2
    assert all(len(client.objects[f"key-{n}"]) == 15 * PART for n in range(3))


def test_every_connection_is_used(client):
    """Parts go up side by side: of eight connections none waits for another, so eight parts meet on their way."""
    meet = threading.Barrier(8)

    def before(what, key):
        if what == "put_part":
            meet.wait(timeout=60)  # a BrokenBarrierError, unless seven others are on their way as well

    client.before = before
    transfer_to(client, connections=8, deadline=120.0).upload("key", numbered(32), if_absent=True)
    assert client.most_at_once == 8


# ── what fails ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_part_that_fails_is_sent_again_alone(client):
    """Of twelve parts one fails twice: fourteen requests, one object."""
    client.before = fails("put_part", 2)
    transfer_to(client).upload("key", numbered(12), if_absent=True)
    assert client.asked["put_part"] == 14
    assert client.asked["start_upload"] == client.asked["finish_upload"] == 1
    assert len(client.objects["key"]) == 12 * PART


def test_a_part_that_fails_for_good_ends_the_upload(client):
    """The error arrives as it is, the rest of the stream is not asked for, and the upload is aborted."""
    error = StorageError("mem://bucket/key", "broken")

    def before(what, key):
        if key == "key:3":
            raise error

    client.before = before
    taken = []
    stream = (taken.append(number) or piece for number, piece in enumerate(numbered(1000)))
    with pytest.raises(StorageError) as caught:
        transfer_to(client).upload("key", stream, if_absent=True)
    assert caught.value is error
    assert len(taken) < 20
    assert (client.objects, client.parts) == ({}, {})
    assert client.at_once == 0


@pytest.mark.parametrize("kind", [ZeroDivisionError, KeyboardInterrupt, SystemExit])
def test_the_error_of_a_source_arrives_unchanged(client, kind):
    """What the stream raises, an interrupt too, aborts the upload and is what the caller gets."""

    def stream():
        yield from numbered(3)
        raise kind("mine")

    with pytest.raises(kind, match="mine") as caught:
        transfer_to(client).upload("key", stream(), if_absent=True)
    assert caught.value.__cause__ is None
    assert (client.objects, client.parts) == ({}, {})


def test_an_upload_that_cannot_be_aborted_fails_with_its_own_error(client):
    """What tidies up does not hide what went wrong."""
    client.before = lambda what, key: (_ for _ in ()).throw(OSError) if what == "put_part" else None
    client.abort_upload = lambda key, upload: (_ for _ in ()).throw(StorageError("mem://bucket/key", "no"))
    with pytest.raises(OSError, match="^$"):
        transfer_to(client).upload("key", numbered(3), if_absent=True)


def test_an_upload_onto_a_taken_key_is_refused_before_it_is_sent(client):
    """A key that is taken is noticed before gigabytes went up."""
    client.objects["key"] = b"old"
    with pytest.raises(ObjectExistsError, match="mem://bucket/key"):
        transfer_to(client).upload("key", numbered(3), if_absent=True)
    assert client.asked["put_part"] == 0
    assert client.objects["key"] == b"old"


def test_a_finish_that_came_through_unseen_is_no_error(client):
    """The reply to the last request is lost, the upload is gone when it is sent again, and the object is there."""
    client.after = fails("finish_upload", 1)
    transfer_to(client).upload("key", numbered(3), if_absent=True)
    assert len(client.objects["key"]) == 3 * PART


def test_an_upload_that_somebody_aborted_is_an_error(client):
    """When the upload is gone and there is no object, or another one, that is told."""
    for held in ({}, {"key": b"another"}):
        once = fails("finish_upload", 1)

        def lose(what, key, held=held, once=once):
            if what == "finish_upload":
                client.parts.clear()
                client.objects.update(held)
            once(what, key)

        client.objects.clear()
        client.before = lose
        with pytest.raises(ObjectNotFoundError):
            transfer_to(client).upload("key", numbered(3), if_absent=True)
        assert client.objects == held


# ── what is tried again ──────────────────────────────────────────────────────────────────────────────────────────


def test_what_moved_bytes_for_long_is_tried_again():
    """A part that was going up for longer than all retries take, and then broke off, is sent again all the same."""
    retry, tries = Retry(2.0), []

    def request():
        tries.append(time.monotonic())
        if len(tries) == 1:
            time.sleep(1.5)
            raise passing()
        return "answer"

    assert retry.attempt(request) == ("answer", True)


def tries_until_given_up(retry, **options):
    """Return how often a request is sent that always fails."""
    tries = []

    def request():
        tries.append(1)
        raise passing()

    with pytest.raises(UnreachableError):
        retry.attempt(request, **options)
    return len(tries)


def test_after_one_request_was_given_up_others_of_its_operation_are_not_waited_for_as_long():
    """What tidies up behind a store that is gone is tried once; when the store answers again, all is as before."""
    retry = Retry(4.0)
    with one_operation():
        assert tries_until_given_up(retry) >= 3
        assert tries_until_given_up(retry) == 1
        with one_operation():  # a part of the outer one
            assert tries_until_given_up(retry, small=True) == 1
        assert retry.attempt(lambda: 1) == (1, False)
        assert tries_until_given_up(retry) >= 3


def test_the_next_operation_has_all_its_patience_again():
    """That a save was given up just now does not fail the next one at its first request that does not come through."""
    retry = Retry(4.0)
    for _ in range(2):
        with one_operation():
            assert tries_until_given_up(retry, small=True) >= 3
    assert tries_until_given_up(retry) >= 3


def test_a_request_under_way_when_another_was_given_up_is_not_tried_again():
    """Requests that fail at the same time end at the same time, also outside of an operation."""
    retry, sent = Retry(4.0), []

    def request():
        sent.append(1)
        if len(sent) == 2:
            assert tries_until_given_up(retry) >= 3
        raise passing()

    with pytest.raises(UnreachableError):
        retry.attempt(request)
    assert len(sent) == 2


def test_what_was_tried_in_another_way_before_is_tried_for_less_long():
    """Both ways together have the time of one."""
    assert tries_until_given_up(Retry(4.0), failing=0.0) >= 3
    assert tries_until_given_up(Retry(4.0), failing=1.8) == 1


def test_parts_that_wait_for_a_connection_belong_to_the_operation(client):
    """Of two uploads of one save, the second does not begin to be patient when the first was given up."""
    transfer, gone, tries = transfer_to(client, connections=1), threading.Event(), Counter()

    def before(asked, key):
        if asked in {"put_part", "abort_upload"}:
            tries[asked, key.partition(":")[0]] += 1
            gone.set()
            raise passing()

    def upload(key):
        transfer.upload(key, numbered(3), if_absent=False)

    client.before = before
    with ThreadPoolExecutor(2) as pool, one_operation():
        first = pool.submit(contextvars.copy_context().run, upload, "first")
        assert gone.wait(10)
        second = pool.submit(contextvars.copy_context().run, upload, "second")
        assert [type(each.exception()) for each in (first, second)] == [UnreachableError] * 2
    assert tries["put_part", "first"] >= 3
    assert tries["put_part", "second"] == 1


def test_of_a_checkpoint_that_cannot_be_written_no_more_files_are_begun(client):
    """When one file fails, those that wait for their turn are not sent, and those that were are deleted."""

    def refuse(asked, key):
        if asked == "put":
            raise StorageError("mem://bucket/x", "no")

    client.before = refuse
    asked = TransferSettings(connections=2)
    backend = BucketBackend("mem://bucket", lambda _: client, asked, ["mem"], delta=False)
    drafts = [BytesDraft(file=f"file-{number}", data=b"x") for number in range(20)]
    with pytest.raises(StorageError, match="no"):
        commit.write(backend, "a-checkpoint", drafts)
    assert client.asked["put"] <= 4
    assert client.asked["delete"] == 1


def test_a_stream_that_was_given_up_leaves_some_patience_for_the_parts(client):
    """Where a client's own way of sending a stream fails, what is sent instead is not given up at its first failure."""

    def put_stream(key, buffers):
        for _ in buffers:
            raise TransientError(UnreachableError("mem://bucket/x", "it passes"), tried=0.5)

    client.put_stream = put_stream
    client.before = fails("start_upload", 2)
    data = list(numbered(3))
    assert transfer_to(client).upload("key", data, if_absent=True) == 3 * PART
    assert client.asked["start_upload"] == 3
    assert client.objects["key"] == b"".join(bytes(chunk) for chunk in data)


@pytest.mark.parametrize(
    "wrong",
    [
        {"connections": 0}, {"connections": 2.5}, {"connections": True}, {"part_size": MIB}, {"part_size": 6 << 30},
        {"deadline": 0}, {"deadline": "30"}, {"client": "boto"}, {"conditional_writes": "no"},
    ],
    ids=str,
)  # fmt: skip
def test_a_setting_that_is_wrong_is_named(wrong):
    """Each setting says its limits, when the run is opened."""
    (name,) = wrong
    with pytest.raises(ConfigError, match=rf"storage_options\['{name}'\] is"):
        TransferSettings.split(wrong)


# ── down, across, in pages ───────────────────────────────────────────────────────────────────────────────────────


def test_neighbours_are_read_together(client):
    """A hundred small ranges beside each other are one request, those far apart are several, in the order asked."""
    client.objects["key"] = random.Random(2).randbytes(20 * MIB)
    near = [(n * 1000, n * 1000 + 900) for n in range(100)]
    far = [(18 * MIB, 18 * MIB + 10), *near, (0, 3), (9 * MIB, 9 * MIB + 5)]
    for ranges, requests in ((near, 1), (far, 3)):
        client.asked.clear()
        found = transfer_to(client).download("key", ranges)
        assert [bytes(view) for view in found] == [client.objects["key"][begin:end] for begin, end in ranges]
        assert client.asked["get_into"] == requests


def test_large_ranges_are_read_in_pieces_at_once(client):
    """A large range comes in parts, side by side, straight into one memory; a piece that fails is asked for again."""
    client.objects["key"] = random.Random(3).randbytes(23 * MIB)
    client.before = fails("get_into", 2)
    (found,) = transfer_to(client).download("key", [(MIB, 23 * MIB)])
    assert bytes(found) == client.objects["key"][MIB:]
    assert client.asked["get_into"] == 5 + 2


def test_ranges_end_where_the_object_ends(client):
    """Ranges beyond the end are short, also when the end lies within the last of several pieces."""
    client.objects["key"] = bytes(11 * MIB + 7)
    found = transfer_to(client).download("key", [(0, 30 * MIB), (11 * MIB, 12 * MIB), (40 * MIB, 41 * MIB), (5, 5)])
    assert [len(view) for view in found] == [11 * MIB + 7, 7, 0, 0]


def test_a_large_object_is_copied_in_parts(client):
    """Above the limit of one request a copy is made of parts, as few as fit; one that fails aborts it."""
    client.objects["key"], client.copy_limit = random.Random(4).randbytes(11 * MIB), 4 * MIB
    transfer_to(client).copy(Source(client, "key"), "copy")
    assert client.objects["copy"] == client.objects["key"]
    assert (client.asked["copy_part"], client.asked["copy"]) == (3, 0)
    client.before = fails("copy_part", 99, lambda: StorageError("mem://bucket/other", "no"))
    with pytest.raises(StorageError, match="other"):
        transfer_to(client).copy(Source(client, "key"), "other")
    assert client.parts == {}
    client.copy_limit, client.before = 11 * MIB, lambda what, key: None
    transfer_to(client).copy(Source(client, "key"), "whole")
    assert client.asked["copy"] == 1


def test_a_page_that_fails_is_asked_for_alone(client):
    """A long listing does not begin anew for one page, however often pages fail."""
    client.page, client.objects = 10, {f"run/commits/{n:03d}": b"x" for n in range(95)} | {"run/commits/": b""}
    client.before = fails("list", 1)
    backend = BucketBackend("mem://bucket/run", lambda _: client, TransferSettings(deadline=4.0), ["mem"])
    assert [entry.key for entry in backend.list("commits/")] == [f"commits/{n:03d}" for n in range(95)]
    assert client.asked["list"] == 10 + 1


def test_deletes_go_in_batches(client):
    """Two thousand keys are a few requests, and no key is forgotten."""
    client.objects = {f"run/{n}": b"x" for n in range(2100)} | {"run-2/1": b"x"}
    backend = BucketBackend("mem://bucket/run", lambda _: client, TransferSettings(), ["mem"])
    backend.delete(str(n) for n in range(2100))
    assert client.objects == {"run-2/1": b"x"}
    assert client.asked["delete"] == 3
