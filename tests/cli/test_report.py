"""`keepbest report`, as far as it can be seen without a browser; tests/browser opens it in one."""

import base64
import hashlib
import itertools
import json
import math
import os
import subprocess
import sys
import time
from html.parser import HTMLParser

import pytest
from contracts import trained
from contracts.stateful import Weights
from hypothesis import given
from hypothesis import strategies as st

from keepbest import Checkpointer, CheckpointPolicy, open_run
from keepbest.cli import words
from keepbest.cli.page import curves, saving, text
from keepbest.cli.page.overfit import overfit
from keepbest.storage.backend import open_backend
from keepbest.storage.history import Row
from keepbest.storage.journal import Journal
from keepbest.storage.notes import Began, Check, Decided, Ended, Saved, SaveFailed, WentBack

HOSTILE = '</script><script>hacked=1</script><!--<img src=x onerror="hacked=1">\u2028\u202e&amp;'
VOID = {"meta", "link", "br"}


class Read(HTMLParser):
    """What a report holds: every element with its attributes and the text in it."""

    def __init__(self, page):
        super().__init__(convert_charrefs=True)
        self.elements, self._open = [], []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.elements.append([tag, dict(attributes), ""])
        if tag not in VOID:
            self._open.append(self.elements[-1])

    def handle_endtag(self, tag):
        assert self._open.pop()[0] == tag

    def handle_data(self, data):
        for element in self._open:
            element[2] += data

    def of(self, tag, **attributes):
        return [
            element for element in self.elements
            if element[0] == tag and all(element[1].get(name) == value for name, value in attributes.items())
        ]  # fmt: skip

    def texts(self, tag, **attributes):
        return [" ".join(element[2].split()) for element in self.of(tag, **attributes)]

    @property
    def data(self):
        return json.loads(self.of("script", type="application/json")[0][2])

    def table(self, caption):
        """The cells of each line of a table below its heading."""
        (found,) = [element for element in self.of("table") if element[2].strip().startswith(caption)]
        inside = self.elements[self.elements.index(found) :]
        lines = []
        for tag, _, held in inside[1:]:
            if tag == "table":
                break
            if tag == "tr":
                lines.append([])
            elif tag in {"td", "th"}:
                lines[-1].append(held.strip())
        return lines


@pytest.fixture
def read(keepbest, tmp_path):
    """Write the report of some runs and return what it holds."""

    def write(*urls):
        path = tmp_path / "page.html"
        said = keepbest("report", *urls, "-o", path)
        assert (said.code, said.err) == (0, "")
        return Read(path.read_text(encoding="utf-8"))

    return write


@pytest.fixture
def journal(tmp_path):
    """Write entries to the journal of a run on disk and return its URL."""

    def write(*entries, name="logged"):
        writer = Journal(open_backend(str(tmp_path / name)))
        writer.append(*entries)
        writer.close()
        return str(tmp_path / name)

    return write


def row(epoch=0, *, kind="epoch", **metrics):
    return Row(kind=kind, epoch=epoch, step=(epoch + 1) * 10, time=1.7e9 + epoch, metrics=metrics)


def at(epoch, time=0.0):
    return {"time": 1.7e9 + epoch + time, "epoch": epoch, "step": (epoch + 1) * 10}


def check(value, **facts):
    usual = {"monitor": "val_loss", "mode": "min", "value": value, "judged": value, "reason": "so", "best": value}
    rest = {"best_epoch": 0, "wait": 0, "improved": False, "stop": False, "eligible": True}
    return Check(**usual | rest | facts)


# ── the file ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_report_goes_to_the_current_folder_unless_told_otherwise(keepbest, local_run, tmp_path, monkeypatch):
    """Without -o the report is report.html where one is, and the command says so with its size."""
    monkeypatch.chdir(tmp_path)
    said = keepbest("report", local_run)
    written = (tmp_path / "report.html").read_bytes()
    assert (said.code, said.err) == (0, "")
    assert said.out == f"Wrote report.html ({words.size(len(written))}): 1 run, 0 charts.\n"
    assert written.startswith(b"<!DOCTYPE html>")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["report.html", "run"]


