"""The backend over any filesystem of fsspec: the contract on each kind there is, and what is said of what one lacks."""

from __future__ import annotations

import gc
import os
import threading
import traceback
import uuid
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import fsspec
import pytest
from contracts import filesystems
from contracts.backend_contract import BackendContract
from contracts.runs import SmallRun, same
from contracts.sftp_server import SftpServer
from fsspec.registry import known_implementations

import keepbest
from keepbest.errors import (
    BucketNotFoundError,
    ConfigError,
    NotARunError,
    ObjectExistsError,
    StorageError,
    StoragePermissionError,
    UnreachableError,
)
from keepbest.storage.backend import Backend, open_backend

LACK = "ignore:.*does not create objects only if they are absent"


class LooksFirst(BackendContract):
    """The contract where none can be asked to create only what is absent: what remains of its promises."""

    pytestmark = pytest.mark.filterwarnings(LACK)

    def test_it_is_a_backend(self, backend, url):
        """Whoever is given it finds every method, a URL to show, and that two writers are not kept apart."""
        assert isinstance(backend, Backend)
        assert backend.url == url
        assert not backend.capabilities.put_if_absent

    def test_of_16_that_create_one_key_exactly_one_wins(self, url):
        """Of those that create one key at once at least one succeeds, and what stays is whole and one of theirs."""
        writers = 16
        backends = [open_backend(url) for _ in range(writers)]
        start = threading.Barrier(writers)

        def write(number):
            start.wait(timeout=30)
            try:
                backends[number].put_if_absent("commits/00000001.json", bytes([number]) * 50_000)
            except ObjectExistsError:
                return False
            return True

        with ThreadPoolExecutor(writers) as pool:
            won = list(pool.map(write, range(writers)))
        stays = backends[0].read("commits/00000001.json")
        assert stays in [bytes([number]) * 50_000 for number in range(writers) if won[number]]
        assert [entry.key for entry in backends[0].list("")] == ["commits/00000001.json"]


class OnDisk:
    """How the tests look at a folder behind the backend's back: `folder(url)` is where it lies."""

    @classmethod
    def peek(cls, url):
        return Path(cls.folder(url)).read_bytes()

    @classmethod
    def names_beside(cls, url):
        return sorted(os.listdir(Path(cls.folder(url)).parent))


class InMemory:
    """How the tests look at what is only there by its filesystem."""

    @pytest.fixture
    def url(self):
        return f"{self.scheme}://bucket/{uuid.uuid4().hex}"

    @pytest.fixture
    def outside(self, url):
        return lambda name: f"{url}-outside/{name}"

    @staticmethod
    def peek(url):
        with fsspec.open(url) as file:
            return file.read()

    @staticmethod
    def names_beside(url):
        filesystem, path = fsspec.url_to_fs(url, skip_instance_cache=True)
        return sorted(name.rpartition("/")[2] for name in filesystem.ls(path.rpartition("/")[0], detail=False))


class TestLocalThroughFsspec(OnDisk, LooksFirst):
    """The contract, on a file system: what is written appears by a rename."""

    @pytest.fixture
    def url(self, tmp_path):
        return f"shelf://{tmp_path}/run"

    @pytest.fixture
    def outside(self, tmp_path):
        return lambda name: f"shelf://{tmp_path}/outside/{name}"

    @staticmethod
    def folder(url):
        return url.removeprefix("shelf://")


class TestMemoryThroughFsspec(InMemory, LooksFirst):
    """The contract, on a store without folders, where what is written appears whole."""

    scheme = "attic"


class TestNothingIsKnown(InMemory, LooksFirst):
    """The contract, on a store that nothing is known of, with listings that are cached."""

    scheme = "depot"


class TestAzureByItsTraits(InMemory, BackendContract):
    """The contract, on a store that is asked for what adlfs offers."""

    scheme = "azure"


@pytest.fixture(scope="module")
def sftp(tmp_path_factory):
    """A real SFTP server."""
    with SftpServer(tmp_path_factory.mktemp("sftp")) as server:
        yield server


class TestSftp(OnDisk, BackendContract):
    """The contract, on a real SFTP server."""

    pytestmark = pytest.mark.bucket
    RACES = 2

    @pytest.fixture
    def url(self, sftp, monkeypatch):
        """A fresh folder; the credentials are fsspec's, by its configuration."""
        monkeypatch.setitem(fsspec.config.conf, "sftp", sftp.options)
        type(self).server = sftp
        return f"{sftp.url}/{uuid.uuid4().hex}"

    @pytest.fixture
    def outside(self, url):
        return lambda name: f"{url}-outside/{name}"

    @classmethod
    def folder(cls, url):
        return f"{cls.server.folder}/{url.removeprefix(cls.server.url)}"


