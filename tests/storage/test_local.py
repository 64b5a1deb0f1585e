"""The local backend: how to build it for the contract, and what only a folder of a disk owes."""

from __future__ import annotations

import contextlib
import errno
import os
import resource
import stat
import subprocess
import tempfile
import threading
import warnings
from pathlib import Path

import pytest
from contracts import disks
from contracts.backend_contract import BackendContract

from keepbest.errors import (
    ConfigError,
    KeepbestError,
    NotARunError,
    ObjectExistsError,
    StorageError,
    StorageFullError,
    StoragePermissionError,
)
from keepbest.storage.backend import open_backend
from keepbest.storage.history import Row
from keepbest.storage.journal import Journal, read_history

NOBODY = 65534


class TestLocal(BackendContract):
    @pytest.fixture
    def url(self, tmp_path):
        return str(tmp_path / "runs" / "run 7")

    @pytest.fixture
    def outside(self, tmp_path):
        return lambda name: str(tmp_path / "outside" / name)

    @staticmethod
    def peek(url):
        return Path(url).read_bytes()

    @staticmethod
    def names_beside(url):
        return sorted(os.listdir(Path(url).parent))


@pytest.fixture
def backend(tmp_path):
    return open_backend(str(tmp_path / "run"))


def names(backend):
    """Return every name below the run, folders and links too."""
    root = Path(backend.url)
    return sorted(str(path.relative_to(root)) for path in root.rglob("*"))


# ── URLs ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_every_spelling_of_a_path_is_one_run(tmp_path, monkeypatch):
    """A relative path, one from home and a file:// URL, even a quoted one, mean the folder that they name."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    spellings = [
        "my run",
        "./my run",
        "my run/",
        "~/my run",
        f"file://{tmp_path}/my run",
        f"file://{tmp_path}/my%20run",
    ]
    assert {open_backend(url).url for url in spellings} == {str(tmp_path / "my run")}


def test_a_percent_sign_in_a_path_is_a_percent_sign(tmp_path):
    """Only URLs are unquoted: a folder that is called "50%20" is that folder."""
    assert open_backend(str(tmp_path / "50%20")).url == str(tmp_path / "50%20")


@pytest.mark.parametrize(
    ("url", "options"),
    [
        pytest.param("", {}, id="empty"),
        pytest.param("  ", {}, id="blank"),
        pytest.param("runs/\0", {}, id="null-byte"),
        pytest.param(7, {}, id="no-text"),
        pytest.param("gopher://runs", {}, id="unknown-scheme"),
        pytest.param("~user-who-is-not-here/runs", {}, id="unknown-home"),
        pytest.param("runs", {"key": "secret"}, id="options"),
    ],
)
def test_a_url_that_cannot_be_meant(url, options):
    """A URL that names no place is refused when it is given, without showing the values of credentials."""
    with pytest.raises(ConfigError) as caught:
        open_backend(url, options)
    assert "secret" not in str(caught.value)


def test_a_path_that_is_a_file_is_no_run(tmp_path):
    """A file's path is refused at once, and so is one that leads through a file."""
    (tmp_path / "file").write_bytes(b"x")
    for path in ("file", "file/run", "file/deep/er/run"):
        with pytest.raises(NotARunError, match="file") as caught:
            open_backend(str(tmp_path / path))
        assert isinstance(caught.value, NotADirectoryError)


def test_a_folder_of_the_run_that_is_a_file(backend):
    """Where a file lies in the way of a folder, the error says so, rather than that something exists already."""
    backend.replace("commits", b"x")
    with pytest.raises(NotARunError, match="commits.*a file, not a folder"):
        backend.put_if_absent("commits/1", b"x")
    with pytest.raises(NotARunError, match="commits"):
        backend.publish("commits", f"{backend.url}/commits/model.keras")


def test_a_name_that_is_too_long(tmp_path):
    """What the operating system refuses for another reason is an error of ours, with its reason."""
    with pytest.raises(StorageError, match="File name too long"):
        open_backend(str(tmp_path / ("x" * 300)))


# ── durable ──────────────────────────────────────────────────────────────────────────────────────────────────────────


