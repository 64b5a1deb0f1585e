"""MetricMonitor: what is better, how long it has not been, and that a restart changes nothing."""

import functools
import json
import math
import warnings

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keepbest.core.metric import Measured
from keepbest.core.monitor import MetricMonitor
from keepbest.core.smoothing import ExponentialMean, MovingMean, MovingMedian, parse_smoothing
from keepbest.errors import (
    AmbiguousModeError,
    ConfigError,
    MetricValueError,
    MissingMetricError,
    NonFiniteMetricError,
    PolicyError,
    UnknownModeError,
)

NAN, INF = math.nan, math.inf


def judged(monitor, values, key="val_loss"):
    """Return the verdicts on `values`, one an epoch; None is an epoch in which the metric is absent."""
    return [
        monitor.judge({} if value is None else {key: value}, epoch=epoch, step=10 * (epoch + 1))
        for epoch, value in enumerate(values)
    ]


def improved(monitor, values):
    """Return which of the values improved."""
    return [verdict.improved for verdict in judged(monitor, values)]


# ── better, best, min_delta, baseline ────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("options", "values", "expected"),
    [
        pytest.param({}, [0.5, 0.4, 0.4, 0.6, 0.3], [True, True, False, False, True], id="min"),
        pytest.param({"mode": "max"}, [0.5, 0.6, 0.6, 0.4, 0.7], [True, True, False, False, True], id="max"),
        pytest.param({}, [0.0, -0.0, -1.0], [True, False, True], id="zero-and-below"),
        pytest.param({"min_delta": 0.5}, [4.0, 3.5, 3.25, 2.75], [True, False, True, False], id="more-than-min_delta"),
        pytest.param({"min_delta": "10%"}, [100.0, 90.0, 89.0, 80.5], [True, False, True, False], id="relative"),
        pytest.param({"min_delta": "10%"}, [-10.0, -11.0, -11.5], [True, False, True], id="relative-to-size"),
        pytest.param({"min_delta": "50%", "mode": "max"}, [1.0, 1.5, 1.75], [True, False, True], id="relative-max"),
        pytest.param({"min_delta": 1}, [5, 4, 3], [True, False, True], id="integers"),
        pytest.param({"baseline": 0.4}, [0.5, 0.4, 0.39, 0.395], [False, False, True, False], id="baseline"),
        pytest.param({"start_epoch": 2}, [0.1, 0.2, 0.5, 0.4], [False, False, True, True], id="start_epoch"),
        pytest.param({"where": "val_loss > 0.2"}, [0.5, 0.1, 0.3], [True, False, True], id="where"),
    ],
)
def test_what_counts_as_an_improvement(options, values, expected):
    """A value improves only if it is better than the best by more than min_delta, and nothing speaks against it."""
    assert improved(MetricMonitor("val_loss", **options), values) == expected


def test_the_best_says_where_it_was():
    """The best value is kept with its epoch and step."""
    monitor = MetricMonitor("val_loss")
    verdict = judged(monitor, [0.5, 0.3, 0.4])[-1]
    assert (monitor.best, monitor.best_epoch, monitor.best_step) == (0.3, 1, 20)
    assert (verdict.best, verdict.best_epoch, verdict.wait) == (0.3, 1, 1)


@pytest.mark.parametrize("value", [NAN, INF, -INF])
@pytest.mark.parametrize("mode", ["min", "max"])
def test_nothing_infinite_is_better(value, mode):
    """NaN and infinity are better than nothing at all, not even than None."""
    monitor = MetricMonitor("val_loss", mode)
    assert not monitor.better(value, None)
    assert not monitor.better(value, 0.5)


def test_a_value_below_the_baseline_may_rank_but_is_no_best():
    """Without a value that beats the baseline there is still a best checkpoint to keep, but no improvement."""
    verdict = judged(MetricMonitor("val_loss", baseline=0.1), [0.5])[0]
    assert verdict.eligible
    assert verdict.score.value == 0.5
    assert verdict.best is None


