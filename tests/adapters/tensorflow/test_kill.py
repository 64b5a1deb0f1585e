"""A loop that is killed and started again ends with the very bits of one that was never interrupted."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from keepbest import open_run

TRAINER = Path(__file__).parent / "trainer.py"


def start(url, kind, moment=0):
    """Run the trainer; returns its exit code, its fingerprint and steps if it came to its end, and its errors."""
    command = [sys.executable, str(TRAINER), url, kind, str(moment)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    ended = [line.split()[1:] for line in done.stdout.splitlines() if line.startswith("ended")]
    return done.returncode, ended[0] if ended else None, done.stderr


def lives(url, deaths):
    """Start, die and start again until training ends; returns the fingerprint and the steps of the last life."""
    for kind, moment in deaths:
        code, ended, errors = start(url, kind, moment)
        assert (code, ended) == (-signal.SIGKILL, None), errors
    code, ended, errors = start(url, "never")
    assert code == 0, errors
    assert "anew" not in errors
    return ended[0], int(ended[1])


@pytest.fixture(scope="module")
def expected(trainer, tmp_path_factory):
    """The fingerprint of a training that nothing interrupts, in a process like the others."""
    fingerprint, steps = lives(str(tmp_path_factory.mktemp("once") / "run"), [])
    assert steps == trainer.EPOCHS * trainer.STEPS
    return fingerprint


def test_a_killed_loop_changes_no_bit(trainer, expected, url):
    """Killed within an epoch, then within a save: weights, slots, averages, counter and next batch are the same."""
    fingerprint, steps = lives(url, [("step", 11), ("call", 50)])
    assert fingerprint == expected
    assert 0 < steps < trainer.EPOCHS * trainer.STEPS - 8
    assert open_run(url).verify().ok


@pytest.mark.slow
@pytest.mark.parametrize("moment", [1, 6, 11, 17, 23, 30, 41, 52, 67, 80])
def test_a_kill_before_any_file_system_call_changes_no_bit(expected, url, moment):
    """Whatever call of a save a process dies before, a restart leads to the same bits."""
    assert lives(url, [("call", moment)])[0] == expected