class Kernel:
    """Listens to the calls that decide what survives a power loss."""

    def __init__(self, monkeypatch):
        self.calls = []
        self.before_call = lambda name, path: None
        for name in ("fsync", "link", "replace", "unlink", "open"):
            monkeypatch.setattr(os, name, self._listening(name, getattr(os, name)))

    def _listening(self, name, call):
        def listening(*args, **kwargs):
            names = {"fsync": f"/proc/self/fd/{args[0]}", "open": args[0]}
            path = str(Path(names[name]).readlink() if name == "fsync" else names.get(name, args[-1]))
            self.before_call(name, path)
            result = call(*args, **kwargs)
            self.calls.append((name, path))
            return result

        return listening

    def index(self, name, path, start=0):
        """Return when it happened first, at or after `start`."""
        return next(n for n, call in enumerate(self.calls) if n >= start and call == (name, str(path)))


@pytest.fixture
def kernel(monkeypatch):
    if not Path("/proc/self/fd").exists():
        pytest.skip("needs /proc to know what a file descriptor stands for")
    return Kernel(monkeypatch)


def test_content_is_durable_before_its_name_and_names_before_the_commit(backend, kernel):
    """Whenever the power goes, a manifest that is found names data that is there, whole."""
    root = Path(backend.url)
    journal = backend.append("metrics.jsonl")
    journal.write(b"row")
    backend.put("checkpoints/c/a", [b"content"])
    backend.settle()
    content = max(kernel.index("fsync", root / file) for file in ("checkpoints/c/a", "metrics.jsonl"))
    places = [root / "checkpoints/c", root / "checkpoints", root, root.parent]
    folders = [kernel.index("fsync", folder, content) for folder in places]
    assert folders == sorted(folders)
    backend.put_if_absent("commits/1", b"manifest")
    linked = kernel.index("link", root / "commits/1")
    temporary = [n for n, (name, path) in enumerate(kernel.calls) if name == "fsync" and "/commits/.tmp-" in path]
    assert max(folders) < min(temporary) < linked < kernel.index("fsync", root / "commits", linked)


def test_a_deletion_is_durable_after_settle(backend, kernel):
    """What was deleted before `settle` does not come back after a power loss."""
    backend.put("checkpoints/c/a", [b"x"])
    backend.settle()
    kernel.calls.clear()
    backend.delete(["checkpoints/c/a"])
    backend.settle()
    gone = kernel.index("unlink", f"{backend.url}/checkpoints/c/a")
    assert gone < kernel.index("fsync", f"{backend.url}/checkpoints")


def test_a_published_file_is_durable_with_its_new_folders(backend, kernel, tmp_path):
    """A published artifact, and every folder that was made for it, survives a power loss."""
    backend.put("checkpoints/c/a", [b"x"])
    backend.publish("checkpoints/c/a", str(tmp_path / "new/er/model.keras"))
    placed = kernel.index("replace", tmp_path / "new/er/model.keras")
    for folder in (tmp_path / "new/er", tmp_path / "new", tmp_path):
        assert placed < kernel.index("fsync", folder, placed)


def test_folders_that_a_killed_process_made_are_durable_with_the_first_save(tmp_path, kernel):
    """Who finds the folders of a run made does not rely on their maker: that one may have been killed before a sync."""
    for folder in ("deep/er/run/checkpoints", "deep/er/run/commits"):
        (tmp_path / folder).mkdir(parents=True)
    backend = open_backend(str(tmp_path / "deep/er/run"))
    backend.put("checkpoints/c/a", [b"x"])
    backend.settle()
    for folder in ("deep/er/run/checkpoints", "deep/er/run", "deep/er", "deep", "."):
        assert kernel.index("fsync", tmp_path / folder)
    kernel.calls.clear()
    for file in "ab":
        backend.put(f"checkpoints/d/{file}", [b"x"])
    backend.settle()
    folders = {path for name, path in kernel.calls if name == "fsync" and Path(path).is_dir()}
    assert folders == {f"{backend.url}/checkpoints/d", f"{backend.url}/checkpoints"}


def test_a_crash_while_publishing_leaves_nothing_in_the_folder_of_the_user(backend, monkeypatch, tmp_path):
    """Until a published file has its name, its temporary one lies in the run, where `gc` finds it."""
    backend.put("checkpoints/c/a", [b"x"])
    (tmp_path / "out").mkdir()
    replace, seen = os.replace, []

    def replacing(old, new):
        seen.append((os.listdir(tmp_path / "out"), Path(old).parent))
        replace(old, new)

    monkeypatch.setattr(os, "replace", replacing)
    backend.publish("checkpoints/c/a", str(tmp_path / "out/model.keras"))
    assert seen == [([], Path(backend.url))]
    assert names(backend) == ["checkpoints", "checkpoints/c", "checkpoints/c/a"]


