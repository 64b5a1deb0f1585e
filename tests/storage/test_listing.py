"""Listings: the commits are the truth, the index a hint, and a look stays cheap however long the run is."""

from __future__ import annotations

import contextlib
import json

import msgspec
import pytest
from contracts.faults import CountingBackend, WrappedBackend
from contracts.runs import SmallRun, same, weights
from msgspec.structs import replace

from keepbest.errors import StorageError
from keepbest.storage.backend import open_backend
from keepbest.storage.layout import BEST_HINT, BEST_LINK, commit_key, index_key, index_sequence
from keepbest.storage.listing import UNINDEXED, read_listing
from keepbest.storage.manifest import CheckpointInfo, Manifest, decode, encode, info, seal, to_plain, unseal
from keepbest.storage.run import Run
from keepbest.storage.run_writer import RunWriter


def indexes(backend):
    """Return the keys of all indexes."""
    return [entry.key for entry in backend.list("commits/") if index_sequence(entry.key) is not None]


def reads(backend):
    """Return how many objects one look at the run reads, and what it finds."""
    counting = CountingBackend(backend)
    found = read_listing(counting).checkpoints
    assert counting.calls["list"] == 1
    return counting.calls["read"], found


@pytest.fixture
def indexed(backend):
    """A run of some commits with an index, and three commits behind it."""
    run = SmallRun(backend)
    for number in range(UNINDEXED):
        run.save(1.0 - number / 1000)
    run.writer.refresh_hints()
    for _ in range(3):
        run.save(0.5)
    return run


def altered_index(backend, change):
    """Write the index anew, its records changed by `change`, with a digest that fits."""
    (key,) = indexes(backend)
    records = json.loads(unseal(backend.read(key), key))
    change(records)
    backend.replace(key, seal(json.dumps(records).encode()))


# ── the index saves reading ──────────────────────────────────────────────────────────────────────────────────────────