# ── patience ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("options", "values", "stops"),
    [
        pytest.param({"patience": 2}, [0.5, 0.6, 0.7], [False, False, True], id="two-checks"),
        pytest.param({"patience": 2}, [0.5, 0.6, 0.4, 0.5, 0.6], [False, False, False, False, True], id="starts-anew"),
        pytest.param({"patience": 0}, [0.5, 0.4, 0.4], [False, False, True], id="zero"),
        pytest.param({"patience": 1}, [0.5, 0.4, 0.4], [False, False, True], id="one"),
        pytest.param({}, [0.5, 0.6] * 5, [False] * 10, id="none"),
        pytest.param({"patience": 2, "baseline": 0.1}, [0.5, 0.4, 0.3], [False, True, True], id="baseline-not-reached"),
        pytest.param({"patience": 1, "start_epoch": 2}, [0.1, 0.9, 0.5, 0.6], [False, False, False, True], id="start"),
        pytest.param({"patience": 2, "every": 2}, [None, 0.5, None, 0.6, None, 0.7], [False] * 5 + [True], id="every"),
        pytest.param({"patience": 2}, [0.5, NAN, NAN], [False, False, True], id="nan-counts"),
        pytest.param({"patience": 1, "on_nonfinite": "ignore"}, [0.5, NAN, NAN], [False] * 3, id="nan-ignored"),
        pytest.param({"patience": 1, "where": "val_loss < 1"}, [5.0, 0.5], [True, False], id="unmet-counts"),
    ],
)
@pytest.mark.filterwarnings("ignore:the monitored metric")
def test_when_patience_is_used_up(options, values, stops):
    """`stop` is True after `patience` checks in a row without improvement; absent and early epochs are no checks."""
    assert [verdict.stop for verdict in judged(MetricMonitor("val_loss", **options), values)] == stops


# ── absent values ────────────────────────────────────────────────────────────────────────────────────────────────────


def test_an_absent_metric_is_an_error_that_lists_what_was_logged():
    """A missing metric raises, with the names that were logged and the one that was probably meant."""
    with pytest.raises(MissingMetricError, match=r"Logged: loss, val_los\..*Did you mean 'val_los'") as caught:
        MetricMonitor("val_loss").judge({"loss": 1.0, "val_los": 1.0}, epoch=3)
    assert caught.value.epoch == 3


def test_every_says_where_the_metric_is_due():
    """With every=3, epochs 1 and 2 may lack the metric, epoch 3 may not, and a value in any of them is judged."""
    monitor = MetricMonitor("val_loss", every=3)
    verdict = monitor.judge({}, epoch=0)
    assert (verdict.value, verdict.score.value, verdict.wait) == (None, None, 0)
    assert verdict.reason == "val_loss was not logged in this epoch"
    assert monitor.judge({"val_loss": 0.5}, epoch=1).improved
    with pytest.raises(MissingMetricError, match="every=n"):
        monitor.judge({}, epoch=2)


def test_an_absent_constraint_metric_is_an_error():
    """A constraint on a metric that is not logged raises, before anything changed."""
    monitor = MetricMonitor("val_f1", where=["val_loss < 0.5"])
    with pytest.raises(
        MissingMetricError,
        match="of the constraint val_loss < 0.5 the metric 'val_loss' was not logged.*leave the constraint out",
    ):
        monitor.judge({"val_f1": 0.5}, epoch=0)
    assert monitor.best is None


def test_a_value_that_is_no_number_changes_nothing():
    """A vector or a string raises, and neither standing nor history has it."""
    monitor = MetricMonitor("val_loss")
    with pytest.raises(MetricValueError):
        monitor.update({"val_loss": [0.1, 0.2]})
    assert monitor.standing() == MetricMonitor("val_loss").standing()
    assert not monitor.history.rows


# ── NaN and infinity ─────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("value", [NAN, INF, -INF])
@pytest.mark.parametrize("mode", ["min", "max"])
@pytest.mark.filterwarnings("ignore:the monitored metric")
def test_a_value_that_is_not_finite_never_becomes_the_best(value, mode):
    """NaN first does not lock the best, and infinity in the good direction does not take it."""
    monitor = MetricMonitor("val_loss", mode)
    verdict, after = judged(monitor, [value, 0.5])
    assert (verdict.improved, verdict.eligible, verdict.score.value) == (False, False, None)
    assert after.improved
    assert monitor.best == 0.5


def test_warn_warns_once_and_at_the_line_of_the_caller():
    """The warning is given once for a monitor, and names the user's own line."""
    monitor = MetricMonitor("val_loss")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        judged(monitor, [NAN, NAN])
        monitor.update({"val_loss": NAN})
    assert len(caught) == 1
    assert caught[0].filename == __file__
    assert "never the best" in str(caught[0].message)


