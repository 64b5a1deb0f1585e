"""The overfitting signal and the generalisation gap, on sequences whose answer is plain to see."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keepbest.core.monitor import MetricMonitor
from keepbest.core.overfitting import OverfittingWatch, generalisation_gap, overfits, training_partners
from keepbest.errors import ConfigError

FALLING = [0.9, 0.7, 0.5, 0.35, 0.25]
RISING = [0.30, 0.33, 0.37, 0.42, 0.48]


@pytest.mark.parametrize(
    ("key", "partners"),
    [
        ("val_loss", ("train_loss", "training_loss", "loss")),
        ("val/loss", ("train/loss", "training/loss", "loss")),
        ("valid_f1", ("train_f1", "training_f1", "f1")),
        ("validation-loss", ("train-loss", "training-loss", "loss")),
        ("eval_loss", ("train_loss", "training_loss", "loss")),
        ("loss/val", ("loss/train", "loss/training", "loss")),
        ("val_seg_loss", ("train_seg_loss", "training_seg_loss", "seg_loss")),
        ("loss", ()),
        ("value_loss", ()),
        ("val_", ()),
    ],
)
def test_the_training_partner_of_a_validation_metric(key, partners):
    """A validation metric is compared with the training metric of the same name, and no other metric has a partner."""
    assert training_partners(key) == partners


@pytest.mark.parametrize(
    ("mode", "validation", "training", "gap"),
    [("min", 0.5, 0.2, 0.3), ("max", 0.7, 0.9, 0.2), ("min", 0.2, 0.5, -0.3), ("max", 0.9, 0.7, -0.2)],
)
def test_the_gap_is_positive_when_validation_is_worse(mode, validation, training, gap):
    """The sign of the gap means the same whichever way is better."""
    assert generalisation_gap(validation, training, mode) == pytest.approx(gap)


@pytest.mark.parametrize(
    ("validation", "training", "expected"),
    [
        pytest.param(RISING, FALLING, True, id="validation-rises-training-falls"),
        pytest.param(FALLING, FALLING, False, id="both-improve"),
        pytest.param(RISING, RISING, False, id="both-worsen-is-divergence"),
        pytest.param([0.3] * 5, FALLING, False, id="validation-flat"),
        pytest.param(RISING, [0.5] * 5, False, id="training-flat"),
        pytest.param([0.30, 0.35, 0.33, 0.36, 0.41], FALLING, True, id="a-rise-with-some-noise"),
        pytest.param([0.30, 0.36, 0.29, 0.35, 0.31], FALLING, False, id="a-noisy-plateau"),
        pytest.param([0.3, 0.3, 0.3, 0.3, 0.6], FALLING, False, id="one-bad-check"),
        pytest.param([0.60, 0.35, 0.36, 0.37, 0.61], FALLING, False, id="a-valley"),
    ],
)
@pytest.mark.parametrize("mode", ["min", "max"])
def test_overfitting_is_two_opposite_trends(mode, validation, training, expected):
    """Overfitting is said when validation clearly worsens while training clearly improves, and not otherwise."""
    sign = 1 if mode == "min" else -1
    assert overfits([sign * v for v in validation], [sign * v for v in training], mode) is expected


def test_noise_about_a_plateau_is_rarely_called_overfitting():
    """With training improving and validation at rest, noise alone raises the signal in few checks."""
    rng = random.Random(7)
    count = sum(overfits([rng.gauss(0, 1) for _ in range(5)], FALLING, "min") for _ in range(2000))
    assert count / 2000 < 0.09


@given(
    st.lists(st.floats(-1e6, 1e6), min_size=3, max_size=9),
    st.sampled_from([1.0, 0.001, 1024.0]),
    st.sampled_from([0.0, 1e3]),
)
def test_never_both_ways(values, scale, shift):
    """The same pair of sequences never overfits in both directions, at any scale."""
    values = [value * scale + shift for value in values]
    other = values[::-1]
    assert not (overfits(values, other, "min") and overfits(values, other, "max"))
    assert not overfits(values, values, "min")


def test_the_watch_waits_for_a_full_window():
    """Nothing is said before the window is full, and the window then moves on."""
    watch = OverfittingWatch("min", 5)
    said = [watch.see(v, t) for v, t in zip([*RISING, *FALLING], [*FALLING, 0.2, 0.1, 0.05, 0.02, 0.01], strict=True)]
    assert said[:5] == [False, False, False, False, True]
    assert said[-1] is False
    assert len(watch.pairs) == 5


@pytest.mark.parametrize("window", [2, 0, -1, 2.5, True, 2**53 + 1, 2**63, 10**400])
def test_a_window_that_can_show_no_trend_is_refused(window):
    """A window too small for a trend, or larger than any training, is an error at construction."""
    with pytest.raises(ConfigError, match="overfit_window"):
        MetricMonitor("val_loss", overfit_window=window)


def test_the_monitor_reports_gap_and_overfitting():
    """A monitor of a validation metric reports both as soon as its training partner is logged beside it."""
    monitor = MetricMonitor("val_loss")
    verdicts = [monitor.update({"val_loss": v, "loss": t}) for v, t in zip(RISING, FALLING, strict=True)]
    assert [verdict.overfitting for verdict in verdicts] == [False, False, False, False, True]
    assert verdicts[-1].gap == pytest.approx(0.48 - 0.25)


def test_the_explicit_training_metric_comes_first():
    """With both train_loss and loss logged, train_loss is the partner."""
    verdict = MetricMonitor("val_loss").update({"loss": 9.0, "val_loss": 0.5, "train_loss": 0.4})
    assert verdict.gap == pytest.approx(0.1)


@pytest.mark.parametrize("metrics", [{"val_loss": 0.5}, {"val_loss": 0.5, "loss": float("nan")}], ids=["absent", "nan"])
def test_no_training_value_no_gap(metrics):
    """Without a finite training value there is no gap, rather than an invented one."""
    verdict = MetricMonitor("val_loss").update(metrics)
    assert verdict.gap is None
    assert verdict.overfitting is False
