"""CheckpointPolicy: when it saves, what it keeps, what it refuses, and that files give it back unchanged."""

import builtins
import contextlib
import gc
import json
import tomllib
import weakref

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keepbest.core.policy import CheckpointPolicy
from keepbest.core.retention import KeepAll, KeepAnyOf, KeepBest, KeepBytes, KeepEveryNEpochs, KeepLast
from keepbest.core.spec import MonitorSpec
from keepbest.core.when import (
    AnyOf,
    AtEnd,
    EveryNEpochs,
    EveryNSeconds,
    EveryNSteps,
    Facts,
    OnException,
    OnImprovement,
    OnSignal,
)
from keepbest.errors import AmbiguousModeError, ConfigError, KeepbestError, PolicyError, UnknownModeError


def facts(event="epoch", **known):
    """Return facts of a moment: epoch 4 (from 0) closed at step 500, saved last at epoch 3 and step 400."""
    usual = {
        "epoch": 4,
        "step": 500,
        "time": 100.0,
        "improved": False,
        "last_saved_epoch": 3,
        "last_saved_step": 400,
        "last_saved_time": 40.0,
    }
    return Facts(event=event, **{**usual, **known})


SAVED = {"last_saved_epoch": 4, "last_saved_step": 500}
WITHIN = SAVED | {"last_saved_within_epoch": True}
"""Saved at this very step, before the epoch was closed."""
NEVER = {"last_saved_epoch": None, "last_saved_step": None}

# ── when ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("rule", "moment", "reason"),
    [
        pytest.param(OnImprovement(), facts(improved=True), "improvement", id="improved"),
        pytest.param(OnImprovement(), facts(), None, id="not-improved"),
        pytest.param(EveryNEpochs(1), facts(), "epoch", id="every-epoch"),
        pytest.param(EveryNEpochs(5), facts(), "epoch", id="fifth-epoch"),
        pytest.param(EveryNEpochs(4), facts(), None, id="not-the-fourth"),
        pytest.param(EveryNEpochs(1), facts("step"), None, id="no-epoch-closed"),
        pytest.param(EveryNEpochs(1), facts("end"), None, id="the-end-is-no-epoch"),
        pytest.param(EveryNSteps(500), facts("step"), "step", id="at-the-multiple"),
        pytest.param(EveryNSteps(450), facts("step"), "step", id="past-the-multiple"),
        pytest.param(EveryNSteps(450), facts("step", last_saved_step=450), None, id="saved-at-the-multiple"),
        pytest.param(EveryNSteps(450), facts("step", last_saved_step=460), None, id="saved-past-the-multiple"),
        pytest.param(EveryNSteps(501), facts("step"), None, id="before-the-multiple"),
        pytest.param(EveryNSteps(500), facts("epoch"), "step", id="a-multiple-closed-by-an-epoch"),
        pytest.param(EveryNSteps(500), facts(ranks=True, **WITHIN), "step", id="saved-before-it-was-judged"),
        pytest.param(EveryNSteps(500), facts(ranks=False, **WITHIN), None, id="saved-and-nothing-to-judge"),
        pytest.param(EveryNSteps(500), facts(ranks=True, **SAVED), None, id="saved-and-judged"),
        pytest.param(EveryNSteps(500), facts("step", **NEVER), "step", id="first-save"),
        pytest.param(EveryNSteps(500), facts("step", step=0, **NEVER), None, id="nothing-trained"),
        pytest.param(EveryNSteps(500), facts("end"), None, id="the-end-is-no-step"),
        pytest.param(EveryNSeconds(60), facts("step"), "time", id="time-is-up"),
        pytest.param(EveryNSeconds(60.5), facts("epoch"), None, id="time-is-not-up"),
        pytest.param(EveryNSeconds(60), facts("signal"), None, id="time-at-a-signal"),
        pytest.param(AtEnd(), facts("end"), "end", id="end"),
        pytest.param(AtEnd(), facts("end", **SAVED), None, id="end-with-all-saved"),
        pytest.param(AtEnd(), facts("end", **SAVED | {"last_saved_epoch": 3}), "end", id="end-with-an-epoch-more"),
        pytest.param(AtEnd(), facts("end", **WITHIN), "end", id="end-with-an-epoch-closed"),
        pytest.param(AtEnd(), facts("end", within_epoch=True, **WITHIN), None, id="end-within-the-same-epoch"),
        pytest.param(AtEnd(), facts("end", step=0, epoch=None, **NEVER), None, id="end-of-nothing"),
        pytest.param(AtEnd(), facts("end", step=0, epoch=0, **NEVER), "end", id="end-without-counted-steps"),
        pytest.param(AtEnd(), facts("epoch"), None, id="not-the-end"),
        pytest.param(OnSignal(), facts("signal"), "signal", id="signal"),
        pytest.param(OnSignal(), facts("signal", **SAVED), None, id="signal-with-all-saved"),
        pytest.param(OnSignal(), facts("end"), None, id="no-signal"),
        pytest.param(OnException(), facts("exception"), "exception", id="exception"),
        pytest.param(OnException(), facts("end"), None, id="no-exception"),
        pytest.param(AnyOf([AtEnd(), EveryNEpochs(1)]), facts(), "epoch", id="any-of"),
        pytest.param(AnyOf([AtEnd(), OnSignal()]), facts(), None, id="none-of"),
    ],
)
def test_when_each_rule_saves(rule, moment, reason):
    """Each rule asks for a save exactly when its first sentence says, and says why."""
    assert rule.reason(moment) == reason