def test_ignore_says_nothing():
    """With "ignore", NaN passes without a warning and uses no patience."""
    assert judged(MetricMonitor("val_loss", on_nonfinite="ignore"), [0.5, NAN])[1].wait == 0


def test_stop_ends_training_at_the_limit():
    """With "stop", the n-th value in a row that is not finite ends training; a finite one in between starts anew."""
    assert [v.stop for v in judged(MetricMonitor("val_loss", on_nonfinite="stop"), [0.5, NAN])] == [False, True]
    monitor = MetricMonitor("val_loss", on_nonfinite="stop", nonfinite_limit=2)
    with pytest.warns(UserWarning, match="is nan"):
        assert [v.stop for v in judged(monitor, [NAN, 0.5, INF, NAN])] == [False, False, False, True]


def test_raise_raises_and_the_best_is_unharmed():
    """With "raise", NaN raises an error that says where, and the best stays."""
    monitor = MetricMonitor("val_loss", on_nonfinite="raise")
    with pytest.raises(NonFiniteMetricError, match=r"nan in epoch 2 \(step 20\)"):
        judged(monitor, [0.5, NAN])
    assert monitor.best == 0.5


def test_nan_never_enters_the_smoothing():
    """A NaN leaves the smoothed values as they would be without it."""
    with_nan = judged(MetricMonitor("val_loss", smoothing="mean:3", on_nonfinite="ignore"), [3.0, NAN, 5.0])[-1]
    assert with_nan.smoothed == 4.0


# ── smoothing, constraints, stale values ─────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("smoothing", "smoothed"),
    [
        pytest.param("mean:3", [8.0, 6.0, 6.0, 4.0], id="mean"),
        pytest.param("median:3", [8.0, 6.0, 6.0, 4.0], id="median"),
        pytest.param("ema:0.5", [8.0, 16 / 3, 40 / 7, 56 / 15], id="ema"),
        pytest.param(MovingMean(2), [8.0, 6.0, 5.0, 4.0], id="object"),
        pytest.param(None, [8.0, 4.0, 6.0, 2.0], id="none"),
    ],
)
def test_values_are_judged_smoothed_and_reported_both_ways(smoothing, smoothed):
    """The best is the best smoothed value; the raw one is reported beside it."""
    verdicts = judged(MetricMonitor("val_loss", smoothing=smoothing), [8.0, 4.0, 6.0, 2.0])
    assert [verdict.value for verdict in verdicts] == [8.0, 4.0, 6.0, 2.0]
    assert [verdict.smoothed for verdict in verdicts] == pytest.approx(smoothed)
    assert verdicts[-1].best == verdicts[-1].score.value == verdicts[-1].smoothed


@given(
    st.sampled_from([ExponentialMean(0.9), ExponentialMean(0.3), MovingMean(7), MovingMedian(4)]),
    st.floats(-1e100, 1e100),
    st.integers(1, 30),
)
def test_equal_values_stay_equal_when_smoothed(smoothing, value, count):
    """Rounding never makes an improvement out of a metric that stands still."""
    state = ()
    for _ in range(count):
        state, smoothed = smoothing.fold(state, value)
        assert smoothed == value


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=9), st.randoms())
def test_a_moving_mean_does_not_depend_on_the_order(values, random):
    """The same values in another order are no improvement, however they round and however large they are."""
    shuffled = random.sample(values, len(values))
    fold = MovingMean(9).fold
    ends = [functools.reduce(lambda seen, value: fold(seen[0], value), each, ((), 0.0)) for each in (values, shuffled)]
    means = [mean for _, mean in ends]
    assert means[0] == means[1]
    assert min(values) <= means[0] <= max(values)


@pytest.mark.parametrize("smoothing", [ExponentialMean(0.97), MovingMean(3), MovingMedian(9), None])
def test_a_smoothing_is_read_back_from_its_text(smoothing):
    """What a file says of a smoothing gives that smoothing."""
    assert parse_smoothing(None if smoothing is None else str(smoothing)) == smoothing


