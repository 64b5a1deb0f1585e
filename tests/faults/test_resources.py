"""Resources: whatever runs out, nothing is lost or torn, training goes on, and the user is told (a sample)."""

from __future__ import annotations

import pytest
from faults import resources


@pytest.mark.slow
@pytest.mark.parametrize("setting", resources.SETTINGS, ids=str)
def test_no_system_call_that_fails_does_harm(tmp_path, setting):
    """What was told to be saved is there, the next save works, and no file and no descriptor is left behind."""
    row = resources.refuse(tmp_path, setting, share=0.04, seed=1)
    assert row.findings == []
    assert row.harmless
    assert row.tried >= 5


@pytest.mark.slow
@pytest.mark.parametrize("what", resources.LIMITS)
def test_no_limit_of_the_process_does_harm(tmp_path, what):
    """The same under the limits that the system really sets."""
    row = resources.limit(tmp_path, what, share=0.15, seed=1)
    assert row.findings == []
    assert row.harmless
    assert row.tried >= 3


@pytest.mark.slow
def test_a_full_disk_does_no_harm(tmp_path):
    """The same on a disk that is really full."""
    row = resources.fill(tmp_path, share=0.1, seed=1)
    assert row.findings == []
    assert row.harmless
    assert row.tried >= 5