def test_a_file_is_durable_before_it_takes_the_place_of_another(backend, kernel, tmp_path):
    """A power loss while an artifact replaces an older one leaves one of the two, whole."""
    backend.put("checkpoints/c/a", [b"x"])
    backend.publish("checkpoints/c/a", str(tmp_path / "model.keras"))
    written = kernel.index("fsync", f"{backend.url}/checkpoints/c/a")
    assert written < kernel.index("replace", tmp_path / "model.keras")


def test_a_row_that_comes_while_rows_are_synced_is_synced_the_next_time(backend, kernel):
    """A row that is logged while another thread saves is made durable by the next save."""
    journal = backend.append("metrics.jsonl")
    plain_write, waiting = os.write, [True]

    def settle_first(fd, data):
        if waiting:
            waiting.clear()
            backend.settle()
        return plain_write(fd, data)

    journal.write(b"1\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "write", settle_first)
        journal.write(b"2\n")
    done = len(kernel.calls)
    backend.settle()
    assert kernel.index("fsync", f"{backend.url}/metrics.jsonl", done)
    journal.close()


def test_a_journal_can_be_closed_while_it_is_synced(backend, kernel):
    """The thread that logs may close the journal while the one that saves makes it durable: neither fails."""
    journal = backend.append("metrics.jsonl")
    journal.write(b"1\n")
    closing = threading.Thread(target=journal.close)

    def close_meanwhile(name, path):
        if name == "fsync" and path.endswith("metrics.jsonl") and not closing.ident:
            closing.start()
            closing.join(timeout=0.05)

    kernel.before_call = close_meanwhile
    backend.settle()
    closing.join(timeout=30)
    backend.settle()
    with pytest.raises(StorageError):
        journal.write(b"2\n")


@pytest.mark.parametrize(
    ("act", "moment", "folder"),
    [
        pytest.param(lambda b: b.put("checkpoints/d/b", [b"x"]), "open", "checkpoints/d", id="put"),
        pytest.param(lambda b: b.replace("commits/index", b"x"), "replace", "commits", id="replace"),
        pytest.param(lambda b: b.copy("checkpoints/c/a", "checkpoints/d/b"), "link", "checkpoints/d", id="copy"),
        pytest.param(lambda b: b.append("metrics.jsonl").close(), "open", "", id="append"),
        pytest.param(lambda b: b.link("checkpoints/c", "best"), "replace", "", id="link"),
        pytest.param(lambda b: b.delete(["checkpoints/c/a"]), "unlink", "checkpoints/c", id="delete"),
    ],
)
def test_a_settle_that_comes_in_between_settles_no_later_name(backend, kernel, act, moment, folder):
    """A name that comes while another thread settles is still made durable by one's own `settle`."""
    backend.put("checkpoints/c/a", [b"x"])
    backend.put("checkpoints/c/stays", [b"x"])
    backend.settle()
    waiting = [moment]

    def settle_once(name, path):
        if waiting == [name]:
            waiting.clear()
            backend.settle()

    kernel.before_call = settle_once
    act(backend)
    kernel.before_call = lambda name, path: None
    done = len(kernel.calls)
    backend.settle()
    assert not waiting
    assert kernel.index("fsync", Path(backend.url, folder), done)


def test_settle_waits_for_the_settle_of_another_thread(backend, kernel):
    """No thread is told that its names are durable while the fsync of their folder is still under way elsewhere."""
    backend.put("checkpoints/c/a", [b"x"])
    under_way, go_on = threading.Event(), threading.Event()

    def hold(name, path):
        if name == "fsync" and threading.current_thread() is first:
            under_way.set()
            go_on.wait(timeout=30)

    kernel.before_call = hold
    first, second = (threading.Thread(target=backend.settle) for _ in range(2))
    first.start()
    assert under_way.wait(timeout=30)
    second.start()
    second.join(timeout=0.05)
    assert second.is_alive()
    go_on.set()
    for thread in (first, second):
        thread.join(timeout=30)
        assert not thread.is_alive()


def test_what_could_not_be_settled_is_not_forgotten(backend, kernel):
    """After an fsync that failed, the next `settle` tries again rather than say that all is well."""
    backend.put("checkpoints/c/a", [b"x"])
    broken = f"{backend.url}/checkpoints"

    def fail(name, path):
        if name == "fsync" and path == broken:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    kernel.before_call = fail
    for _ in range(2):
        with pytest.raises(StorageError, match="Input/output error"):
            backend.settle()
    kernel.before_call = lambda name, path: None
    done = len(kernel.calls)
    backend.settle()
    assert kernel.index("fsync", broken, done)
    assert kernel.index("fsync", backend.url, done)


def test_file_systems_that_cannot_sync_folders_are_used(backend, kernel):
    """Some network file systems refuse to fsync a folder; a run can be written there all the same."""

    def refuse(name, path):
        if name == "fsync" and Path(path).is_dir():
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))

    kernel.before_call = refuse
    backend.put("checkpoints/c/a", [b"x"])
    backend.put_if_absent("commits/1", b"x")
    assert backend.read("commits/1") == b"x"


