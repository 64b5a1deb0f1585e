"""Delta: what an older object holds is copied by the store instead of being sent, and nothing is lost if it is not."""

from __future__ import annotations

import contextlib
import itertools
import random
import re
import time
import weakref

import numpy as np
import pytest
from contracts import http_faults, stores
from contracts.memory_client import MemoryClient
from contracts.stores import MIB, PART, within
from hypothesis import given, settings
from hypothesis import strategies as st

from keepbest.errors import ObjectExistsError, StorageError, UnreachableError
from keepbest.storage import progress
from keepbest.storage.backend import Held
from keepbest.storage.bucket import BucketBackend
from keepbest.storage.parts import PartSizes, parts
from keepbest.storage.transfer import TransferSettings

OLD, NEW = "checkpoints/c/a", "checkpoints/d/a"
COPY = r"d/a\?.*partNumber="


@pytest.fixture(params=stores.S3_CLIENTS)
def s3(request):
    """A bucket of S3 behind a proxy, asked by each client."""
    with stores.behind_proxy(request, request.param, deadline=30) as one:
        yield one


@pytest.fixture
def client():
    """A bucket in memory."""
    return MemoryClient()


def backend_of(client, **options):
    asked = TransferSettings(**{"part_size": PART, "connections": 4, "deadline": 4.0} | options)
    return BucketBackend("mem://bucket", lambda _: client, asked, ["mem"], delta=True)


def noise(size, seed=1):
    return random.Random(seed).randbytes(size)


class Stream(list):
    """Chunks that can be gone through again, and what they are together."""

    @property
    def content(self):
        return b"".join(bytes(chunk.data if isinstance(chunk, Held) else chunk) for chunk in self)


def held(data, begin, end, step=MIB):
    """Return a run of an object in pieces, as a tensor file yields its tensors."""
    view = memoryview(data)
    return [Held(data=view[at : min(at + step, end)], begin=at) for at in range(begin, end, step)]


def mostly_held(old):
    """Return a stream of the length of `old`, 95 % of which it holds: all but a piece in its middle."""
    size = len(old)
    first, last = size // 2, size // 2 + size // 20
    return Stream([*held(old, 0, first), noise(last - first, 2), *held(old, last, size)])


def is_copy():
    """Return a condition: true of the requests of the first upload in parts, whose copies are what this is for."""
    uploads = []

    def when(record):
        upload = re.search(r"uploadId=([^&]*)", record.target)[1]
        uploads.append(upload)
        return upload == uploads[0]

    return when


@contextlib.contextmanager
def sending(store):
    """Yield what becomes the bytes of bodies that were sent to the store."""
    before, found = len(store.proxy.records()), []
    yield found
    found.append(sum(record.received for record in store.proxy.records()[before:]))


# ── where the stream is cut ──────────────────────────────────────────────────────────────────────────────────────

SIZES = PartSizes(sent=12, least=5, copied=23)
BASE = bytes(range(256))
PIECES = st.lists(
    st.tuples(st.sampled_from(["new", "next", "held", "in place"]), st.integers(0, 40), st.integers(0, 200)),
    max_size=12,
)


def chunks_of(pieces):
    """Return the chunks, and the lengths of the runs: held chunks that are neighbours in the base are one."""
    chunks, runs, end, number = [], [0], None, 0
    for kind, length, begin in pieces:
        if kind in {"new", "in place"}:
            data = bytes((number := number + 1) % 256 for _ in range(length))
            chunks.append(data if kind == "new" else Held(data=memoryview(data), begin=begin, in_place=True))
            end = end if not length else None
            continue
        at = end if kind == "next" and end is not None and end + length <= len(BASE) else begin
        chunks.append(Held(data=memoryview(BASE)[at : at + length], begin=at))
        if length:
            runs.append(length) if at != end else runs.append(runs.pop() + length)
            end = at + length
    return chunks, runs


@settings(max_examples=1000, deadline=None)
@given(PIECES, st.booleans())
def test_parts_are_the_stream_and_as_a_store_wants_them(pieces, keep):
    """Whatever is held: sent and copied parts are the stream, in order, and none but the last is too small."""
    chunks, _ = chunks_of(pieces)
    found, stream = b"", Stream(chunks).content
    sizes = []
    for part in parts(chunks, SIZES, keep=keep):
        copied = part.begin is not None
        sizes.append((copied, part.nbytes))
        data = BASE[part.begin : part.begin + part.nbytes] if copied else bytes(part.joined())
        assert len(data) == part.nbytes
        assert not copied or bytes(part.joined()) == (data if keep else b"")
        found += data
    assert found == stream
    assert all(size >= SIZES.least for _, size in sizes[:-1])
    assert all(0 < size <= (SIZES.copied if copied else SIZES.sent + SIZES.least - 1) for copied, size in sizes)
    assert len(stream) > SIZES.sent or len(sizes) <= 1


