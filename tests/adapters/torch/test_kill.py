"""Training killed with SIGKILL and started again ends with the very bits of a training that was never interrupted."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent


def trials(folder, mode, first, step, last):
    """Run kill.py; returns {moment: (killed, fingerprint)}, moment -1 being the uninterrupted run."""
    command = [sys.executable, str(HERE / "kill.py"), str(folder), mode, str(first), str(step), str(last)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    lines = [line.split() for line in done.stdout.splitlines()]
    return {int(n): (killed == "1", fingerprint) for n, killed, fingerprint in lines}


def test_a_kill_after_any_training_step_changes_no_bit(tmp_path):
    """Wherever in its training a process dies, a restart leads to the same weights and optimizer state, bit for bit."""
    found = trials(tmp_path, "step", 1, 1, 17)
    assert len(found) == 17
    assert all(killed for n, (killed, _) in found.items() if n > 0)
    assert {fingerprint for _, fingerprint in found.values()} == {found[-1][1]}


@pytest.mark.parametrize(
    ("first", "step"),
    [
        pytest.param(3, 7, id="sampled"),
        *(pytest.param(n, 4, id=f"all-{n}", marks=pytest.mark.slow) for n in (1, 2, 3, 4)),
    ],
)
def test_a_kill_before_any_file_system_call_changes_no_bit(tmp_path, first, step):
    """Whatever call of a save, a commit or a retirement a process dies before, a restart leads to the same bits."""
    found = trials(tmp_path, "call", first, step, 121)
    assert sum(killed for killed, _ in found.values()) > 70 / step
    assert {fingerprint for _, fingerprint in found.values()} == {found[-1][1]}
