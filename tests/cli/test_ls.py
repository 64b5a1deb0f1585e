"""`keepbest ls`."""

import pytest

from keepbest.errors import UnsupportedFormatError
from keepbest.storage.manifest import seal


def table(said):
    """The lines of the table, its header first."""
    return said.out.splitlines()[1:]


def test_newest_is_last_and_best_and_latest_are_marked(keepbest, run):
    """The list reads in the order of training, and says which checkpoint is the best and which the latest."""
    said = keepbest("ls", run)
    header, *lines = table(said)
    assert said.code == 0
    assert said.out.splitlines()[0].startswith(f"{run}: 3 checkpoints, ")
    assert [line.split()[0] for line in lines] == ["1", "2", "3"]
    assert [line.split()[-1] for line in lines] == ["epoch", "best", "latest"]
    assert header.split()[:4] == ["#", "name", "epoch", "step"]


def test_monitored_metrics_come_first_with_their_direction(keepbest, build):
    """What decides stands before what was only logged, and says which way it improves."""
    build.save(0, train_loss=1.0, val_loss=2.0, val_acc=0.5, monitors=("val_acc", "val_loss"))
    header, line = table(keepbest("ls", build.url))
    assert header.index("val_acc (max)") < header.index("val_loss (min)") < header.index("train_loss")
    assert line.split()[4:7] == ["0.5", "2", "1"]
    assert line.endswith("best, best val_loss, latest")


def test_people_count_epochs_from_one_and_programs_from_zero(keepbest, run):
    """The table's epochs are those of the checkpoints' names; JSON's are those of Python."""
    assert table(keepbest("ls", run))[1].split()[2] == "1"
    assert keepbest("ls", run, "--json").json["checkpoints"][0]["epoch"] == 0


def test_json_is_one_documented_object(keepbest, run):
    """Programs get everything a listing knows, under names that stay."""
    said = keepbest("ls", run, "--json")
    assert (said.code, said.err, said.out.count("\n")) == (0, "", 1)
    listed = said.json
    assert {key: listed[key] for key in ("schema", "run", "best", "latest", "damaged")} == {
        "schema": "keepbest.ls/1",
        "run": run,
        "best": {"val_loss": 2},
        "latest": 3,
        "damaged": [],
    }
    second = listed["checkpoints"][1]
    assert second.pop("name").startswith("epoch-002_step-000020_")
    assert second.pop("bytes") > 48
    assert second == {
        "sequence": 2,
        "step": 20,
        "epoch": 1,
        "parent": 1,
        "time": 1_760_000_060.0,
        "reasons": ["epoch"],
        "complete": True,
        "metrics": {"train_loss": 0.5, "val_loss": 0.4},
        "scores": [{"monitor": "val_loss", "mode": "min", "value": 0.4}],
    }


def test_metrics_that_are_not_finite_are_shown_and_never_the_best(keepbest, build):
    """NaN is shown as what it is, to people and to programs, and is not marked as the best."""
    build.save(0, val_loss=float("nan"))
    build.save(1, val_loss=float("-inf"))
    build.save(2, val_loss=3.0)
    _, first, second, third = table(keepbest("ls", build.url))
    assert " nan " in first
    assert " -inf " in second
    assert third.endswith("best, latest")
    listed = keepbest("ls", build.url, "--json").json
    assert [held["metrics"]["val_loss"] for held in listed["checkpoints"]] == ["nan", "-inf", 3.0]


def test_weights_only_checkpoints_are_marked(keepbest, build):
    """A checkpoint that training cannot continue from says so, and is not the latest."""
    build.save(0, val_loss=1.0)
    build.save(1, val_loss=0.5, complete=False)
    _, first, second = table(keepbest("ls", build.url))
    assert first.endswith("latest")
    assert second.endswith("best, weights only")


