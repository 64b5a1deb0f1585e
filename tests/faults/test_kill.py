"""SIGKILL loses nothing: a sample of what `make faults` does, and that the tools kill when they say they do."""

from __future__ import annotations

import os

import pytest
from faults import kill, kills
from faults.kill import AT_RANDOM, PLANS
from faults.syscalls import BY_NUMBER

pytestmark = pytest.mark.skipif(not BY_NUMBER, reason="the numbers of this machine's system calls are not known")


def two_files(folder):
    """Return a job that makes two files below `folder`, each of 8 bytes."""

    def job(voice):
        voice.ready()
        for name in ("one", "two"):
            (folder / name).write_bytes(b"12345678")
            voice.say(name)

    return job


def test_every_call_that_changes_a_file_is_counted(tmp_path):
    """What a job does to files is seen call by call, in order, and nothing else is."""
    end = kills.at_call(two_files(tmp_path), str(tmp_path))
    assert (end.said, end.killed, end.failed) == (["ready", "one", "two"], False, False)
    assert [name.replace("openat", "open") for name in end.calls] == ["open", "write"] * 2


@pytest.mark.parametrize(
    ("number", "moment", "left"),
    [
        (1, "before", {}),
        (1, "after", {"one": b""}),
        (2, "before", {"one": b""}),
        (2, "halfway", {"one": b"1234"}),
        (2, "after", {"one": b"12345678"}),
        (4, "after", {"one": b"12345678", "two": b"12345678"}),
    ],
)
def test_a_kill_comes_at_its_call(tmp_path, number, moment, left):
    """Before a call, nothing of it is done; halfway, half of its bytes are written; after, all of it."""
    end = kills.at_call(two_files(tmp_path), str(tmp_path), number, moment)
    assert end.killed
    assert {name: (tmp_path / name).read_bytes() for name in os.listdir(tmp_path)} == left


@pytest.fixture
def place(tmp_path):
    """A folder, in memory where there is one."""
    with kills.in_memory(tmp_path) as found:
        yield found


@pytest.mark.slow
@pytest.mark.parametrize("plan", PLANS, ids=lambda plan: plan.name)
def test_a_kill_at_a_system_call_loses_nothing(place, plan):
    """Whatever call a training dies at: what it said is saved is there, and a restart goes on and clears away."""
    tally = kill.at_every_call(plan, place, most=4, seed=1)
    assert tally.harmless, tally.findings
    assert tally.tried >= 3


@pytest.mark.slow
@pytest.mark.parametrize("plan", AT_RANDOM, ids=lambda plan: plan.name)
def test_a_kill_at_a_random_moment_loses_nothing(place, plan):
    """Whenever a training dies, again and again: what it said is saved is there."""
    tally = kill.at_random_moments(plan, place, times=8, seed=1)
    assert tally.harmless, tally.findings
    assert tally.tried == 8


@pytest.mark.slow
@pytest.mark.bucket
@pytest.mark.parametrize(("kind", "client"), [("s3", "obstore"), ("gcs", "gcs")])
def test_a_kill_at_a_request_loses_nothing(request, kind, client):
    """Whatever request to a bucket a training dies at, heard or not: what it said is saved is there."""
    server = request.getfixturevalue(f"{kind}_server")
    (tally,) = kill.at_every_request(server, most=3, seed=1, clients=[client])
    assert tally.harmless, tally.findings
    assert tally.tried >= 2