@settings(deadline=None)
@given(st.integers(1, 50), st.lists(st.integers(1, 60), max_size=40), st.integers(0, 40), st.booleans())
def test_a_resumed_run_saves_at_the_steps_of_an_unbroken_one(n, strides, cut, extra):
    """EveryNSteps depends on the steps alone: a run that stops and resumes saves where it would have anyway."""
    policy = CheckpointPolicy(every_n_epochs=None, every_n_steps=n, at_end=False, on_sigterm=False)

    def saves(strides, step, last):
        made = []
        for stride in strides:
            step += stride
            if policy.decide(facts("step", step=step, last_saved_step=last)):
                made.append(step)
                last = step
        return made, step, last

    unbroken, _, _ = saves(strides, 0, None)
    first, step, last = saves(strides[:cut], 0, None)
    if extra and step:
        last = step  # a preemption saved where no multiple is
    second, _, _ = saves(strides[cut:], step, last)
    assert first + second == unbroken
    assert all(after // n > before // n for before, after in zip([0, *unbroken], unbroken, strict=False))


def test_decide_gives_every_reason_once():
    """All reasons that hold are given, each once, and none means that nothing is to be saved."""
    policy = CheckpointPolicy(monitor="val_loss", when=AnyOf([EveryNEpochs(1), EveryNEpochs(5), OnImprovement()]))
    assert policy.decide(facts(improved=True)) == ("epoch", "improvement")
    assert policy.decide(facts("step")) == ()


events = st.sampled_from(["epoch", "step", "end", "signal", "exception"])
counts = st.none() | st.integers(0, 60)
moments = st.builds(
    Facts,
    event=events,
    epoch=counts,
    step=st.integers(0, 2000),
    time=st.floats(0, 1e6),
    improved=st.booleans(),
    last_saved_epoch=counts,
    last_saved_step=st.none() | st.integers(0, 2000),
    last_saved_time=st.floats(0, 1e6),
)
small = st.none() | st.integers(1, 9)
policies = st.fixed_dictionaries(
    {"monitor": st.sampled_from(["val_loss", "val_f1"]), "at_end": st.just(value=True)},
    optional={
        "mode": st.sampled_from(["auto", "min", "max"]),
        "min_delta": st.floats(0, 10) | st.just("2.5%"),
        "patience": st.none() | st.integers(0, 9),
        "baseline": st.none() | st.floats(-1e9, 1e9),
        "start_epoch": st.integers(0, 9),
        "every": st.integers(1, 9),
        "smoothing": st.sampled_from([None, "ema:0.97", "mean:4", "median:3"]),
        "on_nonfinite": st.sampled_from(["ignore", "warn", "stop", "raise"]),
        "reduce": st.sampled_from([None, "mean", "max", 0, 3]),
        "where": st.sampled_from([(), "val_loss < 0.5", ["a >= -1e-3", "b/c > 2"]]),
        "overfit_window": st.integers(3, 9),
        "max_age": st.integers(0, 9),
        "every_n_epochs": small,
        "every_n_steps": small,
        "every_n_seconds": st.none() | st.floats(0.1, 1e6),
        "on_improvement": st.booleans(),
        "on_sigterm": st.booleans(),
        "on_exception": st.booleans(),
        "keep_best": st.integers(0, 9),
        "keep_last": st.integers(1, 9),
        "keep_every_n_epochs": small,
        "keep_every_n_steps": small,
        "keep_max_bytes": small,
        "on_save_error": st.sampled_from(["raise", "warn"]),
    },
).map(lambda fields: CheckpointPolicy(**fields))


@settings(deadline=None)
@given(policies, st.lists(moments, max_size=8))
def test_deciding_depends_on_the_facts_alone(policy, moments):
    """A policy asked twice, or another one read from its file, decides the same."""
    again = CheckpointPolicy.from_json(policy.to_json())
    decided = [policy.decide(moment) for moment in moments]
    assert [policy.decide(moment) for moment in reversed(moments)][::-1] == decided
    assert [again.decide(moment) for moment in moments] == decided


# ── the front door ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_defaults_save_every_epoch_and_keep_the_best_and_the_last():
    """CheckpointPolicy(monitor="val_loss") is enough for most people."""
    policy = CheckpointPolicy(monitor="val_loss")
    assert policy.decide(facts()) == ("epoch",)
    assert policy.decide(facts("step")) == ()
    assert policy.decide(facts("signal")) == ("signal",)
    assert policy.keep_rule == KeepAnyOf([KeepBest(1, "val_loss"), KeepLast(1)])
    assert [(monitor.key, monitor.mode) for monitor in policy.monitors()] == [("val_loss", "min")]


def test_without_a_monitor_metrics_are_only_recorded():
    """A policy without a monitor judges nothing and keeps the newest."""
    policy = CheckpointPolicy()
    assert policy.monitors() == ()
    assert (policy.keep_best, policy.on_improvement) == (0, False)
    assert policy.keep_rule == KeepAnyOf([KeepLast(1)])


def test_the_fields_reach_the_monitor():
    """What the policy says of a metric is what its monitor does, and each call gives a fresh one."""
    policy = CheckpointPolicy(
        monitor="val_loss", mode="min", keep_best=3, keep_last=1, patience=5, smoothing="ema:0.9", where="val_acc > 0.1"
    )
    (monitor,) = policy.monitors()
    assert (monitor.patience, str(monitor.smoothing), [str(c) for c in monitor.where]) == (
        5,
        "ema:0.9",
        ["val_acc > 0.1"],
    )
    assert policy.monitors()[0] is not monitor


def test_one_direction_for_metrics_of_both_kinds_is_refused():
    """A mode that would rank one of several by its worst is a mistake; metrics of one kind may share it."""
    with pytest.raises(PolicyError, match="val_loss is better the other way"):
        CheckpointPolicy(monitor=["val_loss", "val_acc"], mode="max")
    policy = CheckpointPolicy(monitor=["val_f1", "val_acc", "my_own"], mode="max")
    assert [monitor.mode for monitor in policy.monitors()] == ["max"] * 3
    assert CheckpointPolicy(monitor="val_loss", mode="max").monitors()[0].mode == "max"


def test_each_of_several_monitors_keeps_its_best():
    """With several monitors, keep_best is for each; a spec has settings of its own."""
    policy = CheckpointPolicy(monitor=["val_loss", MonitorSpec(key="val_f1", patience=3)], keep_best=2)
    assert [(monitor.key, monitor.patience) for monitor in policy.monitors()] == [("val_loss", None), ("val_f1", 3)]
    assert policy.keep_rule == KeepAnyOf([KeepBest(2, "val_loss"), KeepBest(2, "val_f1"), KeepLast(1)])


def test_settings_beside_several_names_are_for_each():
    """A setting beside a list of plain names holds for each of them."""
    policy = CheckpointPolicy(monitor=["val_loss", "val_f1"], patience=3)
    assert [monitor.patience for monitor in policy.monitors()] == [3, 3]


@pytest.mark.parametrize(
    ("fields", "rule"),
    [
        ({"keep_all": True}, KeepAll()),
        ({"keep_best": 0}, KeepAnyOf([KeepLast(1)])),
        ({"keep_every_n_epochs": 5}, KeepAnyOf([KeepBest(1, "loss"), KeepLast(1), KeepEveryNEpochs(5)])),
        ({"keep_max_bytes": 9}, KeepBytes(9, KeepAnyOf([KeepBest(1, "loss"), KeepLast(1)]))),
        ({"keep": KeepLast(7)}, KeepLast(7)),
        ({"keep": {"kind": "last", "n": 7}}, KeepLast(7)),
    ],
)
def test_the_front_door_composes_the_rules(fields, rule):
    """The keep-fields are a short way to write the rules, and a rule may be written instead of them."""
    assert CheckpointPolicy(monitor="loss", **fields).keep_rule == rule


@pytest.mark.parametrize(
    ("fields", "error", "says"),
    [
        ({"monito": "loss"}, PolicyError, "Did you mean 'monitor'?"),
        ({"monitor": "foo"}, AmbiguousModeError, "mode='max'"),
        ({"monitor": "loss", "mode": "mim"}, UnknownModeError, "Did you mean 'min'?"),
        ({"monitor": "loss", "patience": -1}, PolicyError, "patience"),
        ({"monitor": "loss", "patience": "5"}, PolicyError, "patience must be a valid integer (got '5')"),
        ({"monitor": "loss", "min_delta": -0.1}, PolicyError, "min_delta"),
        ({"monitor": "loss", "smoothing": "emma:1"}, PolicyError, "Did you mean 'ema'?"),
        ({"monitor": "loss", "on_nonfinite": "rais"}, PolicyError, "Did you mean 'raise'?"),
        ({"monitor": "loss", "where": "loss"}, PolicyError, "'val_loss < 0.5'"),
        ({"monitor": "loss", "reduce": "median"}, PolicyError, "reduce must be"),
        ({"monitor": 3}, PolicyError, "monitor must be a valid string"),
        ({"monitor": []}, PolicyError, "name a metric"),
        ({"monitor": ["loss", "acc", "loss"]}, PolicyError, "loss is monitored more than once"),
        ({"monitor": {"kay": "loss"}}, PolicyError, "Did you mean 'key'?"),
        ({"monitor": MonitorSpec(key="loss"), "patience": 3}, PolicyError, "patience beside a MonitorSpec"),
        ({"patience": 3, "min_delta": 1.0}, PolicyError, "min_delta and patience without a monitor"),
        ({"keep_best": 1}, PolicyError, "keep_best without a monitor"),
        ({"keep": KeepBest(1)}, PolicyError, "keep_best without a monitor"),
        ({"on_improvement": True}, PolicyError, "on_improvement without a monitor"),
        ({"when": OnImprovement()}, PolicyError, "on_improvement without a monitor"),
        ({"every_n_epochs": None, "at_end": False, "on_sigterm": False}, PolicyError, "never saves"),
        ({"every_n_epochs": 0}, PolicyError, "every_n_epochs must be greater than 0"),
        ({"every_n_steps": -5}, PolicyError, "every_n_steps"),
        ({"every_n_steps": True}, PolicyError, "every_n_steps"),
        ({"every_n_seconds": 0}, PolicyError, "every_n_seconds"),
        ({"every_n_seconds": float("inf")}, PolicyError, "every_n_seconds"),
        ({"monitor": "loss", "keep_best": -1}, PolicyError, "keep_best must be greater than or equal to 0"),
        ({"keep_last": 0}, PolicyError, "keep_last must be greater than 0"),
        ({"keep_max_bytes": 0}, PolicyError, "keep_max_bytes"),
        ({"keep_all": True, "keep_last": 3}, PolicyError, "keep_all and keep_last exclude each other"),
        ({"monitor": "loss", "keep_all": True, "keep_best": 3}, PolicyError, "keep_all and keep_best"),
        ({"keep": KeepLast(), "keep_last": 3}, PolicyError, "keep=… and keep_last exclude each other"),
        ({"when": AtEnd(), "every_n_steps": 3}, PolicyError, "when=… and every_n_steps exclude each other"),
        ({"monitor": "loss", "keep": KeepBest(1, "val_f1")}, PolicyError, "KeepBest names val_f1"),
        ({"keep": {"kind": "latest"}}, PolicyError, "keep has no kind 'latest'"),
        ({"keep": {"n": 3}}, PolicyError, "its kind"),
        ({"keep": "last"}, PolicyError, "keep must be"),
        ({"when": {"kind": "every_n_steps", "n": 0}}, PolicyError, "n must be a whole number, 1 or more, not 0"),
        ({"when": {"kind": "any_of", "rules": []}}, PolicyError, "at least 1"),
        ({"best_contents": "weights"}, PolicyError, "set keep_best"),
        ({"monitor": "loss", "best_contents": "wheights"}, PolicyError, "'everything' or 'weights'"),
        ({"on_save_error": "ignore"}, PolicyError, "on_save_error"),
    ],
)
def test_what_cannot_be_meant_is_refused_at_once(fields, error, says):
    """A policy that contradicts itself or can never save raises when it is made, and says what to write instead."""
    with pytest.raises(error) as caught:
        CheckpointPolicy(**fields)
    assert type(caught.value) is error
    assert says in str(caught.value)


anything = st.sampled_from(
    [
        *(None, True, False, -1, 0, 1, 3, 2.5, float("nan"), 10**400, 10**5000),
        *("", "min", "loss", "5", "1%", (), [], ["loss"], [3], b"x", object),
        *({}, {"kind": "last"}, {"kind": "any_of", "rules": [{}]}, {"key": "loss"}, {1: 2}),
    ]
)


@pytest.mark.parametrize(
    ("make", "error", "says"),
    [
        (lambda: CheckpointPolicy("val_loss"), PolicyError, "by name: CheckpointPolicy(monitor='val_loss')"),
        (lambda: CheckpointPolicy({"monitor": "loss"}), PolicyError, "CheckpointPolicy(monitor=…), or **fields"),
        (lambda: MonitorSpec("val_f1"), PolicyError, "by name: MonitorSpec(key='val_f1')"),
        (lambda: CheckpointPolicy.model_validate({"monitr": "loss"}), PolicyError, "Did you mean 'monitor'?"),
        (lambda: CheckpointPolicy.model_validate(3), PolicyError, "(got 3)"),
        (lambda: CheckpointPolicy.model_validate_strings({"monitr": "loss"}), PolicyError, "Did you mean 'monitor'?"),
        (lambda: CheckpointPolicy.model_validate_strings({"keep_last": "3"}), PolicyError, "keep_last must be"),
        (lambda: CheckpointPolicy.model_validate_json('{"monitr": 1}'), PolicyError, "Did you mean 'monitor'?"),
        (lambda: CheckpointPolicy.model_validate_json("{"), PolicyError, "Invalid JSON"),
        (lambda: CheckpointPolicy.from_json(3), PolicyError, "must be a text in JSON"),
        (lambda: CheckpointPolicy.from_file(3), ConfigError, "by its path, 'policy.toml', not 3"),
        (lambda: CheckpointPolicy.from_file("a\0.toml"), ConfigError, "is no path"),
        (lambda: CheckpointPolicy(keep_last=10**5000), PolicyError, "too long to show"),
        (lambda: CheckpointPolicy(every_n_seconds=10**400), PolicyError, "every_n_seconds must be"),
    ],
)
def test_a_policy_made_in_another_way_than_by_its_fields_is_refused_in_our_words(make, error, says):
    """Whichever door a mistake comes through, it is told as an error of ours."""
    with pytest.raises(error) as caught:
        make()
    assert type(caught.value) is error
    assert says in str(caught.value)


def test_whole_numbers_of_numpy_become_plain_ones():
    """A number that NumPy worked out does what the plain one does; NumPy's True is no number."""
    fields = {"every_n_steps": 7, "keep_best": 2, "patience": 3, "reduce": 0, "keep_max_bytes": 10**9}
    policy = CheckpointPolicy(monitor="loss", **{name: np.int64(number) for name, number in fields.items()})
    assert policy == CheckpointPolicy(monitor="loss", **fields)
    assert all(type(getattr(policy, name)) is int for name in fields)
    with pytest.raises(PolicyError, match="keep_last must be"):
        CheckpointPolicy(keep_last=np.bool_(1))


@settings(deadline=None, max_examples=300)
@given(st.dictionaries(st.sampled_from([*CheckpointPolicy.model_fields, "x"]), anything, max_size=4))
def test_every_mistake_is_an_error_of_ours(fields):
    """Whatever is written into a policy, it works or raises a KeepbestError, never the validator's own."""
    with contextlib.suppress(KeepbestError):
        CheckpointPolicy(**fields)


def test_a_policy_is_a_value():
    """Equal policies are equal and hash alike, a policy cannot be altered, and a changed copy is checked."""
    policy = CheckpointPolicy(monitor=["val_loss"], where=["a < 1"])
    assert policy == CheckpointPolicy(monitor=("val_loss",), where="a < 1")
    assert hash(policy) == hash(CheckpointPolicy(monitor=("val_loss",), where="a < 1"))
    with pytest.raises(PolicyError, match=r"does not change: make another one, by model_copy\(update={'keep_last': …"):
        policy.keep_last = 3
    with pytest.raises(PolicyError, match="does not change"):
        del policy.keep_last
    assert policy.model_copy(update={"keep_last": 3}).keep_rule == KeepAnyOf([KeepBest(1, "val_loss"), KeepLast(3)])
    with pytest.raises(PolicyError):
        policy.model_copy(update={"keep_last": 0})


# ── files ────────────────────────────────────────────────────────────────────────────────────────────────────────────

COMPOSED = CheckpointPolicy(
    monitor=("val_loss", MonitorSpec(key="quality", mode="max", min_delta="1%", smoothing="median:3")),
    when=AnyOf([EveryNSteps(1000), OnImprovement(), AnyOf([AtEnd(), OnSignal()])]),
    keep=KeepBytes(10**9, KeepAnyOf([KeepBest(3, "quality"), KeepLast(2), KeepEveryNEpochs(10)])),
    best_contents="weights",
)


@settings(deadline=None)
@given(policies)
def test_json_gives_the_policy_back(policy):
    """A policy written as JSON and read again is equal to itself."""
    text = policy.to_json()
    assert CheckpointPolicy.from_json(text) == policy
    assert CheckpointPolicy.from_json(text).to_json() == text


@pytest.mark.parametrize(
    "policy", [COMPOSED, CheckpointPolicy(), CheckpointPolicy(keep_all=True)], ids=lambda p: str(p)[:20]
)
def test_json_gives_composed_rules_back(policy):
    """Composed rules and specs come back from JSON as they were; what no one set stays as unset as it was."""
    assert CheckpointPolicy.from_json(policy.to_json()) == policy


def test_json_says_everything():
    """The JSON has every field, so a policy does not change its meaning with a later version's defaults."""
    assert set(json.loads(CheckpointPolicy(monitor="loss").to_json())) == set(CheckpointPolicy.model_fields)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("p.json", '{"monitor": "val_loss", "keep_best": 3, "where": ["a < 1"], "when": {"kind": "at_end"}}'),
        ("p.yaml", "monitor: val_loss\nkeep_best: 3\nwhere: [a < 1]\nwhen: {kind: at_end}\n"),
        ("p.YML", "monitor: val_loss\nkeep_best: 3\nwhere: a < 1\nwhen:\n  kind: at_end\n"),
        ("p.toml", 'monitor = "val_loss"\nkeep_best = 3\nwhere = ["a < 1"]\n[when]\nkind = "at_end"\n'),
    ],
)
def test_a_policy_is_read_from_a_file(tmp_path, name, text):
    """The suffix says how a file is read, and all three formats say the same."""
    (tmp_path / name).write_text(text)
    expected = CheckpointPolicy(monitor="val_loss", keep_best=3, where="a < 1", when=AtEnd())
    assert CheckpointPolicy.from_file(tmp_path / name) == expected
    assert CheckpointPolicy.from_file(str(tmp_path / name)) == expected