@settings(max_examples=1000, deadline=None)
@given(PIECES)
def test_no_more_is_sent_than_parts_need(pieces):
    """Of a run that is worth a copy no more is sent than fills up the part before it; all that is short is sent."""
    chunks, runs = chunks_of(pieces)
    stream = Stream(chunks).content
    sent = sum(part.nbytes for part in parts(chunks, SIZES) if part.begin is None)
    needed = sum(min(run, SIZES.least - 1 if run >= 2 * SIZES.least - 1 else run) for run in runs)
    beginning = SIZES.sent  # of a stream that might be one part
    assert sent <= len(stream) - sum(runs) + needed + beginning


@pytest.mark.parametrize(
    ("pieces", "plan"),
    [
        pytest.param([("new", 13)], ["sent 12", "sent 1"], id="nothing is held"),
        pytest.param([("held", 12)], ["sent 12"], id="one part"),
        pytest.param([("held", 13)], ["copied 13"], id="all is held"),
        pytest.param([("held", 13), ("new", 1)], ["copied 13", "sent 1"], id="a small end"),
        pytest.param([("new", 2), ("held", 20)], ["sent 5", "copied 17"], id="a small beginning is filled up"),
        pytest.param([("new", 6), ("held", 20)], ["sent 6", "copied 20"], id="a part is not filled up"),
        pytest.param([("new", 14), ("held", 20)], ["sent 14", "copied 20"], id="a little more than a part"),
        pytest.param([("new", 17), ("held", 20)], ["sent 12", "sent 5", "copied 20"], id="two parts"),
        pytest.param([("new", 11), ("held", 4), ("new", 5)], ["sent 12", "sent 8"], id="a short run"),
        pytest.param([("new", 2), ("held", 7), ("new", 6)], ["sent 12", "sent 3"], id="nothing is left of a run"),
        pytest.param([("held", 9), ("held", 9)], ["sent 9", "copied 9"], id="not yet more than a part"),
        pytest.param([("held", 20), ("held", 20)], ["copied 20", "copied 20"], id="two runs"),
        pytest.param([("held", 60)], ["copied 23", "copied 23", "copied 14"], id="a long run"),
        pytest.param([("held", 50)], ["copied 23", "copied 13", "copied 14"], id="a long run with a small rest"),
    ],
)
def test_the_plan_of_a_stream(pieces, plan):
    """What is sent and what is copied, of each kind of stream, at 12 bytes a part, 5 at least, 23 in a copy."""
    chunks = [
        bytes(size) if kind == "new" else Held(data=memoryview(BASE)[:size], begin=100 * number)
        for number, (kind, size) in enumerate(pieces)
    ]
    found = [f"{'sent' if part.begin is None else 'copied'} {part.nbytes}" for part in parts(chunks, SIZES)]
    assert found == plan


def test_a_very_large_stream_of_small_parts_has_no_more_than_a_store_takes():
    """Where new and held bytes alternate, in the smallest parts, 300 GiB are still no more than 10,000."""
    few = memoryview(bytearray(8 * MIB))
    old = ((begin, Held(data=few, begin=begin)) for begin in itertools.count(0, 8 * MIB))
    stream = (chunk for begin, piece in itertools.islice(old, 100 * 128) for chunk in (piece, piece, few))
    sizes = [part.nbytes for part in parts(stream, PartSizes(sent=8 * MIB, copied=256 * MIB), keep=False)]
    assert sum(sizes) == 300 << 30
    assert len(sizes) <= 10_000


# ── on real servers ──────────────────────────────────────────────────────────────────────────────────────────────


def test_what_is_held_is_not_sent(s3):
    """Of 64 MB that are held but for a twentieth, the twentieth is sent, and the object is right bit for bit."""
    backend, old = s3.open(), noise(64_000_000)
    assert backend.capabilities.delta
    backend.put(OLD, [old])
    stream = mostly_held(old)
    with sending(s3) as sent:
        assert backend.put(NEW, stream, base=OLD) == len(old)
    assert sent[0] <= 0.07 * len(old) + PART
    assert sent[0] >= len(old) / 20
    assert bytes(backend.read_ranges(NEW, [(0, len(old) + 1)])[0]) == stream.content
    assert backend.capabilities.delta
    assert s3.uploads() == []


