"""Garbage collection: deletes what a crash left, and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest
from contracts.faults import WrappedBackend
from contracts.runs import SmallRun, same, weights

from keepbest.storage.backend import Entry, open_backend
from keepbest.storage.history import Row
from keepbest.storage.journal import Journal
from keepbest.storage.layout import commit_key, data_key
from keepbest.storage.manifest import seal
from keepbest.storage.run import Run, open_run

TEMPORARY = ".tmp-0123456789abcdef0123456789abcdef"
ORPHAN = "epoch-009_step-000090_abcdef"


@pytest.fixture
def small(backend):
    run = SmallRun(backend)
    for _ in range(2):
        run.save()
    run.writer.refresh_hints()
    Journal(backend).append(Row(kind="epoch", epoch=0, step=1, time=0.0))
    return run


def orphaned(backend):
    """Leave what a killed save leaves: data without a commit, and temporary files."""
    keys = [
        data_key(ORPHAN, "model.safetensors"),
        data_key(ORPHAN, "state.json"),
        f"commits/{TEMPORARY}",
        f"{TEMPORARY}/model.keras",
    ]
    for key in keys:
        backend.put(key, [b"12345"])
    return keys


def keys(backend):
    return [entry.key for entry in backend.list("")]


class Later(WrappedBackend):
    """Everything in it is so many seconds older."""

    def __init__(self, inner, seconds):
        super().__init__(inner)
        self.seconds = seconds

    def _call(self, name, *args):
        found = super()._call(name, *args)
        if name != "list":
            return found
        return [Entry(key=entry.key, size=entry.size, modified=entry.modified - self.seconds) for entry in found]


def test_garbage_goes_and_the_rest_stays(backend, small):
    """Orphans and temporary files are deleted; checkpoints, journal, index and hints are not touched."""
    before = keys(backend)
    orphaned(backend)
    report = Run(backend).gc(grace=0)
    assert keys(backend) == before
    assert Run(backend).verify().ok
    assert sorted(orphan.name for orphan in report.removed) == sorted([TEMPORARY, f"commits/{TEMPORARY}", ORPHAN])
    assert report.nbytes == 20
    assert str(report) == "removed 3 orphan(s), 20 bytes."
    assert Run(backend).gc(grace=0).removed == ()


def test_what_is_young_may_be_a_save_under_way(backend, small):
    """Without being told otherwise, nothing is deleted that changed within the hour."""
    left = orphaned(backend)
    report = Run(backend).gc()
    assert report.removed == ()
    assert len(report.kept) == 3
    assert "3 are too young" in str(report)
    assert set(left) <= set(keys(backend))
    assert len(Run(Later(backend, 3700)).gc().removed) == 3
    assert not set(left) & set(keys(backend))


def test_a_listing_that_comes_wrong_costs_no_checkpoint(backend, small):
    """A commit that one listing does not show is looked for once more before its data goes."""

    class Forgetful(WrappedBackend):
        forgets = 1

        def _call(self, name, *args):
            found = super()._call(name, *args)
            if (name, *args) != ("list", "commits/") or not self.forgets:
                return found
            self.forgets -= 1
            return [entry for entry in found if entry.key != commit_key(1)]

    left = orphaned(backend)
    report = Run(Forgetful(backend)).gc(grace=0)
    assert Run(backend).verify().ok
    assert len(Run(backend).checkpoints()) == 2
    assert len(report.removed) == 3
    assert not set(left) & set(keys(backend))


def test_an_orphan_is_as_young_as_its_youngest_file(backend, small):
    """A save that takes longer than the grace period for all its files is safe while it writes them."""
    backend.put(data_key(ORPHAN, "old"), [b"x"])

    class FirstIsOld(Later):
        def _call(self, name, *args):
            found = WrappedBackend._call(self, name, *args)
            if name != "list":
                return found
            old = [entry for entry in found if entry.key.endswith("/old")]
            return [
                Entry(key=entry.key, size=entry.size, modified=entry.modified - self.seconds * (entry in old))
                for entry in found
            ]

    watched = Run(FirstIsOld(backend, 10_000))
    assert len(watched.gc(dry_run=True).removed) == 1
    backend.put(data_key(ORPHAN, "new"), [b"x"])
    assert watched.gc().removed == ()


def test_a_dry_run_only_says(backend, small):
    """With `dry_run`, the report is that of a real run and nothing is deleted."""
    orphaned(backend)
    before = keys(backend)
    report = Run(backend).gc(grace=0, dry_run=True)
    assert keys(backend) == before
    assert "would remove 3 orphan(s)" in str(report)
    assert {orphan.files for orphan in report.removed} == {orphan.files for orphan in Run(backend).gc(grace=0).removed}


@pytest.mark.parametrize("manifest", [b"half", seal(b'{"format":"2.0"}')], ids=["damaged", "newer"])
def test_while_a_manifest_cannot_be_read_no_data_goes(backend, small, manifest):
    """Nobody knows which data an unreadable manifest names, so only temporary files are deleted then."""
    orphaned(backend)
    backend.put_if_absent(commit_key(9), manifest)
    report = Run(backend).gc(grace=0)
    assert sorted(orphan.name for orphan in report.removed) == [TEMPORARY, f"commits/{TEMPORARY}"]
    assert data_key(ORPHAN, "state.json") in keys(backend)


def test_what_others_keep_there_is_left_alone(backend, small):
    """Files of other programs in the run's folder are not garbage, whatever they are called."""
    foreign = [
        "notes.txt",
        "checkpoints/epoch=1.ckpt",
        "checkpoints/step-100/model.bin",
        "checkpoints/last/a",
        ".tmp-x",
    ]
    for key in foreign:
        backend.put(key, [b"x"])
    assert Run(backend).gc(grace=0).removed == ()
    assert set(foreign) <= set(keys(backend))


