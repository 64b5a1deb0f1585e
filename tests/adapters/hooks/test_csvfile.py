"""The hook that writes a CSV file."""

from __future__ import annotations

import csv
import math

import pytest

from keepbest import KeepbestError
from keepbest.adapters.hooks import CSV
from keepbest.errors import ConfigError
from keepbest.storage.history import Row
from keepbest.storage.notes import Began, WentBack

FACTS = ["kind", "epoch", "step", "time", "checkpoint", "reasons"]


def lines(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def epochs(path, name="loss"):
    return [(int(line["epoch"]), float(line[name])) for line in lines(path) if line["kind"] == "epoch"]


def row(number, /, **metrics):
    return Row(kind="epoch", epoch=number, step=0, time=1.7e9 + number, metrics=metrics)


def begun(checkpoint):
    return Began(checkpoint=checkpoint, time=1.7e9, epoch=None, step=0)


def test_every_row_of_a_training_is_a_line(train, tmp_path):
    """The file has the rows of the run's own history, in their order, and each checkpoint at its row."""
    path = tmp_path / "made" / "7.csv"
    ckpt = train(CSV(path))
    found = lines(path)
    assert list(found[0]) == [*FACTS, "loss", "val_loss"]
    assert [
        (line["kind"], int(line["epoch"]), int(line["step"]), float(line["time"]), float(line["loss"]))
        for line in found
    ] == [(entry.kind, entry.epoch, entry.step, entry.time, entry.metrics["loss"]) for entry in ckpt.history.rows]
    assert [line["val_loss"] for line in found] == ["", "", "", "0.9", "", "", "", "0.5", "", "", "", "0.7"]
    saved = [line for line in found if line["checkpoint"]]
    assert [line["checkpoint"] for line in saved] == [checkpoint.name for checkpoint in ckpt.run.checkpoints()]
    assert [line["kind"] for line in saved] == ["epoch"] * 3
    assert "improvement" in saved[0]["reasons"].split()


def test_a_resumed_run_drops_what_it_logs_again(train, tmp_path):
    """After a break the file has each epoch and step once, and the abandoned values are gone."""
    path = tmp_path / "7.csv"
    train(CSV(path), cut=True)
    assert epochs(path) == [(0, 0.0), (1, 1.0), (2, 2.0)]
    train(CSV(path), epochs=5, shift=0.5)
    assert epochs(path) == [(0, 0.0), (1, 1.0), (2, 2.5), (3, 3.5), (4, 4.5)]
    steps = [int(line["step"]) for line in lines(path) if line["kind"] == "step"]
    assert steps == list(range(1, 16))


def test_a_run_that_counts_no_steps_resumes_by_epoch(tmp_path):
    """Where the file does not name the checkpoint, its epoch says which rows led to it."""
    path = tmp_path / "7.csv"
    hook = CSV(path)
    for entry in [begun(None), row(0, loss=1.0), row(1, loss=2.0), row(2, loss=3.0)]:
        hook(entry)
    hook(WentBack(checkpoint="epoch-002_0123ab", time=1.7e9, epoch=1, step=0))
    hook(row(2, loss=4.0))
    hook.close()
    assert epochs(path) == [(0, 1.0), (1, 2.0), (2, 4.0)]


def test_a_run_that_begins_anew_keeps_the_file_of_the_one_before(tmp_path):
    """Nothing that was logged is lost because a training was started at the beginning."""
    path = tmp_path / "7.csv"
    for value in (1.0, 2.0):
        hook = CSV(path)
        hook(begun(None))
        hook(row(0, loss=value))
        hook.close()
    assert epochs(path) == [(0, 2.0)]
    assert epochs(tmp_path / "7.csv.old") == [(0, 1.0)]
    assert sorted(file.name for file in tmp_path.iterdir()) == ["7.csv", "7.csv.old"]


def test_a_metric_that_comes_later_gets_a_column(tmp_path):
    """Columns are added at the end; the order of those there, and every line, stay as they were."""
    path = tmp_path / "7.csv"
    hook = CSV(path)
    for entry in [begun(None), row(0, b=1.0), row(1, a=2.0, b=3.0), row(2, epoch=9.0)]:
        hook(entry)
    hook.close()
    assert path.read_text().splitlines() == [
        "kind,epoch,step,time,checkpoint,reasons,b,a,metric_epoch",
        "epoch,0,0,1700000000.0,,,1.0,,",
        "epoch,1,0,1700000001.0,,,3.0,2.0,",
        "epoch,2,0,1700000002.0,,,,,9.0",
    ]
    hook = CSV(path)
    hook(begun("epoch-003_0123ab"))
    hook(row(3, a=1.0))
    hook.close()
    assert path.read_text().splitlines()[-1] == "epoch,3,0,1700000003.0,,,,1.0,"


def test_each_row_is_there_when_the_next_has_come(tmp_path):
    """Who watches the file sees training go on: a process that is killed loses one line at most."""
    path = tmp_path / "7.csv"
    hook = CSV(path)
    for entry in [begun(None), row(0, loss=1.0), row(1, loss=2.0)]:
        hook(entry)
    assert epochs(path) == [(0, 1.0)]
    hook.close()
    assert epochs(path) == [(0, 1.0), (1, 2.0)]


def test_a_line_that_was_cut_short_is_dropped(tmp_path):
    """What a crash left of a line does not swallow the next one."""
    path = tmp_path / "7.csv"
    hook = CSV(path)
    hook(begun(None))
    hook(row(0, loss=1.0))
    hook.close()
    with path.open("a") as file:
        file.write("epoch,1,0,17000")
    hook = CSV(path)
    hook(begun("epoch-001_0123ab"))
    hook(row(1, loss=2.0))
    hook.close()
    assert epochs(path) == [(0, 1.0), (1, 2.0)]


def test_a_header_that_was_cut_short_is_begun_anew(tmp_path):
    """A process that is killed while it begins the file does not lock out the next one."""
    path = tmp_path / "7.csv"
    path.write_text("")
    hook = CSV(path)
    hook(begun(None))
    hook(row(0, loss=1.0))
    hook.close()
    assert epochs(path) == [(0, 1.0)]


def test_values_come_back_as_they_were(tmp_path):
    """Every float, NaN and infinity among them, reads as the very same, and names may have commas and quotes."""
    path = tmp_path / "7.csv"
    values = {"a": math.nan, "b": math.inf, "c": -math.inf, "d": 0.1 + 0.2, 'e,"é\n': 5e-324}
    hook = CSV(path)
    hook(begun(None))
    hook(row(0, **values))
    hook.close()
    found = {name: float(text) for name, text in lines(path)[0].items() if name not in FACTS}
    assert repr(found) == repr(values)


@pytest.mark.parametrize(
    ("path", "said"), [("s3://bucket/7.csv", "URL"), ("theirs.csv", "kind,epoch"), (".", "cannot be written")]
)
def test_a_path_that_cannot_be_is_refused_at_once(path, said, tmp_path, monkeypatch):
    """A URL, a folder, and a file of somebody else are named when the hook is made; nothing is changed."""
    monkeypatch.chdir(tmp_path)
    theirs = tmp_path / "theirs.csv"
    theirs.write_text("a,b\n1,2\n")
    with pytest.raises(ConfigError, match=said) as caught:
        CSV(path)
    assert isinstance(caught.value, KeepbestError)
    assert theirs.read_text() == "a,b\n1,2\n"
    assert [file.name for file in tmp_path.iterdir()] == ["theirs.csv"]