def test_several_runs_in_another_order(s3):
    """Runs may lie anywhere in the older object; short ones are sent, and fill up what is too small for a part."""
    backend, old = s3.open(), noise(40 * MIB)
    backend.put(OLD, [old])
    stream = Stream([
        b"header", *held(old, 25 * MIB, 40 * MIB), noise(100, 3), *held(old, MIB, 2 * MIB), *held(old, 3, 12 * MIB),
        noise(7 * MIB, 4), *held(old, 14 * MIB, 22 * MIB), b"end",
    ])  # fmt: skip
    with sending(s3) as sent:
        backend.put(NEW, stream, base=OLD)
    assert sent[0] < 20 * MIB < len(stream.content)
    assert bytes(backend.read_ranges(NEW, [(0, len(stream.content))])[0]) == stream.content


def test_an_object_that_is_held_whole_is_one_copy(s3):
    """What has not changed at all is copied in one request; a taken key is refused before."""
    backend, old = s3.open(), noise(20 * MIB)
    backend.put(OLD, [old])
    before = len(s3.proxy.records())
    with sending(s3) as sent:
        assert backend.put(NEW, Stream(held(old, 0, 20 * MIB)), base=OLD) == 20 * MIB
    assert [record.method for record in s3.proxy.records()[before:]] == ["HEAD", "HEAD", "PUT"]
    assert sent[0] < MIB
    assert bytes(backend.read_ranges(NEW, [(0, 20 * MIB)])[0]) == old
    with pytest.raises(ObjectExistsError):
        backend.put(NEW, Stream(held(old, 0, 20 * MIB)), base=OLD)


@pytest.mark.parametrize("again", [True, False], ids=["stream again", "stream once"])
def test_a_base_that_goes_away_midway_fails_no_save(s3, again):
    """When the older object is deleted or replaced while it is copied, what it held is sent after all."""
    backend, old = s3.open(), noise(64 * MIB)
    stream = mostly_held(old)
    for change in (
        lambda: s3.server.client().delete_object(Bucket=s3.bucket, Key=f"{s3.name}/{OLD}"),
        lambda: s3.server.client().put_object(Bucket=s3.bucket, Key=f"{s3.name}/{OLD}", Body=noise(len(old), 9)),
    ):
        backend.delete([OLD, NEW])
        backend.put(OLD, [old])
        backend._transfer.client.copy_limit = 10 * MIB
        s3.on("part", http_faults.delay(0.2), path=COPY)

        def changing(change=change):
            for number, chunk in enumerate(stream):
                if number == 40:
                    change()
                yield chunk

        class Changing:
            def __iter__(self):
                return changing()

        assert backend.put(NEW, Changing() if again else changing(), base=OLD) == len(old)
        s3.proxy.clear()
        assert bytes(backend.read_ranges(NEW, [(0, len(old))])[0]) == stream.content
        assert s3.uploads() == []
        assert backend.capabilities.delta


def test_a_copy_that_fails_in_passing_is_tried_again(s3):
    """One 503, and a reply that is lost, are one more request each; nothing more is sent."""
    backend, old = s3.open(), noise(64_000_000)
    backend.put(OLD, [old])
    stream = mostly_held(old)
    s3.on("part", s3.refuse(503, "SlowDown"), path=rf"{COPY}1\b", times=1)
    s3.on("part", http_faults.lose_reply(), path=rf"{COPY}3\b", times=1)
    with sending(s3) as sent:
        backend.put(NEW, stream, base=OLD)
    assert sent[0] <= 0.07 * len(old) + PART
    assert {record.fault for record in s3.proxy.records()} >= {"answer 503", "lose reply"}
    assert bytes(backend.read_ranges(NEW, [(0, len(old))])[0]) == stream.content


