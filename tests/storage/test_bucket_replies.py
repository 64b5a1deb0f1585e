"""A reply that is lost, late or altered: what was asked for happens once, and what arrives is what was sent."""

from __future__ import annotations

import itertools

import pytest
from contracts import http_faults, stores
from contracts.runs import SmallRun
from contracts.stores import assert_usable, assert_whole, large, within

from keepbest.errors import (
    ConcurrentWriterError,
    DamagedFileError,
    ObjectExistsError,
    UnreachableError,
)
from keepbest.storage.segments import read_appended


@pytest.fixture(params=stores.CLIENTS)
def store(request):
    """A bucket behind a proxy, asked by each client."""
    with stores.behind_proxy(request, request.param) as one:
        yield one


CHANGES = ("data", "manifest", "probe", "start", "part", "finish", "delete", "copy")
"""The requests that change something: losing the reply to one leaves open whether it did."""


def change(store, run, what):
    """Do what sends a request of one kind."""
    match what:
        case "start" | "part" | "finish":
            run.save(arrays=large())
        case "delete":
            going = run.writer.checkpoints[0]
            run.writer.retire([going.sequence])
            del run.wrote[going.name]
        case "copy":
            run.backend.copy("commits/00000001.json", "checkpoints/x/copied")
            assert run.backend.read("checkpoints/x/copied") == run.backend.read("commits/00000001.json")
            run.backend.publish("commits/00000001.json", f"{store.url}-copied/published")
            run.backend.delete(["checkpoints/x/copied"])
        case _:
            run.save()


def started(store, what):
    """Return a run with two checkpoints; for "probe", with none, as the store is looked at before the first."""
    run = store.run()
    if what != "probe":
        run.save()
        run.save()
    return run


@pytest.mark.parametrize("what", CHANGES)
def test_a_lost_reply_changes_nothing(store, what):
    """Whichever reply is lost, the save succeeds, exactly once, and nothing is left beside it."""
    run = started(store, what)
    rule = store.on(what, http_faults.lose_reply(), times=1)
    change(store, run, what)
    assert rule.hits == 1
    store.proxy.clear()
    assert_whole(store, run)
    if what == "start" and store.is_s3:  # the first of two uploads is empty, and nobody knows its name
        assert len(store.uploads()) == 1
        run.backend.abort_stale("", float("inf"))
    assert store.uploads() == []
    assert len(store.names()) == 3 * len(run.wrote)
    assert_usable(store, run)


@pytest.mark.parametrize("what", ["data", "manifest", "part", "finish"])
def test_replies_that_are_lost_again_and_again_change_nothing(store, what):
    """Also when the second and the third reply are lost."""
    run = started(store, what)
    store.on(what, http_faults.lose_reply(), times=3)
    change(store, run, what)
    store.proxy.clear()
    assert_whole(store, run)


@pytest.mark.parametrize("what", [*CHANGES, "get", "list"])
def test_what_passes_is_waited_for(store, what):
    """Too many requests, a conflict of two, an error of the server: sent again until it is answered."""
    run = started(store, what)
    passing = [
        store.refuse(503, "SlowDown"),
        http_faults.conflict() if store.is_s3 else store.refuse(409, "conflict"),
        store.refuse(500, "InternalError"),
        store.refuse(429, "rateLimitExceeded"),
    ]
    rules = [store.on(what, fault, times=1) for fault in passing]
    if what in CHANGES:
        change(store, run, what)
    assert_whole(store, run)
    assert sum(rule.hits for rule in rules) == len(passing)
    store.proxy.clear()
    assert_usable(store, run)


def test_a_rate_limit_of_google_is_waited_for(request):
    """Google says 403 where it means 429; that is no missing permission."""
    with stores.behind_proxy(request, "gcs") as store:
        run = started(store, "put")
        rule = store.on("put", store.refuse(403, "rateLimitExceeded", "Rate Limit Exceeded"), times=2)
        run.save()
        assert rule.hits == 2
        assert_whole(store, run)


def test_retries_leave_more_and_more_time(request):
    """A store that is overloaded is not asked in a row: waits grow, at random, and stay below a bound."""
    with stores.behind_proxy(request, "s3fs", deadline=30) as store:
        run = started(store, "put")
        store.on("data", store.refuse(503, "SlowDown"), times=6)
        backend = run.backend
        backend.put("checkpoints/c/x", [b"x"])
        starts = [record.start for record in store.records("data")][-7:]
        waits = [later - earlier for earlier, later in itertools.pairwise(starts)]
        assert max(waits) > 0.2
        assert max(waits) < 30 * 0.07 + 1
        assert len({round(wait, 3) for wait in waits}) > 3