def test_many_checkpoints_show_the_newest_and_the_best(keepbest, build):
    """A long run shows its newest fifty and its best, and says how to see the rest."""
    for epoch in range(60):
        build.save(epoch, data=False, val_loss=abs(epoch - 3) + 1.0)
    said = keepbest("ls", build.url)
    lines = table(said)[1:-1]
    assert [int(line.split()[0]) for line in lines] == [4, *range(11, 61)]
    assert said.out.splitlines()[-1] == "Shown are the newest 50 and the best; 9 more lines with --all."
    assert len(table(keepbest("ls", build.url, "--all"))) == 61
    assert len(keepbest("ls", build.url, "--json").json["checkpoints"]) == 60


def test_damaged_manifests_are_listed_as_damaged(keepbest, run, place):
    """A manifest that cannot be read hides neither itself nor the other checkpoints."""
    place.write("commits/00000001.json", b"junk")
    place.write("commits/00000003.json", seal(b'{"format":"9.0"}'))
    said = keepbest("ls", run)
    _, first, second, third, footer = table(said)
    assert said.code == 0
    assert first.split()[:2] == ["1", "commits/00000001.json"]
    assert first.endswith("damaged manifest")
    assert second.endswith("best, latest")
    assert third.endswith("written by a newer keepbest")
    assert footer == f"2 manifests cannot be read; see: keepbest verify {run}"
    damaged = keepbest("ls", run, "--json").json["damaged"]
    assert [(found["sequence"], found["error"]) for found in damaged] == [
        (1, "DamagedManifestError"),
        (3, UnsupportedFormatError.__name__),
    ]


def test_a_run_with_no_checkpoint_yet_is_listed_as_empty(keepbest, place):
    """A run that only logged so far is a run, and holds nothing."""
    from keepbest.storage.backend import open_backend
    from keepbest.storage.history import Row
    from keepbest.storage.journal import Journal

    journal = Journal(open_backend(place.url))
    journal.append(Row(kind="step", epoch=0, step=1, time=0.0, metrics={"loss": 1.0}))
    journal.close()
    said = keepbest("ls", place.url)
    assert (said.code, said.out) == (0, f"{place.url}: 0 checkpoints, 0 bytes\n")


def test_a_pipe_gets_every_column_and_no_colour(keepbest, local_build):
    """Where no terminal reads, nothing is cut, left out or coloured, however wide it gets."""
    metrics = {f"a_metric_with_a_long_name_{number}": float(number) for number in range(12)}
    local_build.save(0, val_loss=1.0, **metrics)
    said = keepbest("ls", local_build.url)
    assert all(name in said.out for name in metrics)
    assert len(table(said)) == 2
    assert "\x1b" not in said.out


def test_a_narrow_terminal_loses_columns_but_no_part_of_a_name(keepbest, local_run, monkeypatch):
    """In a narrow terminal the name, the monitored metric and the marks stay whole; what is left out is named."""
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "64")
    said = keepbest("ls", local_run)
    assert "epoch-003_step-000030_" in said.out
    assert "val_loss (min)" in said.out
    assert "latest" in said.out
    assert "Too narrow for: epoch, step, train_loss, size, " in said.out
    assert "…" not in said.out


@pytest.mark.parametrize("colours", [True, False])
def test_no_color_is_honoured(keepbest, local_run, monkeypatch, colours):
    """A terminal gets colours unless NO_COLOR is set."""
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "200")
    if not colours:
        monkeypatch.setenv("NO_COLOR", "1")
    assert ("\x1b[1;32m" in keepbest("ls", local_run).out) is colours


def test_names_cannot_steer_the_terminal(keepbest, local_build):
    """Control characters in a stranger's names are written out, in names of checkpoints as in names of metrics."""
    local_build.save(0, name="a\x1b]0;owned\x07\nb", monitors=("l\x9boss",), **{"l\x9boss": 1.0, "[bold]x": 2.0})
    said = keepbest("ls", local_build.url)
    assert not any(not char.isprintable() for char in said.out.replace("\n", ""))
    assert "a\\x1b]0;owned\\x07\\nb" in said.out
    assert "[bold]x" in said.out
    assert keepbest("ls", local_build.url, "--json").json["checkpoints"][0]["name"] == "a\x1b]0;owned\x07\nb"