def test_a_report_is_written_for_a_run_anywhere(keepbest, run, tmp_path):
    """Any URL that holds a run gets its report: in a bucket as on disk."""
    said = keepbest("report", run, "-o", tmp_path / "page.html")
    page = Read((tmp_path / "page.html").read_text(encoding="utf-8"))
    assert (said.code, said.err) == (0, "")
    lines = page.table("Checkpoints")[1:]
    assert [line[0] for line in lines] == ["1", "2", "3"]
    weights = open_run(run).get(2).manifest().artifacts["model.safetensors"]
    assert lines[1][-2:] == ["model.safetensors", weights.digest]


def test_standard_output_gets_the_report_and_nothing_else(keepbest, local_run, tmp_path, monkeypatch):
    """With -o - the report can be piped, and no file is written."""
    monkeypatch.chdir(tmp_path)
    said = keepbest("report", local_run, "-o", "-")
    assert (said.code, said.err) == (0, "")
    assert said.out.startswith("<!DOCTYPE html>")
    assert said.out.rstrip().endswith("</html>")
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


@pytest.mark.parametrize("word", ["--json", "--open"])
def test_standard_output_takes_one_thing(keepbest, local_run, word):
    """What else would be printed or opened cannot be asked for together with -o -."""
    said = keepbest("report", local_run, "-o", "-", word)
    assert (said.code, said.out) == (2, "")
    assert "leave out --json and --open" in said.err


def test_json_says_what_was_written(keepbest, tmp_path):
    """Programs learn where the report is, how large it is, and what is in it."""
    url = trained.overfitted(str(tmp_path / "run"))
    path = tmp_path / "page.html"
    said = keepbest("report", url, "-o", path, "--json")
    assert (said.code, said.err, said.out.count("\n")) == (0, "", 1)
    (found,) = said.json.pop("runs")
    assert {key: value for key, value in said.json.items() if key != "runs"} == {
        "schema": "keepbest.report/1",
        "path": str(path),
        "bytes": path.stat().st_size,
        "charts": 4,
    }
    assert found.pop("notes") > 24
    assert found == {"run": url, "checkpoints": 3, "rows": 4 * 12, "damaged": 0}


def test_a_file_that_is_no_report_is_left_as_it_is(keepbest, local_run, tmp_path):
    """Whoever mistypes the name of a file loses nothing, unless they insist."""
    path = tmp_path / "thesis.html"
    path.write_text("<!DOCTYPE html>mine")
    said = keepbest("report", local_run, "-o", path)
    assert (said.code, said.out) == (2, "")
    assert "is no report of keepbest" in said.err
    assert "--force" in said.err
    assert path.read_text() == "<!DOCTYPE html>mine"
    assert keepbest("report", local_run, "-o", path, "--force").code == 0
    assert "<title>run: keepbest report</title>" in path.read_text(encoding="utf-8")


def test_a_report_is_replaced_by_a_newer_one(keepbest, local_build, tmp_path):
    """Making the report again needs no other word."""
    path = tmp_path / "page.html"
    local_build.save(0, val_loss=1.0)
    assert keepbest("report", local_build.url, "-o", path).code == 0
    local_build.save(1, val_loss=0.5)
    assert keepbest("report", local_build.url, "-o", path).code == 0
    assert len(Read(path.read_text(encoding="utf-8")).table("Checkpoints")) == 3


@pytest.mark.parametrize("force", [(), ("--force",)])
def test_what_is_no_file_is_never_replaced(keepbest, local_run, tmp_path, force):
    """A folder, a device and a folder that is missing are refused, whatever one insists on."""
    for target, why in (
        (tmp_path, "is a folder"),
        ("/dev/null", "is no file that can be replaced"),
        (tmp_path / "missing" / "page.html", "its folder does not exist"),
    ):
        said = keepbest("report", local_run, "-o", target, *force)
        assert (said.code, said.out) == (2, "")
        assert why in said.err
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_a_place_without_a_run_gets_no_report(keepbest, local_run, tmp_path):
    """One URL that holds no run is an error, and no half of a report is written."""
    said = keepbest("report", local_run, tmp_path / "nothing", "-o", tmp_path / "page.html")
    assert (said.code, said.out) == (2, "")
    assert "holds no run" in said.err
    assert not (tmp_path / "page.html").exists()