@pytest.mark.parametrize(("status", "code"), [(501, "NotImplemented"), (403, "AccessDenied"), (400, "InvalidRequest")])
def test_a_store_that_refuses_to_copy_is_not_asked_again(s3, status, code):
    """A store that does not know such copies, or forbids them, gets all bytes, and is remembered."""
    backend, old = s3.open(), noise(40 * MIB)
    backend.put(OLD, [old])
    stream = mostly_held(old)
    s3.on("part", s3.refuse(status, code), path=rf"{COPY}1\b", times=1)
    backend.put(NEW, stream, base=OLD)
    assert bytes(backend.read_ranges(NEW, [(0, len(old))])[0]) == stream.content
    assert not backend.capabilities.delta
    assert s3.uploads() == []
    with sending(s3) as sent:
        backend.put("checkpoints/e/a", stream, base=OLD)
    assert sent[0] >= len(old)


def test_a_store_that_does_not_join_copies_gets_all_bytes(s3):
    """A store that wants equal parts says so only in the end: then all is sent anew, and nothing is copied again."""
    backend, old = s3.open(), noise(40 * MIB)
    backend.put(OLD, [old])
    stream = mostly_held(old)
    s3.on("finish", s3.refuse(400, "InvalidPart"), times=1)
    backend.put(NEW, stream, base=OLD)
    assert bytes(backend.read_ranges(NEW, [(0, len(old))])[0]) == stream.content
    assert not backend.capabilities.delta
    assert s3.uploads() == []
    s3.on("finish", s3.refuse(400, "InvalidPart"), times=1)
    with pytest.raises(StorageError, match="InvalidPart"):
        backend.put("checkpoints/e/a", stream, base=OLD)


def test_a_store_that_never_ends_a_copy_gets_all_bytes(s3):
    """A store that answers, but copies too slowly for the deadline, does not make saves fail for ever."""
    backend, old = s3.open(deadline=6), noise(40 * MIB)
    backend.put(OLD, [old])
    stream = mostly_held(old)
    s3.on("part", s3.refuse(503, "SlowDown"), path=rf"{COPY}1\b", when=is_copy())
    backend.put(NEW, stream, base=OLD)
    assert not backend.capabilities.delta
    assert bytes(backend.read_ranges(NEW, [(0, len(old))])[0]) == stream.content
    assert s3.uploads() == []


def test_a_store_that_goes_away_midway_ends_the_save(s3):
    """When nothing answers any more the save fails within the deadline, and `abort_stale` finds the parts."""
    key = "checkpoints/epoch-001_step-000010_abcdef/a"
    backend, old = s3.open(deadline=6), noise(40 * MIB)
    backend.put(OLD, [old])
    s3.on("part", http_faults.kill(), path=r"partNumber=3\b")
    with pytest.raises(UnreachableError), within(6):
        backend.put(key, mostly_held(old), base=OLD)
    assert backend.capabilities.delta
    s3.proxy.clear()
    s3.proxy.revive()
    assert s3.open().abort_stale("", time.time() + 60) == 1
    assert s3.uploads() == []
    assert s3.names() == [f"{s3.name}/{OLD}"]


@pytest.mark.parametrize("kind", [ZeroDivisionError, KeyboardInterrupt])
def test_a_stream_that_breaks_off_leaves_no_copies(s3, kind):
    """What the source raises between copies arrives unchanged; neither an object nor parts are left."""
    backend, old = s3.open(), noise(40 * MIB)
    backend.put(OLD, [old])
    backend._transfer.client.copy_limit = 10 * MIB

    def stream():
        yield from held(old, 0, 38 * MIB)
        raise kind("mine")

    with pytest.raises(kind, match="^mine$"):
        backend.put(NEW, stream(), base=OLD)
    assert s3.uploads() == []
    assert s3.names() == [f"{s3.name}/{OLD}"]


def test_gcs_is_sent_everything(request):
    """GCS copies no ranges, and says so; held bytes are sent if they come all the same."""
    with stores.behind_proxy(request, "gcs") as store:
        backend, old = store.open(), noise(12 * MIB)
        backend.put(OLD, [old])
        assert not backend.capabilities.delta
        with sending(store) as sent:
            backend.put(NEW, Stream(held(old, 0, 12 * MIB)), base=OLD)
        assert sent[0] >= 12 * MIB
        assert bytes(backend.read_ranges(NEW, [(0, 12 * MIB)])[0]) == old


test_gcs_is_sent_everything = pytest.mark.bucket(test_gcs_is_sent_everything)


