"""The trials of other libraries find what there is to find; they are run whole by `make faults` alone."""

from __future__ import annotations

import pytest
from faults import hosts

pytest.importorskip("torch")


@pytest.mark.slow
@pytest.mark.parametrize(("subject", "loses"), [("torch_plain", True), ("torch_replace", False)])
def test_the_trials_find_what_is_known(tmp_path, subject, loses):
    """torch.save over the only file loses it to some kills at its calls; with os.replace to none."""
    killed, damaged = hosts.rows_of("faults.peer_trials", subject, str(tmp_path), "1", "0", "30", "10")
    assert killed.tried >= 6
    assert (killed.harm["lost"] > 0) == loses, killed.findings
    assert damaged.harm["unnoticed"] > 0, "torch.load compares no checksum"
