"""Power: what was promised is there in a sample of the states that a loss of power may leave."""

from __future__ import annotations

import pytest
from faults import power, recording
from faults.operations import Names, Write

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not recording.available(), reason="strace is not installed, or may not trace"),
]


def test_the_power_goes(tmp_path):
    """Whenever it goes: what was saved is listed and whole, training goes on, and gc leaves no orphan."""
    tallies = list(power.measure(tmp_path, sample=True, seed=0))
    for tally in tallies:
        assert tally.harmless, tally.findings
    assert sum(tally.tried for tally in tallies) >= 150


def test_the_workloads_do_what_they_are_there_for(tmp_path):
    """Files are written over, parts of them are left in place, and files get further names."""
    recorded = recording.record(tmp_path / "r", "faults.workloads", ["files written over", "files linked"])
    over, linked = (recorded[name].operations for name in ("files written over", "files linked"))
    tensors = names_of(over, "net.safetensors")
    recycled = [inode for inode in tensors if tensors.count(inode) > 1]
    assert recycled
    written = [sum(len(op.data) for op in over if isinstance(op, Write) and op.inode == inode) for inode in recycled]
    assert min(written) < 2 * 1_200_000 < 2 * max(written)
    assert len(set(names_of(linked, "base.safetensors"))) < len(names_of(linked, "base.safetensors"))


def names_of(operations, name):
    """Return the inode of each file that was given this name."""
    changes = [change for op in operations if isinstance(op, Names) for change in op.changes]
    return [inode for found, inode in changes if found == name and inode is not None]
