"""Random histories of a run, beside a reference: a few of each scenario, always the same."""

import pytest
from faults.model import SCENARIOS, live_through


@pytest.mark.slow
@pytest.mark.parametrize("scenario", SCENARIOS, ids=str)
def test_a_run_lives_through_anything(scenario, tmp_path):
    """Whatever training, deaths, branches and rivals do to it, a run is what a reference of dicts says."""
    tally = live_through(scenario, tmp_path, examples=4)
    assert tally.harmless, "\n".join(tally.findings)
    assert tally.tried >= 4