def test_without_minijinja_the_command_says_how_to_get_it(local_run, tmp_path):
    """Where the report's own package is missing, the message names what to install, and nothing is written."""
    code = "import sys; sys.modules['minijinja'] = None; from keepbest.cli import main; sys.exit(main(sys.argv[1:]))"
    words = ["report", local_run, "-o", str(tmp_path / "page.html")]
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert 'pip install "keepbest[report]"' in done.stderr
    assert not (tmp_path / "page.html").exists()


def test_open_shows_the_report_in_the_browser(local_run, tmp_path):
    """--open gives the browser the report's address."""
    browser, told = tmp_path / "browser", tmp_path / "told"
    browser.write_text(f'#!/bin/sh\necho "$1" > {told}\n')
    browser.chmod(0o755)
    page = tmp_path / "my page.html"
    done = subprocess.run(
        [sys.executable, "-m", "keepbest", "report", local_run, "-o", str(page), "--open"],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "BROWSER": str(browser)},
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert told.read_text() == f"{page.as_uri()}\n"


# ── safe to open ──────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_page_may_run_its_own_script_and_ask_for_nothing(read, local_run):
    """The content security policy lets through what stands in the file, by its digest, and no request at all."""
    page = read(local_run)
    (csp,) = [element[1]["content"] for element in page.of("meta") if "http-equiv" in element[1]]
    rules = dict(rule.split(" ", 1) for rule in csp.split("; "))

    def digest(held):
        return f"'sha256-{base64.b64encode(hashlib.sha256(held.encode()).digest()).decode()}'"

    scripts = [element[2] for element in page.of("script") if "type" not in element[1]]
    assert rules == {
        "default-src": "'none'",
        "script-src": " ".join(map(digest, scripts)),
        "style-src": " ".join(digest(element[2]) for element in page.of("style")),
        "img-src": "data:",
        "base-uri": "'none'",
        "form-action": "'none'",
    }
    for tag, attributes, _ in page.elements:
        assert not any(name.startswith("on") or name in {"style", "src", "action"} for name in attributes), tag
        assert attributes.get("href", "data:,") == "data:,"


def test_strangers_text_is_shown_and_never_read_as_html(read, journal, local_build):
    """Names, errors, hosts, reasons and policies of a stranger's run become text, whatever they are made of."""
    name = HOSTILE.replace("/", "|")
    local_build.save(0, name=name, monitors=(HOSTILE,), versions={HOSTILE: HOSTILE}, **{HOSTILE: 1.0})
    judged = check(1.0, monitor=HOSTILE, reason=HOSTILE, stop=True)
    writer = Journal(open_backend(local_build.url))
    writer.append(
        Began(checkpoint=None, policy={HOSTILE: HOSTILE}, host=HOSTILE, versions={HOSTILE: HOSTILE}, **at(0)),
        row(0, **{HOSTILE: 1.0, f"val_{HOSTILE}": 1.0}),
        Decided(event="epoch", checkpoint=name, checks=(judged,), **at(0)),
        Saved(checkpoint=HOSTILE, sequence=1, nbytes=1, blocked=0.1, seconds=0.2, **at(0)),
        SaveFailed(checkpoint=HOSTILE, error=HOSTILE, **at(0)),
        WentBack(checkpoint=HOSTILE, **at(0)),
        Ended(cause="exception", error=HOSTILE, **at(0)),
    )
    writer.close()
    plain = read(journal(row(0, a=1.0, val_a=1.0), row(1, a=1.0, val_a=2.0)), journal(row(0, a=1.0), name="other"))
    page = read(local_build.url, journal(row(0, **{HOSTILE: 1.0}), name="<img src=x>&"))
    kinds = {element[0] for element in plain.elements}
    assert {element[0] for element in page.elements} <= kinds | {"code"}
    assert len(page.of("script")) == 2
    shown = HOSTILE.replace("\u2028", "\\u2028").replace("\u202e", "\\u202e")
    assert f"{text.shown(HOSTILE)}" == shown
    everything = " ".join(element[2] for element in page.of("body"))
    assert everything.count(shown) > 10
    assert "\u2028" not in everything
    assert "\u202e" not in everything
    names = [one["name"] for one in page.data["charts"][0]["series"]]
    assert names == [f"run: val_{shown}", f"run: {shown}", f"<img src=x>&: {shown}"]
    assert page.data["runs"][1]["name"] == "<img src=x>&"
    raw = page.of("script", type="application/json")[0][2]
    assert not set("<>&") & set(raw)


