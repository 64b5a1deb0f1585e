"""What every test shares."""

from __future__ import annotations

import uuid

import pytest


@pytest.fixture(params=["local", "memory"])
def run_url(request, tmp_path):
    """The URL of a run that does not exist yet, on every backend."""
    return str(tmp_path / "run") if request.param == "local" else f"memory://test-{uuid.uuid4().hex}"
