"""Large objects in real buckets: what breaks off leaves nothing behind, and what is copied or composed is whole."""

from __future__ import annotations

import random
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from contracts import http_faults, stores
from contracts.proxy import most_at_once
from contracts.stores import MIB, PART, assert_usable, assert_whole, large, within

from keepbest.errors import StoragePermissionError, UnreachableError


@pytest.fixture(params=stores.CLIENTS)
def store(request):
    """A bucket behind a proxy, asked by each client."""
    with stores.behind_proxy(request, request.param) as one:
        yield one


@pytest.fixture
def s3(request):
    """A bucket of S3 behind a proxy."""
    with stores.behind_proxy(request, "s3fs") as one:
        yield one


def pieces(count, size=PART):
    """Yield `count` buffers that differ."""
    for number in range(count):
        yield bytes([number % 251]) * size


# ── what breaks off ──────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("kind", [ZeroDivisionError, KeyboardInterrupt])
def test_the_error_of_a_source_arrives_unchanged_and_leaves_nothing(store, kind):
    """What the stream raises in the middle of an upload is what the caller gets; no object and no parts are left."""

    def stream():
        yield from pieces(4)
        raise kind("mine")

    backend = store.open()
    with pytest.raises(kind, match="^mine$"):
        backend.put("checkpoints/c/a", stream())
    assert store.uploads() == store.names() == []
    backend.put("checkpoints/c/a", pieces(2))
    assert backend.head("checkpoints/c/a").size == 2 * PART


def test_ctrl_c_in_an_upload_ends_it(store):
    """Ctrl-C while a slow store takes parts ends the upload soon, and leaves nothing of it."""
    backend = store.open(connections=2, deadline=8)
    store.on("part", http_faults.throttle(8 * MIB))
    timer = threading.Timer(1.0, signal.pthread_kill, (threading.main_thread().ident, signal.SIGINT))
    timer.start()
    with pytest.raises(KeyboardInterrupt), within(8):
        backend.put("checkpoints/c/a", pieces(20))
    store.proxy.clear()
    assert store.uploads() == store.names() == []


def test_a_part_that_is_refused_aborts_the_upload(store):
    """One part that the store does not take ends the upload: the rest is not sent, and no parts are left."""
    backend = store.open()
    store.on("part-2", store.refuse(403, "AccessDenied"))
    with pytest.raises(StoragePermissionError):
        backend.put("checkpoints/c/a", pieces(30))
    assert len(store.records("part")) < 25
    store.proxy.clear()
    assert store.uploads() == store.names() == []


def test_a_part_that_always_fails_aborts_the_upload(store):
    """The same for a part that fails until the deadline, though the store answers otherwise."""
    backend = store.open(deadline=6)
    store.on("part-2", store.refuse(503, "SlowDown"))
    with pytest.raises(UnreachableError), within(6):
        backend.put("checkpoints/c/a", pieces(3))
    store.proxy.clear()
    assert store.uploads() == store.names() == []


def test_no_more_parts_are_sent_at_once_than_there_are_connections(store):
    """A slow store has as many parts on their way to it as `connections` says, and every connection has work."""
    backend = store.open(connections=3, deadline=30)
    store.on("part", http_faults.delay(0.2))
    backend.put("checkpoints/c/a", pieces(9))
    parts = [record for record in store.records("part") if record.received > MIB]
    assert len(parts) == 9
    assert most_at_once(parts) == 3


# ── across ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_large_object_is_copied_within_s3_in_parts(s3):
    """Above the limit a copy is made of parts that the server copies; no bytes come here, and it is bit for bit."""
    backend = s3.open()
    content = random.Random(1).randbytes(13 * MIB)
    backend.put("checkpoints/c/a", [content])
    backend._transfer.client.copy_limit = 5 * MIB
    before = len(s3.proxy.records())
    backend.copy("checkpoints/c/a", "checkpoints/d/copied")
    backend.publish("checkpoints/c/a", f"{s3.url}-copied/model.keras")
    records = s3.proxy.records()[before:]
    assert sum("partNumber=" in record.target for record in records) == 2 * 3
    assert sum(record.received + record.sent for record in records) < MIB / 4
    assert bytes(backend.read_ranges("checkpoints/d/copied", [(0, 13 * MIB)])[0]) == content
    s3.on("copy", http_faults.access_denied(), path=r"partNumber=2")
    with pytest.raises(StoragePermissionError, match="cannot copy"):
        backend.publish("checkpoints/c/a", f"{s3.url}-copied/other.keras")
    assert (
        s3.server.client().list_multipart_uploads(Bucket=s3.bucket, Prefix=f"{s3.name}-copied").get("Uploads", []) == []
    )


