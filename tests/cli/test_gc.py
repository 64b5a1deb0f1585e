"""`keepbest gc`."""

import time
from types import SimpleNamespace

import pytest
from contracts import places

from keepbest.storage import gc


@pytest.fixture
def later(monkeypatch):
    """Let seconds pass for gc."""

    def wait(seconds):
        monkeypatch.setattr(gc, "time", SimpleNamespace(time=lambda: time.time() + seconds))

    return wait


@pytest.fixture
def orphans(run, place, later):
    """What a crash left two minutes ago beside a whole run: data no commit names, and a temporary file."""
    for name in ("checkpoints/epoch-009_step-000090_aaaaaa/model.safetensors", "commits/.tmp-" + "a" * 32):
        place.write(name, b"x" * 1000)
    later(120)
    return place


def test_a_dry_run_says_what_and_why_and_deletes_nothing(keepbest, run, orphans):
    """`--dry-run` lists what would go, with the reasons."""
    before = orphans.files()
    said = keepbest("gc", run, "--dry-run", "--grace", "1m")
    assert said.code == 0
    assert orphans.files() == before
    lines = {line.split()[0]: line for line in said.out.splitlines()}
    assert "no commit names it" in lines["epoch-009_step-000090_aaaaaa"]
    assert lines["epoch-009_step-000090_aaaaaa"].endswith("1 kB          2 min  would be removed")
    assert "left half-written" in lines["commits/.tmp-" + "a" * 32]
    assert said.out.splitlines()[-1] == f"{run}: 2 kB would be freed (2,000 bytes)."


def test_old_orphans_go_and_checkpoints_stay(keepbest, run, orphans, later):
    """What is old and needed by no checkpoint is deleted, nothing else, and the bytes freed are said."""
    before = orphans.files()
    later(7200)
    said = keepbest("gc", run)
    assert (said.code, said.out.splitlines()[-1]) == (0, f"{run}: 2 kB freed (2,000 bytes).")
    gone = set(before) - set(orphans.files())
    assert {name.split("/")[-1] for name in gone} == {"model.safetensors", ".tmp-" + "a" * 32}
    assert all("a" * 6 in name for name in gone)
    assert keepbest("verify", run).code == 0
    assert keepbest("gc", run).out == f"{run}: nothing to remove.\n"


def test_what_may_belong_to_a_save_under_way_stays(keepbest, run, orphans):
    """By default nothing is touched that changed within the hour, and the list says why."""
    before = orphans.files()
    said = keepbest("gc", run)
    assert orphans.files() == before
    assert said.out.count("kept: younger than 1 h") == 2
    assert said.out.endswith(f"{run}: nothing to remove.\n")


@pytest.mark.parametrize(
    ("grace", "removed"), [("5", 2), ("5s", 2), ("1.5m", 2), ("150", 0), ("3m", 0), ("1h", 0), ("7d", 0)]
)
def test_grace_is_a_span_of_time(keepbest, run, orphans, grace, removed):
    """The grace period is seconds or a number with a unit."""
    report = keepbest("gc", run, "--grace", grace, "--dry-run", "--json").json
    assert (len(report["removed"]), len(report["kept"])) == (removed, 2 - removed)


@pytest.mark.parametrize("grace", ["soon", "-5", "1w", ""])
def test_what_is_no_span_of_time_is_wrong_usage(keepbest, run, orphans, grace):
    """A grace period that cannot be read deletes nothing."""
    before = orphans.files()
    assert keepbest("gc", run, f"--grace={grace}").code == 2
    assert orphans.files() == before


def test_json_says_what_was_removed(keepbest, run, orphans):
    """Programs get every orphan with its kind, size, age and files."""
    report = keepbest("gc", run, "--grace", "60", "--json").json
    assert (report["schema"], report["dry_run"], report["grace"], report["bytes"]) == ("keepbest.gc/1", False, 60, 2000)
    assert {orphan["kind"] for orphan in report["removed"]} == {"data", "temporary"}
    assert set(report["removed"][0]) == {"name", "kind", "bytes", "age", "files"}


def test_with_a_damaged_manifest_no_data_is_deleted(keepbest, run, orphans):
    """As long as a manifest cannot be read, the data it may name is safe, and the user is told."""
    orphans.write("commits/00000002.json", b"junk")
    said = keepbest("gc", run, "--grace", "60")
    assert said.out.count("left half-written") == 1
    assert "no commit names it" not in said.out
    assert "1 manifest cannot be read (commits/00000002.json)" in said.out
    assert len({name.split("/")[1] for name in orphans.files() if name.startswith("checkpoints/")}) == 4


def test_another_programs_checkpoints_are_not_ours_to_delete(keepbest, place, later):
    """A folder that only looks like a run is refused and left as it is."""
    place.write("checkpoints/step-100/model.pt", b"precious")
    later(7200)
    assert keepbest("gc", place.url).code == 2
    assert place.files() == ["checkpoints/step-100/model.pt"]


def test_what_others_keep_inside_a_run_stays(keepbest, run, place, later):
    """Even inside a run, gc deletes only what keepbest itself named."""
    for name in ("checkpoints/my-notes/notes.txt", "checkpoints/step-100/model.pt", ".tmp-mine/file"):
        place.write(name, b"precious")
    later(7200)
    assert keepbest("gc", run, "--json").json["removed"] == []


def test_a_checkpoint_that_was_deleted_by_hand_is_told_of(keepbest, run, place):
    """gc leaves its commit, and says what to delete."""
    for name in place.files():
        if name.startswith("checkpoints/epoch-003"):
            place.delete(name)
    said = keepbest("gc", run)
    assert (said.code, f"delete {run}/commits/00000003.json, too" in said.out) == (0, True)
    assert [name[:9] for name in keepbest("gc", run, "--json").json["missing"]] == ["epoch-003"]
    assert "commits/00000003.json" in place.files()


@pytest.mark.parametrize("place", places.BUCKETS[:1], indirect=True)
def test_uploads_that_were_not_finished_are_shown_and_aborted(keepbest, run, s3_server, s3_bucket, later):
    """In S3, parts of an upload that a crash left are said to be there, and go; those of a neighbour stay."""
    s3, prefix = s3_server.client(), run.partition(f"{s3_bucket}/")[2]
    for folder in (prefix, f"{prefix}-2"):
        key = f"{folder}/checkpoints/epoch-009_step-000090_aaaaaa/model.safetensors"
        s3.create_multipart_upload(Bucket=s3_bucket, Key=key)
    later(7200)
    said = keepbest("gc", run, "--dry-run")
    assert "an upload that was not finished  unknown" in said.out
    report = keepbest("gc", run, "--json").json
    assert [(orphan["kind"], orphan["bytes"]) for orphan in report["removed"]] == [("upload", 0)]
    left = s3.list_multipart_uploads(Bucket=s3_bucket, Prefix=prefix).get("Uploads", ())
    assert [found["Key"].split("/")[0] for found in left] == [f"{prefix}-2"]
