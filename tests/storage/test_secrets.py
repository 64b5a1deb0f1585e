"""Secrets: however credentials are given, they are in nothing that is shown, logged, told or stored.

`test_bucket_secrets.py` asks servers that repeat what they were sent; here every way to give credentials is gone.
"""

from __future__ import annotations

import json
import logging
import traceback
import uuid
import warnings

import pytest
from contracts.servers import free_ports
from contracts.sftp_server import PASSWORD, USER, SftpServer
from contracts.stateful import Weights

import keepbest
from keepbest import Checkpointer, CheckpointPolicy
from keepbest.cli import main
from keepbest.errors import KeepbestError
from keepbest.storage.backend import open_backend

MARK = f"SeCrEt{4711}"
"""Stands in every secret here; computed, so that the lines of a traceback do not have it."""
KEY = f"AKIA{MARK.upper()}X"
NEVER = (MARK, MARK.upper(), MARK.replace("4", "%34"))


def assert_silent(text, hidden=NEVER):
    """Check that nothing secret stands in a text."""
    for secret in hidden:
        if secret in text:
            pytest.fail(f"{secret!r} is shown:\n{text}")


def in_options_s3(port, patch, folder):
    return f"s3://{folder.name}/run", {"key": KEY, "secret": f"{MARK}/x", "token": MARK, "endpoint_url": dead(port)}


def in_environment_s3(port, patch, folder):
    patch.setenv("AWS_ACCESS_KEY_ID", KEY)
    patch.setenv("AWS_SECRET_ACCESS_KEY", f"{MARK}/x")
    patch.setenv("AWS_SESSION_TOKEN", MARK)
    patch.setenv("AWS_ENDPOINT_URL", dead(port))
    return f"s3://{folder.name}/run", {}


def in_profile_s3(port, patch, folder):
    (folder / "credentials").write_text(f"[lab]\naws_access_key_id={KEY}\naws_secret_access_key={MARK}/x\n")
    patch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(folder / "credentials"))
    return f"s3://{folder.name}/run", {"profile": "lab", "endpoint_url": dead(port)}


def in_endpoint_s3(port, patch, folder):
    options = {"key": "k", "secret": "s", "endpoint_url": f"http://me:{MARK}@127.0.0.1:{port}"}
    return f"s3://{folder.name}/run", options


def in_client_kwargs_s3(port, patch, folder):
    client = {"aws_access_key_id": KEY, "aws_secret_access_key": MARK, "endpoint_url": dead(port)}
    return f"s3://{folder.name}/run", {"client_kwargs": client}


def in_token_gcs(port, patch, folder):
    return "gs://bucket/run", {"token": {"access_token": MARK, "token": MARK}, "endpoint_url": dead(port)}


def in_file_gcs(port, patch, folder):
    user = {"type": "authorized_user", "client_id": "c", "client_secret": MARK, "refresh_token": MARK}
    (folder / "user.json").write_text(json.dumps(user))
    patch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(folder / "user.json"))
    return "gs://bucket/run", {"endpoint_url": dead(port)}


def in_broken_file_gcs(port, patch, folder):
    account = {"type": "service_account", "client_email": "a@b", "token_uri": "x", "private_key": f"-----{MARK}"}
    (folder / "account.json").write_text(json.dumps(account))
    return "gs://bucket/run", {"token": str(folder / "account.json"), "endpoint_url": dead(port)}


def in_endpoint_gcs(port, patch, folder):
    return "gs://bucket/run", {"token": "anon", "endpoint_url": f"http://me:{MARK}@127.0.0.1:{port}"}


def in_url_sftp(port, patch, folder):
    return f"sftp://me:{MARK}@127.0.0.1:{port}/run", {}


def in_quoted_url_sftp(port, patch, folder):
    return f"sftp://me:{MARK.replace('4', '%34')}@127.0.0.1:{port}/run", {}


def in_options_sftp(port, patch, folder):
    return f"sftp://127.0.0.1:{port}/run", {"username": "me", "password": MARK}


def in_url_ftp(port, patch, folder):
    return f"ftp://me:{MARK}@127.0.0.1:{port}/run", {}


def in_url_http(port, patch, folder):
    return f"http://me:{MARK}@127.0.0.1:{port}/run", {}


def in_headers_http(port, patch, folder):
    client = {"headers": {"Authorization": f"Bearer {MARK}", "Cookie": f"session={MARK}"}}
    return f"http://127.0.0.1:{port}/run", {"client_kwargs": client}


def in_options_webhdfs(port, patch, folder):
    return f"webhdfs://127.0.0.1:{port}/run", {"token": MARK}


WAYS = [
    in_options_s3, in_environment_s3, in_profile_s3, in_endpoint_s3, in_client_kwargs_s3, in_token_gcs, in_file_gcs,
    in_broken_file_gcs, in_endpoint_gcs, in_url_sftp, in_quoted_url_sftp, in_options_sftp, in_url_ftp, in_url_http,
    in_headers_http, in_options_webhdfs,
]  # fmt: skip


def dead(port):
    """Return the URL of a port at which nobody listens."""
    return f"http://127.0.0.1:{port}"


