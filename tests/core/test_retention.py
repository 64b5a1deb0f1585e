"""What stays: each rule on a small run, and the guarantees that hold whatever the rules are."""

import itertools
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from keepbest.core.retention import (
    KeepAll,
    KeepAnyOf,
    KeepBest,
    KeepBytes,
    KeepEveryNEpochs,
    KeepEveryNSteps,
    KeepLast,
    retain,
    simple_keep_rules,
)
from keepbest.errors import PolicyError
from keepbest.storage.manifest import CheckpointInfo, Score


def checkpoint(sequence, loss=None, *, f1=None, epoch=None, step=None, complete=True, nbytes=10):  # noqa: PLR0913
    """Return the record of a checkpoint, by default one an epoch and 100 steps apart."""
    return CheckpointInfo(
        sequence=sequence,
        name=f"c{sequence}",
        step=100 * sequence if step is None else step,
        epoch=sequence - 1 if epoch is None else epoch,
        parent=None,
        time=float(sequence),
        reasons=("epoch",),
        complete=complete,
        scores=(Score(monitor="val_loss", mode="min", value=loss), Score(monitor="val_f1", mode="max", value=f1)),
        nbytes=nbytes,
    )


def run(*losses, **same):
    """Return one checkpoint an epoch, with these losses."""
    return [checkpoint(number, loss, **same) for number, loss in enumerate(losses, 1)]


TIED = run(0.5, 0.3, 0.3, 0.2, 0.2, 0.4)
UNSCORED = run(None, 0.9, None, math.inf, math.nan, None)
WEIGHTS = [*run(0.5, 0.4), checkpoint(3, 0.1, complete=False), checkpoint(4, 0.2, complete=False)]
STEPS = [checkpoint(n, step=step, epoch=0) for n, step in enumerate([90, 130, 199, 450, 510, 500], 1)]
RISING = [checkpoint(1, 0.1, f1=0.5), checkpoint(2, 0.2, f1=0.9)]
ONE_EPOCH = [checkpoint(1, epoch=0), checkpoint(2, epoch=0)]


@pytest.mark.parametrize(
    ("rule", "checkpoints", "kept"),
    [
        pytest.param(KeepBest(1), TIED, {4}, id="best-tie-earlier-stays"),
        pytest.param(KeepBest(3), TIED, {2, 4, 5}, id="best-3"),
        pytest.param(KeepBest(9), TIED, {1, 2, 3, 4, 5, 6}, id="best-of-fewer"),
        pytest.param(KeepBest(9), UNSCORED, {2}, id="best-only-of-scored"),
        pytest.param(KeepBest(1), WEIGHTS, {3}, id="best-may-be-weights-only"),
        pytest.param(KeepBest(1, "val_f1"), RISING, {2}, id="best-max"),
        pytest.param(KeepBest(1, "other"), TIED, set(), id="best-by-a-monitor-without-scores"),
        pytest.param(KeepLast(1), TIED, {6}, id="last"),
        pytest.param(KeepLast(3), TIED, {4, 5, 6}, id="last-3"),
        pytest.param(KeepLast(1), WEIGHTS, {2}, id="last-is-complete"),
        pytest.param(KeepEveryNEpochs(2), TIED, {2, 4, 6}, id="every-2-epochs-counted-from-1"),
        pytest.param(KeepEveryNEpochs(1), ONE_EPOCH, {2}, id="newest-of-an-epoch"),
        pytest.param(KeepEveryNEpochs(4), WEIGHTS, {4}, id="milestone-of-weights"),
        pytest.param(KeepEveryNSteps(100), STEPS, {2, 4, 6}, id="first-at-or-past-each-multiple"),
        pytest.param(KeepAll(), TIED, {1, 2, 3, 4, 5, 6}, id="all"),
        pytest.param(KeepAnyOf([KeepBest(), KeepLast()]), TIED, {4, 6}, id="any-of"),
        pytest.param(KeepAll(), [], set(), id="nothing-there"),
    ],
)
def test_what_each_rule_keeps(rule, checkpoints, kept):
    """Each rule keeps what its first sentence says."""
    assert rule.keeps(checkpoints) == kept


def test_an_epoch_not_begun_is_no_milestone():
    """A checkpoint from before the first epoch is no milestone."""
    before = CheckpointInfo(sequence=1, name="c", step=0, epoch=None, parent=None, time=0, reasons=(), complete=True)
    assert KeepEveryNEpochs(1).keeps([before]) == KeepEveryNSteps(1).keeps([before]) == set()


