"""Who may do what in a bucket, with which credentials, and what a store must be able to do: errors that say so."""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import os
import stat
import sys

import pytest
from contracts import http_faults, proxy, stores
from contracts.permissions import PUBLIC, Identity
from contracts.runs import SmallRun, same
from contracts.servers import UNRESOLVABLE
from contracts.stores import assert_usable, assert_whole, large, within

from keepbest.errors import (
    BucketNotFoundError,
    ConditionalWriteError,
    ConfigError,
    CredentialsError,
    StoragePermissionError,
    UnreachableError,
)
from keepbest.storage.backend import open_backend
from keepbest.storage.run import open_run

MARK = str(4700 + 11)
"""Stands in every secret that a test makes up; computed, so that the lines of a traceback do not have it."""


@pytest.fixture(params=stores.CLIENTS)
def store(request):
    """A bucket behind a proxy, asked by each client."""
    with stores.behind_proxy(request, request.param) as one:
        yield one


@pytest.fixture(params=stores.S3_CLIENTS)
def s3(request):
    """A bucket of S3 behind a proxy."""
    with stores.behind_proxy(request, request.param) as one:
        yield one


def as_identity(store, who):
    """Return storage options that ask as somebody."""
    who = store.server.identity(who) if isinstance(who, str) else who
    return {"key": who.access, "secret": who.secret}


# ── no bucket, no permission ─────────────────────────────────────────────────────────────────────────────────────


def test_a_bucket_that_does_not_exist_is_named(s3):
    """A misspelt bucket is an error that names it, when the run is opened and when it is written to."""
    url = "s3://keepbest-no-such-bucket/run"
    backend = s3.open(url, **as_identity(s3, "writer"))
    calls = [
        lambda: backend.list(""),
        lambda: backend.read("commits/00000001.json"),
        lambda: backend.replace("best.json", b"x"),
        lambda: backend.put_if_absent("commits/00000001.json", b"x"),
        lambda: backend.put("checkpoints/a/b", [bytes(6 * stores.MIB)]),
        lambda: SmallRun(backend),
    ]
    for call in calls:
        with pytest.raises(BucketNotFoundError, match="'keepbest-no-such-bucket' does not exist") as caught, within(2):
            call()
        assert caught.value.bucket == "keepbest-no-such-bucket"


def test_a_bucket_of_gcs_that_does_not_exist_is_named(request):
    """The same on GCS."""
    with stores.behind_proxy(request, "gcs") as store:
        backend = store.open("gs://keepbest-no-such-bucket/run")
        for call in (
            lambda: backend.list(""),
            lambda: backend.put_if_absent("commits/00000001.json", b"x"),
            lambda: backend.put("checkpoints/a/b", [bytes(6 * stores.MIB)]),
        ):
            with pytest.raises(BucketNotFoundError, match="'keepbest-no-such-bucket' does not exist"):
                call()


@pytest.mark.parametrize(
    ("lacks", "calls", "action"),
    [
        pytest.param("PutObject", ["save", "save-large"], "write", id="write"),
        pytest.param("GetObject", ["load", "save-large"], "read", id="read"),
        pytest.param("DeleteObject", ["retire"], "delete", id="delete"),
        pytest.param("ListBucket", ["list", "retire"], "list", id="list"),
    ],
)
def test_each_permission_that_is_missing_is_named(s3, lacks, calls, action):
    """Whoever may do all but one thing is told which, by the name it has in a policy, and nothing is harmed."""
    run = s3.run()
    run.save()
    run.save()
    limited = SmallRun(s3.open())
    limited.writer.backend = s3.open(**as_identity(s3, f"no-{lacks}"))
    deeds = {
        "save": limited.save,
        "save-large": lambda: limited.save(arrays=large()),
        "load": lambda: limited.writer.backend.read_ranges("commits/00000001.json", [(0, 10)]),
        "list": lambda: limited.writer.backend.list(""),
        "retire": lambda: limited.writer.retire([1]),
    }
    for call in calls:
        with pytest.raises(StoragePermissionError, match=f"cannot {action}.*s3:{lacks}") as caught, within(3):
            deeds[call]()
        assert f"s3:{lacks}" in caught.value.needs
        assert s3.uploads() == []
    if action == "list":  # the commit went first
        del run.wrote[next(iter(run.wrote))]
    assert_usable(s3, run)


def test_who_may_not_delete_can_save(s3):
    """Without the permission to delete, checkpoints are saved, large ones and the first, too; only tidying fails."""
    run = SmallRun(s3.open(**as_identity(s3, "no-DeleteObject")))
    run.save()
    run.save(arrays=large())
    assert_whole(s3, run)