def test_an_index_is_written_now_and_then(backend):
    """So many commits and no fewer bring an index about; the next takes the place of the last."""
    run = SmallRun(backend)
    for number in range(1, 2 * UNINDEXED + 1):
        run.save()
        run.writer.refresh_hints()
        expected = [] if number < UNINDEXED else [index_key(number // UNINDEXED * UNINDEXED)]
        assert indexes(backend) == expected


def test_with_an_index_only_what_is_behind_it_is_read(backend, indexed):
    """A look at a run reads the index and the few commits that are not in it, and finds what reading all would find."""
    with_index = reads(backend)
    assert with_index[0] == 1 + 3
    backend.delete(indexes(backend))
    without = reads(backend)
    assert without[0] == UNINDEXED + 3
    assert with_index[1] == without[1]


def test_10_000_checkpoints_cost_as_few_reads_as_100(memory_url):
    """A look at a very long run is one listing and as many reads as at a short one."""
    backend = open_backend(memory_url)
    run = SmallRun(backend)
    template = run.save()
    manifest = decode(backend.read(commit_key(1)), "x")
    for number in range(2, 10_001):
        facts = {"sequence": number, "name": f"epoch-{number:03d}_abcdef", "parent": number - 1, "epoch": number - 1}
        backend.put_if_absent(commit_key(number), encode(replace(manifest, **facts)))
    writer = RunWriter(backend)
    writer.refresh_hints()
    count, found = reads(backend)
    assert count == 1
    assert len(found) == 10_000
    assert (found[0], found[-1].sequence) == (template, 10_000)
    SmallRun(backend).save()
    assert reads(backend)[0] == 2


def test_a_writer_that_comes_later_counts_what_is_not_indexed(backend):
    """Trainings that are killed often still write their index in time."""
    for _ in range(UNINDEXED):
        run = SmallRun(backend)
        run.save()
        run.writer.refresh_hints()
    assert indexes(backend) == [index_key(UNINDEXED)]


def test_an_index_that_could_not_be_deleted_goes_with_the_next(memory_url):
    """A store that refuses once to delete the older index leaves none behind for ever."""

    class Refusing(WrappedBackend):
        refuses = 1

        def _call(self, name, *args, **kwargs):
            if name == "delete" and self.refuses:
                keys = list(args[0])
                if any(index_sequence(key) for key in keys):
                    self.refuses -= 1
                    raise StorageError(self.url, "not now")
                args = (keys, *args[1:])
            return super()._call(name, *args, **kwargs)

    backend = open_backend(memory_url)
    run = SmallRun(Refusing(backend))
    for _ in range(2 * UNINDEXED + 2):
        run.save()
        with contextlib.suppress(StorageError):
            run.writer.refresh_hints()
    assert run.writer.backend.refuses == 0
    assert len(indexes(backend)) == 1


def test_retired_checkpoints_leave_the_index(backend, indexed):
    """An index names what was retired since; it is not listed, and costs nothing."""
    indexed.writer.retire([1, 2, UNINDEXED])
    count, found = reads(backend)
    assert count == 1 + 3
    assert [one.sequence for one in found] == [*range(3, UNINDEXED), *range(UNINDEXED + 1, UNINDEXED + 4)]


# ── the index is believed in nothing ─────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(lambda data: b"", id="empty"),
        pytest.param(lambda data: data[: len(data) // 2], id="cut-short"),
        pytest.param(lambda data: data.replace(b'"step":10,', b'"step":11,'), id="altered"),
        pytest.param(lambda data: seal(b"{}"), id="no-list"),
        pytest.param(lambda data: seal(b"nonsense"), id="no-json"),
        pytest.param(lambda data: seal(b'[{"manifest_bytes":1}]'), id="half-a-record"),
        pytest.param(lambda data: seal(b"[]"), id="no-records"),
        pytest.param(lambda data: b"\xff" * 100, id="noise"),
    ],
)
def test_a_damaged_index_is_harmless(backend, indexed, data):
    """An index that cannot be read costs time, never a checkpoint, a wrong fact or an error."""
    (key,) = indexes(backend)
    before = reads(backend)[1]
    backend.replace(key, data(backend.read(key)))
    count, found = reads(backend)
    assert found == before
    assert count == 1 + UNINDEXED + 3
    assert Run(backend).verify().ok


def test_an_index_lists_nothing_that_is_not_there(backend, indexed):
    """A record of a commit that does not exist, or existed once, is no checkpoint."""
    backend.delete([commit_key(5)])
    altered_index(
        backend,
        lambda records: records.append(json.loads(json.dumps(records[0]).replace('"sequence": 1', '"sequence": 99'))),
    )
    assert {one.sequence for one in reads(backend)[1]} == {*range(1, UNINDEXED + 4)} - {5}


def test_a_manifest_of_another_size_is_read_anew(backend, indexed):
    """A record counts only while the manifest is as long as it was."""

    def change(records):
        records[6]["manifest_bytes"] += 1
        records[6]["checkpoint"]["step"] = 12345

    altered_index(backend, change)
    count, found = reads(backend)
    assert count == 1 + 1 + 3
    assert found[6].step == 70


def test_a_record_of_a_stranger_leads_nowhere_else(backend, indexed):
    """A name that leads out of the run makes the index useless, and nothing is retired by it."""
    altered_index(backend, lambda records: records[0]["checkpoint"].update(name="../../home"))
    assert reads(backend)[0] == 1 + UNINDEXED + 3
    assert reads(backend)[1][0].name.startswith("epoch-001")


@pytest.mark.parametrize("how", ["retired", "by-hand"])
def test_a_number_that_is_given_out_again_is_never_described_by_an_old_index(backend, how):
    """After the newest checkpoints went, new ones get their numbers: what is listed are the new ones' facts."""
    run = SmallRun(backend)
    for number in range(UNINDEXED):
        run.save(1.0 - number / 1000)
    run.writer.refresh_hints()
    if how == "retired":
        run.writer.retire([UNINDEXED - 1, UNINDEXED])
    else:
        backend.delete([commit_key(UNINDEXED - 1), commit_key(UNINDEXED)])
    again = SmallRun(backend)
    facts = [again.save(0.937), again.save(0.936)]
    assert [one.sequence for one in facts] == [UNINDEXED - 1, UNINDEXED]
    listed = reads(backend)[1]
    assert listed[-2:] == tuple(facts)
    assert same(Run(backend).latest.load("model"), weights(UNINDEXED))
    again.writer.refresh_hints()
    assert reads(backend)[1] == listed


def test_other_names_among_the_commits_are_passed_over(backend):
    """Temporary files, notes and folders beside the manifests disturb nothing."""
    facts = SmallRun(backend).save()
    for key in ("commits/.tmp-0123456789abcdef0123456789abcdef", "commits/README", "commits/old/00000009.json"):
        backend.put(key, [b"x"])
    listing = read_listing(backend)
    assert listing.checkpoints == (facts,)
    assert (listing.damaged, listing.last_sequence, listing.index_keys) == ((), 1, ())


def test_a_commit_that_goes_while_we_look_is_gone(backend):
    """A checkpoint that is retired between the listing and the reading is left out without an error."""
    run = SmallRun(backend)
    for _ in range(2):
        run.save()

    class Retiring(CountingBackend):
        def _call(self, name, *args):
            found = super()._call(name, *args)
            if name == "list":
                self.inner.delete([commit_key(1)])
            return found

    listing = read_listing(Retiring(backend))
    assert [one.sequence for one in listing.checkpoints] == [2]
    assert listing.damaged == ()


class Training(CountingBackend):
    """Each time somebody has listed the commits, another one is made, and then the one before it retired."""

    def __init__(self, run, saves):
        super().__init__(run.backend)
        self._run, self._left = run, saves

    def _call(self, name, *args):
        found = super()._call(name, *args)
        if name == "list" and self._left:
            self._left -= 1
            facts = self._run.save()
            self.inner.delete([commit_key(facts.sequence - 1)])
        return found


def test_a_run_that_keeps_one_checkpoint_never_seems_empty(backend):
    """Who looks while one checkpoint takes the place of another sees one of the two."""
    run = SmallRun(backend)
    run.save()
    looking = Training(run, saves=3)
    assert [one.sequence for one in read_listing(looking).checkpoints] == [4]
    assert looking.calls["list"] == 4


def test_who_looks_at_a_run_that_never_rests_comes_to_an_end(backend):
    """A training that commits faster than anybody reads does not keep a reader for ever."""
    run = SmallRun(backend)
    run.save()
    looking = Training(run, saves=100)
    assert read_listing(looking).damaged == ()
    assert looking.calls["list"] <= 20


# ── the pointer to the best ──────────────────────────────────────────────────────────────────────────────────────────


def test_people_find_the_best_by_a_link(tmp_path):
    """In a folder, `best` leads to the best checkpoint's files, also after the run was moved."""
    run = SmallRun(open_backend(str(tmp_path / "run")))
    for loss in (0.5, 0.3, 0.4):
        run.save(loss)
        run.writer.refresh_hints()
    (tmp_path / "run").rename(tmp_path / "moved")
    best = Run(open_backend(str(tmp_path / "moved"))).best
    assert best.sequence == 2
    link = tmp_path / "moved" / BEST_LINK
    assert link.is_symlink()
    assert (link / "model.safetensors").samefile(tmp_path / "moved/checkpoints" / best.name / "model.safetensors")


def test_programs_find_the_best_by_a_small_object(memory_url):
    """Where there are no links, `best.json` names the best checkpoint, in JSON that can be checked."""
    backend = open_backend(memory_url)
    run = SmallRun(backend)
    for loss in (0.5, 0.3, 0.4):
        facts = run.save(loss)
        run.writer.refresh_hints()
    best = Run(backend).best
    assert json.loads(unseal(backend.read(BEST_HINT), "x")) == {"name": best.name, "sequence": 2}
    assert facts.sequence == 3


def test_the_light_record_survives_json():
    """What an index keeps of a checkpoint is all that there is to its light record."""
    manifest = Manifest(
        sequence=1, write_id="0" * 32, name="epoch-001_abcdef", step=1, epoch=None, parent=None, time=1.5,
        reasons=("end",), complete=False, metrics={"a": float("inf")}, scores=(), artifacts={}, host="", versions={},
    )  # fmt: skip
    data = msgspec.json.encode(to_plain(info(manifest)))
    assert msgspec.json.decode(data, type=CheckpointInfo) == info(manifest)