# ── which filesystem ──────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("url", "says"),
    [
        pytest.param("sfpt://host/run", r"no backend serves sfpt://.*Did you mean 'sftp'\?.*webdav", id="misspelt"),
        pytest.param(
            "nowhere://u:secret@host/run", r"nowhere:// needs.*Install no-such-package\.$", id="not-installed"
        ),
        pytest.param("simplecache::sftp://u:secret@host/run", "is a chain of filesystems", id="chain"),
        pytest.param("zip://run::sftp://u:secret@host/a.zip", "is a chain of filesystems", id="chain-of-two-urls"),
        pytest.param("dir://run", "is no place to store by itself", id="wrapper"),
        pytest.param("sftp://u:secret@host/run?version=1", r"sftp://u@host/run has a '\?' behind it", id="query"),
        pytest.param("https://host/run?token=secret", r"https://host/run has a '\?' behind it", id="query-of-http"),
    ],
)
def test_a_url_that_nothing_serves_is_refused_at_once(monkeypatch, url, says):
    """Whoever misspells a scheme, lacks its package or names no place is told so, without the password."""
    lacking = {"class": "no_such_package.Filesystem", "err": "Install no-such-package"}
    monkeypatch.setitem(known_implementations, "nowhere", lacking)
    with pytest.raises(ConfigError, match=says) as caught:
        open_backend(url)
    assert "secret" not in str(caught.value)


def test_options_that_do_not_fit_are_named_without_their_values():
    """An option that the filesystem does not take is a ConfigError that names it, at the first call."""
    backend = open_backend("azure://bucket/run", {"tokken": "hunter2", "version": 3})
    assert backend.list("") == []  # memory takes any

    class Picky(filesystems.Attic):
        protocol = "picky"

        def __init__(self, *, token):
            super().__init__()

    fsspec.register_implementation("picky", Picky, clobber=True)
    with pytest.raises(ConfigError, match=r"do not fit Picky: .*'tokken'") as caught:
        open_backend("picky://bucket/run", {"tokken": "hunter2"}).list("")
    assert "hunter2" not in str(caught.value)


def test_a_deadline_that_is_none_is_refused():
    """The settings of a transfer are the same as for buckets, and checked in the same way."""
    with pytest.raises(ConfigError, match="deadline"):
        open_backend("attic://bucket/run", {"deadline": -1})


# ── what is lost ──────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("scheme", "torn"), [pytest.param("shelf", False, id="renames"), pytest.param("depot", True, id="unknown")]
)
def test_who_writes_is_told_once_what_is_lost(tmp_path, scheme, torn):
    """Where two writers are not kept apart, one warning says so, at the user's line; and what a kill may do."""
    url = f"{scheme}://{tmp_path}/run"
    with pytest.warns(UserWarning, match="overwrite each other's commits unnoticed") as caught:
        open_backend(url).put("checkpoints/c/a", [b"x"])
        backend = open_backend(url)
        backend.put_if_absent("commits/00000001.json", b"x")
        backend.replace("best.json", b"x")
    assert len(caught) == 1
    assert caught[0].filename == __file__
    assert url in str(caught[0].message)
    assert ("may leave a damaged one" in str(caught[0].message)) is torn


def test_a_training_is_told_where_it_begins():
    """A whole training on a store of which nothing is known works, and warns at the line that opens the run."""

    class Counter:
        def __init__(self):
            self.epochs = 0

        def state_dict(self):
            return {"epochs": self.epochs}

        def load_state_dict(self, state):
            self.epochs = state["epochs"]

    url, counter = f"depot://bucket/{uuid.uuid4().hex}", Counter()
    with pytest.warns(UserWarning, match="overwrite each other's commits") as caught:
        for upto in (2, 4):
            with keepbest.Checkpointer(url, keepbest.CheckpointPolicy(monitor="val_loss"), counter=counter) as ckpt:
                for epoch in ckpt.epochs(upto):
                    counter.epochs += 1
                    ckpt.log(val_loss=abs(epoch - 1.0))
    assert [warning.filename for warning in caught] == [__file__]
    run = keepbest.open_run(url)
    assert [checkpoint.epoch for checkpoint in run.checkpoints()] == [1, 3]
    assert run.history()["val_loss"] == [1.0, 0.0, 1.0, 2.0]
    assert run.verify().ok


