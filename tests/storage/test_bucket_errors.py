"""What goes wrong with a bucket has a name, is told in time, and harms nothing: each on a server behind a proxy."""

from __future__ import annotations

import pytest
from contracts import http_faults, stores
from contracts.stores import assert_usable, assert_whole, large, within

from keepbest.errors import (
    BucketNotFoundError,
    CredentialsError,
    StorageError,
    StoragePermissionError,
    UnexpectedAnswerError,
    UnreachableError,
    WrongRegionError,
)
from keepbest.storage import retry
from keepbest.storage.transfer import TransferSettings

ALL = ("put", "start", "part", "finish", "get", "list", "delete")
"""The kinds of requests that saving, loading and retiring are made of."""


@pytest.fixture(params=stores.CLIENTS)
def store(request):
    """A bucket behind a proxy, asked by each client."""
    with stores.behind_proxy(request, request.param) as one:
        yield one


def pairs(of_all, of_s3):
    """Return the parameters: a client, and the name of what happens to it."""
    ids = [(client.values[0], name) for client in stores.CLIENTS for name in of_all]
    ids += [(client.values[0], name) for client in stores.S3_CLIENTS for name in of_s3]
    return [pytest.param(*pair, id="-".join(pair), marks=pytest.mark.bucket) for pair in ids]


def do(store, run, what):
    """Do what sends requests of one kind."""
    match what:
        case "start" | "part" | "finish":
            run.save(arrays=large())
        case "get" | "list":
            assert_whole(store, run)
        case "delete":
            run.writer.retire([1])
        case _:
            run.save()


# ── an answer that says no ───────────────────────────────────────────────────────────────────────────────────────

REFUSALS = {
    "a-login-page": (lambda store: http_faults.html(200), UnexpectedAnswerError, "web page|one without"),
    "a-page-that-forbids": (lambda store: http_faults.html(403), UnexpectedAnswerError, "web page"),
    "unauthorized": (
        lambda store: store.refuse(401, "authError", "Invalid Credentials"),
        CredentialsError,
        r"does not accept the credentials \(Invalid Credentials\)",
    ),
    "forbidden": (
        lambda store: store.refuse(403, "AccessDenied"),
        StoragePermissionError,
        "lack (s3:|storage.objects)",
    ),
    "no-bucket": (
        lambda store: store.refuse(404, "NoSuchBucket", "The specified bucket does not exist."),
        BucketNotFoundError,
        "bucket .* does not exist",
    ),
}
REFUSALS_OF_S3 = {
    "expired": (lambda _: http_faults.expired_token(400), CredentialsError, "credentials have expired"),
    "expired-elsewhere": (lambda _: http_faults.expired_token(403), CredentialsError, "credentials have expired"),
    "moved": (lambda _: http_faults.moved_region(), WrongRegionError, "AWS_DEFAULT_REGION=|another region"),
    "signed-for-another-region": (lambda _: http_faults.wrong_region(), WrongRegionError, "eu-central-1"),
}


@pytest.mark.parametrize(("store", "refusal"), pairs(REFUSALS, REFUSALS_OF_S3), indirect=["store"])
def test_a_refusal_has_a_name(store, refusal):
    """Whatever request is refused, the error says at once why, and when it is over everything is as it was."""
    fault, kind, text = (REFUSALS | REFUSALS_OF_S3)[refusal]
    run = store.run()
    run.save()
    for what in ALL:
        store.on(what, fault(store))
        with pytest.raises(kind, match=text) as caught, within(2):
            do(store, run, what)
        assert caught.value.location.startswith(store.url), what
        store.proxy.clear()
        assert store.uploads() == [], what
    assert_usable(store, run)


def test_a_login_page_is_not_an_empty_listing(store):
    """Nobody begins a training anew as a network wanted to be logged in to: an empty run is one that S3 says is."""
    run = store.run()
    run.save()
    store.proxy.on(http_faults.html(200))
    with pytest.raises(UnexpectedAnswerError, match="proxy or a login page"):
        store.run()
    with pytest.raises(UnexpectedAnswerError):
        store.read()
    backend = store.open()
    for call in (
        lambda: backend.copy("commits/00000001.json", "checkpoints/a/copied"),
        lambda: backend.delete(["commits/00000001.json"]),
        lambda: backend.head("commits/00000001.json"),
        lambda: backend.abort_stale("", 0.0) if store.is_s3 else backend.delete(["x", "y"]),
        lambda: backend.publish("commits/00000001.json", f"{store.url}-copied/x"),
    ):
        with pytest.raises(UnexpectedAnswerError):
            call()
    store.proxy.clear()
    assert_usable(store, run)


STRANGE = {
    "text": http_faults.answer(200, b"ok", content_type="text/plain"),
    "json": http_faults.answer(200, b'{"status": "ok"}', content_type="application/json"),
    "json-list": http_faults.answer(200, b"[]", content_type="application/json"),
    "xml": http_faults.answer(200, b'<?xml version="1.0"?><Status>ok</Status>', content_type="application/xml"),
    "nothing": http_faults.answer(200),
    "redirection": http_faults.answer(302, b"", location="http://127.0.0.1:9/login"),
}