def train(url, options, **where):
    with Checkpointer(url, CheckpointPolicy(), storage_options=options, model=Weights(), **where) as ckpt:
        for _ in ckpt.epochs(1):
            ckpt.log(loss=1.0)


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
def test_no_way_to_give_credentials_shows_them(way, tmp_path, monkeypatch, caplog, capsys):
    """Errors, tracebacks, logs, warnings, what objects print as, progress and the command line: nowhere a secret."""
    for name in ("AWS_PROFILE", "AWS_ENDPOINT_URL_S3", "STORAGE_EMULATOR_HOST", "GOOGLE_APPLICATION_CREDENTIALS"):
        monkeypatch.delenv(name, raising=False)
    (port,) = free_ports(1)
    url, options = way(port, monkeypatch, tmp_path)
    options |= {"deadline": 1}
    told = []
    deeds = [
        lambda: keepbest.open_run(url, storage_options=options).verify(),
        lambda: open_backend(url, options).put("checkpoints/c/a", [b"x"]),
        lambda: open_backend(url, options).read("a"),
        lambda: train(url, options),
        lambda: train(tmp_path / "first", None, mirror=url, mirror_options=options),
        lambda: open_backend(url, options).publish("a", f"{url}-out/b"),
        lambda: open_backend(url, options).publish("a", f"elsewhere://me:{MARK}@host/b"),
    ]
    shown, raised = [], 0
    with (
        caplog.at_level(logging.DEBUG, logger="keepbest"),
        warnings.catch_warnings(record=True) as warned,
        keepbest.on_progress(lambda progress: told.append(repr(progress))),
    ):
        warnings.simplefilter("always")
        for deed in deeds:
            try:
                deed()
            except KeepbestError as error:
                raised += not str(error).startswith("storage_options")
                shown += [str(error), repr(error), repr(vars(error)), *traceback.format_exception(error)]
        try:
            backend = open_backend(url, options)
            shown += [repr(backend), backend.url, repr(keepbest.Run(backend))]
        except KeepbestError as error:
            shown.append(str(error))
    assert raised == len(deeds)
    shown += [caplog.text, *told, *(str(warning.message) for warning in warned)]
    words = [f"--storage-option={name}={json.dumps(value)}" for name, value in options.items()]
    for verb in ("ls", "verify"):
        assert main([verb, url, *words, "--traceback"]) == 2
    said = capsys.readouterr()
    assert_silent("\n".join([*shown, said.out, said.err]))


@pytest.mark.parametrize(
    "url",
    [
        f"s3://{KEY}:{MARK}@bucket/run",
        f"s3://{KEY}:{MARK}/x@bucket/run",
        f"s3://x:{MARK}/run",
        f"gs://me:{MARK}@bucket/run",
        f"sftp:/me:{MARK}@host/run",
        f"s3:{KEY}:{MARK}@bucket/run",
        f"nowhere://me:{MARK}@host/run",
        f"sftp://me:{MARK}@host/run?x=1",
        f"sftp://me:{MARK}@host/run\0",
        f"simplecache::sftp://me:{MARK}@host/run",
        f"sftp://me:{MARK}/x@host/run",
    ],
    ids=lambda url: url.replace(MARK, "…").replace(KEY, "key"),
)
def test_a_url_that_cannot_be_used_is_refused_without_its_secret(url, capsys):
    """A URL with a password that is misspelt, or that no store takes, is an error that does not repeat it."""
    for deed in (
        lambda: open_backend(url, {"deadline": 1}).list(""),
        lambda: keepbest.open_run(url, storage_options={"deadline": 1}),
    ):
        with pytest.raises(KeepbestError) as caught:
            deed()
        assert_silent(str(caught.value) + "".join(traceback.format_exception(caught.value)))
    assert main(["ls", url, "--storage-option", "deadline=1"]) == 2
    assert_silent(capsys.readouterr().err)


@pytest.mark.parametrize("scheme", ["sftp", "s3", "nowhere"])
def test_a_target_that_cannot_be_used_is_refused_without_its_secret(memory_url, tmp_path, scheme):
    """The same of where something shall be published or exported to."""
    from contracts.runs import SmallRun

    target = f"{scheme}://me:{MARK}@host/model.safetensors"
    for place in (memory_url, str(tmp_path / "run")):
        SmallRun(open_backend(place)).save()
        run = keepbest.open_run(place)
        for deed in (
            lambda run=run: run.publish(run.best, "model.safetensors", target),
            lambda run=run: run.best.export(target),
        ):
            with pytest.raises(KeepbestError) as caught:
                deed()
            assert_silent("".join(traceback.format_exception(caught.value)))


@pytest.mark.bucket  # it needs a server
def test_nothing_that_is_stored_or_told_holds_the_password(tmp_path_factory, caplog, capsys):
    """A training whose URL has the password leaves none in its run, in logs, in progress, in what verbs print."""
    with SftpServer(tmp_path_factory.mktemp("sftp")) as server:
        url, told = f"{server.url_with_password}/{uuid.uuid4().hex}", []
        with (
            caplog.at_level(logging.DEBUG, logger="keepbest"),
            keepbest.on_progress(lambda progress: told.append(repr(progress))),
        ):
            train(url, None)
            run = keepbest.open_run(url)
            run.verify()
            run.latest.load("model")
            shown = repr(run) + repr(run.latest) + run.url
        for verb in ("ls", "show", "verify", "gc"):
            which = ["latest"] if verb == "show" else []
            assert main([verb, url, *which]) == 0
            assert main([verb, url, *which, "--json"]) == 0
        said = capsys.readouterr()
        stored = b"".join(path.read_bytes() for path in server.folder.rglob("*") if path.is_file())
        assert told
        assert len(stored) > 100
        assert USER.encode() not in stored
        assert_silent("\n".join([shown, caplog.text, *told, said.out, said.err, stored.decode("latin-1")]), [PASSWORD])