def test_who_reads_is_told_nothing(tmp_path):
    """A run is read without a warning, whatever its store lacks."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        written = SmallRun(open_backend(f"{tmp_path}/run"))
        written.save(loss=1.0)
    run = keepbest.open_run(f"shelf://{tmp_path}/run")
    assert same(run.best.load("model"), written.wrote[run.best.name])
    assert run.verify().ok


def test_who_knows_what_is_lost_is_not_told(tmp_path):
    """The option that says "only one ever writes" silences the warning."""
    backend = open_backend(f"shelf://{tmp_path}/run", {"conditional_writes": False})
    backend.put_if_absent("commits/00000001.json", b"x")
    with pytest.raises(ObjectExistsError):
        backend.put_if_absent("commits/00000001.json", b"y")


# ── nothing half-written ──────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.filterwarnings(LACK)
@pytest.mark.parametrize("scheme", ["shelf", "attic", "depot", "azure"])
def test_a_large_stream_that_fails_is_never_published(tmp_path, scheme):
    """What was sent of a stream before it failed is gone, also when the file that took it is collected."""
    backend = open_backend(f"{scheme}://{tmp_path}/run")

    def stream():
        yield bytes(1 << 20)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        backend.put("checkpoints/c/a", stream())
    gc.collect()
    assert backend.list("") == []


@pytest.mark.filterwarnings(LACK)
@pytest.mark.parametrize("base", [filesystems.Shelf, filesystems.Depot], ids=["renames", "unknown"])
def test_bytes_that_were_lost_on_the_way_are_noticed(tmp_path, base):
    """A store that takes fewer bytes than were sent, and says nothing, has no object afterwards."""

    class Leaky(base):
        protocol = "leaky"

        def open(self, path, mode="rb", **kwargs):
            file = super().open(path, mode, **kwargs)
            if mode == "wb":
                write = file.write
                file.write = lambda data: write(data[:-1])
            return file

    fsspec.register_implementation("leaky", Leaky, clobber=True)
    backend = open_backend(f"leaky://{tmp_path}/run")
    with pytest.raises(UnreachableError, match=r"checkpoints/c/a.*99 of 100 bytes arrived"):
        backend.put("checkpoints/c/a", [bytes(100)])
    assert backend.list("") == []


@pytest.mark.filterwarnings(LACK)
def test_what_cannot_be_listed_is_not_empty(tmp_path):
    """A folder that may not be looked into is an error, never a run without checkpoints."""

    class Closed(filesystems.Shelf):
        protocol = "closed"

        def ls(self, path, **kwargs):
            if path.endswith("commits"):
                raise PermissionError(path)
            return super().ls(path, **kwargs)

    fsspec.register_implementation("closed", Closed, clobber=True)
    backend = open_backend(f"closed://{tmp_path}/run")
    backend.put_if_absent("commits/00000001.json", b"x")
    with pytest.raises(StoragePermissionError, match="cannot list"):
        backend.list("")


@pytest.mark.filterwarnings(LACK)
def test_a_part_of_the_path_that_is_a_file_is_named(tmp_path):
    """A run whose URL leads through a file is refused with an error that says so."""
    (tmp_path / "file").write_bytes(b"x")
    with pytest.raises(NotARunError, match="is a file"):
        open_backend(f"shelf://{tmp_path}/file").put("checkpoints/c/a", [b"x"])


def test_a_container_that_is_not_there_is_named():
    """Who writes to an object store without having made the container is told which one is missing."""

    class Empty(filesystems.Azure):
        protocol = "empty"

        def pipe_file(self, path, value, **kwargs):
            raise FileNotFoundError(path)

    fsspec.register_implementation("empty", Empty, clobber=True)
    with pytest.raises(BucketNotFoundError, match="the bucket 'box' does not exist"):
        open_backend("empty://box/run").put_if_absent("commits/00000001.json", b"x")


# ── folders ───────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.filterwarnings(LACK)
def test_folders_of_checkpoints_go_with_them(tmp_path):
    """When the files of a checkpoint are deleted its folder goes too, as do old empty ones that a crash left."""
    backend = open_backend(f"shelf://{tmp_path}/run")
    backend.put("checkpoints/epoch-001_9f3ac2/model.safetensors", [b"x"])
    backend.put("checkpoints/epoch-002_9f3ac3/model.safetensors", [b"x"])
    backend.delete(["checkpoints/epoch-001_9f3ac2/model.safetensors"])
    assert os.listdir(tmp_path / "run/checkpoints") == ["epoch-002_9f3ac3"]
    for name in ("epoch-003_9f3ac4", "epoch-004_9f3ac5", "somebody-else's"):
        (tmp_path / "run/checkpoints" / name).mkdir()
        if name != "epoch-004_9f3ac5":
            os.utime(tmp_path / "run/checkpoints" / name, (1e9, 1e9))
    assert backend.abort_stale("", 1.1e9) == 1
    assert sorted(os.listdir(tmp_path / "run/checkpoints")) == [
        "epoch-002_9f3ac3",
        "epoch-004_9f3ac5",
        "somebody-else's",
    ]


@pytest.mark.filterwarnings(LACK)
def test_links_are_not_followed(tmp_path):
    """The link to the best, in a run that was copied from a disk, shows no object twice."""
    backend = open_backend(f"shelf://{tmp_path}/run")
    backend.put("checkpoints/c/a", [b"x"])
    (tmp_path / "run/best").symlink_to("checkpoints/c")
    (tmp_path / "run/file").symlink_to("checkpoints/c/a")
    assert [entry.key for entry in backend.list("")] == ["checkpoints/c/a"]


# ── connections ───────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.filterwarnings(LACK)
def test_a_connection_is_used_again(tmp_path):
    """A thread that works alone makes one connection, and a few that work at once make one each."""
    backend = open_backend(f"depot://{tmp_path}/run")
    before = filesystems.Depot.made
    for number in range(10):
        backend.put(f"checkpoints/c/{number}", [b"x"])
        backend.read(f"checkpoints/c/{number}")
    assert filesystems.Depot.made == before + 1


@pytest.mark.filterwarnings(LACK)
def test_secrets_are_in_no_error(tmp_path):
    """Neither the text nor the traceback of an error shows a key, wherever it was given and whoever says it."""

    class Talkative(filesystems.Shelf):
        protocol = "talkative"

        def __init__(self, **options):
            self.options = options
            super().__init__()

        def info(self, path, **kwargs):
            raise OSError(f"failed with {self.options} for {path}, AccountKey=hunter5;x, https://me:hunter6@proxy/")

    fsspec.register_implementation("talkative", Talkative, clobber=True)
    options = {
        "password": "hunter1",
        "client_kwargs": {"headers": {"X": "hunter2"}, "auth": ("me", "hunter3")},
        "account_key": b"hunter4",
    }
    backend = open_backend(f"talkative://me:hunter7@host{tmp_path}/run", options)
    assert backend.url == f"talkative://me@host{tmp_path}/run"
    with pytest.raises(StorageError, match="failed with") as caught:
        backend.head("a")
    shown = "".join(traceback.format_exception(caught.value)) + repr(backend) + repr(caught.value)
    assert "hunter" not in shown


# ── http ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_run_is_read_over_http(tmp_path, web):
    """What a web server lists can be read as a run, also from one that knows no ranges; it cannot be written."""
    written = SmallRun(open_backend(f"{tmp_path}/run"))
    for loss in (2.0, 1.0, 3.0):
        written.save(loss=loss)
    run = keepbest.open_run(f"{web.url}/run")
    assert [checkpoint.metrics["val_loss"] for checkpoint in run.checkpoints()] == [2.0, 1.0, 3.0]
    assert same(run.best.load("model"), written.wrote[run.best.name])
    assert run.verify().ok
    backend = open_backend(f"{web.url}/run")
    assert {entry.key: entry.size for entry in backend.list("")} == {
        entry.key: entry.size for entry in open_backend(f"{tmp_path}/run").list("")
    }
    with pytest.raises(StorageError, match="cannot write"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        backend.put("checkpoints/c/a", [b"x"])


def test_names_are_names_over_http(tmp_path, web):
    """Objects whose names a URL must not hold are found and read."""
    backend = open_backend(f"{tmp_path}/run")
    for key in ("checkpoints/größe/a b.json", "checkpoints/100%25/a%2Fb.json", "checkpoints/a#b/c;d=e&f.json"):
        backend.put(key, [key.encode()])
        assert open_backend(f"{web.url}/run").read(key) == key.encode()
    assert [entry.key for entry in open_backend(f"{web.url}/run").list("")] == [entry.key for entry in backend.list("")]


def test_large_objects_over_http_arrive_whole(tmp_path, web):
    """Ranges of an object that is larger than what is asked for at once are the right bytes."""
    data = os.urandom(20 << 20)
    (tmp_path / "run").mkdir()
    (tmp_path / "run/a").write_bytes(data)
    backend = open_backend(f"{web.url}/run", {"part_size": 5 << 20})
    ranges = [(0, 9 << 20), (12 << 20, 30 << 20), (17, 17)]
    assert [bytes(found) for found in backend.read_ranges("a", ranges)] == [data[b:e] for b, e in ranges]


def test_a_web_server_that_is_gone_is_no_empty_run(web):
    """When the server cannot be reached it is said so, rather than that nothing is there."""
    backend = open_backend(f"{web.url}/run")
    web.stop()
    for call in (lambda: backend.list(""), lambda: backend.head("a"), lambda: backend.read_ranges("a", [(0, 1)])):
        with pytest.raises(UnreachableError):
            call()
    with pytest.raises(UnreachableError):
        keepbest.open_run(f"{web.url}/run")


@pytest.fixture
def web(tmp_path):
    """A web server for the folder of the test, as `python -m http.server`."""
    server = WebServer(tmp_path)
    yield server
    server.stop()


class WebServer:
    """Python's own, which lists folders and knows no ranges."""

    def __init__(self, folder):
        import functools
        from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

        class Quiet(SimpleHTTPRequestHandler):
            def log_message(self, *args):
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=folder))
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def stop(self):
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