def test_numbers_no_program_can_hold_do_not_end_the_report(read, journal, tmp_path):
    """A stranger's journal with endless counts and huge values still gives a report."""
    url = journal(row(0, loss=1.0), row(1, loss=float("nan")), row(2, loss=1e300), row(3, loss=2.0))
    file = tmp_path / "logged" / "metrics.jsonl"
    last = json.loads(file.read_text().splitlines()[-1])
    endless = last | {"row": 4, "epoch": 10**400, "step": 10**400}
    file.write_text(f"{file.read_text()}{json.dumps(endless)}\n")
    assert read(url).table("The curves in figures")[1][:3] == ["loss", "4", "2"]
    assert read(url, journal(row(0, loss=1.0), name="other")).table("Runs")[1][:3] == ["logged", "5", f"{10**400:,}"]
    assert read(journal(row(0, loss=float("inf")), name="infinite")).texts("p", id="says-0") == [
        "loss has 1 value, none of which can be drawn."
    ]


def test_spans_no_clock_can_measure_do_not_end_the_report(read, journal):
    """A stranger's notes with saves that took for ever, or no time at all, still give a report."""
    spans = [(1e308, 1e308), (1e308, 1e308), (0.0, 5e-324)]
    saves = [
        Saved(checkpoint=f"{number}", sequence=number, nbytes=100, blocked=blocked, seconds=seconds, **at(0))
        for number, (blocked, seconds) in enumerate(spans)
    ]
    assert read(journal(*saves, row())).texts("dd")
    page = read(journal(saves[-1], row(), name="quick"))
    assert "until durable" in page.texts("dt")
    assert not any(told.endswith("/s") for told in page.texts("dd"))
    ends = [Began(checkpoint=None, epoch=0, step=0, time=time) for time in (-8e307, 8e307)]
    ends.insert(1, row())
    assert read(journal(saves[-1], *ends, *ends, name="long")).texts("dd")


def test_the_page_says_of_a_damaged_journal_that_it_is_incomplete(read, journal, tmp_path):
    """Curves with a gap are not shown as if they were whole."""
    url = journal(row(0, val_loss=0.5), row(1, val_loss=0.4), row(2, val_loss=0.3))
    path = tmp_path / "logged" / "metrics.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(["junk\n", lines[0], lines[2]]))
    told = "1 line of its journal cannot be read and at least 1 row is missing, so what is told here is incomplete."
    assert told in read(url).texts("p")


def test_the_best_on_a_way_that_was_left_has_no_star_on_another(read, tmp_path):
    """Where training went back and left the best behind, no star stands on the curve of the way that was taken."""
    policy = CheckpointPolicy(monitor="val_loss", keep_all=True)
    for back, losses in ((None, [3.0, 2.5, 0.5]), (2, [2.7])):
        with Checkpointer(tmp_path / "run", policy, model=Weights()) as ckpt:
            if back is not None:
                ckpt.restore(back)
            for loss in losses:
                ckpt.log(val_loss=loss)
    page = read(str(tmp_path / "run"))
    assert [(chart["series"][0]["y"], chart["best"]) for chart in page.data["charts"]] == [([3.0, 2.5, 2.7], [])]
    assert any(told.startswith("0.5 at epoch 3: ") for told in page.texts("dd"))


# ── what it says ──────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def trained_page(tmp_path_factory):
    """The report of a run that crashed, was resumed, overfitted and was stopped."""
    from keepbest.cli.page import data, page

    url = trained.overfitted(str(tmp_path_factory.mktemp("runs") / "digits"))
    return Read(page.render(data.page_of(data.read_all([url], {}))))


def test_training_and_validation_share_a_chart_with_their_gap_below(trained_page):
    """Curves that belong together are drawn together, those that are monitored first."""
    assert trained_page.texts("h3")[:4] == [
        "val_loss and train_loss",
        "Generalisation gap: how much worse val_loss is than train_loss",
        "learning_rate",
        "loss, by step",
    ]
    first, gap, *_ = trained_page.data["charts"]
    assert [(one["name"], one["dash"], len(one["x"])) for one in first["series"]] == [
        ("val_loss", 0, 12),
        ("train_loss", 1, 12),
    ]
    assert gap["series"][0]["y"][:2] == pytest.approx([0.75 - 1, 0.66 - 0.5])