# ── who may, and who may not ─────────────────────────────────────────────────────────────────────────────────────────


def test_the_umask_decides_who_may_read(tmp_path):
    """Files and folders get the permissions that any other program's would: a group that shares runs can read them."""
    before = os.umask(0o027)
    try:
        backend = open_backend(str(tmp_path / "run"))
        backend.put("checkpoints/c/a", [b"x"])
        backend.put_if_absent("commits/1", b"x")
        backend.replace("best.json", b"x")
        backend.append("metrics.jsonl").close()
        backend.publish("checkpoints/c/a", str(tmp_path / "out/model.keras"))
    finally:
        os.umask(before)
    for path in (*Path(backend.url).rglob("*"), Path(backend.url), tmp_path / "out/model.keras"):
        assert stat.S_IMODE(path.stat().st_mode) == (0o750 if path.is_dir() else 0o640), path


@contextlib.contextmanager
def as_nobody():
    """Permission bits do not bind root: act as somebody they do bind."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.fixture
def locked():
    """A folder that is readable and not writable, with a run in it."""
    with tempfile.TemporaryDirectory() as above:
        Path(above).chmod(0o755)
        folder = Path(above, "locked")
        backend = open_backend(str(folder / "run"))
        backend.put("checkpoints/c/a", [b"x"])
        backend.put_if_absent("commits/1", b"x")
        for path in (folder, *folder.rglob("*")):
            path.chmod(0o555 if path.is_dir() else 0o444)
        yield folder
        for path in (folder, *folder.rglob("*")):
            path.chmod(0o755)


@pytest.mark.parametrize(
    "act",
    [
        pytest.param(lambda b: b.put("checkpoints/d/a", [b"x"]), id="put"),
        pytest.param(lambda b: b.put_if_absent("commits/2", b"x"), id="put_if_absent"),
        pytest.param(lambda b: b.replace("best.json", b"x"), id="replace"),
        pytest.param(lambda b: b.delete(["commits/1"]), id="delete"),
        pytest.param(lambda b: b.copy("checkpoints/c/a", "checkpoints/c/b"), id="copy"),
        pytest.param(lambda b: b.publish("checkpoints/c/a", f"{b.url}/model.keras"), id="publish"),
        pytest.param(lambda b: b.append("metrics.jsonl"), id="append"),
        pytest.param(lambda b: b.link("checkpoints/c", "best"), id="link"),
        pytest.param(lambda b: b.scratch(), id="scratch"),
    ],
)
def test_a_folder_that_must_not_be_written(locked, act):
    """Where one may read and not write, reading works, and whatever writes says so and leaves nothing."""
    backend = open_backend(str(locked / "run"))
    before = names(backend)
    with as_nobody():
        assert backend.read("commits/1") == b"x"
        with pytest.raises(StoragePermissionError, match=str(locked)) as caught:
            act(backend)
    assert isinstance(caught.value, PermissionError)
    assert names(backend) == before


def test_a_folder_that_must_not_be_looked_into(locked):
    """A place that one may not even look into is refused with an error of ours when it is opened."""
    locked.chmod(0o000)
    with as_nobody(), pytest.raises(StoragePermissionError, match="cannot read"):
        open_backend(str(locked / "run"))


# ── no space ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def small_disk(tmp_path):
    """A file system of one megabyte, and a function that makes it read-only."""
    with disks.small(tmp_path / "disk", "1m") as folder:
        yield folder, lambda: subprocess.run(["mount", "-o", "remount,ro", str(folder)], check=True)


def test_a_full_disk_leaves_no_half_of_a_file(small_disk):
    """When the space ends in the middle of a file, the error says so, the space is free again and the rest unharmed."""
    backend = open_backend(str(small_disk[0] / "run"))
    backend.put("checkpoints/c/a", [b"x" * 300_000])
    before = names(backend)
    for act in (
        lambda: backend.put("checkpoints/c/b", (b"y" * 65536 for _ in range(100))),
        lambda: backend.put_if_absent("checkpoints/c/b", b"y" * 2_000_000),
        lambda: backend.replace("checkpoints/c/a", b"y" * 2_000_000),
    ):
        with pytest.raises(StorageFullError, match="no space is left"):
            act()
        assert names(backend) == before
    assert backend.read("checkpoints/c/a") == b"x" * 300_000
    assert 0 < backend.free_bytes() <= 1 << 20


def test_a_row_that_the_full_disk_cut_swallows_none_of_the_next(small_disk):
    """A row that did not fit is an error; the rows after it, once there is space, are read back whole."""
    backend = open_backend(str(small_disk[0]))
    backend.put("ballast", [b"x" * 900_000])
    journal = Journal(backend)
    rows = [
        Row(kind="epoch", epoch=n, step=n, time=0.0, metrics={f"metric-{k:03d}": 1.0 for k in range(300)})
        for n in range(60)
    ]
    written = 0
    with pytest.raises(StorageFullError):
        for row in rows:
            journal.append(row)
            written += 1
    backend.delete(["ballast"])
    for row in rows[written:]:
        journal.append(row)
    journal.close()
    assert 0 < written < len(rows)
    assert read_history(backend).rows == rows


def test_a_read_only_file_system_says_so(small_disk):
    """A file system that is mounted read-only is named as the reason."""
    folder, make_read_only = small_disk
    backend = open_backend(str(folder / "run"))
    make_read_only()
    with pytest.raises(StorageError, match="read-only"):
        backend.put("checkpoints/c/a", [b"x"])


def test_from_a_run_that_may_only_be_read_can_be_published(small_disk, tmp_path):
    """Neither another file system nor one that is read-only is in the way of who only takes a file out."""
    folder, make_read_only = small_disk
    backend = open_backend(str(folder / "run"))
    backend.put("checkpoints/c/a", [b"x"])
    backend.publish("checkpoints/c/a", str(tmp_path / "out/first"))
    backend.settle()
    make_read_only()
    open_backend(backend.url).publish("checkpoints/c/a", str(tmp_path / "out/second"))
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == {"first": b"x", "second": b"x"}
    assert names(backend) == ["checkpoints", "checkpoints/c", "checkpoints/c/a"]


@contextlib.contextmanager
def no_file_longer_than(nbytes):
    """The operating system refuses to write beyond `nbytes`, as FAT does beyond 4 GiB."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (nbytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_file_that_is_too_large_leaves_no_half_of_it(backend):
    """When the file system takes only a part, no half-written file is left, and the error says why."""
    backend.put("checkpoints/c/a", [b"x"])
    before = names(backend)
    with no_file_longer_than(100_000):
        for act in (
            lambda: backend.put("checkpoints/c/b", (b"y" * 65536 for _ in range(3))),
            lambda: backend.put_if_absent("commits/1", b"y" * 200_000),
            lambda: backend.replace("best.json", b"y" * 200_000),
        ):
            with pytest.raises(StorageError, match="File too large"):
                act()
    assert [name for name in names(backend) if name != "commits"] == before