def test_constraints_decide_what_may_rank():
    """A value whose constraint fails is not ranked, and the verdict says which one failed and why."""
    monitor = MetricMonitor("val_f1", where=["val_loss <= 0.5", "size < 1e6"])
    verdict = monitor.judge({"val_f1": 0.9, "val_loss": 0.61, "size": 5e5}, epoch=0)
    assert (verdict.improved, verdict.eligible, verdict.score.value) == (False, False, None)
    assert verdict.unmet == ("constraint val_loss <= 0.5 not met (0.61)",)
    assert "constraint val_loss <= 0.5 not met (0.61)" in verdict.reason
    assert monitor.judge({"val_f1": 0.8, "val_loss": 0.5, "size": 5}, epoch=1).improved


def test_a_constraint_on_nan_is_not_met():
    """A bound that a NaN would have to meet is not met."""
    assert MetricMonitor("f1", where="loss > -1").judge({"f1": 0.5, "loss": NAN}, epoch=0).eligible is False


@pytest.mark.parametrize(
    ("measured", "max_age", "stale"),
    [
        pytest.param({"step": 100}, 0, False, id="now"),
        pytest.param({"step": 99}, 0, True, id="a-step-ago"),
        pytest.param({"step": 90}, 10, False, id="within-max_age"),
        pytest.param({"step": 89}, 10, True, id="beyond-max_age"),
        pytest.param({"epoch": 4}, 0, False, id="this-epoch"),
        pytest.param({"epoch": 3}, 1000, True, id="an-earlier-epoch"),
        pytest.param({}, 0, False, id="undated"),
    ],
)
def test_a_stale_value_cannot_rank_a_checkpoint(measured, max_age, stale):
    """A value measured too long ago is reported, and neither ranks nor uses patience."""
    monitor = MetricMonitor("val_loss", max_age=max_age, patience=1)
    verdict = monitor.judge({"val_loss": Measured(0.3, **measured)}, epoch=4, step=100)
    assert verdict.value == 0.3
    assert (verdict.eligible, verdict.improved, verdict.wait) == (not stale, not stale, 0)
    assert ("stale" in verdict.reason) is stale


def test_a_stale_constraint_is_not_met():
    """A constraint is not met by a value of an earlier epoch."""
    metrics = {"f1": 0.5, "loss": Measured(0.1, epoch=0)}
    assert MetricMonitor("f1", where="loss < 1").judge(metrics, epoch=1).eligible is False


# ── reasons, history, settings ───────────────────────────────────────────────────────────────────────────────────────


def test_reasons_are_sentences_people_understand():
    """Each verdict says in plain words what it rests on."""
    monitor = MetricMonitor("val_loss", patience=5, min_delta=0.01, start_epoch=1, on_nonfinite="stop")
    assert [verdict.reason for verdict in judged(monitor, [9, 0.41, 0.38, 0.42, NAN])] == [
        "epoch 1 comes before start_epoch, so val_loss is not judged",
        "val_loss 0.41 is the first value judged",
        "val_loss improved from 0.41 to 0.38",
        "val_loss 0.42 is not better than 0.38 by more than 0.01 (1 of 5 checks of patience used)",
        "val_loss is nan, which is never the best (2 of 5 checks of patience used)",
    ]
    verdict = judged(MetricMonitor("val_loss", baseline=0.1), [0.5])[0]
    assert verdict.reason == "val_loss 0.5 is not better than the baseline 0.1"


def test_update_records_every_metric_and_counts_the_epochs():
    """`update` keeps all metrics as columns, and numbers the epochs by itself."""
    monitor = MetricMonitor("val_loss")
    monitor.update({"val_loss": 0.5, "lr": 0.1}, step=10)
    monitor.update({"val_loss": 0.4, "lr": 0.05}, step=20, time=5.0)
    assert dict(monitor.history) == {"val_loss": [0.5, 0.4], "lr": [0.1, 0.05]}
    assert monitor.history.epochs["lr"] == [0, 1]
    assert monitor.history.rows[-1].time == 5.0
    assert monitor.best_epoch == 1


