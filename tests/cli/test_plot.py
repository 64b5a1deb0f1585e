"""`keepbest plot`: what is drawn together, what is marked, and what stays readable where there is little room."""

import json
import math

import pytest
from contracts.stateful import Weights
from contracts.terminal import COMMAND, run_in_terminal
from hypothesis import given, settings
from hypothesis import strategies as st

from keepbest import Checkpointer, CheckpointPolicy
from keepbest.cli import curves
from keepbest.cli.panels import Curve, Panel, grouped
from keepbest.cli.plot import LOWEST, NARROWEST
from keepbest.storage.backend import open_backend
from keepbest.storage.history import Row
from keepbest.storage.journal import Journal

LOSSES = [0.9, 0.6, 0.4, 0.3, 0.35, 0.5]


@pytest.fixture
def run(tmp_path):
    """The path of a run of six epochs, of which the fourth is the best and the last the latest."""
    url = str(tmp_path / "run")
    with Checkpointer(url, CheckpointPolicy(monitor="val_loss"), model=Weights()) as ckpt:
        for epoch in ckpt.epochs(len(LOSSES)):
            for batch in range(4):
                ckpt.log_step(loss=1 / (epoch + 1) + batch / 100, grad_norm=0.1 * batch)
            ckpt.log(train_loss=0.8 / (epoch + 1), val_loss=LOSSES[epoch], lr=10.0**-epoch)
    return url


def journal(url, rows):
    """Write rows to a run that has no checkpoint."""
    written = Journal(open_backend(url))
    written.append(*rows)
    written.close()
    return url


def epochs(url, values, metric="loss"):
    """Write one value for each epoch."""
    rows = [
        Row(kind="epoch", epoch=epoch, step=epoch + 1, time=0.0, metrics={metric: value})
        for epoch, value in enumerate(values)
    ]
    return journal(url, rows)


def lines_of(said):
    """The lines of a drawing and its legend, without the first line."""
    assert said.code == 0, said.err
    return said.out.splitlines()[1:]


# ── what is drawn ─────────────────────────────────────────────────────────────────────────────────────────────────


def test_validation_and_training_are_drawn_together_with_the_best_and_the_saved(keepbest, run):
    """The monitored metric comes first, its training metric in the same drawing, and both checkpoints are marked."""
    said = keepbest("plot", run)
    legend, *drawing = lines_of(said)
    assert said.out.startswith(f"{run}: 6 epochs, 24 steps\n")
    assert legend == "⣀⡠⠊ val_loss  ··· train_loss  ● best 0.3 in epoch 4  ○ saved"
    first = "\n".join(drawing[:16])
    assert first.count("●") == 1
    assert first.count("○") == 1
    assert first.count("·") > 5
    assert any("⠀" < character <= "⣿" for character in first)


def test_the_value_that_made_it_the_best_is_told_where_it_is_smoothed(keepbest, tmp_path):
    """The best by a smoothed metric need not be the lowest on the curve; both are said, of other metrics none."""
    policy = CheckpointPolicy(monitor="val_loss", smoothing="mean:2", keep_all=True)
    with Checkpointer(tmp_path / "run", policy, model=Weights()) as ckpt:
        for loss in (8.0, 1.0, 2.0, 4.0):
            ckpt.log(val_loss=loss, other=loss)
    said = keepbest("plot", tmp_path / "run")
    assert "● best 2 in epoch 3 (smoothed: 1.5)  ○ saved" in said.out
    assert "● best by val_loss: 2 in epoch 3  ○ saved" in said.out
    panels = keepbest("plot", tmp_path / "run", "--json").json["panels"]
    assert [panel["smoothed"] for panel in panels] == [1.5, None]


def test_json_has_the_values_that_are_drawn(keepbest, run):
    """Programs get every value, with epochs from 0, and where the checkpoints stand."""
    found = keepbest("plot", run, "val_loss", "--json").json
    (panel,) = found["panels"]
    assert (found["schema"], found["run"], found["x"], found["others"]) == ("keepbest.plot/1", run, "epoch", ["lr"])
    assert panel["curve"] == {"metric": "val_loss", "x": list(range(6)), "y": LOSSES}
    assert panel["training"]["metric"] == "train_loss"
    assert panel["training"]["y"][1] == 0.4
    assert (panel["best"]["sequence"], panel["best"]["x"], panel["best"]["y"]) == (4, 3, 0.3)
    assert panel["best"]["name"].startswith("epoch-004_")
    assert [(mark["sequence"], mark["x"], mark["y"]) for mark in panel["saved"]] == [(6, 5, 0.5)]


