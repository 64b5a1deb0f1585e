"""RecordedPolicy: what the journal holds of a policy says what the policy says, and a stranger's says nothing wrong."""

from __future__ import annotations

import json

import pytest

from keepbest import CheckpointPolicy
from keepbest.core.recorded import RecordedPolicy, read_policy
from keepbest.core.retention import KeepAll, KeepAnyOf, KeepBest, KeepBytes, KeepLast
from keepbest.core.spec import MonitorSpec
from keepbest.core.when import AnyOf, AtEnd, EveryNSteps, OnImprovement

POLICIES = [
    {},
    {"monitor": "val_loss"},
    {"monitor": "val_loss", "keep_best": 3, "patience": 5, "min_delta": "1%", "smoothing": "ema:0.9", "where": "a < 1"},
    {"monitor": "score", "mode": "max", "baseline": 0.5, "start_epoch": 3, "every": 2, "reduce": -1, "max_age": 4},
    {
        "monitor": "loss",
        "on_nonfinite": "stop",
        "nonfinite_limit": 3,
        "where": ["a < 1", "b >= 2"],
        "overfit_window": 9,
    },
    {"monitor": ["val_loss", MonitorSpec(key="val_f1", min_delta=0.1, patience=2)], "keep_max_bytes": 10**9},
    {"monitor": MonitorSpec(key="acc", smoothing="median:5"), "best_contents": "weights"},
    {"every_n_epochs": None, "every_n_steps": 100, "every_n_seconds": 60.0, "on_exception": True, "keep_last": 4},
    {"keep_every_n_epochs": 5, "keep_every_n_steps": 1000, "on_busy": "skip", "on_save_error": "warn"},
    {"monitor": "loss", "keep_all": True, "at_end": False, "on_sigterm": False, "on_busy": "supersede"},
    {"monitor": "loss", "when": AnyOf([EveryNSteps(10), OnImprovement(), AnyOf([AtEnd()])]), "keep": KeepAll()},
    {"monitor": "loss", "keep": KeepBytes(10**6, KeepAnyOf([KeepBest(2), KeepLast(3)]))},
]


def recorded(policy):
    """Return what the journal has of a policy."""
    return json.loads(json.dumps(policy.model_dump(mode="json")))


def test_it_has_the_fields_of_a_policy():
    """A field that a policy gets, and this has not, would make every run unreadable."""
    assert set(RecordedPolicy.__struct_fields__) == set(CheckpointPolicy.model_fields)


@pytest.mark.parametrize("fields", POLICIES, ids=str)
def test_it_says_what_the_policy_says(fields):
    """In words, in rules and of each monitor, whatever is set."""
    policy = CheckpointPolicy(**fields)
    found = read_policy(recorded(policy))
    assert str(found) == str(policy)
    assert found.when_rules == policy.when_rules
    assert found.keep_rule == policy.keep_rule
    told = [(monitor.key, monitor.mode, monitor.overfit_window, str(monitor)) for monitor in found.monitors()]
    assert told == [(monitor.key, monitor.mode, monitor.overfit_window, str(monitor)) for monitor in policy.monitors()]


GARBAGE = (None, True, -1, 0, 10**30, 1.5, "x", [], {}, [[]], {"kind": "last"}, {"kind": "any_of", "rules": [{}]})


@pytest.mark.parametrize("field", sorted(RecordedPolicy.__struct_fields__))
def test_a_strangers_policy_is_read_or_not(field):
    """Put anything in the place of any field: there are words, or there is no policy, and no exception."""
    settings = recorded(CheckpointPolicy(monitor=["loss", MonitorSpec(key="acc")]))
    for value in GARBAGE:
        found = read_policy(settings | {field: value})
        assert found is None or str(found)
    without = {name: held for name, held in settings.items() if name != field}
    assert read_policy(without) is None
    assert read_policy(settings | {"of_the_future": 1}) is None


def test_no_settings_are_no_policy():
    """A note without any says nothing of a policy."""
    assert read_policy({}) is None
