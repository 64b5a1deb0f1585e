"""The servers of the bucket benchmarks, those of the tests, on this machine; and buckets that leave nothing behind."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from contracts.servers import STRAY_VARIABLES, GcsServer, S3Server

SCHEMES = {"s3": S3Server, "gs": GcsServer}


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A bucket, and how to get there."""

    scheme: str
    """A key of `SCHEMES`."""
    bucket: str
    endpoint: str
    key: str = ""
    secret: str = ""

    @property
    def storage_options(self) -> dict[str, Any]:
        """What fsspec takes."""
        if self.scheme == "gs":
            return {"endpoint_url": self.endpoint, "token": "anon"}
        return {"key": self.key, "secret": self.secret, "endpoint_url": self.endpoint}

    def url(self, key: str) -> str:
        """Return the URL of one object."""
        return f"{self.scheme}://{self.bucket}/{key}"


@contextmanager
def started(scheme: str) -> Iterator[Any]:
    """Start a server; clients that look for settings in the environment find its own and no other."""
    for name in (*STRAY_VARIABLES, "AWS_CA_BUNDLE"):  # with a bundle of one's own, keepbest leaves obstore aside
        os.environ.pop(name, None)
    with SCHEMES[scheme]() as server:
        os.environ |= server.environment
        yield server


@contextmanager
def bucket(scheme: str, server: Any, *, endpoint: str | None = None) -> Iterator[Place]:
    """Make a bucket, and delete it with all that is in it, which gives the disk's space back at once.

    Args:
        scheme: the server's.
        server: as `started` returns it.
        endpoint: where clients go, if not straight to the server.
    """
    name = server.make_bucket()
    keys: dict[str, str] = {}
    if scheme == "s3":
        admin = server.identity("admin")
        keys = {"key": admin.access, "secret": admin.secret}
    try:
        yield Place(scheme=scheme, bucket=name, endpoint=endpoint or server.url, **keys)
    finally:
        server.drop_bucket(name)
