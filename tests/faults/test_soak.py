"""Many saves, on stores that refuse now and then, in processes that are killed: a short version."""

import pytest
from faults.soak import in_a_bucket, in_memory, on_the_disk

pytestmark = [
    pytest.mark.slow,
    # Other tests of this process may have imported JAX, which warns of each fork. The children here do without it.
    pytest.mark.filterwarnings("ignore:os.fork", "ignore::pytest.PytestUnraisableExceptionWarning"),
]


def test_the_disk(tmp_path):
    """In spite of kills and refused writes a run on the disk loses nothing, leaves nothing, and does not grow."""
    tally = on_the_disk(tmp_path, saves=300)
    assert tally.harmless, "\n".join(tally.findings)
    assert tally.tried >= 10


def test_memory(tmp_path):
    """In spite of refused writes a run in memory loses nothing, leaves nothing, and does not grow."""
    tally = in_memory(tmp_path, saves=120)
    assert tally.harmless, "\n".join(tally.findings)
    assert tally.tried >= 5


def test_a_bucket(s3_url, tmp_path):
    """In spite of kills and refused writes a run in a bucket loses nothing and leaves nothing, not even uploads."""
    tally = in_a_bucket(s3_url, tmp_path, saves=24)
    assert tally.harmless, "\n".join(tally.findings)
    assert tally.tried >= 2