@pytest.mark.parametrize(
    ("name", "data", "error", "says"),
    [
        ("p.ini", b"", ConfigError, ".json, .yaml, .yml or .toml"),
        ("p.json", b"{", PolicyError, "not valid JSON"),
        ("p.json", b"[1]", PolicyError, "fields of a CheckpointPolicy"),
        ("p.json", b"[" * 100_000, PolicyError, "not valid JSON"),
        ("p.yaml", b"a: [", PolicyError, "not valid YAML"),
        ("p.yaml", b"patience: 3\nmonitor: a\npatience: 5", PolicyError, "p.yaml says 'patience' twice"),
        ("p.yaml", b"when: {kind: at_end, kind: at_end}", PolicyError, "says 'kind' twice"),
        ("p.json", b'{"patience": 3, "monitor": "a", "patience": 5}', PolicyError, "p.json says 'patience' twice"),
        ("p.toml", b"patience = 3\npatience = 5", PolicyError, "not valid TOML"),
        ("p.toml", b'[policy]\nmonitor = "a"', PolicyError, "no section: leave out the line [policy], or in YAML"),
        ("p.toml", b'monitor = "a"\nsmoothing = "ema:9"', PolicyError, "smoothing 'ema:9': decay must lie between"),
        ("p.yaml", b"", PolicyError, "fields of a CheckpointPolicy"),
        ("p.yaml", b"1: 2", PolicyError, "fields of a CheckpointPolicy"),
        ("p.yaml", b"!!python/object/apply:os.getcwd []", PolicyError, "not valid YAML"),
        ("p.toml", b"a = ", PolicyError, "not valid TOML"),
        ("p.toml", b"\xff", PolicyError, "UTF-8"),
        ("p.json", b'{"monitor": "foo"}', AmbiguousModeError, "mode='max'"),
        ("p.json", b'{"monitr": "loss"}', PolicyError, "Did you mean 'monitor'?"),
    ],
)
def test_a_file_that_holds_no_policy_is_refused(tmp_path, name, data, error, says):
    """A file of another kind, damaged, or with unknown fields raises an error of ours; nothing in it is run."""
    (tmp_path / name).write_bytes(data)
    with pytest.raises(error) as caught:
        CheckpointPolicy.from_file(tmp_path / name)
    assert says in str(caught.value)
    assert str(tmp_path / name) in str(caught.value)