def test_a_vector_metric_is_reduced_beside_its_training_partner():
    """`reduce` is for the metric and for the training metric it is compared with."""
    monitor = MetricMonitor("val_f1", reduce="mean")
    verdict = monitor.update({"val_f1": [0.5, 0.75], "train_f1": [0.75, 1.0]})
    assert (verdict.value, verdict.gap) == (0.625, 0.25)


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        ({"key": "foo"}, AmbiguousModeError, "foo"),
        ({"key": ""}, ConfigError, "name of a metric"),
        ({"mode": "mim"}, UnknownModeError, "Did you mean 'min'"),
        ({"min_delta": -0.1}, ConfigError, "min_delta"),
        ({"min_delta": "-1%"}, ConfigError, "min_delta"),
        ({"min_delta": "1"}, ConfigError, "'1%'"),
        ({"min_delta": "x%"}, ConfigError, "min_delta"),
        ({"min_delta": "nan%"}, ConfigError, "min_delta"),
        ({"min_delta": NAN}, ConfigError, "min_delta"),
        ({"min_delta": True}, ConfigError, "min_delta"),
        ({"patience": -1}, ConfigError, "patience"),
        ({"patience": 1.5}, ConfigError, "patience"),
        ({"patience": True}, ConfigError, "patience"),
        ({"baseline": INF}, ConfigError, "baseline"),
        ({"baseline": "0.1"}, ConfigError, "baseline"),
        ({"start_epoch": -1}, ConfigError, "start_epoch"),
        ({"every": 0}, ConfigError, "every"),
        ({"max_age": -1}, ConfigError, "max_age"),
        ({"smoothing": "emma:0.9"}, ConfigError, "Did you mean 'ema'"),
        ({"smoothing": "ema:1"}, ConfigError, "smoothing 'ema:1': decay"),
        ({"smoothing": "mean:0"}, ConfigError, "window"),
        ({"smoothing": "mean:2.5"}, ConfigError, "2.5"),
        ({"smoothing": "median"}, ConfigError, "nothing"),
        ({"on_nonfinite": "rise"}, ConfigError, "Did you mean 'raise'"),
        ({"nonfinite_limit": 3}, ConfigError, "on_nonfinite='stop'"),
        ({"on_nonfinite": "stop", "nonfinite_limit": 0}, ConfigError, "nonfinite_limit"),
        ({"reduce": "median"}, ConfigError, "reduce"),
        ({"where": "val_loss"}, PolicyError, "val_loss < 0.5"),
        ({"where": "val_loss = 3"}, PolicyError, "val_loss < 0.5"),
        ({"where": "< 3"}, PolicyError, "val_loss < 0.5"),
        ({"where": "a < b"}, PolicyError, "val_loss < 0.5"),
        ({"where": "a < nan"}, PolicyError, "val_loss < 0.5"),
        ({"where": ["a < 1", 3]}, PolicyError, "val_loss < 0.5"),
    ],
)
def test_a_setting_that_makes_no_sense_is_refused_at_once(options, error, says):
    """Every setting is checked when the monitor is made, and the error says what to write."""
    with pytest.raises(error) as caught:
        MetricMonitor(**{"key": "val_loss", **options})
    assert says in str(caught.value)


# ── what a restart keeps ─────────────────────────────────────────────────────────────────────────────────────────────

monitors = st.fixed_dictionaries(
    {"mode": st.sampled_from(["min", "max"])},
    optional={
        "min_delta": st.sampled_from([0.0, 0.5, "10%"]),
        "patience": st.integers(0, 4),
        "baseline": st.floats(-2, 2),
        "start_epoch": st.integers(0, 3),
        "smoothing": st.sampled_from(["ema:0.7", "mean:3", "median:3"]),
        "on_nonfinite": st.sampled_from(["ignore", "warn", "stop"]),
        "where": st.just("val_loss < 3"),
        "overfit_window": st.integers(3, 5),
    },
)
numbers = st.floats(-5, 5) | st.sampled_from([NAN, INF, -INF])
epochs = st.lists(
    st.fixed_dictionaries({"val_loss": numbers}, optional={"loss": numbers}) | st.just({"loss": 1.0}), max_size=14
)


@pytest.mark.filterwarnings("ignore:the monitored metric")
@settings(deadline=None)
@given(monitors, epochs, st.integers(0, 14))
def test_a_restart_at_any_point_changes_nothing(options, rows, cut):
    """A monitor restored from the JSON of another says of the rest of training exactly what that one would say."""
    whole = MetricMonitor("val_loss", every=99, **options)
    first = MetricMonitor("val_loss", every=99, **options)
    expected = [repr(whole.update(row, time=0.0)) for row in rows]
    said = [repr(first.update(row, time=0.0)) for row in rows[:cut]]
    second = MetricMonitor("val_loss", every=99, **options)
    second.load_state_dict(json.loads(json.dumps(first.state_dict(), allow_nan=False)))
    said += [repr(second.update(row, time=0.0)) for row in rows[cut:]]
    assert said == expected
    assert repr(second.state_dict()) == repr(whole.state_dict())
    assert repr(second.history.columns) == repr(whole.history.columns)


