"""`keepbest ls`."""

import math

import pytest
from contracts.faults import CountingBackend
from contracts.stateful import Weights
from contracts.terminal import COMMAND, run_in_terminal

from keepbest import Checkpointer, CheckpointPolicy
from keepbest.cli.sparkline import Sparkline, sparkline
from keepbest.errors import UnsupportedFormatError
from keepbest.storage import backend as backends
from keepbest.storage.layout import JOURNAL, commit_key
from keepbest.storage.manifest import decode, encode, seal
from keepbest.storage.run_writer import RunWriter


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
    said = keepbest("ls", local_run).out
    assert ("\x1b[32m\x1b[1m" in said) is colours
    assert ("\x1b" in said) is colours


@pytest.mark.parametrize(
    ("environment", "colours"),
    [
        ({"FORCE_COLOR": "1", "TERM": "xterm"}, True),
        ({"FORCE_COLOR": "0", "TERM": "xterm"}, False),
        ({"FORCE_COLOR": "", "TERM": "xterm"}, False),
        ({"FORCE_COLOR": "1", "TERM": "dumb"}, False),
        ({"FORCE_COLOR": "1", "TERM": "Unknown"}, False),
    ],
)
def test_force_color_gives_a_pipe_colours_unless_the_terminal_has_none(
    keepbest, local_run, monkeypatch, environment, colours
):
    """FORCE_COLOR stands for a terminal, but for 0; TERM says what that one can."""
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert ("\x1b" in keepbest("ls", local_run).out) is colours


def test_behind_a_pager_the_terminal_is_used_to_its_width(local_run):
    """`FORCE_COLOR=1 keepbest ls … | less -R`: standard output is none, and the others say how wide it is."""
    narrow, wide = (
        run_in_terminal(COMMAND, "ls", local_run, columns=columns, redirect=True, FORCE_COLOR="1").out
        for columns in (64, 200)
    )
    assert "Too narrow for: epoch, step, train_loss, size, " in narrow
    assert "Too narrow" not in wide


def test_names_cannot_steer_the_terminal(keepbest, local_build):
    """Control characters in a stranger's names are written out, in names of checkpoints as in names of metrics."""
    local_build.save(0, name="a\x1b]0;owned\x07\nb", monitors=("l\x9boss",), **{"l\x9boss": 1.0, "[bold]x": 2.0})
    said = keepbest("ls", local_build.url)
    assert not any(not char.isprintable() for char in said.out.replace("\n", ""))
    assert "a\\x1b]0;owned\\x07\\nb" in said.out
    assert "[bold]x" in said.out
    assert keepbest("ls", local_build.url, "--json").json["checkpoints"][0]["name"] == "a\x1b]0;owned\x07\nb"


# ── the curve below the first line ────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def trained(tmp_path):
    """The path of a run of eight epochs, of which two checkpoints are left."""
    with Checkpointer(tmp_path / "run", CheckpointPolicy(monitor="val_loss"), model=Weights()) as ckpt:
        for loss in (8.0, 4.0, 3.0, 2.5, 1.0, 2.0, 3.0, 4.0):
            ckpt.log(val_loss=loss)
    return tmp_path / "run"


def test_a_terminal_shows_how_the_monitored_metric_went(trained):
    """Below the first line stands the curve of all epochs, also of those whose checkpoints are gone."""
    ran = run_in_terminal(COMMAND, "ls", trained, columns=100)
    assert ran.screen[1] == "val_loss  █▄▃▂▁▂▃▄  best 1 in epoch 5"
    assert "\x1b[32m\x1b[1m▁\x1b[0m" in ran.written


def test_the_value_that_made_it_the_best_is_told_where_it_is_smoothed(tmp_path):
    """The best by a smoothed metric need not be the lowest on the curve; both values are said."""
    policy = CheckpointPolicy(monitor="val_loss", smoothing="mean:2", keep_all=True)
    with Checkpointer(tmp_path / "run", policy, model=Weights()) as ckpt:
        for loss in (8.0, 1.0, 2.0, 4.0):
            ckpt.log(val_loss=loss)
    ran = run_in_terminal(COMMAND, "ls", tmp_path / "run", columns=100)
    assert ran.screen[1] == "val_loss  █▁▂▄  best 2 in epoch 3 (smoothed: 1.5)"


