"""A run on a real SFTP server: whole trainings, and what becomes of them when the server has a bad day."""

from __future__ import annotations

import asyncio
import os
import socket
import threading
import traceback
import uuid
import warnings

import asyncssh
import pytest
from contracts import sftp_server
from contracts.runs import SmallRun, same
from contracts.sftp_server import PASSWORD, USER, SftpServer
from contracts.stateful import Weights
from contracts.stores import within

import keepbest
from keepbest import Checkpointer, CheckpointPolicy
from keepbest.errors import (
    ConcurrentWriterError,
    ConfigError,
    CredentialsError,
    ObjectExistsError,
    ObjectNotFoundError,
    StorageError,
    StoragePermissionError,
    UnreachableError,
)
from keepbest.storage.backend import open_backend
from keepbest.storage.layout import temporary_of

pytestmark = pytest.mark.bucket  # it needs a server, and is left out of `make test-fast`


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """A real SFTP server."""
    with SftpServer(tmp_path_factory.mktemp("sftp")) as server:
        yield server


@pytest.fixture
def url(server):
    """A fresh folder, without credentials."""
    return f"{server.url}/{uuid.uuid4().hex}"


@pytest.fixture
def backend(server, url):
    return open_backend(url, server.options)


def on_disk(server, url):
    return server.folder / url.rpartition("/")[2]


def train(url, losses, **settings):
    """Run a loop over `losses`, one for each epoch; returns the weights."""
    weights = Weights()
    with Checkpointer(url, CheckpointPolicy(monitor="val_loss"), weights=weights, **settings) as ckpt:
        for epoch in ckpt.epochs(len(losses)):
            weights.values = weights.values + 1
            ckpt.log(val_loss=losses[epoch])
    return weights


# ── trainings ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_training_runs_and_resumes(server, url):
    """A training on sftp:// keeps its best and its last, goes on after an interruption, and leaves nothing else."""
    train(url, [3.0, 1.0, 2.0], storage_options=server.options)
    weights = train(url, [3.0, 1.0, 2.0, 4.0], storage_options=server.options)
    assert weights.values.tolist() == [4.0] * 4
    run = keepbest.open_run(url, storage_options=server.options)
    assert [(found.epoch, found.metrics["val_loss"]) for found in run.checkpoints()] == [(1, 1.0), (3, 4.0)]
    assert run.best.load("weights")["values"].tolist() == [2.0] * 4
    assert run.history()["val_loss"] == [3.0, 1.0, 2.0, 4.0]
    assert run.verify().ok
    assert len(os.listdir(on_disk(server, url) / "checkpoints")) == 2
    assert not list(on_disk(server, url).rglob(".tmp-*"))


def test_what_lies_there_is_a_run_like_any_other(server, url):
    """The folder on the server can be read as a local run."""
    written = SmallRun(open_backend(url, server.options))
    written.save(loss=1.0)
    run = keepbest.open_run(on_disk(server, url))
    assert same(run.best.load("model"), written.wrote[run.best.name])


def test_of_two_writers_one_is_told(server, url):
    """Two trainings on one run: the second to commit a number is told so, and the first one's checkpoint stays."""
    first, second = (SmallRun(open_backend(url, server.options)) for _ in range(2))
    kept = first.save(loss=1.0)
    with pytest.raises(ConcurrentWriterError):
        second.save(loss=0.5)
    run = keepbest.open_run(url, storage_options=server.options)
    assert [checkpoint.name for checkpoint in run.checkpoints()] == [kept.name]
    assert run.verify().ok


# ── other servers ─────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_server_that_overwrites_is_found_out(tmp_path):
    """Where RENAME replaces what is there, the first commit warns, and a later one still looks before it writes."""
    with SftpServer(tmp_path, sftp_server.Overwriting) as server:
        backend = open_backend(f"{server.url}/run", server.options)
        with pytest.warns(UserWarning, match="overwrite each other's commits unnoticed") as caught:
            backend.put_if_absent("commits/00000001.json", b"first")
        assert len(caught) == 1
        assert not backend.capabilities.put_if_absent
        with pytest.raises(ObjectExistsError):
            backend.put_if_absent("commits/00000001.json", b"second")
        assert backend.read("commits/00000001.json") == b"first"
        assert [entry.key for entry in backend.list("")] == ["commits/00000001.json"]


def test_a_server_without_extensions_will_do(tmp_path):
    """Where there is no rename that replaces, everything works all the same."""
    with SftpServer(tmp_path, sftp_server.Plain) as server:
        backend = open_backend(f"{server.url}/run", server.options)
        backend.put_if_absent("commits/00000001.json", b"x")
        for content in (b"old", b"new"):
            backend.replace("best.json", content)
        backend.put("checkpoints/c/a", [b"a"])
        backend.publish("checkpoints/c/a", f"{server.url}/models/a")
        assert backend.read("best.json") == b"new"
        assert (tmp_path / "models/a").read_bytes() == b"a"
        assert len(backend.list("")) == 3


