"""Network: whatever one request of a story meets, nothing is lost or torn, and nothing goes unnoticed (a sample)."""

from __future__ import annotations

import pytest
from faults import network

CASES = [
    pytest.param("s3fs", False, 0.02, id="s3fs"),
    pytest.param("obstore", True, 0.03, id="obstore-large"),
    pytest.param("gcs", False, 0.02, id="gcs"),
    pytest.param("gcs", True, 0.03, id="gcs-large"),
]


@pytest.mark.slow
@pytest.mark.bucket
@pytest.mark.parametrize(("client", "large", "share"), CASES)
def test_no_fault_of_the_network_does_harm(request, client, large, share):
    """What was told to be saved is there, what is listed is whole, the next training works, and gc leaves nothing."""
    kind = "gcs" if client == "gcs" else "s3"
    server, bucket = request.getfixturevalue(f"{kind}_server"), request.getfixturevalue(f"{kind}_bucket")
    rows = network.sweep(client, server, bucket, large=large, share=share, seed=1, threads=3)
    assert sum(row.tried for row in rows) >= 5
    assert [finding for row in rows for finding in row.findings] == []
    assert all(row.harmless for row in rows)