def test_a_save_that_commits_while_we_collect_is_safe(backend, small):
    """A checkpoint that is committed while garbage is being looked for is not taken for garbage, even without grace."""

    class CommitsAfterTheListing(Later):
        """The listing of the commits is followed, at once, by a commit of another process, of data that is older."""

        def _call(self, name, *args):
            found = super()._call(name, *args)
            if name == "list" and args == ("commits/",) and not self.done:
                self.done = True
                small.save()
            return found

        done = False

    Run(CommitsAfterTheListing(backend, 10)).gc(grace=0)
    assert Run(backend).verify().ok
    assert same(Run(backend).latest.load("model"), weights(3))


def test_nothing_is_left_of_a_crash_in_a_folder(tmp_path):
    """In a folder, empty folders and links that were never renamed go too."""
    backend = open_backend(str(tmp_path / "run"))
    run = SmallRun(backend)
    run.save()
    run.writer.refresh_hints()
    root = Path(backend.url)
    before = sorted(root.rglob("*"))
    orphaned(backend)
    (root / "checkpoints" / "epoch-010_abcdef").mkdir()
    (root / TEMPORARY.replace("0", "f")).symlink_to("checkpoints/gone")
    Run(backend).gc(grace=0, dry_run=True)
    assert len(list(root.rglob("*"))) > len(before)
    Run(backend).gc(grace=0)
    assert sorted(root.rglob("*")) == before


# ── uploads that were never finished ─────────────────────────────────────────────────────────────────────────────────


def test_unfinished_uploads_of_the_run_are_aborted(s3_url):
    """An upload that a crash left is shown, and aborted when it is old enough; those of others stay."""
    import boto3

    backend = open_backend(s3_url)
    SmallRun(backend).save()
    s3 = boto3.client("s3")
    bucket, _, prefix = s3_url.removeprefix("s3://").partition("/")
    ours = f"{prefix}/checkpoints/epoch-009_abcdef/model.safetensors"
    others = [f"{prefix}/checkpoints/mine/model.bin", f"{prefix}-2/checkpoints/epoch-009_abcdef/model.safetensors"]
    for key in [ours, *others]:
        s3.create_multipart_upload(Bucket=bucket, Key=key)

    def left():
        found = s3.list_multipart_uploads(Bucket=bucket, Prefix=prefix).get("Uploads", [])
        return sorted(upload["Key"] for upload in found)

    assert left() == sorted([ours, *others])
    run = open_run(s3_url)
    assert [(orphan.name, orphan.upload) for orphan in run.gc().kept] == [(ours[len(prefix) + 1 :], True)]
    assert [orphan.name for orphan in run.gc(grace=-60, dry_run=True).removed] == [ours[len(prefix) + 1 :]]
    assert left() == sorted([ours, *others])
    assert len(run.gc(grace=-60).removed) == 1
    assert left() == sorted(others)
    assert run.verify().ok