@pytest.mark.parametrize("name", ["val_loss", "train_loss"])
def test_whichever_of_a_pair_is_named_both_are_drawn(keepbest, run, name):
    """Asking for one of two metrics that belong together draws both, with the marks on the validation metric."""
    (panel,) = keepbest("plot", run, name, "--json").json["panels"]
    assert (panel["curve"]["metric"], panel["training"]["metric"]) == ("val_loss", "train_loss")


@pytest.mark.parametrize(
    ("names", "logged", "pairs"),
    [
        (["val_loss"], ["loss", "val_loss"], [("val_loss", "loss")]),
        (["loss"], ["loss", "val_loss"], [("val_loss", "loss")]),
        (["loss", "val_loss"], ["loss", "val_loss"], [("val_loss", "loss")]),
        (["train_loss"], ["train_loss", "loss", "val_loss"], [("val_loss", "train_loss")]),
        (["loss"], ["train_loss", "loss", "val_loss"], [("loss", None)]),
        (["accuracy", "val_loss"], ["accuracy", "val_loss"], [("accuracy", None), ("val_loss", None)]),
        (["val_loss", "test_loss"], ["loss", "val_loss", "test_loss"], [("val_loss", "loss"), ("test_loss", "loss")]),
    ],
)
def test_metrics_are_paired_as_everywhere_else(names, logged, pairs):
    """A validation metric stands with the training metric that overfitting is judged by, the rest alone; none twice."""
    assert grouped(names, logged) == pairs


def test_steps_draw_what_single_steps_logged(keepbest, run):
    """Over steps, single steps' metrics have all their values, those of epochs stand at the steps that closed them."""
    found = keepbest("plot", run, "val_loss", "grad_norm", "--steps", "--json").json
    val_loss, grad_norm = found["panels"]
    assert found["x"] == "step"
    assert val_loss["curve"]["x"] == [4, 8, 12, 16, 20, 24]
    assert val_loss["best"]["x"] == 16
    assert grad_norm["curve"]["x"] == list(range(1, 25))
    legend, *drawing = lines_of(keepbest("plot", run, "grad_norm", "--steps"))
    assert "best by val_loss: 0.3 in step 16" in legend
    assert drawing[15].split() == ["step"]


def test_without_steps_nothing_is_drawn_over_them(keepbest, tmp_path):
    """Where no step was counted, all epochs would stand at step 0, and the best at any value of theirs."""
    with Checkpointer(tmp_path, CheckpointPolicy(monitor="val_loss"), model=Weights()) as ckpt:
        for epoch in ckpt.epochs(3):
            ckpt.log(val_loss=1.0 / (epoch + 1))
    said = keepbest("plot", tmp_path, "--steps")
    assert said.code == 2
    assert "no steps were counted" in said.err


def test_a_metric_of_single_steps_is_not_said_to_be_missing(keepbest, run):
    """Whoever names a metric that only steps logged is told how to draw it."""
    said = keepbest("plot", run, "grad_norm")
    assert (said.code, said.out) == (2, "")
    assert "'grad_norm' was logged by single steps only: draw it with --steps" in said.err


def test_a_run_that_logged_only_steps_is_drawn_over_steps(keepbest, tmp_path):
    """Where no epoch was closed yet, there are curves all the same."""
    rows = [Row(kind="step", epoch=0, step=step, time=0.0, metrics={"loss": 1 / step}) for step in range(1, 9)]
    found = keepbest("plot", journal(tmp_path, rows), "--json").json
    assert (found["x"], found["panels"][0]["curve"]["x"]) == ("step", list(range(1, 9)))


def test_an_unknown_metric_is_answered_with_those_there_are(keepbest, run):
    """A mistyped metric is wrong usage, with the one that was meant."""
    said = keepbest("plot", run, "val_los")
    assert (said.code, said.out) == (2, "")
    assert "no metric 'val_los'" in said.err
    assert "Did you mean 'val_loss'?" in said.err


def test_many_metrics_are_not_all_drawn_unless_named(keepbest, tmp_path):
    """A run of many metrics shows four drawings and names the rest; those that are asked for are all drawn."""
    metrics = {f"m{number}": 1.0 for number in range(7)}
    rows = [Row(kind="epoch", epoch=epoch, step=epoch, time=0.0, metrics=metrics) for epoch in range(2)]
    url = journal(tmp_path, rows)
    said = keepbest("plot", url)
    assert said.out.splitlines()[-1] == "Not drawn: m4, m5, m6. Name the metrics to see others."
    assert said.out.count("⣀⡠⠊") == 4
    assert keepbest("plot", url, *metrics).out.count("⣀⡠⠊") == 7