def test_the_best_on_a_way_that_was_left_keeps_its_value(tmp_path):
    """What is said beside the curve is the best checkpoint's own, not that of the epoch that took its number."""
    policy = CheckpointPolicy(monitor="val_loss", keep_all=True)
    for back, losses in ((None, [8.0, 4.0, 1.0, 2.0]), (2, [7.0, 6.0])):
        with Checkpointer(tmp_path / "run", policy, model=Weights()) as ckpt:
            if back is not None:
                ckpt.restore(back)
            for loss in losses:
                ckpt.log(val_loss=loss)
    ran = run_in_terminal(COMMAND, "ls", tmp_path / "run", columns=100)
    assert ran.screen[1] == "val_loss  █▁▇▅  best 1 in epoch 3"
    assert "\x1b[1;32m" not in ran.written.partition("best 1")[0]


def test_a_pipe_gets_no_curve(keepbest, trained):
    """What programs read has one line for each checkpoint and no drawing."""
    assert [line.split()[0] for line in table(keepbest("ls", trained))] == ["#", "5", "8"]


@pytest.mark.parametrize("how", [{"PYTHONIOENCODING": "ascii"}, {"columns": 36}], ids=["ascii", "narrow"])
def test_a_terminal_that_cannot_show_the_curve_goes_without(trained, how):
    """Where the encoding has no blocks, or a curve finds no room, the list is as it was."""
    ran = run_in_terminal(COMMAND, "ls", trained, **({"columns": 100} | how))
    assert ran.code == 0
    assert ran.screen[1].split()[0] == "#"
    assert "\\u" not in ran.written


def test_ten_thousand_checkpoints_cost_as_few_requests_as_ten(keepbest, monkeypatch, tmp_path):
    """A list is one listing and one read of the index; in a terminal on disk, the journal is one more.

    Where the journal lies in pieces, as in buckets, it is not read, and the curve is drawn from the checkpoints.
    """
    from contracts.runs import SmallRun
    from msgspec.structs import replace

    inner = backends.open_backend(str(tmp_path / "long"))
    SmallRun(inner).save()
    manifest = decode(inner.read(commit_key(1)), "x")
    for number in range(2, 10_001):
        facts = {"sequence": number, "name": f"epoch-{number:03d}_abcdef", "parent": number - 1, "epoch": number - 1}
        inner.put_if_absent(commit_key(number), encode(replace(manifest, **facts)))
    RunWriter(inner).refresh_hints()
    counted = CountingBackend(inner)
    monkeypatch.setattr(backends, "open_backend", lambda url, options: counted)
    assert keepbest("ls", "long").out.count("epoch-") == 51
    assert counted.calls == {"list": 1, "read": 1}
    monkeypatch.setenv("FORCE_COLOR", "1")
    inner.append(JOURNAL).write(b'{"branch":"a","row":0,"kind":"epoch","epoch":0,"step":1,"time":0,"metrics":{}}\n')
    counted.calls.clear()
    assert keepbest("ls", "long").code == 0
    assert counted.calls == {"list": 2, "read": 2, "head": 1}
    inner.capabilities = replace(inner.capabilities, appends=False)
    counted.calls.clear()
    assert "▅" * 30 in keepbest("ls", "long").out
    assert counted.calls == {"list": 1, "read": 1}


@pytest.mark.parametrize(
    ("values", "width", "mark", "lowest", "drawn"),
    [
        ([0, 1, 2, 3, 4, 5, 6, 7], 60, None, True, ("▁▂▃▄▅▆▇█", "", "")),
        ([7, 0, 7], 60, 1, True, ("█", "▁", "█")),
        ([3, 3, 3], 60, 0, True, ("", "▅", "▅▅")),
        ([1, math.nan, math.inf, 0], 60, 3, True, ("█  ", "▁", "")),
        ([9, 0, 9, 9, 8, 8], 3, 1, True, ("", "▁", "██")),
        ([0, 9, 0, 0, 0, 0], 3, 1, False, ("", "█", "▁▁")),
        ([1.7e308, -1.7e308], 60, None, True, ("█▁", "", "")),
        ([0.0, 5e-324], 60, None, True, ("▁█", "", "")),
        ([*range(1000)], 8, 999, False, ("▁▂▃▄▅▆▇", "█", "")),
    ],
)
def test_a_curve_in_one_line(values, width, mark, lowest, drawn):
    """Blocks stand for values, of several the best; what is not finite is a space, and the mark is cut out."""
    before, marked, after = drawn
    assert sparkline(values, width, mark, lowest=lowest) == Sparkline(before=before, mark=marked, after=after)


@pytest.mark.parametrize("values", [[], [1.0], [math.nan, math.inf, 1.0]])
def test_a_point_is_no_curve(values):
    """Fewer than two values are not drawn."""
    assert sparkline(values, 60, None, lowest=True) is None
