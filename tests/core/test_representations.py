"""What a notebook shows of a run and of a policy."""

import uuid
from html.parser import HTMLParser

import pytest
from contracts.faults import WrappedBackend
from contracts.runs import SmallRun

from keepbest import CheckpointPolicy, Run
from keepbest.errors import StoragePermissionError
from keepbest.storage.backend import open_backend
from keepbest.storage.layout import commit_key


class Cells(HTMLParser):
    """Reads a table: its tags and its texts."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.rows, self.caption = set(), [], ""
        self._within = None
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self._within = tag
        if tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_data(self, data):
        if self._within == "caption":
            self.caption += data
        else:
            self.rows[-1][-1] += data


@pytest.fixture
def memory_url():
    """The URL of a run in memory that does not exist yet."""
    return f"memory://test-{uuid.uuid4().hex}"


@pytest.fixture
def run(memory_url):
    """Three checkpoints, of which the second is the best."""
    written = SmallRun(open_backend(memory_url))
    for loss in (0.5, 0.25, 0.75):
        written.save(loss)
    return Run(open_backend(memory_url))


def test_a_run_is_a_table_of_its_checkpoints(run):
    """A notebook shows the checkpoints in order, with the best marked, and epochs as people count them."""
    table = Cells(run._repr_html_())
    assert table.caption == f"{run.url}: 3 checkpoints"
    assert table.rows[0] == ["", "name", "epoch", "step", "val_loss"]
    assert [(row[0], row[2], row[3], row[4]) for row in table.rows[1:]] == [
        ("", "1", "10", "0.5"),
        ("best", "2", "20", "0.25"),
        ("", "3", "30", "0.75"),
    ]


def test_a_long_run_shows_its_newest_and_its_best(memory_url):
    """A notebook is not flooded: the newest ten and the best are shown, and the caption says so."""
    written = SmallRun(open_backend(memory_url))
    for number in range(15):
        written.save(abs(number - 2) + 1.0)
    table = Cells(Run(open_backend(memory_url))._repr_html_())
    assert [row[2] for row in table.rows[1:]] == ["3", *map(str, range(6, 16))]
    assert [row[0] for row in table.rows[1:]].index("best") == 0
    assert table.caption.endswith(": 15 checkpoints; here are the newest 10 and the best")


def test_nothing_in_a_strangers_run_becomes_markup(memory_url):
    """A metric that is called like a script is shown as text, and runs nowhere."""
    evil = "<script>alert('x')</script>&\x1b[2J"
    SmallRun(open_backend(memory_url)).save(monitor=evil)
    text = Run(open_backend(memory_url))._repr_html_()
    table = Cells(text)
    assert "<script" not in text
    assert table.tags == {"table", "caption", "thead", "tbody", "tr", "th", "td"}
    assert table.rows[0][-1] == "<script>alert('x')</script>&\\x1b[2J"


def test_a_run_that_cannot_be_read_is_shown_with_the_reason(run):
    """A representation never raises what a cell did not ask for: the error's sentence stands in its place."""

    class Refusing(WrappedBackend):
        def list(self, prefix, **how):
            raise StoragePermissionError(self.url, "list")

    table = Cells(Run(Refusing(run.backend))._repr_html_())
    assert table.caption == run.url
    assert "cannot list: permission denied" in table.rows[0][0]


def test_damaged_manifests_do_not_hide_the_others(run):
    """Of a damaged run the readable checkpoints are shown."""
    run.backend.replace(commit_key(1), b"junk")
    assert [row[2] for row in Cells(run._repr_html_()).rows[1:]] == ["2", "3"]


def test_a_policy_is_shown_in_words():
    """A notebook shows what a policy does, a sentence a row, with every name as text."""
    policy = CheckpointPolicy(monitor="<b>loss</b>", mode="min", keep_best=3)
    table = Cells(policy._repr_html_())
    assert [row[0] for row in table.rows] == str(policy).splitlines()
    assert "<b>" not in policy._repr_html_()
    assert "best 3 by <b>loss</b>" in table.rows[1][0]
