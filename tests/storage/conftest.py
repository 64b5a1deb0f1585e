"""What the tests of storage share."""

from __future__ import annotations

import sys
import uuid
from pathlib import Path

import pytest

from keepbest.storage.backend import open_backend

sys.path.insert(0, str(Path(__file__).parents[1]))  # for `contracts`: importlib mode puts no folder on the path


@pytest.fixture
def memory_url():
    """The URL of a run in memory that does not exist yet."""
    return f"memory://test-{uuid.uuid4().hex}"


@pytest.fixture
def backend(run_url):
    """An empty backend of every kind."""
    return open_backend(run_url)