def test_a_run_without_checkpoints_or_rows_draws_what_there_is(keepbest, tmp_path, local_build):
    """Curves need no checkpoints, and a run that logged nothing is no error."""
    (legend, *_) = lines_of(keepbest("plot", epochs(tmp_path / "rows", [0.3, 0.2])))
    assert legend == "⣀⡠⠊ loss"
    local_build.save(0, val_loss=1.0)
    said = keepbest("plot", local_build.url)
    assert (said.code, said.out) == (0, f"{local_build.url}: 0 epochs, 0 steps\n")
    assert keepbest("plot", local_build.url, "--json").json["panels"] == []


# ── values ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_values_that_are_not_finite_are_gaps(keepbest, tmp_path):
    """A NaN interrupts the line, and an infinity does not bend the scale; JSON has both by name."""
    url = epochs(tmp_path, [1.0, 1.0, 1.0, math.nan, math.inf, 1.0, 1.0, 1.0])
    _, *drawing = lines_of(keepbest("plot", url))
    (line,) = [row for row in drawing if any("⠀" < character <= "⣿" for character in row)]
    left, gap, right = (part for part in line.partition(" " * 20))
    assert "⣀" in left or "⠤" in left or "⠒" in left or "⠉" in left
    assert any("⠀" < character <= "⣿" for character in right), gap
    assert keepbest("plot", url, "--json").json["panels"][0]["curve"]["y"][3:5] == ["nan", "inf"]


@pytest.mark.parametrize("values", [[math.nan, math.nan], [-1.0, 0.0]], ids=["not finite", "not above 0"])
def test_a_metric_without_a_drawable_value_says_so(keepbest, tmp_path, values):
    """Where nothing can be drawn the drawing says so instead of failing."""
    said = keepbest("plot", epochs(tmp_path, values), "--log")
    assert said.code == 0
    assert "no value that can be drawn" in said.out


@pytest.mark.parametrize(
    "values",
    [
        [5.0],
        [0.0, 0.0],
        [1e308, -1e308],
        [1.0000000000000002],
        [0.0, 1.0000000000000002],
        [1.0, 1.0000000000000002],
        [1e-300, 1.0000000000000002e-300],
        [0.3, 0.3001],
        [5e-324, 1e-323],
        [1e-320],
        [1e16, 1e16 + 2],
        [1.7e308, 1.7e308],
        [-3e-9, 4e-9],
        [123456789.25, 123456789.5],
    ],
)
@pytest.mark.parametrize("scale", [[], ["--log"]])
def test_every_finite_value_can_be_drawn(keepbest, tmp_path, values, scale):
    """The largest, the smallest and the closest floats are drawn, with numbers at the side that differ."""
    said = keepbest("plot", epochs(tmp_path, values), *scale)
    assert (said.code, said.err) == (0, "")
    sides = [line.partition("┤")[0].strip() for line in said.out.splitlines() if "┤" in line]
    assert len(sides) == len(set(sides))


def test_an_epoch_that_no_float_can_hold_is_passed_over(keepbest, tmp_path):
    """A stranger's journal may hold any number; what can be drawn is."""
    url = epochs(tmp_path, [1.0, 2.0])
    file = tmp_path / "metrics.jsonl"
    last = json.loads(file.read_text().splitlines()[-1])
    file.write_text(f"{file.read_text()}{json.dumps(last | {'row': 2, 'epoch': 10**400, 'step': 10**400})}\n")
    for axis in ([], ["--steps"]):
        said = keepbest("plot", url, *axis)
        assert (said.code, said.err) == (0, "")
        assert "no value" not in said.out