# ── in memory, each by itself ────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("size", [0, 1, PART])
def test_what_is_one_part_is_put_whole(client, size):
    """A short object is one conditional request, held or not."""
    old = noise(size)
    client.objects[OLD] = old
    backend_of(client).put(NEW, Stream(held(old, 0, size)), base=OLD)
    assert client.objects[NEW] == old
    assert (client.asked["put"], client.asked["copy"], client.asked["copy_part"]) == (1, 0, 0)


def test_the_beginning_of_an_object_is_one_copied_part(client):
    """A stream that is a range of the older object alone, not all of it, sends nothing either."""
    old = client.objects[OLD] = noise(20 * MIB)
    backend_of(client).put(NEW, Stream(held(old, 0, 19 * MIB)), base=OLD)
    assert client.objects[NEW] == old[: 19 * MIB]
    assert (client.asked["copy"], client.asked["copy_part"], client.asked["put_part"]) == (0, 1, 0)


def test_a_run_above_the_limit_is_copied_in_parts(client):
    """No copy is larger than the store takes, nor is any smaller than a part."""
    client.copy_limit = 12 * MIB
    old = client.objects[OLD] = noise(25 * MIB + 1)
    spans = []
    copy_part = client.copy_part
    client.copy_part = lambda source, span, *rest: spans.append(span[1] - span[0]) or copy_part(source, span, *rest)
    backend_of(client).put(NEW, Stream(held(old, 0, len(old))), base=OLD)
    assert client.objects[NEW] == old
    assert client.asked["put_part"] == 0
    assert all(5 * MIB <= length <= 12 * MIB for length in spans)
    assert sum(spans) == len(old)


def test_a_base_that_is_gone_at_first_is_asked_for_once(client):
    """One HEAD finds no older object, and everything is sent."""
    old = noise(40 * MIB)
    backend = backend_of(client)
    for stream in (mostly_held(old), iter(mostly_held(old))):
        client.asked.clear()
        client.objects.clear()
        backend.put(NEW, stream, base=OLD)
        assert client.objects[NEW] == mostly_held(old).content
        assert (client.asked["source"], client.asked["copy_part"]) == (1, 0)
    assert backend.capabilities.delta


def test_what_is_copied_is_not_held_in_memory(client):
    """A stream that can be gone through again is not kept for copies under way, however slow they are."""
    old = client.objects[OLD] = noise(200 * MIB)
    client.copy_limit = 32 * MIB
    client.before = lambda what, key: time.sleep(0.1 if what == "copy_part" else 0)
    made, gone, most = [], [], []

    class Fresh:
        def __iter__(self):
            for begin in range(0, len(old), MIB):
                piece = np.frombuffer(old[begin : begin + MIB], np.uint8).copy()
                made.append(begin)
                weakref.finalize(piece, gone.append, begin)
                most.append(len(made) - len(gone))
                yield Held(data=piece.data, begin=begin)
                del piece

    backend_of(client).put(NEW, Fresh(), base=OLD)
    assert client.objects[NEW] == old
    assert client.asked["put_part"] == 0
    assert max(most) <= 2 * PART // MIB + 2


def test_progress_counts_every_byte_once(client):
    """What is copied counts as what is sent does, also when all begins anew."""
    old = client.objects[OLD] = noise(40 * MIB)
    for refuse in (False, True):
        client.objects.pop(NEW, None)

        def before(what, key, refuse=refuse):
            if refuse and what == "copy_part" and key.endswith(":3"):
                raise StorageError("mem://bucket/x", "the store answered 501: no")

        client.before = before
        with progress.task("save", "x") as task:
            backend_of(client).put(NEW, mostly_held(old), base=OLD)
            assert task.progress(0.0).done == 40 * MIB


def test_a_file_that_holds_nothing_goes_as_a_stream(client):
    """A client that sends streams by itself does so again once a file held nothing, until it holds something."""
    streamed = []

    def put_stream(key, buffers):
        client.objects[key] = b"".join(buffers)
        streamed.append(key)

    client.put_stream = put_stream
    old = client.objects["c/a"] = noise(20 * MIB)
    backend = backend_of(client)
    whole, part = Stream([noise(20 * MIB, 2)]), Stream([noise(6 * MIB), *held(old, 0, 20 * MIB)])
    for name, stream, expected in [
        ("d/a", whole, False), ("e/a", whole, True), ("e/b", whole, False), ("f/a", part, True), ("g/a", part, False),
    ]:  # fmt: skip
        backend.put(name, stream, base="c/a")
        assert client.objects[name] == stream.content
        assert (name in streamed) == expected, name