@pytest.mark.parametrize("lost", [0, 3, "last"], ids=["the-first", "one-in-the-middle", "the-last"])
def test_a_write_that_fails_is_never_overlooked(tmp_path, lost):
    """Writes are sent without waiting for their answers; an answer that says no is heard, whichever it is."""
    data = os.urandom(400_000)

    class Full(asyncssh.SFTPServer):
        writes = 0

        def write(self, file_obj, offset, data):
            number = Full.writes
            Full.writes += 1
            if number == lost or (lost == "last" and offset + len(data) == 400_000):
                raise asyncssh.SFTPFailure("Failure")
            return super().write(file_obj, offset, data)

    with SftpServer(tmp_path, Full) as server:
        backend = open_backend(f"{server.url}/run", server.options)
        with pytest.raises(StorageError, match=r"checkpoints/c/a: cannot write.*no space or quota"):
            backend.put("checkpoints/c/a", [data])
        assert backend.list("") == []


def test_a_folder_that_may_not_be_written_is_named(tmp_path):
    """Without the permission to write, the error says which."""

    class ReadOnly(asyncssh.SFTPServer):
        def open(self, path, pflags, attrs):
            if pflags & asyncssh.FXF_WRITE:
                raise asyncssh.SFTPPermissionDenied("Permission denied")
            return super().open(path, pflags, attrs)

    with SftpServer(tmp_path, ReadOnly) as server:
        backend = open_backend(f"{server.url}/run", server.options)
        with pytest.raises(StoragePermissionError, match=r"/run/checkpoints/c/a: cannot write"):
            backend.put("checkpoints/c/a", [b"x"])


# ── bad days ──────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "call",
    [
        pytest.param(lambda backend: backend.put("checkpoints/d/b", [b"x"]), id="put"),
        pytest.param(lambda backend: backend.put_if_absent("commits/1", b"x"), id="put_if_absent"),
        pytest.param(lambda backend: backend.replace("best.json", b"x"), id="replace"),
        pytest.param(lambda backend: backend.read("checkpoints/c/a"), id="read"),
        pytest.param(lambda backend: backend.read_ranges("checkpoints/c/a", [(0, 1)]), id="read_ranges"),
        pytest.param(lambda backend: backend.head("checkpoints/c/a"), id="head"),
        pytest.param(lambda backend: backend.list(""), id="list"),
        pytest.param(lambda backend: backend.delete(["checkpoints/c/a"]), id="delete"),
        pytest.param(lambda backend: backend.copy("checkpoints/c/a", "checkpoints/d/b"), id="copy"),
        pytest.param(lambda backend: backend.abort_stale("", 0.0), id="abort_stale"),
    ],
)
def test_a_connection_that_was_dropped_is_made_anew(server, backend, call):
    """Between two epochs a router may drop the connections; the next call does not notice."""
    backend.put("checkpoints/c/a", [b"x"])
    server.drop()
    before = len(server.connections)
    call(backend)
    assert len(server.connections) > before


def test_a_connection_that_drops_in_the_middle_leaves_nothing(server, backend):
    """When the server is lost while a stream is sent, the error says so, and nothing lies under the key."""

    def stream():
        yield bytes(1 << 20)
        server.drop()
        yield bytes(1 << 20)

    with pytest.raises(UnreachableError):
        backend.put("checkpoints/c/a", stream())
    assert backend.list("") == []
    backend.put("checkpoints/c/a", [b"whole"])
    assert backend.read("checkpoints/c/a") == b"whole"


def test_a_server_that_goes_in_the_middle_leaves_nothing_under_the_key(server, backend):
    """What was sent to a server that is gone before it is complete has a name that nobody reads, and `gc` removes."""

    def stream():
        yield bytes(1 << 20)
        server.stop()
        yield bytes(1 << 20)

    key = "checkpoints/epoch-001_9f3ac2/model.safetensors"
    try:
        with pytest.raises(UnreachableError):
            backend.put(key, stream())
    finally:
        server.start()
    left = [entry.key for entry in backend.list("")]
    assert key not in left
    assert all(temporary_of(found) for found in left)
    with pytest.raises(ObjectNotFoundError):
        backend.head(key)


def test_a_server_that_is_gone_is_said_at_once(server, url, backend):
    """While the server is down the error comes within seconds; when it is back the run goes on."""
    run = SmallRun(backend)
    run.save(loss=2.0)
    server.stop()
    try:
        with within(10), pytest.raises(UnreachableError, match="cannot be reached"):
            run.save(loss=1.0)
    finally:
        server.start()
    run.save(loss=1.0)
    found = keepbest.open_run(url, storage_options=server.options)
    assert found.best.metrics["val_loss"] == 1.0
    assert found.verify().ok