def test_best_saved_resumed_and_stopped_are_marked_where_they_happened(trained_page):
    """The marks stand at the epochs, from 1, at which things happened."""
    data = trained_page.data
    assert data["charts"][0]["best"] == [[0, trained.BEST + 1, 0.5]]
    marks = data["runs"][0]["events"]["epoch"]
    assert marks["lines"] == [[4, "CrashError"], [4.5, "resumed"], [trained.STOPPED + 1, "stopped"]]
    assert sorted(marks["saved"] + marks["retired"]) == list(range(1, trained.STOPPED + 2))
    assert marks["saved"] == [6, 11, 12]
    assert data["runs"][0]["events"]["step"]["saved"] == [18, 33, 36]


def test_overfitting_is_shaded_since_the_best(trained_page):
    """The stretch in which validation worsened while training improved is shaded and named."""
    assert trained_page.data["charts"][0]["shade"] == [[0, 6, trained.STOPPED + 1]]
    said = trained_page.texts("p", id="says-0")[0]
    assert "Overfitting by val_loss, shaded: first seen at epoch 9, and lasting since its best, at epoch 6." in said


def test_every_chart_says_in_words_what_it_shows(trained_page):
    """Whoever cannot see a chart reads what its curves do, and has the figures as a table."""
    said = trained_page.texts("p", id="says-0")[0]
    assert said.startswith(
        "val_loss goes from 0.75 at epoch 1 to 0.86 at epoch 12; its lowest is 0.5 at epoch 6, its highest 0.86 at "
        "epoch 12."
    )
    charts = trained_page.of("div", role="application")
    ids = {element[1].get("id") for element in trained_page.elements}
    assert len(charts) == 4
    for _, attributes, _ in charts:
        assert {attributes["aria-labelledby"], attributes["aria-describedby"]} <= ids
    assert trained_page.texts("caption").count("The curves in figures") == 4


def test_checkpoints_are_listed_with_their_digests(trained_page, tmp_path):
    """Each checkpoint has its facts, its marks, and the digest of its file of weights."""
    heading, best, _, latest = trained_page.table("Checkpoints")
    facts = dict(zip(heading, best, strict=True))
    assert (facts["#"], facts["marks"], facts["epoch"], facts["step"]) == ("6", "best", "6", "18")
    assert (facts["val_loss (min)"], facts["train_loss"]) == ("0.5", "0.166667")
    assert facts["why"] == "epoch, improvement"
    assert (facts["file of weights"], facts["its digest"][:9]) == ("state.json", "xxh3-128:")  # it is that small
    assert dict(zip(heading, latest, strict=True))["marks"] == "latest"


def test_the_story_and_the_policy_are_told_in_words(trained_page):
    """What happened reads in sentences: where it began, was resumed and ended, and by what rules."""
    titles = trained_page.texts("h4")
    assert {"Training", "Best", "Overfitting", "End", "Policy"} <= set(titles)
    said = " ".join(trained_page.texts("p"))
    assert "by 2 processes." in said
    assert "It was resumed from epoch-004" in said
    assert "val_loss did not improve for 6 checks since epoch 6." in said
    assert "Stops after 6 checks of val_loss without improvement." in said
    assert " ago" not in said


def test_time_spent_saving_is_added_up(trained_page):
    """Each save is listed, and all together are a share of training time."""
    facts = dict(zip(trained_page.texts("dt"), trained_page.texts("dd"), strict=True))
    assert facts["saves"].startswith("12, ")
    assert facts["training blocked"].endswith(" at most")
    assert "% of " in facts["share of training time"]
    assert len(trained_page.table("Saves")) == 13


def test_a_run_without_notes_says_so_instead_of_guessing(read, local_build, journal):
    """Of a run that a keepbest without notes wrote, the report says what is not known."""
    local_build.save(0, val_loss=0.5)
    writer = Journal(open_backend(local_build.url))
    writer.append(row(0, val_loss=0.5, train_loss=0.4), row(1, val_loss=0.6, train_loss=0.3))
    writer.close()
    page = read(local_build.url)
    said = " ".join(page.texts("p"))
    assert "This run has no decision notes: a keepbest that kept none wrote it." in said
    assert "This run has no decision notes, so what saving cost is not known." in said
    assert page.data["charts"][0]["best"] == [[0, 1, 0.5]]
    assert page.data["runs"][0]["events"]["epoch"]["lines"] == []


