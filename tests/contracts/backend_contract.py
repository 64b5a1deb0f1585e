"""What every backend owes: one suite, which a backend's own test file inherits and tells how to build it."""

from __future__ import annotations

import pickle
import random
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from keepbest.errors import (
    ConfigError,
    KeepbestError,
    ObjectExistsError,
    ObjectNotFoundError,
    StorageError,
)
from keepbest.storage.backend import Backend, Held, bytes_of, open_backend
from keepbest.storage.segments import read_appended

ODD_KEYS = [
    pytest.param("checkpoints/a b/mo del.json", id="spaces"),
    pytest.param("checkpoints/größe/模型.json", id="unicode"),
    pytest.param("checkpoints/100%25/a%2Fb.json", id="percent"),
    pytest.param("checkpoints/a#b/c?d=e&f.json", id="query"),
    pytest.param('checkpoints/a\'b/"c"[d]*.json', id="quotes-and-globs"),
    pytest.param("checkpoints/..a/b..json", id="dots"),
    pytest.param("checkpoints/-a/:b::c.json", id="colons"),
]


class Stream(list):
    """Chunks that say how many bytes they are."""

    @property
    def nbytes(self):
        return sum(memoryview(bytes_of(chunk)).nbytes for chunk in self)


def noise(nbytes, seed):
    """Return bytes that occur nowhere else."""
    return memoryview(random.Random(seed).randbytes(nbytes))