def test_a_file_that_is_not_there_is_named(tmp_path):
    """A missing file is an error that names it."""
    with pytest.raises(ConfigError, match=r"nowhere\.toml"):
        CheckpointPolicy.from_file(tmp_path / "nowhere.toml")


def test_yaml_without_pyyaml_says_what_to_install(tmp_path, monkeypatch):
    """Where PyYAML is not installed, the error says how to install it."""
    real = builtins.__import__

    def without_yaml(name, *args, **kwargs):
        if name == "yaml":
            raise ImportError(name)
        return real(name, *args, **kwargs)

    (tmp_path / "p.yaml").write_text("monitor: loss\n")
    monkeypatch.setattr(builtins, "__import__", without_yaml)
    with pytest.raises(ConfigError, match="pip install pyyaml"):
        CheckpointPolicy.from_file(tmp_path / "p.yaml")


def test_toml_can_say_all_that_the_rules_can():
    """Composed rules can be written in TOML, which has no null, too."""
    fields = tomllib.loads(
        """
        [when]
        kind = "any_of"
        rules = [{kind = "every_n_steps", n = 1000}, {kind = "at_end"}]
        [keep]
        kind = "bytes"
        limit = 1000
        rule = {kind = "last", n = 3}
        """
    )
    policy = CheckpointPolicy(**fields)
    assert policy.when_rules == (EveryNSteps(1000), AtEnd())
    assert policy.keep_rule == KeepBytes(1000, KeepLast(3))