def test_damaged_checkpoints_are_named(read, local_run, tmp_path):
    """A checkpoint that cannot be read is named, and hides no other."""
    (tmp_path / "run" / "commits" / "00000002.json").write_bytes(b"junk")
    page = read(local_run)
    (problem,) = page.texts("p", **{"class": "problem"})
    assert problem.startswith("Checkpoint number 2 cannot be read: ")
    assert [line[0] for line in page.table("Checkpoints")[1:]] == ["1", "3"]


def test_several_runs_stand_side_by_side(read, tmp_path):
    """The same metric of several runs shares a chart, and a table compares their best values."""
    one = trained.overfitted(str(tmp_path / "one"))
    two = trained.overfitted(str(tmp_path / "two"), shift=0.1)
    page = read(one, two, one)
    first = page.data["charts"][0]
    assert [(series["run"], series["name"], series["colour"]) for series in first["series"]] == [
        (0, "one: val_loss", 0),
        (0, "one: train_loss", 0),
        (1, "two: val_loss", 1),
        (1, "two: train_loss", 1),
    ]
    heading, *lines = page.table("Runs")
    compared = [dict(zip(heading, line, strict=True)) for line in lines]
    assert [(line["run"], line["best val_loss (min)"], line["at epoch"]) for line in compared] == [
        ("one", "0.5", "6"),
        ("two", "0.6", "6"),
    ]
    assert [button[1]["data-run"] for button in page.of("button") if "data-run" in button[1]] == ["0", "1"]
    assert len(page.of("div", **{"class": "legend"})) == 1


def test_runs_of_the_same_name_are_told_apart(tmp_path):
    """Two runs whose folders have one name go by their whole URLs."""
    assert text.labels(["a/run", "b/run", "s3://bucket/c/"]) == ["a/run", "b/run", "c"]


# ── curves ────────────────────────────────────────────────────────────────────────────────────────────────────────


@given(
    values=st.lists(st.floats(allow_nan=True, width=32), min_size=1, max_size=400),
    limit=st.integers(min_value=2, max_value=60),
)
def test_a_thinned_curve_keeps_its_ends_and_its_extremes(values, limit):
    """However few points are drawn, the first, the last, the lowest and the highest are among them, in order."""
    curve = curves.Curve(name="x", xs=range(len(values)), ys=values)
    thin = curves.thin(curve, limit)
    assert all(before < after for before, after in itertools.pairwise(thin.xs))
    assert (thin.xs[0], thin.xs[-1]) == (0, len(values) - 1)
    assert len(thin.xs) <= max(limit, 2) + 2
    assert all(y is values[x] for x, y in zip(thin.xs, thin.ys, strict=True))
    whole, thinned = curves.summary(curve), curves.summary(thin)
    if whole.lowest is not None:
        assert thinned.lowest[1] == whole.lowest[1]
        assert thinned.highest[1] == whole.highest[1]


def test_a_short_curve_is_drawn_as_it_is():
    """Nothing is left out where everything can be shown, gaps included."""
    curve = curves.Curve(name="x", xs=range(5), ys=[1.0, math.nan, 2.0, math.inf, 3.0])
    thin = curves.thin(curve, 5)
    assert [*thin.xs] == [0, 1, 2, 3, 4]
    assert [curves.drawable(y) for y in thin.ys] == [True, False, True, False, True]
    assert curves.summary(curve).missing == 2


def test_of_several_values_at_one_place_the_last_counts():
    """Rows out of order are drawn in order, and a place that was logged twice once."""
    found = curves.collect([row(2, a=1.0), row(0, a=2.0), row(2, a=3.0)])["epoch"]["a"]
    assert (found.xs, found.ys) == ([1, 3], [2.0, 3.0])


