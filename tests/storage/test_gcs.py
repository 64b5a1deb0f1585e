"""GCS, against a server that speaks its protocol."""

from __future__ import annotations

import json
import os
import urllib.parse
import urllib.request
import uuid

import pytest
from contracts.backend_contract import BackendContract


def get(path):
    """Ask the server, not by our own code."""
    with urllib.request.urlopen(f"{os.environ['STORAGE_EMULATOR_HOST']}/storage/v1/b/{path}") as answer:
        return answer.read()


class TestGcs(BackendContract):
    """The contract, on GCS."""

    @pytest.fixture
    def url(self, gcs_bucket):
        """A fresh prefix."""
        return f"gs://{gcs_bucket}/run-{uuid.uuid4().hex}"

    @pytest.fixture
    def outside(self, url):
        """Beside the run."""
        return lambda name: f"{url}-outside/{name}"

    @staticmethod
    def peek(url):
        """By plain HTTP."""
        bucket, _, key = url.removeprefix("gs://").partition("/")
        return get(f"{bucket}/o/{urllib.parse.quote(key, safe='')}?alt=media")

    @staticmethod
    def names_beside(url):
        """By plain HTTP."""
        bucket, _, key = url.removeprefix("gs://").partition("/")
        prefix = key.rpartition("/")[0] + "/"
        found = json.loads(get(f"{bucket}/o?prefix={urllib.parse.quote(prefix, safe='')}"))["items"]
        return sorted(item["name"].removeprefix(prefix) for item in found)
