"""Rules: made by position, by name or from a file; whatever is wrong is an error of ours."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest

from keepbest import CheckpointPolicy
from keepbest.core.retention import KeepAnyOf, KeepBest, KeepBytes, KeepEveryNEpochs, KeepLast
from keepbest.core.when import AnyOf, AtEnd, EveryNEpochs, EveryNSeconds, EveryNSteps
from keepbest.errors import PolicyError


def nested(depth):
    """Return so many rules, each but the innermost an AnyOf of the next."""
    return AnyOf([nested(depth - 1)]) if depth > 1 else AtEnd()


def as_fields(depth):
    """Return the same as fields in dicts."""
    rule = {"kind": "at_end"}
    for _ in range(depth - 1):
        rule = {"kind": "any_of", "rules": [rule]}
    return rule


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (EveryNEpochs, "EveryNEpochs: n is missing."),
        (lambda: KeepBytes(3), "KeepBytes: rule is missing."),
        (KeepBytes, "KeepBytes: limit and rule are missing."),
        (lambda: CheckpointPolicy(keep={"kind": "every_n_steps"}), "KeepEveryNSteps: n is missing."),
        (lambda: EveryNEpochs(1, 2), "EveryNEpochs takes at most 1 value, not 2."),
        (lambda: KeepBest(1, "loss", 2), "KeepBest takes at most 2 values, not 3."),
        (lambda: AtEnd(3), "AtEnd takes no values, not 1."),
        (lambda: AnyOf(EveryNSteps(3), AtEnd()), "AnyOf takes one list of rules, AnyOf([…]), not 2 values."),
        (lambda: KeepBest(k=3), "there is no field 'k'. Its fields: n, monitor."),
        (lambda: AtEnd(k=3), "there is no field 'k'. It has none."),
        (lambda: KeepBest(3, n=3), "KeepBest got n twice"),
        (lambda: KeepBest(moniter="val_loss"), "there is no field 'moniter'. Did you mean 'monitor'?"),
        (lambda: KeepBest(monitor=""), "the name of a metric"),
        (lambda: KeepBest(True), "n must be a whole number, 1 or more, not True"),
        (lambda: KeepLast("3"), "n must be a whole number, 1 or more, not '3'"),
        (lambda: EveryNSeconds(0), "seconds must be greater than 0, not 0"),
        (lambda: EveryNSeconds(float("nan")), "seconds must be a finite number"),
        (lambda: EveryNSeconds(10**400), "seconds must be a finite number, not 1000"),
        (lambda: EveryNSeconds(10**5000), "not a value of type int that is too long to show"),
        (lambda: KeepBest(10**5000), "at most 2**53, not a value of type int that is too long to show"),
        (lambda: KeepBest(np.bool_(1)), "n must be a whole number"),
        (lambda: KeepBest(np.array(3)), "n must be a whole number"),
        (lambda: CheckpointPolicy(keep={10**5000}), "too long to show"),
        (lambda: nested(51), "AnyOf: rules are nested too deeply (50 at most)"),
        (lambda: CheckpointPolicy(when=as_fields(51)), "AnyOf: rules are nested too deeply"),
        (lambda: CheckpointPolicy(when=as_fields(10_000)), "nested too deeply"),
        (lambda: AnyOf([as_fields(10_000)]), "AnyOf: it refers to itself, or is nested too deeply"),
        (lambda: AnyOf([]), "a list of at least 1 rule"),
        (lambda: AnyOf(EveryNSteps(3)), "a list of at least 1 rule"),
        (lambda: AnyOf([EveryNSteps(3), 3]), "each of rules must be a rule, or its fields with its kind"),
        (lambda: AnyOf([KeepLast()]), "says when to save, and KeepLast says what to keep: write one of OnImprovement,"),
        (lambda: CheckpointPolicy(when=KeepLast), "when must be a rule that says when to save, and KeepLast says"),
        (lambda: CheckpointPolicy(when={"kind": "last"}), "'last', which says what to keep, only 'on_improvement'"),
        (lambda: CheckpointPolicy(when=AtEnd), "when must be a rule such as AtEnd(…), not the class of one"),
        (lambda: CheckpointPolicy(when=[AtEnd()]), "when must be one rule: put the list of them into AnyOf([…])"),
        (
            lambda: CheckpointPolicy(keep=[KeepLast()]),
            "keep must be one rule: put the list of them into KeepAnyOf([…])",
        ),
        (lambda: KeepAnyOf([EveryNSteps(3)]), "and EveryNSteps says when to save: write KeepEveryNSteps."),
        (lambda: KeepAnyOf([KeepBytes(3, KeepLast())]), "KeepBytes stands within another rule, and must be the"),
        (lambda: KeepAnyOf([{"kind": "bytes"}]), "KeepBytes stands within another rule, and must be the outermost"),
        (lambda: KeepAnyOf([{"kind": "lest"}]), "Did you mean 'last'?"),
        (lambda: KeepAnyOf([{"kind": "last", "n": 0}]), "KeepAnyOf: KeepLast: n must be"),
        (lambda: KeepAnyOf([{"kind": 3}]), "has no kind 3"),
        (lambda: KeepBytes(10, KeepBytes(10, KeepLast())), "KeepBytes stands within another rule, and must be"),
        (lambda: CheckpointPolicy(keep=EveryNSteps(3)), "keep must be a rule that says what to keep, and EveryNSteps"),
    ],
)
def test_a_wrong_rule_is_refused_when_it_is_made(wrong, says):
    """Wrong, missing and unknown fields are told by name, however deep in a rule they stand."""
    with pytest.raises(PolicyError) as caught:
        wrong()
    assert says in str(caught.value)


def test_a_rule_that_holds_itself_is_refused():
    """A file that refers to itself, as YAML can, ends in an error of ours."""
    endless = {"kind": "any_of", "rules": []}
    endless["rules"].append(endless)
    with pytest.raises(PolicyError, match="refers to itself"):
        CheckpointPolicy(when=endless)


def test_a_rule_may_be_made_of_the_fields_of_others():
    """Rules, and the fields of some in dicts, may stand side by side."""
    mixed = AnyOf([{"kind": "every_n_steps", "n": 10}, AtEnd(), {"kind": "any_of", "rules": [EveryNEpochs(2)]}])
    assert mixed == AnyOf((EveryNSteps(10), AtEnd(), AnyOf([EveryNEpochs(2)])))
    assert [rule.kind for rule in mixed.rules] == ["every_n_steps", "at_end", "any_of"]


@pytest.mark.parametrize(
    ("rule", "plain"),
    [
        (EveryNSeconds(np.float64(2.5)), EveryNSeconds(2.5)),
        (EveryNSeconds(np.float32(2.5)), EveryNSeconds(2.5)),
        (EveryNSeconds(np.int64(2)), EveryNSeconds(2.0)),
        (EveryNSteps(np.int64(7)), EveryNSteps(7)),
        (KeepBest(np.uint8(7), np.str_("loss")), KeepBest(7, "loss")),
        (KeepBytes(np.int64(7), KeepLast(np.int32(2))), KeepBytes(7, KeepLast(2))),
    ],
)
def test_numbers_of_numpy_become_plain_ones(rule, plain):
    """A number that NumPy worked out does what the plain one does, and can be written down."""
    field = "keep" if isinstance(rule, KeepBest | KeepBytes) else "when"
    policy = CheckpointPolicy(monitor="loss", **{field: rule})
    assert repr(rule) == repr(plain)
    assert CheckpointPolicy.from_json(policy.to_json()) == policy


def test_rules_within_rules_can_be_written_down_to_the_deepest():
    """What is not refused for being nested too deeply works in every way."""
    policy = CheckpointPolicy(when=nested(50))
    assert CheckpointPolicy.from_json(policy.to_json()) == policy == CheckpointPolicy(when=as_fields(50))


def test_a_rule_can_be_copied_and_pickled():
    """As any value can; a policy that holds one, too."""
    rule = KeepAnyOf([KeepBest(3, "loss"), KeepEveryNEpochs(5)])
    policy = CheckpointPolicy(monitor="loss", keep=rule)
    for found in (copy.deepcopy(policy), pickle.loads(pickle.dumps(policy)), policy.model_copy()):
        assert (found, found.keep) == (policy, rule)


def test_a_rule_does_not_change():
    """Who sets or deletes a field is told to make another rule; the rule, copied or pickled, stays as it was."""
    rule = KeepLast(3)
    says = r"rules do not change, so n of KeepLast stays\. Make another one: KeepLast\(…\)\."
    with pytest.raises(AttributeError, match=says):
        rule.n = 4
    with pytest.raises(AttributeError, match=says):
        del rule.n
    assert copy.deepcopy(rule) == pickle.loads(pickle.dumps(rule)) == KeepLast(3)