def test_overfitting_without_notes_is_found_by_the_same_rule(read, journal):
    """Where no note says what the monitor saw, the report looks itself, and says that it did."""
    rows = [row(epoch, val_loss=1 + epoch / 10, train_loss=1 / (epoch + 1)) for epoch in range(8)]
    curve = curves.collect(rows)["epoch"]
    found = overfit(rows, curve["val_loss"], curve["train_loss"], "min")
    assert (found.first, found.best, found.spans, found.noted) == (5, 1, ((1, 8),), False)
    assert overfit(rows, curve["val_loss"], curve["train_loss"], "max") is None
    said = read(journal(*rows)).texts("p", id="says-0")[0]
    assert "first seen at epoch 5 (found by this report, over 5 checks)" in said


def test_many_curves_do_not_hide_the_overfitting(read, journal):
    """Of many curves in a chart the first are told in words; that they overfit is told however many there are."""
    rows = [row(epoch, val_loss=1 + epoch / 10, train_loss=1 / (epoch + 1)) for epoch in range(8)]
    page = read(*(journal(*rows, name=f"run{number}") for number in range(4)))
    assert len(page.data["charts"][0]["series"]) == 8
    assert (
        "Overfitting by val_loss, the bar at the top: first seen at epoch 5 (found by this report, over 5 checks)"
        in page.texts("p", id="says-0")[0]
    )


def test_one_runs_loss_is_beside_anothers_train_loss(read, journal):
    """Keras' name for the training loss and that of a PyTorch loop are the same curve, unless one run logs both."""
    one = journal(*(row(epoch, val_loss=1.0, train_loss=0.5) for epoch in range(3)), name="one")
    keras = journal(*(row(epoch, val_loss=1.5, loss=0.25, extra=1.0) for epoch in range(3)), name="keras")
    page = read(one, keras)
    gap = "Generalisation gap: how much worse val_loss is than train_loss or loss"
    assert page.texts("h3")[:3] == ["val_loss, train_loss and loss", gap, "extra"]
    loss, gaps, _ = page.data["charts"]
    assert [(series["run"], series["name"], series["dash"]) for series in loss["series"]] == [
        (0, "one: val_loss", 0), (0, "one: train_loss", 1), (1, "keras: val_loss", 0), (1, "keras: loss", 1)
    ]  # fmt: skip
    assert [(series["run"], series["y"]) for series in gaps["series"]] == [(0, [0.5] * 3), (1, [1.25] * 3)]
    both = journal(*(row(epoch, val_loss=1.0, train_loss=0.5, loss=0.6) for epoch in range(3)), name="both")
    assert [title for title in read(both, keras).texts("h3") if "loss" in title] == [
        "val_loss and train_loss", gap.removesuffix(" or loss"), "loss"
    ]  # fmt: skip


def test_a_training_that_was_broken_off_says_so(read, journal):
    """A run that was closed without a last save and without an exception is told as broken off."""
    page = read(journal(row(0, loss=1.0), Ended(cause="exception", **at(0)), name="off"))
    assert dict(zip(page.texts("dt"), page.texts("dd"), strict=True))["ended"] == "broken off"
    assert page.data["runs"][0]["events"]["epoch"]["lines"] == [[1, "broken off"]]


def test_overfitting_comes_and_goes_as_the_monitor_said():
    """Each stretch begins at the check before it was seen, and ends with the last at which it was."""
    seen = [False, True, True, False, True]
    notes = [
        Decided(event="epoch", checkpoint=None, checks=(check(1.0, overfitting=held),), **at(epoch))
        for epoch, held in enumerate(seen)
    ]
    curve = curves.collect([row(0, val_loss=1.0, loss=1.0)])["epoch"]
    found = overfit(notes, curve["val_loss"], curve["loss"], "min")
    assert (found.first, found.best, found.spans, found.noted) == (2, None, ((1, 3), (4, 5)), True)


def test_overfitting_that_only_all_checks_since_the_best_show_is_shaded(read, tmp_path):
    """Where a noisy curve shows in no window what it shows since its best, chart and story say the same."""
    validation = [1, 0.5, 0.6, 0.55, 0.65, 0.6, 0.7, 0.65, 0.75, 0.7, 0.8, 0.75, 0.85, 0.8]
    with Checkpointer(tmp_path / "run", CheckpointPolicy(monitor="val_loss"), model=Weights()) as ckpt:
        for epoch in ckpt.epochs(len(validation)):
            ckpt.log(val_loss=validation[epoch], train_loss=1 / (epoch + 1))
    page = read(tmp_path / "run")
    assert page.data["charts"][0]["shade"] == [[0, 2, 14]]
    said = page.texts("p", id="says-0")[0]
    assert said.endswith("Overfitting by val_loss, shaded: since its best, at epoch 2.")
    assert any(text.startswith("It overfits: since its best, in epoch 2,") for text in page.texts("p"))


