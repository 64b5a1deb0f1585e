"""What the tests of storage share."""

from __future__ import annotations

import uuid

import pytest

from keepbest.storage.backend import open_backend


@pytest.fixture
def memory_url():
    """The URL of a run in memory that does not exist yet."""
    return f"memory://test-{uuid.uuid4().hex}"


@pytest.fixture
def backend(run_url):
    """An empty backend of every kind."""
    return open_backend(run_url)