# ── in plain words ───────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("policy", "lines"),
    [
        (
            CheckpointPolicy(monitor="val_loss", min_delta=0.01, keep_best=3, patience=5),
            [
                (
                    "Saves every epoch, when val_loss improves (lower is better, by more than 0.01), "
                    "at the end, on SIGTERM."
                ),
                "Keeps the best 3 by val_loss, and the last one.",
                "Stops after 5 checks of val_loss without improvement.",
            ],
        ),
        (CheckpointPolicy(), ["Saves every epoch, at the end, on SIGTERM.", "Keeps the last one."]),
        (
            COMPOSED,
            [
                (
                    "Saves every 1,000 steps, when val_loss improves (lower is better) or quality improves "
                    "(higher is better, by more than 1%), at the end, on SIGTERM."
                ),
                "Keeps the best 3 by quality, the last 2, and one every 10 epochs, within 1,000,000,000 bytes.",
                "What is saved only for being the best holds the weights alone.",
                "Judges quality smoothed by median:3.",
            ],
        ),
        (
            CheckpointPolicy(
                monitor="val_f1",
                where=["val_loss < 0.5"],
                start_epoch=2,
                every=3,
                baseline=0.7,
                patience=1,
                on_nonfinite="stop",
                nonfinite_limit=3,
                keep_all=True,
                every_n_seconds=600,
                on_exception=True,
                on_save_error="warn",
            ),
            [
                (
                    "Saves every epoch, every 600 seconds, when val_f1 improves (higher is better), at the end, "
                    "on SIGTERM, on an exception."
                ),
                "Keeps all.",
                (
                    "Judges val_f1 only where val_loss < 0.5, from epoch 3 on, in every 3 epochs at least, "
                    "against the baseline 0.7."
                ),
                "Stops after a check of val_f1 without improvement.",
                "Stops when val_f1 is NaN or infinite 3 times in a row.",
                "A failed save is a warning, and training goes on.",
            ],
        ),
    ],
    ids=["front-door", "defaults", "composed", "everything"],
)
def test_a_policy_says_what_it_will_do(policy, lines):
    """Printed, a policy tells in short plain lines what it will do."""
    assert str(policy).splitlines() == lines


def test_the_examples_in_the_documentation_run():
    """What the docstrings show is what happens."""
    import doctest
    import importlib

    for name in ("direction", "metric", "monitor", "policy", "retention", "spec", "when"):
        found = doctest.testmod(importlib.import_module(f"keepbest.core.{name}"))
        assert found.failed == 0
        assert found.attempted > 0


@pytest.mark.parametrize(
    "fields",
    [{"keep_best": -1}, {"where": "x <"}, {"mode": "up"}, {"keep": {"kind": "best", "n": -1}}, {"keep_all": True}],
    ids=str,
)
def test_a_policy_that_is_refused_leaves_nothing_behind(fields):
    """The error holds nothing that holds it, out of Python's sight: a process that tries many does not grow."""
    with pytest.raises(KeepbestError) as caught:
        CheckpointPolicy(**{"monitor": "loss", "keep_best": 2} | fields)
    error = weakref.ref(caught.value)
    del caught
    gc.collect()
    assert error() is None