def test_what_was_seen_before_the_best_stays_shaded():
    """Stretches before the best are those of the monitor, and one that reaches into it ends there."""
    values = [0.5, 0.6, 0.4, 0.41, 0.42, 0.43, 0.44, 0.45]
    notes = [
        Decided(event="epoch", checkpoint=None, checks=(check(1.0, overfitting=epoch in {1, 2}),), **at(epoch))
        for epoch in range(len(values))
    ]
    logged = [row(epoch, val_loss=value, loss=1 / (epoch + 1)) for epoch, value in enumerate(values)]
    curve = curves.collect(logged)["epoch"]
    found = overfit(notes, curve["val_loss"], curve["loss"], "min")
    assert (found.first, found.best, found.spans) == (2, 3, ((1, 3), (3, 8)))


# ── cost and story ────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_cost_of_saving_is_that_of_all_processes():
    """Time between two processes is not training time; a save that failed is counted and costs nothing."""
    saved = {"sequence": 1, "nbytes": 10, "checkpoint": "a"}
    found = saving.saving(
        [
            Began(checkpoint=None, **at(0)),
            row(0),
            Saved(blocked=0.5, seconds=2.0, **saved, **at(10)),
            Began(checkpoint="a", **at(1000)),
            Saved(blocked=0.25, seconds=float("nan"), **saved, **at(1005)),
            SaveFailed(checkpoint="b", error="full", **at(1010)),
        ]
    )
    assert (found.training, found.blocked, found.seconds, found.nbytes, found.failed) == (20.0, 0.75, 2.0, 20, 1)
    assert found.share == 0.0375


@pytest.mark.parametrize(
    ("span", "written"),
    [(0.0123, "12.3 ms"), (4.567, "4.57 s"), (200, "3 min 20 s"), (7500, "2 h 5 min"), (60, "1 min"), (-1, "-1")],
)
def test_spans_are_written_with_what_is_seen_of_them(span, written):
    """A span of milliseconds reads in milliseconds, one of hours in hours and minutes."""
    assert text.seconds(span) == written


# ── size ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.slow
def test_a_hundred_thousand_rows_make_a_small_file(keepbest, tmp_path):
    """The report of a long run stays under 2 MB, with its extremes, and says from how many points it is drawn."""
    url = trained.long(str(tmp_path / "long"))
    began = time.perf_counter()
    said = keepbest("report", url, "-o", tmp_path / "page.html", "--json")
    print(f"built in {time.perf_counter() - began:.2f} s, {said.json['bytes']:,} bytes")  # noqa: T201 - a figure to read with -s; none decides a test
    assert said.json["bytes"] < 2_000_000
    page = Read((tmp_path / "page.html").read_text(encoding="utf-8"))
    assert any("of 99,000 points; the lowest and the highest" in line for line in page.texts("p", **{"class": "aside"}))
    shown = next(chart for chart in page.data["charts"] if chart["series"][0]["name"] == "grad_norm")["series"][0]
    assert max(shown["y"]) == pytest.approx(1.1, abs=1e-6)


def test_thousands_of_metrics_and_checkpoints_make_a_small_file(keepbest, local_build, journal, tmp_path):
    """Whatever a run holds, the page stays small and says what it leaves out."""
    for epoch in range(500):
        local_build.save(epoch, data=False, val_loss=float(epoch))
    writer = Journal(open_backend(local_build.url))
    writer.append(*(row(epoch, **{f"metric_{number}": 1.0 * epoch for number in range(1000)}) for epoch in range(30)))
    writer.close()
    said = keepbest("report", local_build.url, "-o", tmp_path / "page.html", "--json")
    page = Read((tmp_path / "page.html").read_text(encoding="utf-8"))
    assert said.json["bytes"] < 2_000_000
    assert "940 more charts are left out; those of monitored metrics come first." in page.texts("p")
    assert "Shown are the newest and the best 401 of 500." in page.texts("p")
    assert len(page.table("Checkpoints")) == 402