def test_a_server_that_hangs_is_given_up():
    """A server that takes the connection and says nothing is an error before the deadline."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"sftp://127.0.0.1:{silent.getsockname()[1]}/run"
        with within(3), pytest.raises(UnreachableError):
            open_backend(url, {"username": "u", "password": "p", "deadline": 3}).list("")


def test_a_server_that_hangs_later_is_given_up(tmp_path):
    """A server that stops answering on a connection that worked is an error before the deadline."""
    hangs = threading.Event()

    class Hanging(asyncssh.SFTPServer):
        async def stat(self, path):
            while hangs.is_set():  # noqa: ASYNC110 - another thread says when
                await asyncio.sleep(0.05)
            return super().stat(path)

    with SftpServer(tmp_path, Hanging) as server:
        backend = open_backend(f"{server.url}/run", {**server.options, "deadline": 3})
        backend.put("checkpoints/c/a", [b"x"])
        hangs.set()
        with within(3), pytest.raises(UnreachableError):
            backend.head("checkpoints/c/a")
        hangs.clear()
        assert backend.head("checkpoints/c/a").size == 1


def test_a_name_that_cannot_be_resolved_is_said():
    """A host that nobody knows is an UnreachableError that says what is wrong."""
    backend = open_backend("sftp://no-such-host.invalid/run", {"username": "u", "password": "p"})
    with pytest.raises(UnreachableError, match="cannot be resolved"):
        backend.list("")


def test_a_wrong_password_is_said_and_never_shown(server):
    """Credentials that are refused are a CredentialsError, and neither they nor the right ones are to be seen."""
    url = f"sftp://{USER}:hunter2@127.0.0.1:{server.port}/run"
    backend = open_backend(url)
    with pytest.raises(CredentialsError, match="does not accept") as caught:
        backend.list("")
    shown = "".join(traceback.format_exception(caught.value)) + repr(backend) + backend.url
    assert "hunter2" not in shown
    assert backend.url == f"sftp://{USER}@127.0.0.1:{server.port}/run"


def test_a_password_in_the_url_is_enough(server):
    """A URL may carry user and password, for the run and for what is published; manifests and logs do not hold it."""
    name = uuid.uuid4().hex
    run = SmallRun(open_backend(f"{server.url_with_password}/{name}"))
    run.save(loss=1.0)
    checkpoint = keepbest.open_run(f"{server.url_with_password}/{name}").best
    run.backend.publish(f"checkpoints/{checkpoint.name}/model.safetensors", f"{server.url_with_password}/{name}-out/m")
    assert (server.folder / f"{name}-out/m").stat().st_size > 0
    for path in (server.folder / name).rglob("*"):
        assert path.is_dir() or PASSWORD.encode() not in path.read_bytes()


def test_publish_stays_on_its_server(backend):
    """A path on another server is refused, rather than taken for one on this."""
    backend.put("checkpoints/c/a", [b"x"])
    for url in ("sftp://elsewhere/models/a", f"sftp://somebody@127.0.0.1:{backend.url.split(':')[2]}"):
        with pytest.raises(ConfigError, match="on another server"):
            backend.publish("checkpoints/c/a", url)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # other libraries' handlers of forks
def test_a_forked_process_has_connections_of_its_own(server, backend):
    """A process that was forked off reads and writes by itself, and leaves its parent's connection as it was."""
    backend.put("checkpoints/c/a", [b"from the parent"])
    before = len(server.connections)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # to fork with threads is what is tested
        child = os.fork()
    if child == 0:
        try:
            assert backend.read("checkpoints/c/a") == b"from the parent"
            backend.put("checkpoints/c/b", [b"from the child"])
            os._exit(0)
        finally:
            os._exit(1)
    assert os.waitpid(child, 0)[1] == 0
    assert backend.read("checkpoints/c/b") == b"from the child"
    assert len(server.connections) == before + 1


def test_a_large_file_is_the_same_when_it_comes_back(backend):
    """Files of many requests are written, read, copied and read in ranges without an error."""
    data = os.urandom(20_000_001)
    backend.put("checkpoints/c/a", (data[begin : begin + 3_000_000] for begin in range(0, len(data), 3_000_000)))
    backend.copy("checkpoints/c/a", "checkpoints/c/b")
    assert backend.read("checkpoints/c/b") == data
    ranges = [(0, 9), (15_000_000, 30_000_000), (7_000_000, 16_000_000)]
    assert [bytes(view) for view in backend.read_ranges("checkpoints/c/b", ranges)] == [data[b:e] for b, e in ranges]
