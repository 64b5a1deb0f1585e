"""What every test shares: a run's URL on every backend, and servers of buckets, started when a test first needs one."""

from __future__ import annotations

import signal
import sys
import uuid
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # for `contracts`: importlib mode puts no folder on the path

from contracts import servers

signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it, and so do its children

KINDS = ["local", "memory", "s3", "gcs"]
"""Where `run_url` has its runs."""

SERVERS = {"s3": "s3_url", "gcs": "gcs_url"}
"""Kind of place → the fixture that gives a URL there."""


@pytest.hookimpl(tryfirst=True)  # before -m chooses
def pytest_collection_modifyitems(items):
    """Mark what starts a server, so that nobody has to remember to."""
    for item in items:
        if {"s3_server", "gcs_server"} & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.bucket)


@pytest.fixture(params=[pytest.param(kind, marks=[pytest.mark.bucket] * (kind in SERVERS)) for kind in KINDS])
def run_url(request, tmp_path):
    """The URL of a run that does not exist yet, on every backend."""
    if request.param in SERVERS:
        return request.getfixturevalue(SERVERS[request.param])
    return str(tmp_path / "run") if request.param == "local" else f"memory://test-{uuid.uuid4().hex}"


@pytest.fixture
def s3_url(s3_bucket):
    """The URL of a run in an S3 bucket that does not exist yet."""
    return f"s3://{s3_bucket}/test-{uuid.uuid4().hex}"


@pytest.fixture
def gcs_url(gcs_bucket):
    """The URL of a run in a GCS bucket that does not exist yet."""
    return f"gs://{gcs_bucket}/test-{uuid.uuid4().hex}"


@pytest.fixture(scope="session")
def s3_bucket(s3_server):
    """The name of a bucket for the tests of this process, which keep apart by prefix."""
    return s3_server.make_bucket()


@pytest.fixture(scope="session")
def gcs_bucket(gcs_server):
    """The name of a bucket for the tests of this process, which keep apart by prefix."""
    return gcs_server.make_bucket()


@pytest.fixture(scope="session")
def s3_server(request, tmp_path_factory):
    """An S3 server, and the environment in which `s3://…` means this one, for subprocesses too."""
    yield from _serve(servers.S3Server, request, tmp_path_factory)


@pytest.fixture(scope="session")
def gcs_server(request, tmp_path_factory):
    """A GCS server, and the environment in which `gs://…` means this one, for subprocesses too."""
    yield from _serve(servers.GcsServer, request, tmp_path_factory)


def _serve(kind, request, tmp_path_factory):
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if hasattr(request.config, "workerinput") else base  # pytest-xdist's workers share one server
    with kind(shared / "servers") as server, pytest.MonkeyPatch.context() as patch:
        for name in servers.STRAY_VARIABLES:
            patch.delenv(name, raising=False)
        for name, value in server.environment.items():
            patch.setenv(name, value)
        yield server
