"""A part of the damage that `make faults` does: each must be noticed, and harm nothing else."""

from __future__ import annotations

import pytest
from faults import damage


@pytest.mark.slow
def test_damage_is_noticed(tmp_path):
    """Whatever is changed, cut or swapped in a run is named by `verify` and never loaded as something else."""
    tallies = list(damage.measure(tmp_path, sample=True, seed=1))
    assert sum(tally.tried for tally in tallies) > 500
    for tally in tallies:
        assert tally.harmless, f"{tally.scenario}: {tally.findings}"
