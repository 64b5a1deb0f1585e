"""Rules: made by position, by name or from a file; whatever is wrong is an error of ours."""

from __future__ import annotations

import copy
import pickle

import pytest

from keepbest import CheckpointPolicy
from keepbest.core.retention import KeepAnyOf, KeepBest, KeepBytes, KeepEveryNEpochs, KeepLast
from keepbest.core.when import AnyOf, AtEnd, EveryNEpochs, EveryNSeconds, EveryNSteps
from keepbest.errors import PolicyError


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (EveryNEpochs, "Missing required argument 'n'"),
        (lambda: EveryNEpochs(1, 2), "takes at most 1 values, not 2"),
        (lambda: KeepBest(3, n=3), "KeepBest got n twice"),
        (lambda: KeepBest(moniter="val_loss"), "there is no field 'moniter'. Did you mean 'monitor'?"),
        (lambda: KeepBest(monitor=""), "the name of a metric"),
        (lambda: KeepBest(True), "n must be a whole number, 1 or more, not True"),
        (lambda: KeepLast("3"), "n must be a whole number, 1 or more, not '3'"),
        (lambda: EveryNSeconds(0), "seconds must be greater than 0, not 0"),
        (lambda: EveryNSeconds(float("nan")), "seconds must be a finite number"),
        (lambda: AnyOf([]), "a list of at least 1 rule"),
        (lambda: AnyOf(EveryNSteps(3)), "a list of at least 1 rule"),
        (lambda: AnyOf([EveryNSteps(3), KeepLast()]), "each of rules must be a rule, or its fields with its kind"),
        (lambda: KeepAnyOf([{"kind": "lest"}]), "Did you mean 'last'?"),
        (lambda: KeepAnyOf([{"kind": "last", "n": 0}]), "KeepAnyOf: KeepLast: n must be"),
        (lambda: KeepAnyOf([{"kind": 3}]), "has no kind 3"),
        (lambda: KeepBytes(10, KeepBytes(10, KeepLast())), "rule must be a rule"),
        (lambda: CheckpointPolicy(keep=EveryNSteps(3)), "keep must be a rule"),
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


def test_a_rule_can_be_copied_and_pickled():
    """As any value can; a policy that holds one, too."""
    rule = KeepAnyOf([KeepBest(3, "loss"), KeepEveryNEpochs(5)])
    policy = CheckpointPolicy(monitor="loss", keep=rule)
    for found in (copy.deepcopy(policy), pickle.loads(pickle.dumps(policy)), policy.model_copy()):
        assert (found, found.keep) == (policy, rule)
