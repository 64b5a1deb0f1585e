"""Mutants: whichever step of the protocol is broken, the suite reports harm; and none where nothing is broken."""

from __future__ import annotations

import random

import pytest
from faults import noticing, recording, replay
from faults.mutants import MUTANTS, applied
from faults.power import examine
from faults.tally import Tally
from faults.workloads import WORKLOADS

BY_POWER = [name for name, mutation in MUTANTS.items() if mutation.noticed_by.startswith("power: ")]
BY_CHECKS = [name for name in MUTANTS if name not in BY_POWER]
USED = sorted({MUTANTS[name].noticed_by.removeprefix("power: ") for name in BY_POWER})
"""Workloads by which a mutation is noticed."""
MOST = 170
"""States that are looked at until harm is found."""


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    """Recordings of all mutated workloads, and of the same ones without a mutation."""
    if not recording.available():
        pytest.skip("strace is not installed, or may not trace")
    return recording.record(tmp_path_factory.mktemp("mutated"), "faults.mutants", [*BY_POWER, *USED])


def harm(recorded, name, workload):
    """Return what is found in states of a recording, as soon as something is."""
    tally = Tally(family="power", scenario=name)
    chosen = replay.states(recorded[name], seed=0, most=MOST)
    random.Random(0).shuffle(chosen)  # harm is found sooner
    for state in chosen:
        with applied(MUTANTS.get(name)):
            examine([state], WORKLOADS[workload], tally, name)
        if not tally.harmless:
            break
    return tally


@pytest.mark.slow
@pytest.mark.parametrize("name", BY_POWER)
def test_a_mutation_does_harm_when_the_power_goes(recorded, name):
    """With this step broken, something is lost or torn in one of the states that the power leaves."""
    assert not harm(recorded, name, MUTANTS[name].noticed_by.removeprefix("power: ")).harmless


@pytest.mark.slow
@pytest.mark.parametrize("workload", USED)
def test_without_a_mutation_the_power_does_no_harm(recorded, workload):
    """In the same states of the code as it is, nothing is."""
    tally = harm(recorded, workload, workload)
    assert tally.harmless, tally.findings
    assert tally.tried > 30


@pytest.mark.parametrize("name", BY_CHECKS)
def test_a_mutation_is_noticed(name, tmp_path):
    """With this step broken, the check that is named beside it finds harm."""
    check = noticing.CHECKS[MUTANTS[name].noticed_by]
    with applied(MUTANTS[name]):
        found = next(check(tmp_path), None)
    assert found is not None


@pytest.mark.parametrize("check", noticing.CHECKS)
def test_without_a_mutation_nothing_is_noticed(check, tmp_path):
    """The same checks find nothing in the code as it is."""
    assert list(noticing.CHECKS[check](tmp_path)) == []


def test_a_patch_that_no_longer_fits_is_an_error():
    """When the code changes, the table has to."""
    mutant = MUTANTS["files are not synced"]
    stale = type(mutant)("power: first save", (type(mutant.patches[0])(mutant.patches[0].where, "nowhere", ""),))
    with pytest.raises(LookupError, match="0 times"), applied(stale):
        pass
