"""History as data frames: one row for each row that was logged."""

import math
import pickle
import subprocess
import sys
from datetime import UTC, datetime

import pytest

from keepbest.errors import ConfigError, KeepbestError
from keepbest.storage.history import History, Row

BEGAN = datetime(2026, 8, 14, 10, 12, 7, 250_000, tzinfo=UTC)


@pytest.fixture
def history():
    """Two steps, and the epoch that they make."""
    time = BEGAN.timestamp()
    return History(
        [
            Row(kind="step", epoch=0, step=1, time=time, metrics={"loss": 0.5}),
            Row(kind="step", epoch=0, step=2, time=time + 60, metrics={"loss": math.nan}),
            Row(kind="epoch", epoch=0, step=2, time=time + 61, metrics={"val_loss": 0.25, "loss": math.inf}),
        ]
    )


@pytest.mark.parametrize("package", ["pandas", "polars"])
def test_each_logged_row_is_a_row_with_its_metrics_as_columns(history, package):
    """Both frames hold every row in order: what it is, when it was logged, and its metrics in columns."""
    frame = getattr(history, f"to_{package}")()
    assert list(frame.columns) == ["kind", "epoch", "step", "time", "loss", "val_loss"]
    assert list(frame["kind"]) == ["step", "step", "epoch"]
    assert list(frame["step"]) == [1, 2, 2]
    assert list(frame["loss"])[::2] == [0.5, math.inf]
    assert math.isnan(frame["loss"][1])
    assert frame["val_loss"][2] == 0.25


@pytest.mark.parametrize("what", ["", ".columns", ".epochs", ".steps"])
def test_who_asks_for_a_metric_that_was_not_logged_is_told_which_were(history, what):
    """A misspelt metric is answered with the one that is meant, as a KeyError, and a history stays a mapping."""
    columns = eval(f"history{what}")
    with pytest.raises(
        KeyError, match=r"no metric 'val_los'\. .*: val_loss, loss\. Did you mean 'val_loss'\?"
    ) as caught:
        columns["val_los"]
    assert isinstance(caught.value, KeepbestError)
    with pytest.raises(KeyError, match="no metric 3"):
        columns[3]
    assert ("val_los" in columns, "val_loss" in columns, columns.get("val_los"), len(columns)) == (False, True, None, 2)
    assert pickle.loads(pickle.dumps(columns)) == columns


def test_a_history_of_nothing_says_so():
    """Where no epoch has ended yet, the error says that nothing was logged."""
    with pytest.raises(KeyError, match="ends of epochs: nothing"):
        History()["loss"]


@pytest.mark.parametrize("package", ["pandas", "polars"])
def test_times_are_moments_in_utc(history, package):
    """A time is a date with its zone, to the microsecond."""
    frame = getattr(history, f"to_{package}")()
    found = frame["time"][0]
    assert (found.to_pydatetime() if package == "pandas" else found) == BEGAN
    assert "UTC" in str(frame["time"].dtype)


def test_what_a_row_did_not_log_is_missing(history):
    """pandas has NaN there; polars has null, which is not the NaN that a training logged."""
    assert list(history.to_pandas()["val_loss"].isna()) == [True, True, False]
    frame = history.to_polars()
    assert frame["val_loss"].to_list() == [None, None, 0.25]
    assert list(frame["loss"].is_null()) == [False, False, False]


@pytest.mark.parametrize("package", ["pandas", "polars"])
def test_metrics_called_like_a_fact_of_the_row_lose_nothing(package):
    """A metric named `epoch` has a column of its own beside the row's epoch, whatever else is logged."""
    metrics = {"epoch": 7.0, "metric_epoch": 8.0, "time": 9.0}
    frame = getattr(History([Row(kind="step", epoch=1, step=3, time=0.0, metrics=metrics)]), f"to_{package}")()
    assert list(frame.columns) == [
        "kind", "epoch", "step", "time", "metric_metric_epoch", "metric_epoch", "metric_time",
    ]  # fmt: skip
    assert [frame[name][0] for name in ("epoch", "metric_metric_epoch", "metric_epoch", "metric_time")] == [1, 7, 8, 9]


@pytest.mark.parametrize("package", ["pandas", "polars"])
@pytest.mark.parametrize("time", [math.inf, math.nan, 1e300, -1e300])
def test_an_impossible_time_is_missing(package, time):
    """A stranger's journal may hold any number for a time."""
    frame = getattr(History([Row(kind="step", epoch=0, step=1, time=time)]), f"to_{package}")()
    found = frame["time"]
    assert list(found.isna() if package == "pandas" else found.is_null()) == [True]


@pytest.mark.parametrize("package", ["pandas", "polars"])
def test_an_empty_history_is_an_empty_frame(package):
    """What logged nothing has the columns of every row, and no row."""
    frame = getattr(History(), f"to_{package}")()
    assert (list(frame.columns), len(frame)) == (["kind", "epoch", "step", "time"], 0)


@pytest.mark.parametrize("package", ["pandas", "polars"])
def test_without_the_package_the_error_says_what_to_install(history, package, monkeypatch):
    """A frame that cannot be made is an error of keepbest with the command to run."""
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ConfigError, match=f"needs {package}, which is not installed: pip install {package}"):
        getattr(history, f"to_{package}")()


def test_neither_package_is_imported_before_it_is_asked_for():
    """A history costs nothing of what only its frames need."""
    code = (
        "import sys; from keepbest.storage.history import History; History().columns; "
        "print({'pandas', 'polars', 'numpy'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