def test_a_row_is_written_whole_or_is_an_error(backend):
    """A write that the kernel takes only in part is not taken for done."""
    appender = backend.append("metrics.jsonl")
    with no_file_longer_than(100), pytest.raises(StorageError, match="File too large"):
        appender.write(b"x" * 150)
    appender.close()


# ── file systems without hard links ──────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def no_links(monkeypatch):
    def link(source, target, **_):
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM), source, None, target)

    monkeypatch.setattr(os, "link", link)


def test_without_hard_links_a_commit_warns_once_and_works(backend, no_links):
    """FAT and some network file systems have no hard links: a run works there, after one word on what is lost."""
    with pytest.warns(UserWarning, match="no hard links.*One training at a time is safe"):
        backend.put_if_absent("commits/1", b"first")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        backend.put_if_absent("commits/2", b"second")
        with pytest.raises(ObjectExistsError, match="commits/1"):
            backend.put_if_absent("commits/1", b"other")
    assert [backend.read(f"commits/{n}") for n in (1, 2)] == [b"first", b"second"]
    assert names(backend) == ["commits", "commits/1", "commits/2"]


def test_without_hard_links_files_are_copied(backend, no_links, tmp_path):
    """Where nothing can be linked, copies do the same, only slower."""
    (tmp_path / "written").write_bytes(b"weights")
    backend.put_file("checkpoints/c/a", str(tmp_path / "written"))
    backend.copy("checkpoints/c/a", "checkpoints/d/a")
    backend.publish("checkpoints/c/a", str(tmp_path / "out/model.keras"))
    places = [Path(backend.url, "checkpoints/c/a"), Path(backend.url, "checkpoints/d/a"), tmp_path / "out/model.keras"]
    assert [place.read_bytes() for place in places] == [b"weights"] * 3
    assert len({place.stat().st_ino for place in places}) == 3
    assert not (tmp_path / "written").exists()