def test_who_may_not_abort_uploads_is_told_what_failed(s3):
    """When a save fails and its upload cannot be aborted either, the error is that of the save."""
    run = s3.run()
    run.save()
    run.writer.backend = s3.open(**as_identity(s3, "no-AbortMultipartUpload"))
    s3.on("part", http_faults.access_denied())
    with pytest.raises(StoragePermissionError, match="s3:PutObject"):
        run.save(arrays=large())
    s3.proxy.clear()
    assert_usable(s3, run)


# ── credentials ──────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("kind", ["secret", "key", "none"])
def test_credentials_that_are_not_accepted_are_named(s3, kind, monkeypatch):
    """A wrong secret, an unknown key and no credentials at all are told at once, and are not shown."""
    admin = s3.server.identity("admin")
    who = {
        "secret": {"key": admin.access, "secret": f"not-the-secret-{MARK}"},
        "key": {"key": f"KEYUNKNOWN{MARK}", "secret": f"whatever-{MARK}"},
        "none": {"key": None, "secret": None},
    }[kind]
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name, raising=False)
    run, stranger = s3.run(), SmallRun(s3.open())
    run.save()
    stranger.writer.backend = s3.open(**who)
    for call in (stranger.save, lambda: stranger.save(arrays=large()), lambda: stranger.writer.backend.list("")):
        with pytest.raises(CredentialsError, match="credentials") as caught, within(5):
            call()
        assert MARK not in stores.whole_text(caught.value)
    assert_usable(s3, run)