@pytest.mark.parametrize("strange", STRANGE)
def test_an_answer_that_is_no_listing_is_not_an_empty_one(store, strange):
    """Whatever answers in the place of a store, no request is taken for done, and no run for empty."""
    store.proxy.on(STRANGE[strange])
    backend = store.open(deadline=2)
    for call in (
        lambda: backend.list(""),
        lambda: backend.head("best.json"),
        lambda: backend.read_ranges("best.json", [(0, 10)]),
        lambda: backend.replace("best.json", b"x"),
        lambda: backend.put("checkpoints/c/a", [bytes(6 * stores.MIB)]),
        lambda: backend.copy("best.json", "checkpoints/c/b"),
        lambda: backend.publish("best.json", f"{store.url}-2/x"),
    ):
        with pytest.raises(StorageError):
            call()


# ── no answer ────────────────────────────────────────────────────────────────────────────────────────────────────

OUTAGES = {
    "page-of-a-gateway": (lambda _: http_faults.html(502), UnexpectedAnswerError, "web page"),
    "overloaded": (lambda store: store.refuse(503, "SlowDown"), UnreachableError, "keeps answering"),
    "resets": (lambda _: http_faults.reset(), UnreachableError, "cannot be reached"),
    "gone": (lambda _: http_faults.kill(), UnreachableError, "cannot be reached"),
    "says-nothing": (lambda _: http_faults.stall(60), UnreachableError, "cannot be reached"),
}


@pytest.mark.parametrize(
    ("what", "outage"),
    [("put", "overloaded"), ("put", "says-nothing"), *(("part", outage) for outage in OUTAGES)],
)
def test_an_outage_ends_in_an_error_in_time(store, outage, what):
    """A store that fails in the middle of a save is an error before the deadline, and the next save works."""
    fault, kind, text = OUTAGES[outage]
    run = store.run()
    run.save()
    store.on(what, fault(store))
    with pytest.raises(kind, match=text), within(stores.DEADLINE):
        do(store, run, what)
    store.proxy.clear()
    store.proxy.revive()
    assert_usable(store, run)


@pytest.mark.parametrize("outage", ["gone", "says-nothing"])
def test_a_store_that_is_gone_altogether_is_an_error_in_time(store, outage):
    """Also when nothing that tidies up is answered either, the error comes before the deadline."""
    fault, kind, text = OUTAGES[outage]
    run = store.run()
    run.save()
    store.proxy.on(fault(store), when=stores.from_part(2))
    with pytest.raises(kind, match=text), within(stores.DEADLINE):
        do(store, run, "part")
    with pytest.raises(kind), within(stores.DEADLINE):
        store.read()
    store.proxy.clear()
    store.proxy.revive()
    assert_usable(store, run)


def test_the_save_after_an_outage_is_not_given_up_at_its_first_failure(store):
    """Each request of it has the patience that it always has, though the store was given up just before."""
    run = store.run()
    run.save()
    store.proxy.on(store.refuse(503, "SlowDown"))
    with pytest.raises(UnreachableError):
        run.save()
    store.proxy.clear()
    store.on("put", store.refuse(503, "SlowDown"), times=2)
    run.save()
    assert_usable(store, run)


def test_a_server_that_stops_reading_is_an_error_in_time(store):
    """A part that goes into the void is noticed, though its bytes are still being sent."""
    run = store.run()
    run.save()
    store.on("part", http_faults.throttle(20_000))
    with pytest.raises(UnreachableError, match="cannot be reached"), within(stores.DEADLINE):
        do(store, run, "part")
    store.proxy.clear()
    assert_usable(store, run)


def test_the_deadline_is_kept_by_any_settings():
    """What can follow one after the other, at worst, fits into the deadline: 30 seconds unless said otherwise."""
    assert TransferSettings().deadline == 30
    for deadline in (10, 30, 300):
        pause, tidying = retry.PAUSE * deadline, 2 * retry.TIDYING * deadline
        assert retry.patience(deadline) + pause + retry.stall(deadline) + tidying < deadline
        assert TransferSettings(deadline=deadline).idle == retry.stall(deadline) < retry.patience(deadline)


@pytest.mark.slow
def test_a_stalled_store_is_an_error_in_30_seconds_by_default(request):
    """Nobody who set nothing waits longer than half a minute to hear that the store does not answer."""
    for client in ("obstore", "gcs"):
        with stores.behind_proxy(request, client, deadline=30, part_size=8 << 20) as store:
            run = store.run()
            run.save()
            store.proxy.on(http_faults.stall(300), when=stores.from_part(9))
            with pytest.raises(UnreachableError), within(30):
                run.save(arrays=large(200))