def test_what_goes_wrong_with_parts_of_a_copy_is_named(s3):
    """Lost replies and a login page in the middle of a copy in parts."""
    backend = s3.open()
    backend.put("checkpoints/c/a", [bytes(11 * MIB)])
    backend._transfer.client.copy_limit = 5 * MIB
    s3.on("copy", http_faults.lose_reply(), path=r"partNumber=", times=2)
    s3.on("finish", http_faults.lose_reply(), times=1)
    backend.copy("checkpoints/c/a", "checkpoints/d/copied")
    assert backend.head("checkpoints/d/copied").size == 11 * MIB
    s3.on("copy", http_faults.html(200), path=r"partNumber=")
    with pytest.raises(OSError, match="web page"):
        backend.copy("checkpoints/c/a", "checkpoints/e/copied")
    s3.proxy.clear()
    assert s3.uploads() == []


@pytest.mark.parametrize("count", [33, 1030])
def test_any_number_of_components_becomes_one_object(request, count):
    """GCS composes 32 objects at a time: more are composed in steps, in order, whatever fails on the way, and go."""
    with stores.behind_proxy(request, "gcs") as store:
        backend = store.open()
        client, key = backend._transfer.client, f"{store.name}/checkpoints/c/a"
        upload = client.start_upload(key)
        with ThreadPoolExecutor(8) as pool:
            numbers = range(1, count + 1)
            parts = list(pool.map(lambda n: client.put_part(key, upload, n, n.to_bytes(4, "big")), numbers))
        store.on("finish", http_faults.lose_reply(), times=1)
        store.on("finish", store.refuse(503, "backendError"), after=2, times=1)
        backend._transfer.call(lambda: client.finish_upload(key, upload, parts))
        assert backend.read("checkpoints/c/a") == b"".join(n.to_bytes(4, "big") for n in numbers)
        assert store.names() == [key]


def test_components_that_cannot_be_deleted_fail_no_save(request):
    """Who may create but not delete in GCS saves all the same; the components are left to `gc`."""
    with stores.behind_proxy(request, "gcs") as store:
        run = store.run()
        run.save()
        store.on("delete", store.refuse(403, "forbidden"))
        run.save(arrays=large())
        store.proxy.clear()
        assert_whole(store, run)
        assert len(store.uploads()) == 2
        store.read().gc(grace=0)
        assert store.uploads() == []
        assert_usable(store, run)


# ── what is left ─────────────────────────────────────────────────────────────────────────────────────────────────


def test_only_old_uploads_of_this_run_are_aborted(s3):
    """Parts that a crash left are removed: those of this run alone, that keepbest began, before a moment."""
    direct = s3.server.client()
    ours = f"{s3.name}/checkpoints/epoch-001_step-000010_abcdef/model.safetensors"
    others = [
        f"{s3.name}-2/checkpoints/epoch-001_step-000010_abcdef/model.safetensors",
        f"{s3.name}/checkpoints/of-somebody-else/model.bin",
        f"{s3.name}/archive.tar",
        f"{s3.name}/inner/checkpoints/epoch-001_step-000010_abcdef/model.safetensors",
    ]
    for key in [ours, *others]:
        direct.create_multipart_upload(Bucket=s3.bucket, Key=key)
    backend = s3.open()
    assert backend.abort_stale("", time.time() - 3600) == 0
    assert len(s3.uploads()) == 5
    assert [entry.key for entry in backend.unfinished("")] == [ours.removeprefix(f"{s3.name}/")]
    assert backend.abort_stale("", time.time() + 60) == 1
    assert sorted(s3.uploads()) == sorted(others)
    assert backend.abort_stale("", time.time() + 60) == 0


def test_a_run_at_the_root_of_a_bucket_aborts_its_own_alone(s3):
    """Also where the run has the whole bucket, another program's upload is left alone."""
    bucket, direct = s3.server.make_bucket(), s3.server.client()
    ours, other = "checkpoints/epoch-001_step-000010_abcdef/model.safetensors", "data/train.parquet"
    for key in (ours, other):
        direct.create_multipart_upload(Bucket=bucket, Key=key)
    assert s3.open(f"s3://{bucket}").abort_stale("", time.time() + 60) == 1
    assert [upload["Key"] for upload in direct.list_multipart_uploads(Bucket=bucket)["Uploads"]] == [other]
    s3.server.drop_bucket(bucket)


def test_a_listing_and_a_delete_of_more_than_a_page(s3):
    """A run with more objects than S3 lists at a time is listed whole, and deleted whole."""
    backend, count = s3.open(deadline=30), 1005
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda n: backend.replace(f"commits/x-{n:04d}", b"x"), range(count)))
    assert [entry.key for entry in backend.list("")] == [f"commits/x-{n:04d}" for n in range(count)]
    backend.delete(entry.key for entry in backend.list(""))
    assert backend.list("") == []