@pytest.mark.parametrize("axis", [[], ["--steps"]], ids=["epochs", "steps"])
def test_the_best_on_a_way_that_was_left_keeps_its_value(keepbest, tmp_path, axis):
    """The best stands at what was logged with it, beside the curve of the way that was taken; so does what is saved."""
    policy = CheckpointPolicy(monitor="val_loss", keep_all=True)
    for back, losses in ((None, [3.0, 2.5, 0.5, 2.6]), (2, [2.7])):
        with Checkpointer(tmp_path, policy, model=Weights()) as ckpt:
            if back is not None:
                ckpt.restore(back)
            for loss in losses:
                ckpt.log_step()
                ckpt.log(val_loss=loss)
    (panel,) = keepbest("plot", tmp_path, "val_loss", *axis, "--json").json["panels"]
    shift = 1 if axis else 0
    assert panel["curve"]["y"] == [3.0, 2.5, 2.7]
    assert (panel["best"]["x"], panel["best"]["y"]) == (2 + shift, 0.5)
    assert [(mark["sequence"], mark["x"], mark["y"]) for mark in panel["saved"]] == [
        (1, shift, 3.0), (2, 1 + shift, 2.5), (4, 3 + shift, 2.6), (5, 2 + shift, 2.7)
    ]  # fmt: skip
    assert sum(line.count("●") for line in lines_of(keepbest("plot", tmp_path, "val_loss", *axis))[1:]) == 1


def test_a_checkpoint_within_an_epoch_on_a_way_that_was_left_is_on_no_curve(keepbest, tmp_path):
    """It has no value of its own, and that of the way that was taken is not its."""
    policy = CheckpointPolicy(every_n_epochs=None, every_n_steps=2, at_end=False, keep_all=True)
    with Checkpointer(tmp_path, policy, model=Weights()) as ckpt:
        for value in (4.0, 3.0, 2.0, 1.0):
            ckpt.log_step(loss=value)
        ckpt.restore(1)
        for value in (6.0, 7.0):
            ckpt.log_step(loss=value)
    (panel,) = keepbest("plot", tmp_path, "loss", "--steps", "--json").json["panels"]
    assert panel["curve"]["y"] == [4.0, 3.0, 6.0, 7.0]
    assert [(mark["sequence"], mark["x"], mark["y"]) for mark in panel["saved"]] == [(1, 2, 3.0), (3, 4, 7.0)]


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_a_drawing_has_its_size_whatever_is_drawn(data):
    """Every line is as wide as the drawing, and at the side stand two numbers at least, none of them twice."""
    values = st.lists(st.floats() | st.floats(1e9, 1e9 + 1e-5) | st.sampled_from([0.0, 1.7e308, 5e-324]), max_size=30)
    places = st.lists(st.integers(0, 50) | st.sampled_from([2**53 - 1, 2**53, 10**400]), min_size=30, max_size=30)
    drawn = [
        Curve(metric="m", x=sorted(data.draw(places))[: len(y)], y=y) for y in data.draw(st.tuples(values, values))
    ]
    width, height = data.draw(st.integers(NARROWEST, 200)), data.draw(st.integers(LOWEST, 40))
    logarithmic = data.draw(st.booleans())
    panel = Panel(curve=drawn[0], training=drawn[1], best=None, best_by="", smoothed=None, saved=())
    for pens in (curves.FINE, curves.COARSE):
        lines = curves.draw(panel, pens, width=width, height=height, logarithmic=logarithmic, over_steps=True)
        assert not lines or [len(line) for line in lines] == [width] * height
        sides = [line.partition(pens.frame.left)[0].strip() for line in lines if pens.frame.left in line]
        assert not lines or len(set(sides)) == len(sides) > 1 or pens is curves.COARSE


def test_log_draws_powers_of_ten_equally_far_apart(keepbest, run):
    """On the logarithmic scale what falls tenfold each epoch is a straight line, with powers at the side."""
    _, *drawing = lines_of(keepbest("plot", run, "lr", "--log"))
    powers = {row.split("┤")[0].strip(): number for number, row in enumerate(drawing) if "┤" in row}
    assert {"1e-4", "1e-2", "1e0"} <= set(powers)
    assert powers["1e-4"] - powers["1e-2"] == pytest.approx(powers["1e-2"] - powers["1e0"], abs=1)


def test_a_long_run_is_thinned_to_the_extremes_of_each_column():
    """Of 100,000 values no more than a few for each column are drawn, and the highest and the lowest are among them."""
    values = [math.sin(number / 50) for number in range(100_000)]
    values[54_321], values[54_322] = 9.0, -9.0
    places = curves._places(values, 160, logarithmic=False)
    assert len(places) <= 320
    assert {54_321, 54_322} <= set(places)
    assert places == sorted(places)