class BackendContract:
    """Inherit it, give the fixtures `url` and `outside`, and the static methods `peek` and `names_beside`."""

    RACES = 8
    """How often 16 writers race for one key."""

    @pytest.fixture
    def url(self):
        """The URL of a place where nothing is yet."""
        raise NotImplementedError

    @pytest.fixture
    def outside(self):
        """A function: name → URL outside the run, in the same kind of store."""
        raise NotImplementedError

    @staticmethod
    def peek(url):
        """Return the bytes at a URL, not by our own code."""
        raise NotImplementedError

    @staticmethod
    def names_beside(url):
        """Return the names of all that lies in the folder of a URL, hidden ones too."""
        raise NotImplementedError

    @pytest.fixture
    def backend(self, url):
        return open_backend(url)

    # ── opening ──────────────────────────────────────────────────────────────────────────────────────────────────

    def test_it_is_a_backend(self, backend, url):
        """Whoever is given it finds every method of the contract, and a URL to show."""
        assert isinstance(backend, Backend)
        assert backend.url == url
        assert backend.capabilities.put_if_absent

    def test_opening_creates_nothing(self, backend):
        """To look at a run that is not there leaves no trace of the look."""
        assert backend.list("") == []
        assert open_backend(backend.url).list("") == []

    # ── put ──────────────────────────────────────────────────────────────────────────────────────────────────────

    def test_put_writes_a_stream_of_any_buffers(self, backend):
        """A stream of unknown length, of bytes, bytearrays and views, is stored as it came, and its length returned."""
        chunks = [b"one", bytearray(b"two"), b"", memoryview(b"-three-")[1:6], memoryview(bytes(range(7)))]
        whole = b"".join(chunks)
        assert backend.put("checkpoints/c/a", (chunk for chunk in chunks)) == len(whole)
        assert backend.read("checkpoints/c/a") == whole

    def test_put_takes_large_and_empty_streams(self, backend):
        """The size of a stream and of its pieces does not matter."""
        pieces = [bytes([n % 251]) * (n * 997 % 65536) for n in range(100)]
        backend.put("checkpoints/c/large", iter(pieces))
        assert backend.put("checkpoints/c/empty", iter(())) == 0
        assert backend.read("checkpoints/c/large") == b"".join(pieces)
        assert backend.read("checkpoints/c/empty") == b""

    def test_put_never_writes_twice(self, backend):
        """A key that is taken keeps its content, and the error names it."""
        backend.put("checkpoints/c/a", [b"first"])
        with pytest.raises(ObjectExistsError, match="checkpoints/c/a"):
            backend.put("checkpoints/c/a", [b"second"])
        assert backend.read("checkpoints/c/a") == b"first"

    def test_put_of_a_stream_that_fails_leaves_nothing(self, backend):
        """When the source of a stream raises, its own error arrives and no truncated object is left."""

        def stream():
            yield b"half of"
            raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            backend.put("checkpoints/c/a", stream())
        assert backend.list("") == []
        backend.put("checkpoints/c/a", [b"whole"])
        assert backend.read("checkpoints/c/a") == b"whole"

    # ── held bytes, spare files ──────────────────────────────────────────────────────────────────────────────────

    @pytest.mark.parametrize("lead", [0, 5000], ids=["same-offset", "moved"])
    def test_held_bytes_come_from_the_base(self, backend, lead):
        """Bytes that an older object has need not be sent, and the new object is whole without the older one."""
        old = noise(14 << 20, 1)
        backend.put("checkpoints/c/a", Stream([old]))
        if not backend.capabilities.delta:
            pytest.skip("cannot make use of older objects")
        first, last = old[1 << 20 : 9 << 20], old[(9 << 20) + 77 :]
        stream = Stream(
            [
                noise((1 << 20) + lead, 2),
                Held(data=first, begin=1 << 20),
                noise(77, 3),
                Held(data=last, begin=(9 << 20) + 77),
                noise(5, 4),
            ]
        )
        expected = b"".join(bytes_of(chunk) for chunk in stream)
        assert backend.put("checkpoints/d/a", stream, base="checkpoints/c/a") == len(expected)
        backend.settle()
        backend.delete(["checkpoints/c/a"])
        assert backend.read("checkpoints/d/a") == expected

    def test_a_recycled_file_is_gone(self, backend):
        """A file whose blocks are kept is no object any more, and what is written over it is what was given."""
        old, new = noise(3 << 20, 1), noise((2 << 20) + 123, 2)
        backend.put("checkpoints/c/a", Stream([old]))
        backend.settle()
        spare = backend.recycle("checkpoints/c/a")
        assert backend.list("checkpoints/") == []
        assert backend.recycle("checkpoints/c/a") is None
        if not backend.capabilities.recycles:
            assert spare is None
            return
        chunks = Stream([new[:1000], Held(data=old[1000 : 1 << 20], begin=1000, in_place=True), new[1 << 20 :]])
        assert backend.put("checkpoints/d/a", chunks, spare=spare) == len(new)
        assert backend.read("checkpoints/d/a") == b"".join(bytes_of(chunk) for chunk in chunks)
        assert [entry.key for entry in backend.list("")] == ["checkpoints/d/a"]

    def test_a_spare_file_can_be_given_up(self, backend):
        """Who needs a spare file no longer deletes it, and nothing of it stays."""
        backend.put("checkpoints/c/a", Stream([noise(2 << 20, 1)]))
        backend.settle()
        backend.delete([backend.recycle("checkpoints/c/a") or "checkpoints/c/a"])
        assert backend.list("") == []

    # ── put_if_absent ────────────────────────────────────────────────────────────────────────────────────────────

    def test_put_if_absent_creates_once(self, backend):
        """The second to create a key is told so, and what the first wrote stays."""
        backend.put_if_absent("commits/00000001.json", b"first")
        with pytest.raises(ObjectExistsError, match=r"commits/00000001\.json") as caught:
            backend.put_if_absent("commits/00000001.json", b"second")
        assert isinstance(caught.value, FileExistsError)
        assert backend.read("commits/00000001.json") == b"first"
        assert [entry.key for entry in backend.list("")] == ["commits/00000001.json"]

    def test_of_16_that_create_one_key_exactly_one_wins(self, url):
        """Two trainings that commit one number at the same moment never both believe they did, nor mix their bytes."""
        writers, races = 16, self.RACES
        backends = [open_backend(url) for _ in range(writers)]
        start = threading.Barrier(writers)

        def write(number):
            won = []
            for turn in range(races):
                start.wait(timeout=300)
                try:
                    backends[number].put_if_absent(f"commits/{turn:08d}.json", bytes([number]) * 50_000)
                except ObjectExistsError:
                    continue
                except BaseException as error:
                    failed.append(error)  # before the others hear of it, or theirs would be all that is seen
                    start.abort()
                    raise
                won.append(turn)
            return won

        failed = []
        with ThreadPoolExecutor(writers) as pool:
            writing = [pool.submit(write, number) for number in range(writers)]
        assert failed == []
        won = [each.result() for each in writing]
        assert sorted(turn for turns in won for turn in turns) == list(range(races))
        for number, turns in enumerate(won):
            for turn in turns:
                assert backends[0].read(f"commits/{turn:08d}.json") == bytes([number]) * 50_000
        assert len(backends[0].list("")) == races

    def test_who_reads_while_it_is_created_sees_all_or_nothing(self, backend):
        """A manifest is never seen half-written."""
        seen, done = set(), threading.Event()

        def read():
            while not done.is_set():
                for entry in backend.list("commits/"):
                    if entry.key.endswith(".json"):
                        seen.add((entry.size, len(backend.read(entry.key))))

        with ThreadPoolExecutor(2) as pool:
            readers = [pool.submit(read) for _ in range(2)]
            for turn in range(60):
                backend.put_if_absent(f"commits/{turn:08d}.json", b"x" * 30_000)
            done.set()
            for reader in readers:
                reader.result(timeout=30)
        assert seen <= {(30_000, 30_000)}

    # ── replace ──────────────────────────────────────────────────────────────────────────────────────────────────

    def test_replace_creates_and_replaces(self, backend):
        """A hint is there after the first call and new after the second, and nothing is left beside it."""
        backend.replace("commits/index-00000001.json", b"long old content")
        backend.replace("commits/index-00000001.json", b"new")
        assert backend.read("commits/index-00000001.json") == b"new"
        assert [entry.key for entry in backend.list("")] == ["commits/index-00000001.json"]

    def test_who_reads_while_it_is_replaced_sees_old_or_new(self, backend):
        """A reader sees one whole content or the other, never a mixture, never nothing."""
        contents = [bytes([n]) * (10_000 + n) for n in range(40)]
        backend.replace("best.json", contents[0])
        done = threading.Event()

        def read():
            torn = 0
            while not done.is_set():
                torn += backend.read("best.json") not in contents
            return torn

        with ThreadPoolExecutor(2) as pool:
            readers = [pool.submit(read) for _ in range(2)]
            for content in contents * 3:
                backend.replace("best.json", content)
            done.set()
            assert [reader.result(timeout=30) for reader in readers] == [0, 0]

    # ── read ─────────────────────────────────────────────────────────────────────────────────────────────────────

    @pytest.mark.parametrize(
        "call",
        [
            pytest.param(lambda backend: backend.read("checkpoints/c/none"), id="read"),
            pytest.param(lambda backend: backend.read_ranges("checkpoints/c/none", [(0, 1)]), id="read_ranges"),
            pytest.param(lambda backend: backend.head("checkpoints/c/none"), id="head"),
            pytest.param(lambda backend: backend.copy("checkpoints/c/none", "checkpoints/c/b"), id="copy"),
            pytest.param(lambda backend: backend.read("checkpoints/c"), id="read-a-folder"),
            pytest.param(lambda backend: backend.read_ranges("checkpoints/c", [(0, 1)]), id="read_ranges-of-a-folder"),
            pytest.param(lambda backend: backend.head("checkpoints/c"), id="head-of-a-folder"),
        ],
    )
    def test_what_is_not_there_is_named(self, backend, call):
        """Asking for what does not exist, a folder included, is one kind of error, which says what was asked for."""
        backend.put("checkpoints/c/a", [b"a"])
        with pytest.raises(ObjectNotFoundError, match="checkpoints/c") as caught:
            call(backend)
        assert isinstance(caught.value, FileNotFoundError)
        assert backend.url in caught.value.location
        assert [entry.key for entry in backend.list("")] == ["checkpoints/c/a"]

    def test_ranges_are_what_they_say(self, backend):
        """Ranges in any order, overlapping, empty or the whole come back in the order they were asked for."""
        backend.put("checkpoints/c/a", [bytes(range(100))])
        ranges = [(90, 100), (0, 5), (3, 8), (7, 7), (0, 100)]
        found = backend.read_ranges("checkpoints/c/a", ranges)
        assert [bytes(view) for view in found] == [bytes(range(begin, end)) for begin, end in ranges]

    def test_a_range_beyond_the_end_is_short(self, backend):
        """Who asks for more than there is gets what there is, and can see by its length that it is short."""
        backend.put("checkpoints/c/a", [b"0123456789"])
        backend.put("checkpoints/c/empty", [])
        assert [bytes(view) for view in backend.read_ranges("checkpoints/c/a", [(8, 20), (10, 20), (50, 60)])] == [
            b"89",
            b"",
            b"",
        ]
        assert [len(view) for view in backend.read_ranges("checkpoints/c/empty", [(0, 0), (0, 9)])] == [0, 0]
        assert backend.read_ranges("checkpoints/c/a", []) == []

    def test_a_view_is_writable_and_private(self, backend):
        """Whoever trains on in the tensors that were loaded changes neither the checkpoint nor another reader's."""
        backend.put("checkpoints/c/a", [b"0123456789"])
        first, second = (backend.read_ranges("checkpoints/c/a", [(2, 6)])[0] for _ in range(2))
        assert not first.readonly
        first[:] = b"XXXX"
        assert bytes(second) == b"2345"
        assert backend.read("checkpoints/c/a") == b"0123456789"

    def test_a_view_outlives_its_object(self, backend):
        """Tensors that were loaded stay whole when their checkpoint is retired."""
        backend.put("checkpoints/c/a", [bytes(range(256)) * 100])
        view = backend.read_ranges("checkpoints/c/a", [(0, 25_600)])[0]
        backend.delete(["checkpoints/c/a"])
        assert bytes(view) == bytes(range(256)) * 100

    def test_head_says_size_and_time(self, backend):
        """Size and age are those that a listing shows."""
        backend.put("checkpoints/c/a", [b"12345"])
        entry = backend.head("checkpoints/c/a")
        assert (entry.key, entry.size) == ("checkpoints/c/a", 5)
        assert entry == backend.list("checkpoints/")[0]

    # ── list ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def test_list_finds_all_below_a_prefix_in_order(self, backend):
        """A listing holds every object below the prefix, however deep, sorted by key, and nothing else."""
        keys = ["commits/2", "commits/10", "checkpoints/b/x", "checkpoints/b/deep/er/y", "checkpoints/a/z", "m.jsonl"]
        for number, key in enumerate(keys):
            backend.put(key, [b"x" * number])
        backend.put("commits-of-another/1", [b"x"])
        assert [entry.key for entry in backend.list("commits/")] == ["commits/10", "commits/2"]
        assert [entry.key for entry in backend.list("checkpoints/b/")] == ["checkpoints/b/deep/er/y", "checkpoints/b/x"]
        assert [entry.key for entry in backend.list("")] == sorted([*keys, "commits-of-another/1"])
        assert {entry.key: entry.size for entry in backend.list("")}["m.jsonl"] == 5
        assert backend.list("nothing/here/") == []
        few = backend.list("", limit=2)
        assert len(few) == 2
        assert {entry.key for entry in few} <= {entry.key for entry in backend.list("")}
        assert len(backend.list("", limit=100)) == len(backend.list(""))

    def test_a_neighbour_is_not_listed(self, url):
        """A run whose URL begins with the name of another sees none of its objects."""
        run, neighbour = open_backend(url), open_backend(url + "2")
        neighbour.put("commits/1", [b"x"])
        assert run.list("") == []
        run.put("commits/2", [b"x"])
        assert [entry.key for entry in neighbour.list("")] == ["commits/1"]

    def test_a_listing_is_never_old(self, url):
        """What one process writes or deletes, another sees at its next look."""
        writer, reader = open_backend(url), open_backend(url)
        assert reader.list("commits/") == []
        writer.put_if_absent("commits/1", b"x")
        assert [entry.key for entry in reader.list("commits/")] == ["commits/1"]
        writer.delete(["commits/1"])
        assert reader.list("commits/") == []

    # ── delete, copy ─────────────────────────────────────────────────────────────────────────────────────────────

    def test_delete_twice_is_no_error(self, backend):
        """What is gone already can be deleted again; the rest stays."""
        for name in "abc":
            backend.put(f"checkpoints/c/{name}", [b"x"])
        backend.delete(f"checkpoints/c/{name}" for name in "ab")
        backend.delete(["checkpoints/c/a", "checkpoints/c/never", "checkpoints/none/at-all", "commits/1"])
        assert [entry.key for entry in backend.list("")] == ["checkpoints/c/c"]
        backend.delete([])
        backend.settle()

    def test_a_deleted_key_can_be_used_again(self, backend):
        """A name, and the folder it was in, are free again after a delete."""
        for content in (b"first", b"second"):
            backend.put("checkpoints/c/a", [content])
            assert backend.read("checkpoints/c/a") == content
            backend.delete(["checkpoints/c/a"])
            backend.settle()

    def test_a_copy_stands_by_itself(self, backend):
        """A copy stays when what it was made of is deleted."""
        backend.put("checkpoints/c/a", [b"content"])
        backend.copy("checkpoints/c/a", "checkpoints/d/b")
        backend.delete(["checkpoints/c/a"])
        assert backend.read("checkpoints/d/b") == b"content"

    def test_copy_never_overwrites(self, backend):
        """A copy onto a key that is taken is refused."""
        backend.put("checkpoints/c/a", [b"content"])
        backend.put("checkpoints/c/b", [b"other"])
        with pytest.raises(ObjectExistsError, match="checkpoints/c/b"):
            backend.copy("checkpoints/c/a", "checkpoints/c/b")
        assert backend.read("checkpoints/c/b") == b"other"

    # ── publish ──────────────────────────────────────────────────────────────────────────────────────────────────

    def test_publish_places_a_file_at_an_exact_path(self, backend, outside):
        """The artifact lies where the user said, in a folder that is made for it, and nothing lies beside it."""
        backend.put("checkpoints/c/model.keras", [b"weights"])
        target = outside("models/of mine/model_03.keras")
        backend.publish("checkpoints/c/model.keras", target)
        assert self.peek(target) == b"weights"
        assert self.names_beside(target) == ["model_03.keras"]

    def test_publish_replaces_what_is_there(self, backend, outside):
        """The new artifact takes the place of the old one, and publishing it once more changes nothing."""
        backend.put("checkpoints/c/model.keras", [b"old, and longer"])
        backend.put("checkpoints/d/model.keras", [b"new"])
        target = outside("models/model.keras")
        backend.publish("checkpoints/c/model.keras", target)
        for _ in range(3):
            backend.publish("checkpoints/d/model.keras", target)
            assert self.peek(target) == b"new"
        assert self.names_beside(target) == ["model.keras"]
        assert backend.read("checkpoints/c/model.keras") == b"old, and longer"

    def test_a_published_file_stays_when_its_checkpoint_goes(self, backend, outside):
        """Retiring a checkpoint does not take away what was published of it."""
        backend.put("checkpoints/c/model.keras", [b"weights"])
        target = outside("model.keras")
        backend.publish("checkpoints/c/model.keras", target)
        backend.delete(["checkpoints/c/model.keras"])
        assert self.peek(target) == b"weights"

    def test_publish_onto_a_folder_is_an_error(self, backend, outside):
        """A path that is a folder is named in an error; the folder and what is in it stay."""
        backend.put("checkpoints/c/model.keras", [b"weights"])
        inside = outside("models/model.keras")
        backend.publish("checkpoints/c/model.keras", inside)
        with pytest.raises(StorageError, match=r"models: is a folder.*ends in a file name") as caught:
            backend.publish("checkpoints/c/model.keras", outside("models"))
        assert caught.value.location.endswith("models")
        assert self.peek(inside) == b"weights"

    def test_publish_of_what_is_not_there_harms_nothing(self, backend, outside):
        """When the artifact does not exist, the error names the artifact, and the file it was to replace stays."""
        backend.put("checkpoints/c/model.keras", [b"weights"])
        target = outside("models/model.keras")
        backend.publish("checkpoints/c/model.keras", target)
        with pytest.raises(ObjectNotFoundError, match="checkpoints/c/none"):
            backend.publish("checkpoints/c/none", target)
        assert self.peek(target) == b"weights"
        assert self.names_beside(target) == ["model.keras"]

    def test_publish_to_another_kind_of_store_is_an_error(self, backend):
        """A URL that this store cannot write to is refused, not taken for a file's name."""
        backend.put("checkpoints/c/model.keras", [b"weights"])
        with pytest.raises(ConfigError, match="other-store://bucket/model.keras"):
            backend.publish("checkpoints/c/model.keras", "other-store://bucket/model.keras")

    # ── put_file, scratch ────────────────────────────────────────────────────────────────────────────────────────

    def test_put_file_moves_a_file_in(self, backend):
        """A file that a framework wrote is in the run afterwards, and no longer where it was written."""
        folder = Path(backend.scratch())
        (folder / "model.keras").write_bytes(b"weights")
        backend.put_file("checkpoints/c/model.keras", str(folder / "model.keras"))
        folder.rmdir()
        assert backend.read("checkpoints/c/model.keras") == b"weights"
        assert [entry.key for entry in backend.list("")] == ["checkpoints/c/model.keras"]

    def test_put_file_takes_files_from_anywhere(self, backend, tmp_path):
        """The file may lie on the local disk wherever it likes."""
        (tmp_path / "elsewhere.bin").write_bytes(b"weights")
        backend.put_file("checkpoints/c/a", str(tmp_path / "elsewhere.bin"))
        assert backend.read("checkpoints/c/a") == b"weights"
        assert not (tmp_path / "elsewhere.bin").exists()

    def test_put_file_never_overwrites(self, backend, tmp_path):
        """A key that is taken keeps its content, and the file stays where it is."""
        (tmp_path / "file").write_bytes(b"second")
        backend.put("checkpoints/c/a", [b"first"])
        with pytest.raises(ObjectExistsError, match="checkpoints/c/a"):
            backend.put_file("checkpoints/c/a", str(tmp_path / "file"))
        assert backend.read("checkpoints/c/a") == b"first"
        assert (tmp_path / "file").read_bytes() == b"second"

    def test_put_file_of_no_file_names_it(self, backend, tmp_path):
        """A file that is not there is named, rather than the key it was to have."""
        with pytest.raises(ObjectNotFoundError, match="never-written"):
            backend.put_file("checkpoints/c/a", str(tmp_path / "never-written"))

    def test_each_scratch_folder_is_new(self, backend):
        """Two saves never write their temporary files into one folder."""
        folders = [Path(backend.scratch()) for _ in range(3)]
        assert len(set(folders)) == 3
        for folder in folders:
            assert list(folder.iterdir()) == []
            folder.rmdir()

    # ── append ───────────────────────────────────────────────────────────────────────────────────────────────────

    def test_append_grows_an_object(self, backend):
        """Rows are added at the end, and can be read once settled, also after the object was opened anew."""
        appender = backend.append("metrics.jsonl")
        for row in (b"1\n", b"", b"22\n"):
            appender.write(row)
        backend.settle()
        assert read_appended(backend, "metrics.jsonl") == b"1\n22\n"
        appender.write(b"4444\n")
        appender.close()
        again = backend.append("metrics.jsonl")
        again.write(b"333\n")
        again.close()
        assert read_appended(backend, "metrics.jsonl") == b"1\n22\n4444\n333\n"

    def test_rows_of_two_writers_never_mix(self, url):
        """When two trainings append to one object, their rows alternate but each is whole."""
        rows = [[bytes([65 + number]) * 200 + b"\n" for _ in range(200)] for number in range(4)]

        def write(mine):
            appender = open_backend(url).append("metrics.jsonl")
            for row in mine:
                appender.write(row)
            appender.close()

        with ThreadPoolExecutor(4) as pool:
            list(pool.map(write, rows))
        found = read_appended(open_backend(url), "metrics.jsonl").splitlines(keepends=True)
        assert sorted(found) == sorted(row for mine in rows for row in mine)

    # ── the rest ─────────────────────────────────────────────────────────────────────────────────────────────────

    def test_links_where_there_are_links(self, backend):
        """A link is set and set anew where the store has links, and shows in no listing."""
        if not backend.capabilities.links:
            with pytest.raises(NotImplementedError):
                backend.link("checkpoints/a", "best")
            assert backend.read_link("best") is None
            return
        backend.put("checkpoints/a/x", [b"a"])
        backend.put("checkpoints/b/x", [b"b"])
        for name in "ab":
            backend.link(f"checkpoints/{name}", "best")
            assert (Path(backend.url) / "best" / "x").read_bytes() == name.encode()
            assert backend.read_link("best").source == f"checkpoints/{name}"
            assert 0 <= backend.read_link("best").modified - backend.head(f"checkpoints/{name}/x").modified < 60
        assert backend.read_link("checkpoints/a") is None
        assert backend.read_link("nothing") is None
        assert [entry.key for entry in backend.list("")] == ["checkpoints/a/x", "checkpoints/b/x"]

    def test_housekeeping_of_nothing(self, backend):
        """Settling, sweeping and asking for space are harmless where there is nothing yet."""
        backend.settle()
        backend.settle()
        assert backend.unfinished("") == []
        assert backend.abort_stale("", 0.0) == 0
        free = backend.free_bytes()
        assert free is None or free > 0

    @pytest.mark.parametrize("key", ODD_KEYS)
    def test_keys_mean_what_they_say(self, backend, key):
        """A key with spaces, quotes, percent signs or other scripts is one key, by every method."""
        backend.put(key, [b"content"])
        assert backend.read(key) == b"content"
        assert bytes(backend.read_ranges(key, [(0, 3)])[0]) == b"con"
        assert backend.head(key).key == key
        assert [entry.key for entry in backend.list("")] == [key]
        assert [entry.key for entry in backend.list(key.rpartition("/")[0] + "/")] == [key]
        backend.copy(key, key + " copy")
        with pytest.raises(ObjectExistsError):
            backend.put_if_absent(key, b"other")
        backend.delete([key])
        assert [entry.key for entry in backend.list("")] == [key + " copy"]

    def test_errors_cross_processes(self, backend):
        """An error that is raised in a worker arrives with its text and its facts."""
        with pytest.raises(KeepbestError) as caught:
            backend.read("commits/none")
        arrived = pickle.loads(pickle.dumps(caught.value))
        assert (type(arrived), str(arrived), arrived.location) == (
            type(caught.value),
            str(caught.value),
            caught.value.location,
        )

    def test_many_threads_share_one_backend(self, backend):
        """Training, the writer's thread and a reader can use one backend at once."""

        def work(number):
            for turn in range(10):
                key = f"checkpoints/{number}-{turn}/file"
                backend.put(key, [bytes([number]) * 1000])
                backend.settle()
                backend.replace("best.json", bytes([number]) * 10)
                assert backend.read(key) == bytes([number]) * 1000
                assert key in {entry.key for entry in backend.list("checkpoints/")}
                if turn % 2:
                    backend.delete([key])
            return number

        with ThreadPoolExecutor(8) as pool:
            assert list(pool.map(work, range(8))) == list(range(8))
        assert len(backend.list("checkpoints/")) == 40
