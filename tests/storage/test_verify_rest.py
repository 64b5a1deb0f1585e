"""Verify, of what lies beside the checkpoints: the pointer to the best, and the journal."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

import pytest
from contracts.faults import WrappedBackend
from contracts.runs import SmallRun
from msgspec.structs import replace

from keepbest.errors import StorageError
from keepbest.storage.backend import open_backend
from keepbest.storage.history import Row
from keepbest.storage.journal import Journal
from keepbest.storage.layout import BEST_HINT, BEST_LINK, JOURNAL, commit_key, data_prefix
from keepbest.storage.manifest import seal
from keepbest.storage.run import Run


@pytest.fixture
def small(backend):
    """Three checkpoints, the second of which is the best, and is pointed at."""
    run = SmallRun(backend)
    for value in (0.9, 0.4, 0.5):
        run.save(value)
    run.writer.refresh_hints()
    return run


def name(small, sequence):
    return small.writer.checkpoints[sequence - 1].name


def point(backend, name):
    """Let the pointer show a checkpoint, later than whatever was done before."""
    time.sleep(0.02 if backend.capabilities.links or backend.url.startswith("memory:") else 1.1)  # stores' clocks
    if backend.capabilities.links:
        backend.link(data_prefix(name).rstrip("/"), BEST_LINK)
    else:
        backend.replace(BEST_HINT, seal(f'{{"name":"{name}","sequence":1}}'.encode()))


def key(backend):
    return BEST_LINK if backend.capabilities.links else BEST_HINT


def problems(backend):
    """What is wrong, beside the checkpoints, which are all whole."""
    report = Run(backend).verify()
    assert len(report.whole) == report.checked
    assert report.ok == (not report.problems)
    return report.problems


# ── the pointer ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_pointer_to_the_best_is_right(backend, small):
    """Where it shows the best, nothing is said, and nothing where there is none."""
    assert not problems(backend)
    if backend.capabilities.links:
        Path(backend.url, BEST_LINK).unlink()
    else:
        backend.delete([BEST_HINT])
    assert not problems(backend)


def test_a_pointer_to_another_checkpoint_is_a_problem(backend, small):
    """Whoever loads by it would get another checkpoint: where it leads, and what is the best, are told."""
    point(backend, name(small, 1))
    (problem,) = problems(backend)
    assert (problem.part, problem.checkpoint, problem.file, problem.tensor) == ("best", key(backend), None, None)
    for text in (f"{backend.url}/{key(backend)}", name(small, 1), f"the best is {name(small, 2)}", "To mend it"):
        assert text in problem.message


def test_a_pointer_to_nothing_is_a_problem(backend, small):
    """That the checkpoint it names is gone is a problem, too."""
    point(backend, "epoch-009_abcdef")
    (problem,) = problems(backend)
    assert "epoch-009_abcdef" in problem.message


def test_a_pointer_that_has_not_come_so_far_is_no_problem(backend, small):
    """A new best is committed, and its save, or a crash, has not come to the pointer: the next save sets it."""
    small.save(0.1)
    assert not problems(backend)
    small.writer.retire([2])
    assert not problems(backend)


def test_a_pointer_is_judged_while_training_goes_on(backend, small):
    """A best that is committed, retired and pointed at while we look raises no false alarm."""

    class Training(WrappedBackend):
        def _call(self, method, *args, **kwargs):
            found = super()._call(method, *args, **kwargs)
            if method == "read_link" or (args and args[0] == BEST_HINT):
                before = small.writer.checkpoints[-1]
                small.save(float(before.metrics["val_loss"]) / 2)
                small.writer.retire([found.sequence for found in small.writer.checkpoints[:-2]])
                small.writer.refresh_hints()
            return found

    report = Run(Training(backend)).verify()
    assert report.ok, str(report)


def test_a_pointer_is_not_judged_by_manifests_that_cannot_be_read(backend, small):
    """With a damaged manifest nobody knows which is the best; that manifest is the only problem."""
    backend.replace(commit_key(2), b"junk")
    assert [problem.part for problem in Run(backend).verify().problems] == ["checkpoint"]


def test_a_pointer_is_not_judged_without_a_best(backend):
    """A run that ranks nothing has no best that its pointer could miss."""
    run = SmallRun(backend)
    run.save(ranked=False)
    point(backend, "epoch-009_abcdef")
    assert not problems(backend)


@pytest.mark.parametrize("data", [b"", b"junk", seal(b"[]"), seal(b'{"name":7}'), seal(b"{")])
def test_a_hint_that_cannot_be_read_is_a_problem(memory_url, data):
    """What somebody altered in `best.json` is told, with what is the best and how it is mended."""
    backend = open_backend(memory_url)
    small = SmallRun(backend)
    small.save(0.4)
    backend.replace(BEST_HINT, data)
    (problem,) = problems(backend)
    assert f"{backend.url}/{BEST_HINT} cannot be read, and the best is {name(small, 1)}" in problem.message


@pytest.fixture
def local(tmp_path):
    return open_backend(str(tmp_path / "run"))


def on_disk(local):
    run = SmallRun(local)
    run.save(0.4)
    run.save(0.5)
    run.writer.refresh_hints()
    return run, Path(local.url)


def test_a_link_may_be_written_in_any_way(local):
    """A link that somebody made by hand, with a whole path, is as good if it leads there."""
    small, folder = on_disk(local)
    (folder / "best").unlink()
    (folder / "best").symlink_to((folder / "checkpoints" / name(small, 1)).absolute())
    assert not problems(local)


def test_a_link_out_of_the_run_is_a_problem(local, tmp_path):
    """A link that leads somewhere else is told as it is, and not followed."""
    small, folder = on_disk(local)
    (tmp_path / "elsewhere").mkdir()
    time.sleep(0.02)
    (folder / "best").unlink()
    (folder / "best").symlink_to(tmp_path / "elsewhere")
    (problem,) = problems(local)
    assert "leads to ../elsewhere" in problem.message
    assert f"ln -sfn checkpoints/{name(small, 1)} {folder}/best" in problem.message


@pytest.mark.parametrize("which", [1, 2])
def test_a_folder_in_place_of_the_link_is_compared(local, which):
    """A copy that followed the link has a folder in its place: of the best it is right, of another a problem."""
    small, folder = on_disk(local)
    (folder / "best").unlink()
    shutil.copytree(folder / "checkpoints" / name(small, which), folder / "best")
    found = problems(local)
    assert len(found) == which - 1
    for problem in found:
        assert (problem.part, problem.checkpoint) == ("best", "best")
        assert f"{folder}/best holds copies of other files than the best, {name(small, 1)}, has" in problem.message


def test_a_folder_whose_file_was_cut_short_is_a_problem(local):
    """A copy of the best that is not whole is told."""
    small, folder = on_disk(local)
    (folder / "best").unlink()
    shutil.copytree(folder / "checkpoints" / name(small, 1), folder / "best")
    with (folder / "best" / "model.safetensors").open("r+b") as file:
        file.truncate(100)
    (problem,) = problems(local)
    assert "model.safetensors" in problem.message


def test_a_folder_with_files_of_others_is_theirs(local):
    """What has none of a checkpoint's files and happens to be called so is nobody's business."""
    _, folder = on_disk(local)
    (folder / "best").unlink()
    (folder / "best").mkdir()
    (folder / "best" / "tokenizer.json").write_text("{}")
    assert not problems(local)


# ── the journal ──────────────────────────────────────────────────────────────────────────────────────────────────────


def log(backend, many=3):
    written = Journal(backend)
    for epoch in range(many):
        written.append(Row(kind="epoch", epoch=epoch, step=0, time=1.7e9, metrics={"loss": 1.0}))
    written.close()
    backend.settle()
    return written.mark


def test_a_whole_journal_is_no_problem(backend, small):
    """Rows that can be read, all of them, are nothing to tell; and a run may have none."""
    log(backend)
    assert not problems(backend)


def test_a_journal_that_has_lost_lines_is_a_problem(local):
    """How many cannot be read and how many are missing is told, where, and what that means."""
    _, folder = on_disk(local)
    branch = log(local).branch
    path = folder / JOURNAL
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(lines[0] + b"junk\n" + lines[2])
    (problem,) = problems(local)
    assert (problem.part, problem.checkpoint) == ("journal", JOURNAL)
    assert problem.message == (
        f"{path}: 1 line cannot be read (line 2), and at least 1 row is missing (row 1 of branch {branch}). No "
        "checkpoint needs it, but the history has a gap, and `keepbest explain` and `report` are incomplete. To mend "
        "it: put back a copy of the journal from before, if there is one; training can go on in any case."
    )


def test_a_journal_in_pieces_that_is_damaged_says_where_they_lie(memory_url):
    """In a bucket the journal lies in pieces, and that is where to look."""

    class Pieces(WrappedBackend):
        capabilities = replace(open_backend(memory_url).capabilities, appends=False)

    backend = Pieces(open_backend(memory_url))
    SmallRun(backend.inner).save(0.4)
    backend.replace("metrics/0000000000000000001-abcdef01-000000.jsonl", b"junk\njunk\n")
    (problem,) = problems(backend)
    assert problem.message.startswith(
        f"{backend.url}/{JOURNAL} with what lies in {backend.url}/metrics/: 2 lines cannot be read (line 1 first). No"
    )


def test_what_a_crash_leaves_of_a_journal_is_no_problem(local):
    """A line that ends too early is what a crash leaves, or a training is just writing."""
    _, folder = on_disk(local)
    log(local)
    with (folder / JOURNAL).open("ab") as file:
        file.write(b'{"branch":"')
    assert not problems(local)


@pytest.mark.parametrize("refused", [JOURNAL, BEST_HINT])
def test_what_the_store_refuses_to_give_is_a_problem(memory_url, refused):
    """An error of the store ends no verifying: it is what is wrong with that part."""
    inner = open_backend(memory_url)
    small = SmallRun(inner)
    small.save(0.4)
    small.writer.refresh_hints()

    class Refusing(WrappedBackend):
        def _call(self, method, *args, **kwargs):
            if method == "read" and args[0] == refused:
                raise StorageError(refused, "Input/output error (a test).")
            return super()._call(method, *args, **kwargs)

    (problem,) = Run(Refusing(inner)).verify().problems
    assert (problem.checkpoint, "Input/output error" in problem.message) == (refused, True)