def test_a_gap_that_fills_a_column_stays_one_however_long_the_run():
    """Thinning does not draw a line across a stretch where nothing was finite."""
    values = [1.0] * 1000
    values[300:500] = [math.nan] * 200
    values[700:750] = [-1.0] * 50
    assert curves._places(values, 100, logarithmic=False).count(None) == 20
    assert curves._places(values, 100, logarithmic=True).count(None) == 25


# ── where it is drawn ─────────────────────────────────────────────────────────────────────────────────────────────


def test_without_a_terminal_it_is_plain_text_of_80_columns(keepbest, run):
    """A pipe gets no colours, and lines that fit everywhere."""
    said = keepbest("plot", run)
    assert "\x1b" not in said.out
    assert max(map(len, lines_of(said))) == 80


@pytest.mark.parametrize("columns", [40, 60, 100])
def test_a_terminal_is_used_to_its_width_and_no_line_is_longer(run, columns):
    """Drawings are as wide as the terminal, down to 40 columns, one under another."""
    ran = run_in_terminal(COMMAND, "plot", run, columns=columns)
    assert ran.code == 0
    assert "\x1b[" in ran.written
    drawing = [line for line in ran.screen if "│" in line or "┤" in line]
    assert max(map(len, drawing)) == columns
    assert max(len(line) for line in ran.screen[1:]) <= columns
    assert sum("┌" in line for line in ran.screen) == 2


def test_a_wide_terminal_has_drawings_side_by_side(run):
    """Where two drawings fit beside one another they stand so, each under its own legend."""
    ran = run_in_terminal(COMMAND, "plot", run, columns=130)
    assert ran.code == 0
    (top,) = [line for line in ran.screen if "┌" in line]
    assert top.count("┌") == 2
    assert ran.screen[1].index("lr") > 64
    assert max(map(len, ran.screen)) <= 130


def test_a_terminal_that_is_too_narrow_gets_a_sentence(run):
    """Below 40 columns nothing is drawn, and the message says what to do."""
    ran = run_in_terminal(COMMAND, "plot", run, columns=39)
    assert ran.code == 2
    assert "curves need 40 columns, and here are 39" in " ".join(ran.written.split())
    assert "┌" not in ran.written


def test_no_color_is_honoured(run):
    """With NO_COLOR the terminal gets the same drawing, in no colour; lines differ all the same."""
    coloured = run_in_terminal(COMMAND, "plot", run, columns=80)
    plain = run_in_terminal(COMMAND, "plot", run, columns=80, NO_COLOR="1")
    drawn = [line for line in coloured.written.splitlines() if "│" in line or "┤" in line]
    assert sum("\x1b[94m" in line for line in drawn) > 5
    assert any("\x1b[33m·" in line for line in drawn)
    assert any("\x1b[92m●" in line for line in drawn)
    assert not any("m○" in line.replace("\x1b[0m", "") for line in drawn)
    assert "\x1b" not in plain.written
    assert plain.screen == coloured.screen


def test_an_output_of_ascii_is_drawn_in_ascii(run):
    """Where the encoding has no dots and frames, letters and dashes do."""
    ran = run_in_terminal(COMMAND, "plot", run, "val_loss", columns=80, PYTHONIOENCODING="ascii")
    assert ran.code == 0
    assert ran.written.isascii()
    assert "\\u" not in ran.written
    assert ran.screen[1] == "*** val_loss  ... train_loss  @ best 0.3 in epoch 4  o saved"
    assert sum(line.count("@") for line in ran.screen) == 2


def test_width_and_height_can_be_given(keepbest, run):
    """Both sizes can be set, and are refused where they are too small."""
    legend, *drawing = lines_of(keepbest("plot", run, "val_loss", "--width", 50, "--height", 9))
    assert [len(legend) <= 60, len(drawing), max(map(len, drawing))] == [True, 10, 50]
    for option in (["--width", 39], ["--height", 7]):
        assert keepbest("plot", run, *option).code == 2


def test_names_cannot_steer_the_terminal(keepbest, tmp_path):
    """Control characters in a stranger's metric are written out, also where two legends stand side by side."""
    evil = "l\x1b]0;owned\x07oss\n\x9b2J"
    url = epochs(tmp_path, [1.0, 2.0], metric=evil)
    for words in (["--width", 130], [evil], ["missing"]):
        said = keepbest("plot", url, *words)
        text = said.out + said.err
        assert "\\x1b]0;owned\\x07oss\\n\\x9b2J" in text
        assert not any(not character.isprintable() for character in text.replace("\n", ""))
    assert keepbest("plot", url, "--json").json["panels"][0]["curve"]["metric"] == evil
