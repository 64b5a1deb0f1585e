"""Races: whoever is at a run at the same time, each number has one winner and readers see whole checkpoints."""

from __future__ import annotations

import pytest
from faults import races

SECONDS = 1.5


@pytest.mark.slow
def test_a_crowd_on_a_disk_does_no_harm(tmp_path):
    """Of several writers exactly one wins each number, readers see all or nothing, and gc touches nothing."""
    row = races.crowd(str(tmp_path / "run"), "on a disk", seconds=SECONDS)
    assert row.findings == []
    assert row.harmless
    assert row.tried >= 20


@pytest.mark.slow
@pytest.mark.bucket
@pytest.mark.parametrize("client", ["s3fs", pytest.param("gcs", id="gcs")])
def test_a_crowd_in_a_bucket_does_no_harm(request, client):
    """The same in buckets."""
    kind = "gcs" if client == "gcs" else "s3"
    server, bucket = request.getfixturevalue(f"{kind}_server"), request.getfixturevalue(f"{kind}_bucket")
    row = races.crowd_in_bucket(client, server, bucket, seconds=2 * SECONDS)
    assert row.findings == []
    assert row.harmless
    assert row.tried >= 5


@pytest.mark.slow
@pytest.mark.parametrize("scenario", [races.recycled, races.clocks])
def test_what_is_read_stays_as_it_was(tmp_path, scenario):
    """Neither recycling nor publishing nor a clock that jumps harms what somebody reads or writes."""
    row = scenario(tmp_path, seconds=SECONDS)
    assert row.findings == []
    assert row.harmless
    assert row.tried >= 10


def test_a_policy_by_seconds_does_not_see_the_clock_jump(tmp_path):
    """Seconds are counted by a clock that nobody sets, and the history of several trainings stays in order."""
    row = races.seconds_policy(tmp_path)
    assert row.findings == []
    assert row.harmless