def test_credentials_that_were_mended_count_at_once(s3, tmp_path, monkeypatch):
    """A training whose credentials were refused goes on when there are better ones, in the file it had them from."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    for secret in (f"wrong-{MARK}", s3.server.identity("writer").secret):
        facts = {"aws_access_key_id": s3.server.identity("writer").access, "aws_secret_access_key": secret}
        (tmp_path / "credentials").write_text("[default]\n" + "".join(f"{k} = {v}\n" for k, v in facts.items()))
        if MARK in secret:
            run = s3.run()
            run.save()
            run.writer.backend = s3.open(key=None, secret=None)
            with pytest.raises(CredentialsError):
                run.save(arrays=large())
        else:
            run.save(arrays=large())
    assert_usable(s3, run)


def test_a_public_bucket_is_read_by_anybody(s3, monkeypatch):
    """With `anon` nothing is signed, so that it takes no credentials; what may not be read that way is an error."""
    with contextlib.suppress(OSError):  # a test before, or in another process, has made it
        s3.server.make_bucket(PUBLIC)
    url = f"s3://{PUBLIC}/{s3.name}"
    run = SmallRun(s3.open(url))
    run.save(arrays=large())
    name, private = *run.wrote, s3.run()
    private.save()
    for variable in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(variable, raising=False)
    stranger = s3.options | {"key": None, "secret": None, "anon": True}
    assert same(open_run(url, storage_options=stranger).get(name).load("model"), run.wrote[name])
    with pytest.raises((StoragePermissionError, CredentialsError)):
        open_run(s3.url, storage_options=stranger)
    with pytest.raises((StoragePermissionError, CredentialsError)):
        SmallRun(open_backend(url, stranger)).save()


def test_a_profile_says_who_asks(s3, tmp_path, monkeypatch):
    """`profile` takes the credentials of that name from the file of the AWS command line, and no others."""
    who = s3.server.identity("writer")
    file = tmp_path / "credentials"
    file.write_text(
        f"[default]\naws_access_key_id = KEYUNKNOWN{MARK}\naws_secret_access_key = {MARK}\n"
        f"[lab]\naws_access_key_id = {who.access}\naws_secret_access_key = {who.secret}\n"
    )
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(file))
    run = s3.run(key=None, secret=None, profile="lab")
    run.save(arrays=large())
    assert_whole(s3, run)


def test_what_is_asked_of_each_object_goes_along(s3_server, s3_url):
    """`s3_additional_kwargs` (here a storage class) hold for short objects and for those of many parts."""
    heads = []
    with proxy.FaultProxy(s3_server.url, edit=lambda head: heads.append(head) or head) as between:
        asked = {"s3_additional_kwargs": {"StorageClass": "STANDARD_IA"}, "part_size": stores.PART}
        run = SmallRun(open_backend(s3_url, {"endpoint_url": between.url} | asked))
        run.save(arrays=large())
    begun = [dict(head.headers) for head in heads if head.first[0] == "POST" and "uploads" in head.first[1]]
    short = [dict(head.headers) for head in heads if head.first[0] == "PUT" and "partNumber" not in head.first[1]]
    assert len(begun) == 1
    assert len(short) >= 2
    assert {headers.get("x-amz-storage-class") for headers in begun + short} == {"STANDARD_IA"}


def test_a_client_that_would_leave_out_what_is_asked_is_refused(s3):
    """obstore knows nothing of encryption or storage classes: asked for together with them, it is an error at once."""
    asked = {"s3_additional_kwargs": {"ServerSideEncryption": "aws:kms"}}
    if s3.client == "s3fs":
        s3.open(**asked)
    else:
        with pytest.raises(ConfigError, match="'obstore', which does not understand s3_additional_kwargs"):
            s3.open(**asked)
    with pytest.raises(ConfigError, match="does not understand verify"):
        s3.open(client="obstore", client_kwargs={"verify": False})


def test_a_profile_that_does_not_exist_is_named(s3):
    """A misspelt profile is a setting that is wrong."""
    with pytest.raises(ConfigError, match="no-such-profile"):
        s3.open(key=None, secret=None, profile="no-such-profile").list("")


def test_an_option_that_does_not_exist_is_named(store):
    """A misspelt option is a setting that is wrong, and its value is not shown."""
    with pytest.raises(ConfigError, match="sercet") as caught:
        store.open(sercet=f"{MARK}-{MARK}").list("")
    assert MARK not in stores.whole_text(caught.value)


@pytest.mark.parametrize("kind", ["s3", "gs"])
def test_credentials_in_a_url_are_refused(kind):
    """URLs are shown in errors and in lists, so one that holds a secret is not taken, and not shown."""
    with pytest.raises(ConfigError, match=rf"{kind}://…@bucket holds credentials") as caught:
        open_backend(f"{kind}://AKIA{MARK}:secret{MARK}@bucket/run")
    assert MARK not in stores.whole_text(caught.value)


PROVIDER = """#!{python}
import json, pathlib, time
calls = pathlib.Path({calls!r})
calls.write_text(calls.read_text() + "." if calls.exists() else ".")
expires = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + {lasts}))
print(json.dumps(dict(Version=1, AccessKeyId={access!r}, SecretAccessKey={secret!r}, Expiration=expires)))
"""


def provide(tmp_path, monkeypatch, identity, lasts):
    """Make credentials come from a program, as they do from a single sign-on; return the file that counts its calls."""
    calls, program = tmp_path / "calls", tmp_path / "provider"
    facts = {"access": identity.access, "secret": identity.secret, "calls": str(calls), "lasts": lasts}
    program.write_text(PROVIDER.format(python=sys.executable, **facts))
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    (tmp_path / "config").write_text(f"[default]\ncredential_process = {program}\n")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name, raising=False)
    return calls


def test_credentials_that_expire_are_renewed(s3, tmp_path, monkeypatch):
    """A training outlives its credentials: what provides them is asked again, by everything that sends requests."""
    calls = provide(tmp_path, monkeypatch, s3.server.identity("writer"), lasts=30)  # always about to expire
    run = SmallRun(s3.open(key=None, secret=None))
    run.save()
    before = len(calls.read_text())
    run.save(arrays=large())
    assert len(calls.read_text()) > before
    assert_usable(s3, run)


def test_credentials_that_cannot_be_renewed_are_named(s3, tmp_path, monkeypatch):
    """When the program that provides credentials fails, the error says so, and shows nothing of what it printed."""
    provide(tmp_path, monkeypatch, s3.server.identity("writer"), lasts=30)
    (tmp_path / "provider").write_text(f"#!/bin/sh\necho secret-{MARK} >&2\nexit 1\n")
    with pytest.raises(CredentialsError, match="could not be renewed") as caught, within(5):
        s3.open(key=None, secret=None).list("")
    assert MARK not in stores.whole_text(caught.value)


def test_a_key_file_of_gcs_that_does_not_exist_is_named(request):
    """A misspelt path is not taken for a token, and nobody is asked about it."""
    with pytest.raises(ConfigError, match=r"no file: /no/such/key\.json"):
        open_backend("gs://bucket/run", {"token": "/no/such/key.json"})


def test_a_token_of_gcs_goes_to_the_store_alone(request):
    """An access token is used as it is: nothing else is asked about it, and what the store says of it is told."""
    heads = []
    with stores.behind_proxy(request, "gcs") as store:
        store.proxy.on(store.refuse(401, "authError", "Invalid Credentials"), after=1)
        store.proxy._edit = lambda head: heads.append(head) or head
        backend = store.open(token=f"ya29.secret-{MARK}")
        backend.list("")
        assert heads[0].get("authorization") == "Bearer ya29.secret-4711"
        with pytest.raises(CredentialsError, match="Invalid Credentials") as caught:
            backend.list("")
        assert MARK not in stores.whole_text(caught.value)


def test_expired_credentials_of_gcs_that_cannot_be_renewed_are_named(request):
    """An access token that has expired, with nothing to get another one by, is an error that says so."""
    from google.oauth2.credentials import Credentials

    past = dt.datetime.now(dt.UTC).replace(tzinfo=None) - dt.timedelta(hours=1)
    with stores.behind_proxy(request, "gcs") as store:
        backend = store.open(token=Credentials(token=f"ya29.secret-{MARK}", expiry=past))
        with pytest.raises(CredentialsError, match="could not be renewed") as caught, within(5):
            backend.list("")
        assert MARK not in stores.whole_text(caught.value)


def test_credentials_of_gcs_are_renewed_without_holding_up_others(request):
    """While new credentials are on their way, nothing else waits; a server of them that stalls is an error in time."""
    from google.oauth2.credentials import Credentials

    past = dt.datetime.now(dt.UTC).replace(tzinfo=None) - dt.timedelta(hours=1)
    with stores.behind_proxy(request, "gcs") as store, proxy.FaultProxy(store.server.url) as google:
        google.on(http_faults.stall(60))
        who = {
            "refresh_token": f"r-{MARK}",
            "client_id": "c",
            "client_secret": f"s-{MARK}",
            "token_uri": google.url + "/token",
        }
        backend, other = store.open(token=Credentials(token="old", expiry=past, **who)), store.open()
        with pytest.raises(UnreachableError) as caught, within(stores.DEADLINE):
            backend.list("")
        assert MARK not in stores.whole_text(caught.value)
        with within(1):
            other.list("")
        google.clear()
        body = json.dumps({"access_token": "ya29.new", "expires_in": 3600}).encode()
        google.on(http_faults.answer(200, body, content_type="application/json"))
        with within(stores.DEADLINE):
            assert backend.list("") == []


# ── the place ────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_server_whose_name_does_not_exist_is_named(store):
    """A misspelt endpoint is told at once, not after the deadline."""
    backend = store.open(endpoint_url=f"http://{UNRESOLVABLE}:1")
    for call in (lambda: backend.list(""), lambda: backend.put("checkpoints/a/b", [bytes(6 * stores.MIB)])):
        with pytest.raises(UnreachableError, match="name of the server|cannot be reached"), within(stores.DEADLINE):
            call()


def test_a_store_that_refuses_conditions_is_named(store):
    """A store that does not know conditional writes and says so is an error that names the setting to go on without."""
    refusal = store.refuse(501, "NotImplemented", "A header you provided implies functionality that is not implemented")
    store.on("put", refusal, when=lambda _: next(conditional, False))
    conditional = iter([True])
    with pytest.raises(ConditionalWriteError, match=r"storage_options=\{'conditional_writes': False\}"):
        store.run().save()
    run = store.run()
    run.save()
    assert_usable(store, run)


def silent(store):
    """Return a proxy before a store that ignores conditions, and says nothing."""
    edit = proxy.without_s3_conditions(store.server.secrets) if store.is_s3 else proxy.without_gcs_conditions
    return proxy.FaultProxy(store.server.url, edit=edit)


def test_a_store_that_overwrites_in_silence_is_named(store):
    """A store that takes a conditional write and overwrites is found out before the first commit."""
    with silent(store) as deaf:
        run = SmallRun(store.open(endpoint_url=deaf.url))
        with pytest.raises(ConditionalWriteError, match="overwrite each other's checkpoints unnoticed"):
            run.save()
    assert store.names() == []
    run = store.run()
    run.save()
    assert_usable(store, run)


def test_without_conditional_writes_nothing_asks_for_them(store):
    """Whoever says that the store has none can use it: no request has a condition, and a taken key is still seen."""
    asked = []
    store.proxy._edit = lambda head: asked.append(head) or head
    run = store.run(conditional_writes=False)
    run.save()
    run.save(arrays=large())
    assert_whole(store, run)
    assert not any("if-none-match" in dict(head.headers) or "ifGenerationMatch" in head.first[1] for head in asked)
    with pytest.raises(FileExistsError):
        run.backend.put_if_absent("commits/00000001.json", b"x")
    with pytest.raises(FileExistsError):
        run.backend.put(f"checkpoints/{next(iter(run.wrote))}/model.safetensors", [b"x"])


def test_the_environment_says_where_the_store_is(s3, monkeypatch):
    """Endpoint and credentials from the environment alone are enough."""
    for name, value in s3.server.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3.proxy.url)
    run = SmallRun(open_backend(s3.url, {"client": s3.client}))
    run.save(arrays=large(9))
    assert_whole(s3, run)
    assert s3.proxy.count(path="partNumber=") > 0
    assert os.environ["AWS_ACCESS_KEY_ID"] not in repr(run.backend)


def test_whoever_is_shown_is_shown_without_a_secret(s3):
    """The identity that tests use does not print its secret, so no failure of a test does."""
    assert s3.server.identity("admin").secret not in repr(s3.server.identity("admin"))
    assert isinstance(s3.server.identity("admin"), Identity)