def test_the_plan_says_why_each_stays():
    """The plan gives all the reasons of what stays, and what goes from the oldest on."""
    plan = retain(TIED, KeepAnyOf([KeepBest(2, "val_loss"), KeepLast(2), KeepEveryNEpochs(5)]))
    assert plan.keep == {
        4: ("best 2 by val_loss",),
        5: ("best 2 by val_loss", "last 2", "every 5 epochs"),
        6: ("last 2",),
    }
    assert plan.retire == (1, 2, 3)


def test_the_newest_complete_one_stays_without_being_asked_for():
    """Training can be continued even under a policy that only keeps the best."""
    assert retain(run(0.1, 0.2, 0.3), KeepBest()).keep == {1: ("best",), 3: ("newest",)}
    assert retain(WEIGHTS, KeepBest()).keep == {2: ("newest",), 3: ("best",)}


def test_a_change_of_metric_loses_no_best():
    """When the primary monitor changes during a run, the best by the old one and by the new one both stay."""

    def by_mae(sequence, value):
        return CheckpointInfo(
            sequence=sequence,
            name="c",
            step=sequence,
            epoch=sequence,
            parent=None,
            time=0,
            reasons=(),
            complete=True,
            scores=(Score(monitor="val_mae", mode="min", value=value),),
        )

    assert retain([*run(0.1, 0.2), by_mae(3, 0.8), by_mae(4, 0.9), by_mae(5, 0.9)], KeepBest()).retire == (2, 4)


@pytest.mark.parametrize(
    ("limit", "kept"),
    [
        pytest.param(100, {1, 2, 3, 4, 5, 6, 7, 8}, id="room-for-all"),
        pytest.param(70, {2, 3, 4, 5, 6, 7, 8}, id="the-oldest-milestone-goes-first"),
        pytest.param(60, {2, 3, 5, 6, 7, 8}, id="then-the-next-milestone"),
        pytest.param(50, {2, 5, 6, 7, 8}, id="then-the-worst-of-the-extra-bests"),
        pytest.param(40, {2, 6, 7, 8}, id="then-the-next-worst"),
        pytest.param(30, {2, 7, 8}, id="then-the-oldest-last"),
        pytest.param(20, {2, 8}, id="the-best-and-the-newest-are-left"),
        pytest.param(1, {2, 8}, id="and-stay-even-beyond-the-limit"),
    ],
)
def test_the_order_in_which_a_cap_evicts(limit, kept):
    """A cap takes milestones first, then extra bests, then older lasts; never the best, never the newest."""
    # The bests are 2, 5 and 3, the lasts 6, 7 and 8; only milestones are 1 and 4.
    checkpoints = run(0.9, 0.1, 0.4, 0.8, 0.3, 0.7, 0.6, 0.5)
    rule = KeepAnyOf([KeepBest(3), KeepLast(3), KeepEveryNEpochs(1)])
    assert set(retain(checkpoints, KeepBytes(limit, rule)).keep) == kept


def test_a_cap_makes_room_for_the_newest():
    """The newest counts into the limit even where no rule asks for it: extra bests make room, it stays."""
    plan = retain(run(0.1, 0.2, 0.9), KeepBytes(20, KeepBest(2)))
    assert plan.keep == {1: ("best 2",), 3: ("newest",)}


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: KeepBest(0),
        lambda: KeepLast(-1),
        lambda: KeepLast(True),
        lambda: KeepEveryNEpochs(1.5),
        KeepEveryNSteps,
        lambda: KeepBytes(0, KeepAll()),
        lambda: KeepBytes(10, KeepBytes(5, KeepAll())),
        lambda: KeepAnyOf([]),
        lambda: KeepAnyOf([KeepBytes(5, KeepAll())]),
        lambda: KeepBest(1, "a", "b"),
        lambda: KeepBest(1, n=2),
        lambda: KeepBest(count=2),
    ],
)
def test_a_rule_that_makes_no_sense_is_refused(wrong):
    """A rule is checked when it is made, and the error is one of ours."""
    with pytest.raises(PolicyError):
        wrong()


def test_a_rule_does_not_change():
    """Rules are frozen values: equal ones are equal, none can be altered, and a copy is checked as any other."""
    rule = KeepBest(3)
    assert rule == KeepBest(n=3)
    assert hash(KeepAnyOf([KeepBest(3)])) == hash(KeepAnyOf((KeepBest(3),)))
    with pytest.raises(AttributeError, match="do not change"):
        rule.n = 4
    with pytest.raises(PolicyError):
        replace(rule, n=0)


# ── guarantees ───────────────────────────────────────────────────────────────────────────────────────────────────────

values = st.sampled_from([None, 0.1, 0.2, 0.3, 0.4, math.nan, math.inf, -math.inf])
simple = st.one_of(
    st.tuples(st.integers(1, 4), st.sampled_from([None, "val_loss", "val_f1"])).map(lambda given: KeepBest(*given)),
    st.integers(1, 4).map(KeepLast),
    st.integers(1, 4).map(KeepEveryNEpochs),
    st.integers(1, 300).map(KeepEveryNSteps),
    st.just(KeepAll()),
)
uncapped = simple | st.lists(simple, min_size=1, max_size=4).map(KeepAnyOf)
rules = uncapped | st.tuples(st.integers(1, 200), uncapped).map(lambda given: KeepBytes(*given))