def test_with_hard_links_no_bytes_are_copied(backend, tmp_path):
    """Publishing a large artifact costs no space and no time where the file system has links."""
    backend.put("checkpoints/c/a", [b"weights"])
    backend.publish("checkpoints/c/a", str(tmp_path / "model.keras"))
    assert (tmp_path / "model.keras").samefile(f"{backend.url}/checkpoints/c/a")


# ── what is left behind ──────────────────────────────────────────────────────────────────────────────────────────────


def test_a_failed_call_leaves_no_temporary_name(backend, tmp_path):
    """Where a name cannot be set, because a folder has it, no temporary file or link stays beside it."""
    (Path(backend.url) / "best").mkdir(parents=True)
    before = names(backend)
    for act in (
        lambda: backend.replace("best", b"x"),
        lambda: backend.link("checkpoints/c", "best"),
        lambda: backend.put_if_absent("best", b"x"),
    ):
        with pytest.raises(KeepbestError):
            act()
        assert names(backend) == before


def test_deleting_a_checkpoint_leaves_no_empty_folder(backend):
    """A folder goes with its last file, those inside it and temporary ones included; the run's own folders stay."""
    keys = ["checkpoints/c/a", "checkpoints/c/deep/er/b", ".tmp-0123456789abcdef0123456789abcdef/c", "commits/1"]
    for key in keys:
        backend.put(key, [b"x"])
    backend.delete(keys)
    assert names(backend) == ["checkpoints", "commits"]


def test_what_no_listing_shows_is_swept(backend):
    """Empty folders and links that a crash left are removed, if they are ours and old enough."""
    root = Path(backend.url)
    ours = ["checkpoints/epoch-001_abcdef", f".tmp-{'0' * 32}", "checkpoints/step-000001_abcdef-weights"]
    theirs = ["checkpoints/somebody-elses", ".tmp-mine", "empty"]
    for folder in [*ours, *theirs]:
        (root / folder).mkdir(parents=True)
    (root / f".tmp-{'1' * 32}").symlink_to("checkpoints/gone")
    (root / "best").symlink_to("checkpoints/gone")
    backend.put("checkpoints/epoch-002_abcdef/a", [b"x"])
    assert backend.abort_stale("", 1.0) == 0
    assert backend.abort_stale("", 1e12) == 4
    assert names(backend) == sorted(
        [*theirs, "best", "checkpoints", "checkpoints/epoch-002_abcdef", "checkpoints/epoch-002_abcdef/a"]
    )


def test_links_are_not_followed_in_a_listing(backend, tmp_path):
    """A link in the run's folder, to a checkpoint or out of the run, shows nothing twice and nothing foreign."""
    backend.put("checkpoints/c/a", [b"x"])
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign/secret").write_bytes(b"x")
    Path(backend.url, "checkpoints/foreign").symlink_to(tmp_path / "foreign")
    Path(backend.url, "best").symlink_to("checkpoints/c")
    assert [entry.key for entry in backend.list("")] == ["checkpoints/c/a"]


def test_a_file_that_was_linked_in_is_as_young_as_its_name(backend, tmp_path):
    """A save that brings in a file written long ago is not taken for what a crash left long ago."""
    (tmp_path / "old").write_bytes(b"x")
    os.utime(tmp_path / "old", (1.0, 1.0))
    backend.put_file("checkpoints/c/a", str(tmp_path / "old"))
    backend.copy("checkpoints/c/a", "checkpoints/d/a")
    assert all(entry.modified > 1e9 for entry in backend.list(""))