@pytest.mark.filterwarnings("ignore:the monitored metric")
@settings(deadline=None)
@given(st.sampled_from(["min", "max"]), st.sampled_from([None, "mean:3", "ema:0.5"]), epochs)
def test_the_best_is_the_best_of_all_eligible_values(mode, smoothing, rows):
    """Without min_delta, the best is the minimum (maximum) of what may rank, and its epoch the first that had it."""
    monitor = MetricMonitor("val_loss", mode, smoothing=smoothing, every=99)
    verdicts = [monitor.update(row) for row in rows]
    ranked = [(verdict.score.value, epoch) for epoch, verdict in enumerate(verdicts) if verdict.eligible]
    best = min(ranked, key=lambda pair: (pair[0] if mode == "min" else -pair[0], pair[1]), default=(None, None))
    assert (monitor.best, monitor.best_epoch) == best
    assert [epoch for epoch, verdict in enumerate(verdicts) if verdict.improved][-1:] == [best[1]][: len(ranked)]


@pytest.mark.filterwarnings("ignore:the monitored metric")
@settings(deadline=None)
@given(monitors, epochs)
def test_an_improvement_is_better_and_all_else_waits(options, rows):
    """Each verdict either improves on the best before it and waits no longer, or leaves the best as it was."""
    monitor = MetricMonitor("val_loss", every=99, **options)
    for row in rows:
        best, wait = monitor.best, monitor.wait
        verdict = monitor.update(row)
        if verdict.improved:
            assert verdict.eligible
            assert monitor.better(verdict.best, best)
            assert verdict.wait == 0
        else:
            assert verdict.best == best
            assert verdict.wait in (wait, wait + 1)


def test_the_standing_stays_small():
    """However long training runs, the standing that each checkpoint carries does not grow."""
    monitor = MetricMonitor("val_loss", smoothing="mean:5")
    sizes = set()
    for epoch in range(400):
        monitor.judge({"val_loss": 100.0 + epoch % 7, "loss": 1.0}, epoch=epoch)
        sizes.add(len(json.dumps(monitor.standing())))
    assert max(sizes) < 500


@pytest.mark.parametrize(
    ("name", "other"),
    [
        ("mode", MetricMonitor("val_loss", "max")),
        ("monitor", MetricMonitor("val_mse")),
        ("smoothing", MetricMonitor("val_loss", smoothing="mean:3")),
        ("where", MetricMonitor("val_loss", where="val_acc > 0.5")),
    ],
)
def test_a_best_that_cannot_be_compared_is_refused(name, other):
    """A standing of another metric, direction or smoothing raises, and nothing changed."""
    monitor = MetricMonitor("val_loss")
    judged(monitor, [0.5])
    before = monitor.standing()
    with pytest.raises(ConfigError, match=f"{name}=.*Keep the setting"):
        monitor.restore_standing(other.standing())
    assert monitor.standing() == before


@pytest.mark.parametrize("state", [{}, {"monitor": "val_loss"}, {**MetricMonitor("val_loss").standing(), "wait": "x"}])
def test_what_is_no_standing_is_refused(state):
    """Alien JSON in place of a standing or a state raises an error of ours."""
    with pytest.raises(ConfigError, match="not the standing"):
        MetricMonitor("val_loss").restore_standing(state)
    with pytest.raises(ConfigError):
        MetricMonitor("val_loss").load_state_dict({"standing": state, "history": []})
    with pytest.raises(ConfigError, match="not the state"):
        MetricMonitor("val_loss").load_state_dict(state)


def test_more_patience_continues_a_run_that_stopped():
    """A run that stopped for lack of patience goes on when it is resumed with more."""
    stopped = MetricMonitor("val_loss", patience=1)
    judged(stopped, [0.5, 0.6])
    patient = MetricMonitor("val_loss", patience=3)
    patient.restore_standing(stopped.standing())
    assert stopped.stopped
    assert not patient.stopped
    assert patient.best == 0.5
