"""Keys, secrets and tokens: in no error, no log, no warning, no `repr`, and in nothing that is stored."""

from __future__ import annotations

import logging
import warnings

import numpy as np
import pytest
from contracts import http_faults, stores
from contracts.runs import SmallRun
from contracts.stores import MIB, large

from keepbest import Checkpointer, CheckpointPolicy
from keepbest.errors import KeepbestError
from keepbest.storage.run import Run

MARK = f"SeCrEt{4711}"
"""Stands in every secret here; computed, so that the lines of a traceback do not have it."""
KEY, SECRET, TOKEN = f"AKIA{MARK.upper()}X", f"{MARK}/s+ecret=", f"{MARK}//token=="
NEVER = (MARK, MARK.upper())


@pytest.fixture(params=stores.CLIENTS)
def store(request):
    """A bucket behind a proxy, asked with credentials that nobody accepts, by each client."""
    with stores.behind_proxy(request, request.param, deadline=2) as one:
        yield one


def secrets_of(store):
    """Return the storage options that hold what must not be seen."""
    return {"key": KEY, "secret": SECRET, "token": TOKEN} if store.is_s3 else {"token": TOKEN}


def faults(store):
    """Return name → what a server, or a proxy that repeats what it was sent, answers."""
    key, secret, token = (KEY, SECRET, TOKEN) if store.is_s3 else ("-", "-", TOKEN)
    echo = f"for {key} with {secret}, {token}: Authorization: Bearer {token}"
    more = f"<AWSAccessKeyId>{key}</AWSAccessKeyId><Token-0>{token}</Token-0><StringToSign>{echo}</StringToSign>"
    page = f"<!DOCTYPE html><html><body>{echo}</body></html>".encode()
    elsewhere = f"http://user:{MARK}@127.0.0.1:9/?X-Amz-Signature={MARK}&token={MARK}"

    def say(status, code, text):
        return http_faults.s3_error(status, code, text, extra=more) if store.is_s3 else store.refuse(status, code, text)

    return {
        "invalid-key": say(403, "InvalidAccessKeyId", f"no such key {echo}"),
        "expired": say(400 if store.is_s3 else 401, "ExpiredToken", f"expired {echo}"),
        "denied": say(403, "AccessDenied", f"denied {echo}"),
        "unknown": say(418, "Teapot", f"unknown {echo}"),
        "overloaded": say(503, "SlowDown", f"slow {echo}"),
        "long": say(418, "Teapot", f"{'-' * 288}{token}"),  # errors are cut after 300 characters: hidden before
        "page": http_faults.answer(200, page, content_type="text/html"),
        "page-502": http_faults.answer(502, page, content_type="text/html"),
        "text": http_faults.answer(403, echo.encode(), content_type="text/plain"),
        "moved": http_faults.answer(302, b"", location=elsewhere),
        "reset": http_faults.reset(),
    }


FAULTS = (
    "invalid-key", "expired", "denied", "unknown", "overloaded", "long", "page", "page-502", "text", "moved", "reset",
)  # fmt: skip
ONE_BY_ONE = [
    pytest.param(client, fault, marks=pytest.mark.bucket, id=f"{client}-{fault}")
    for client, faults in (
        ("s3fs", [fault for fault in FAULTS if fault != "expired"]),  # there like "invalid-key"
        ("obstore", ("unknown", "overloaded", "page-502")),  # most of its requests are those of s3fs
        ("gcs", FAULTS),
    )
    for fault in faults
]


def deeds(backend):
    """Return everything that sends requests."""
    return [
        lambda: backend.list(""),
        lambda: backend.read("commits/00000001.json"),
        lambda: backend.read_ranges("checkpoints/c/a", [(0, 10), (9 * MIB, 10 * MIB)]),
        lambda: backend.head("checkpoints/c/a"),
        lambda: backend.put("checkpoints/c/a", [b"x"]),
        lambda: backend.put("checkpoints/c/a", [bytes(6 * MIB)]),
        lambda: backend.put_if_absent("commits/00000001.json", b"x"),
        lambda: backend.replace("best.json", b"x"),
        lambda: backend.delete(["checkpoints/c/a"]),
        lambda: backend.delete(["checkpoints/c/a", "checkpoints/c/b"]),
        lambda: backend.copy("checkpoints/c/a", "checkpoints/c/b"),
        lambda: backend.abort_stale("", 0.0),
        lambda: backend.publish("checkpoints/c/a", f"{backend.url}-2/b"),
    ]


def shown(error):
    """Return all that is shown of an error, and all that it and what led to it hold as facts."""
    chain, texts = [error], [stores.whole_text(error)]
    for seen in chain:
        texts += [str(seen), repr(seen), *(repr(value) for value in vars(seen).values() if isinstance(value, str))]
        led = seen.__cause__ or (None if seen.__suppress_context__ else seen.__context__)
        if led is not None and led not in chain:
            chain.append(led)
    return "\n".join(texts)