@st.composite
def runs(draw):
    """Checkpoints of a run with branches, weights-only ones and ones that must not rank, in any order."""
    return [
        checkpoint(
            sequence,
            draw(values),
            f1=draw(values),
            epoch=draw(st.integers(0, 6)),
            step=draw(st.integers(0, 900)),
            complete=draw(st.booleans()),
            nbytes=draw(st.integers(0, 60)),
        )
        for sequence in draw(st.lists(st.integers(1, 40), unique=True, max_size=12))
    ]


def finite(checkpoints, monitor):
    """Return sequence → rank (the lower the better) of the checkpoints that may rank."""
    scores = {c.sequence: c.score(monitor) for c in checkpoints}
    return {
        sequence: score.value if score.mode == "min" else -score.value
        for sequence, score in scores.items()
        if score is not None and score.value is not None and math.isfinite(score.value)
    }


def best(checkpoints, monitor):
    """Return the sequence of the best that may rank, the earliest of equals; None where none may."""
    ranks = finite(checkpoints, monitor)
    return min(ranks, key=lambda sequence: (ranks[sequence], sequence), default=None)


@settings(deadline=None)
@given(runs(), rules)
def test_the_newest_complete_checkpoint_always_stays(checkpoints, rule):
    """Whatever the rule, the complete checkpoint with the highest sequence is never retired."""
    complete = [c.sequence for c in checkpoints if c.complete]
    assert not complete or max(complete) in retain(checkpoints, rule).keep


@settings(deadline=None)
@given(runs(), rules)
def test_the_best_is_never_evicted(checkpoints, rule):
    """The best by each monitor that a KeepBest names stays, whatever other rules and the cap say."""
    bests = {best(checkpoints, part.monitor) for part in simple_keep_rules(rule) if isinstance(part, KeepBest)}
    assert bests - {None} <= set(retain(checkpoints, rule).keep)


@settings(deadline=None)
@given(runs(), rules)
def test_retaining_what_was_kept_retires_nothing(checkpoints, rule):
    """A plan is final: what it keeps is kept again, so that retention repeated does no harm."""
    plan = retain(checkpoints, rule)
    again = retain([c for c in checkpoints if c.sequence in plan.keep], rule)
    assert again.retire == ()
    assert set(again.keep) == set(plan.keep)


@settings(deadline=None)
@given(runs(), rules, st.randoms())
def test_the_order_of_the_listing_does_not_matter(checkpoints, rule, random):
    """A plan depends on the checkpoints, not on the order in which they are listed; nothing is in both halves."""
    plan = retain(checkpoints, rule)
    assert retain(random.sample(checkpoints, len(checkpoints)), rule) == plan
    assert sorted([*plan.keep, *plan.retire]) == sorted(c.sequence for c in checkpoints)


@settings(deadline=None)
@given(runs(), st.integers(1, 4))
def test_what_must_not_rank_never_enters_the_best(checkpoints, n):
    """A checkpoint without a finite score is never among the best, and no better one is left out."""
    kept = KeepBest(n, "val_loss").keeps(checkpoints)
    ranks = finite(checkpoints, "val_loss")
    assert kept <= set(ranks)
    assert len(kept) == min(n, len(ranks))
    for inside, outside in itertools.product(kept, set(ranks) - kept):
        assert (ranks[inside], inside) < (ranks[outside], outside)


@settings(deadline=None)
@given(runs(), uncapped, st.lists(simple, max_size=3))
def test_another_rule_never_takes_away(checkpoints, rule, more):
    """A rule that is added keeps more, never less."""
    together = KeepAnyOf([rule, *more])
    assert set(retain(checkpoints, rule).keep) <= set(retain(checkpoints, together).keep)


@settings(deadline=None)
@given(runs(), uncapped, st.integers(1, 200))
def test_a_cap_is_kept_unless_only_the_protected_are_left(checkpoints, rule, limit):
    """What stays is within the limit, or is the newest and the bests alone."""
    kept = set(retain(checkpoints, KeepBytes(limit, rule)).keep)
    total = sum(c.nbytes for c in checkpoints if c.sequence in kept)
    protected = {best(checkpoints, part.monitor) for part in simple_keep_rules(rule) if isinstance(part, KeepBest)}
    protected.add(max((c.sequence for c in checkpoints if c.complete), default=None))
    assert total <= limit or kept <= protected
    assert kept <= set(retain(checkpoints, rule).keep)