# ── the commit ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_commit_of_which_nobody_knows_is_not_taken_for_anothers(store):
    """The reply to a commit is lost and the store is gone: an error, and the next save is no conflict with it."""
    run = started(store, "manifest")
    store.on("manifest", http_faults.lose_reply())
    store.proxy.on(http_faults.reset(), method="GET")
    with pytest.raises(UnreachableError), within(stores.DEADLINE):
        run.save()
    store.proxy.clear()
    kept = {checkpoint.name for checkpoint in store.read().checkpoints()}
    assert len(kept) == 3  # it came through
    for checkpoint in store.read().checkpoints():
        assert len(checkpoint.load("model")) == 2
    run.save()
    assert store.read().verify().ok


def test_a_conflict_that_is_none_is_an_error_and_harms_nothing(request):
    """A proxy says that the commit is there, and it is not: the save failed, nobody is blamed, the next one works."""
    with stores.behind_proxy(request, "s3fs") as store:
        run = started(store, "manifest")
        store.on("manifest", http_faults.precondition_failed(), times=1)
        with pytest.raises(ObjectExistsError):
            run.save()
        assert_usable(store, run)


def test_a_commit_of_another_is_seen_through_a_lost_reply(store):
    """When the reply is lost and another had the number first, that is told, and the other's is untouched."""
    run, other = started(store, "manifest"), SmallRun(store.open())
    other.backend.put_if_absent("commits/99999999.json", b"x")  # it has looked at the store by now
    other.backend.delete(["commits/99999999.json"])
    run.save()
    store.on("manifest", http_faults.lose_reply(), times=1)
    with pytest.raises(ConcurrentWriterError):
        other.save()
    store.proxy.clear()
    assert_usable(store, run)


def test_rows_that_are_sent_twice_are_one(store):
    """A segment of the journal whose reply is lost is set again, and read once."""
    backend = store.open()
    appender = backend.append("metrics.jsonl")
    appender.write(b'{"a":1}\n')
    store.on("put", http_faults.lose_reply(), times=1)
    backend.settle()
    appender.close()
    store.proxy.clear()
    assert read_appended(backend, "metrics.jsonl") == b'{"a":1}\n'


# ── altered on the way ───────────────────────────────────────────────────────────────────────────────────────────


def test_a_part_that_arrives_altered_is_sent_again(store):
    """A bit that flips on the way up is noticed by the server's checksum, and only that part is sent once more."""
    run = started(store, "part")
    arrays = large(12)
    before = len(store.records("part"))
    rule = store.on("part-2", http_faults.corrupt_request(), times=1)
    run.save(arrays=arrays)
    assert rule.hits == 1
    sent = [record for record in store.records("part")[before:] if record.received > stores.MIB or record.fault]
    assert len(sent) == (3 + 1 if store.client != "obstore" else len(sent))  # obstore sends no part again: all are
    store.proxy.clear()
    assert_whole(store, run)
    assert store.uploads() == []


@pytest.mark.parametrize("what", ["data", "manifest"])
def test_a_small_object_that_arrives_altered_is_sent_again(store, what):
    """The same for what goes in one request."""
    run = started(store, what)
    rule = store.on(what, http_faults.corrupt_request(), times=1)
    run.save()
    assert rule.hits == 1
    assert_whole(store, run)


def test_parts_that_always_arrive_altered_are_an_error(store):
    """A line that alters everything is told, in time, and leaves nothing that could be taken for a checkpoint."""
    run = started(store, "part")
    store.on("part-2", http_faults.corrupt_request())
    with pytest.raises(UnreachableError, match="altered|BadDigest|answering"), within(stores.DEADLINE):
        run.save(arrays=large())
    store.proxy.clear()
    assert store.uploads() == []
    assert_usable(store, run)


def test_a_download_that_breaks_off_is_continued(store):
    """A connection that ends in the middle of a tensor file, or of a small one, is asked again."""
    run = store.run()
    run.save(arrays=large(12))
    for what in ("state", "model"):
        store.proxy.clear()
        rule = store.proxy.on(http_faults.truncate(), method="GET", path=rf"{what}\.", times=2)
        assert_whole(store, run)
        assert rule.hits == 2


def test_a_download_that_always_breaks_off_is_an_error(store):
    """When it breaks off every time, the error comes in time and says where; no tensor is handed out half."""
    run = store.run()
    run.save(arrays=large())
    store.proxy.on(http_faults.truncate(), method="GET", path=r"model\.")
    with pytest.raises(UnreachableError, match=r"model\.safetensors"), within(stores.DEADLINE):
        assert_whole(store, run)
    store.proxy.clear()
    assert_usable(store, run)


def test_a_download_that_arrives_altered_names_the_tensor(store):
    """A bit that flips on the way down is noticed by the digest, and the error says in which tensor."""
    run = store.run()
    run.save(arrays=large())
    store.proxy.on(http_faults.corrupt_reply(), method="GET", path=r"model\.")
    with pytest.raises(DamagedFileError, match=r"tensor 'layer\.weight' in .*model\.safetensors") as caught:
        assert_whole(store, run)
    assert caught.value.tensor == "layer.weight"
    store.proxy.clear()
    assert_usable(store, run)