def assert_silent(text, hidden=NEVER):
    """Check that nothing secret stands in a text, and show it if not: it is too long for pytest to explain."""
    for secret in hidden:
        if secret in text:
            pytest.fail(f"{secret!r} is shown:\n{text}")


@pytest.mark.parametrize(("store", "fault"), ONE_BY_ONE, indirect=["store"])
def test_no_error_shows_a_secret(store, fault, caplog):
    """Whatever a server or a proxy answers, even our own credentials, no error, log or warning repeats them."""
    backend = store.open(**secrets_of(store), deadline=1)
    store.proxy.on(faults(store)[fault])
    with caplog.at_level(logging.DEBUG, logger="keepbest"), warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        raised = 0
        for deed in deeds(backend):
            try:
                deed()
            except KeepbestError as error:
                raised += 1
                assert_silent(shown(error))
    assert raised > 5
    assert_silent(caplog.text)
    assert_silent("".join(str(warning.message) for warning in warned))
    assert_silent(repr(backend) + repr(Run(backend)) + repr(backend.__dict__.get("_settings")))


def test_no_upload_shows_a_secret(store):
    """The same of the requests that move the bytes, which another client may send, and whose errors hold the answer."""
    if store.is_s3:
        admin = store.server.identity("admin")
        hidden, who = (admin.access, admin.secret), {}
    else:
        hidden, who = (TOKEN,), secrets_of(store)
    echo = f"said {' and '.join(hidden)}"
    store.open(**who, deadline=30).put("checkpoints/c/a", [bytes(6 * MIB)])
    backend = store.open(**who, deadline=1)
    for status, code in ((403, "AccessDenied"), (400, "Teapot"), (503, "SlowDown")):
        store.proxy.clear()
        refusal = http_faults.s3_error(status, code, echo, extra=f"<AWSAccessKeyId>{hidden[0]}</AWSAccessKeyId>")
        refusal = refusal if store.is_s3 else stores.gcs_error(status, code, echo)
        store.on("part", refusal)
        store.on("get", refusal)
        for deed in (
            lambda: backend.put("checkpoints/c/b", [bytes(6 * MIB)]),
            lambda: backend.read_ranges("checkpoints/c/a", [(0, 10)]),
        ):
            with pytest.raises(KeepbestError) as caught:
                deed()
            assert_silent(shown(caught.value), hidden)


@pytest.mark.parametrize("fault", ["invalid-key", "reset"])
def test_no_failed_save_shows_a_secret(store, fault, caplog):
    """The same of a training: its error, its log, and what it prints as."""
    if store.is_s3:
        admin = store.server.identity("admin")
        hidden, who = (admin.secret, admin.access), {}
    else:
        hidden, who = NEVER, secrets_of(store)
    model, options = {"weight": np.zeros(10, np.float32)}, store.options | who
    with caplog.at_level(logging.DEBUG, logger="keepbest"):
        training = Checkpointer(store.url, CheckpointPolicy(), storage_options=options, mode="sync", model=model)
        held = repr(training) + repr(training.run)
        store.proxy.on(faults(store)[fault], method="PUT" if store.is_s3 else "POST")
        with pytest.raises(KeepbestError) as caught:
            training.log(loss=1.0)
        store.proxy.clear()
        training.close(save=False)
    assert_silent(shown(caught.value) + caplog.text + held, hidden)


def test_a_server_whose_url_has_a_password_is_shown_without_it(store):
    """An endpoint behind a password is contacted with it, and named without it."""
    backend = store.open(**secrets_of(store), endpoint_url=f"http://user:{MARK}@127.0.0.1:9", deadline=1)
    for deed in deeds(backend)[:5]:
        with pytest.raises(KeepbestError) as caught:
            deed()
        assert_silent(shown(caught.value))


def test_nothing_that_is_stored_holds_a_secret(store):
    """Manifests, state, tensor files, hints and rows hold nothing of the credentials they were written with."""
    if store.is_s3:
        admin = store.server.identity("admin")
        hidden, who = (admin.access, admin.secret), {}
    else:
        hidden, who = (TOKEN,), {"token": TOKEN}
    options = store.options | who | {"deadline": 30}
    model = {"weight": np.zeros(2_000_000, np.float32)}
    with Checkpointer(store.url, CheckpointPolicy(monitor="loss"), storage_options=options, model=model) as training:
        for epoch in training.epochs(3):
            training.log(loss=1.0 / (epoch + 1))
    SmallRun(store.open(**who, deadline=30)).save(arrays=large())
    backend = store.open(deadline=30)
    entries = backend.list("")
    assert len(entries) > 6
    for entry in entries:
        content = backend.read(entry.key)
        assert not any(secret.encode() in content for secret in hidden), entry.key
