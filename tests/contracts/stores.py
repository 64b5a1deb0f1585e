"""Stores: a bucket behind a proxy that does what a bad day does, asked by each client; and a run in it."""

from __future__ import annotations

import contextlib
import json
import time
import traceback
import uuid
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from keepbest.storage.backend import open_backend
from keepbest.storage.run import open_run

from . import http_faults
from .proxy import FaultProxy
from .runs import SmallRun, same, weights

CLIENTS = [pytest.param(client, marks=pytest.mark.bucket) for client in ("s3fs", "obstore", "gcs")]
S3_CLIENTS = CLIENTS[:2]
MIB = 1 << 20
PART = 5 * MIB
DEADLINE = 4
"""Seconds: enough for a server on the same machine to answer, little enough for a test to wait for it."""


@contextlib.contextmanager
def behind_proxy(request, client, **options):
    """Yield the `Store` of a test, asked by a client of `CLIENTS`."""
    kind = "gcs" if client == "gcs" else "s3"
    server, bucket = request.getfixturevalue(f"{kind}_server"), request.getfixturevalue(f"{kind}_bucket")
    with FaultProxy(server.url) as proxy:
        if kind == "gcs":
            who = {"token": "anon"}
        else:
            admin = server.identity("admin")
            who = {"key": admin.access, "secret": admin.secret, "client": client}
            server.client().put_object(Bucket=bucket, Key="warm", Body=b"x")  # the first write of all takes seconds
        asked = {"endpoint_url": proxy.url, "part_size": PART, "deadline": DEADLINE, **who, **options}
        yield Store(client, server, proxy, bucket, asked)


@dataclass
class Store:
    """A bucket, reached through a proxy."""

    client: str
    """"s3fs", "obstore" or "gcs"."""
    server: Any
    proxy: FaultProxy
    bucket: str
    options: dict[str, Any] = field(default_factory=dict)
    """What `storage_options` hold, but for what a test adds."""
    name: str = field(default_factory=lambda: f"run-{uuid.uuid4().hex[:8]}")

    @property
    def is_s3(self):
        """It speaks the protocol of S3."""
        return self.client != "gcs"

    @property
    def url(self):
        """The URL of a run that belongs to this test."""
        return f"{'s3' if self.is_s3 else 'gs'}://{self.bucket}/{self.name}"

    def open(self, url=None, **options):
        """Return a backend for the run's URL, or another one."""
        return open_backend(url or self.url, self.options | options)

    def run(self, **options):
        """Return a run that can be written to."""
        return SmallRun(self.open(**options))

    def read(self):
        """Open the run as a reader does."""
        return open_run(self.url, storage_options=self.options)

    def uploads(self):
        """Return the keys of what was begun and not ended: of uploads in parts, or of components."""
        if self.is_s3:
            found = self.server.client().list_multipart_uploads(Bucket=self.bucket, Prefix=self.name)
            return [upload["Key"] for upload in found.get("Uploads", ())]
        return [key for key in self.names() if "/.tmp-" in key]

    def names(self):
        """Return the keys of all objects of the run, not by our own code."""
        if self.is_s3:
            found = self.server.client().list_objects_v2(Bucket=self.bucket, Prefix=f"{self.name}/")
            return sorted(item["Key"] for item in found.get("Contents", ()))
        from .servers import ask

        found = json.loads(ask(self.server.url, "GET", f"/storage/v1/b/{self.bucket}/o?prefix={self.name}/"))
        return sorted(item["name"] for item in found.get("items", ()))

    def refuse(self, status, code, message=""):
        """Return the fault that is this answer, as this kind of store words it."""
        return http_faults.s3_error(status, code, message) if self.is_s3 else gcs_error(status, code, message)

    # ── which requests ────────────────────────────────────────────────────────────────────────────────────────────

    def on(self, what, fault, **which):
        """Let a fault happen to the requests of one kind: "put", "manifest", "start", "part", "finish" and so on."""
        where = (self._s3 if self.is_s3 else self._gcs)(what)
        return self.proxy.on(fault, **where | which)

    def records(self, what):
        """Return the requests of one kind that came."""
        where = (self._s3 if self.is_s3 else self._gcs)(what)
        found = self.proxy.records(method=where.get("method"), path=where.get("path", ""))
        return [record for record in found if where.get("when", lambda _: True)(record)]

    def _s3(self, what):  # noqa: C901, PLR0911 - a table, written as one
        key = {"manifest": r"commits/\d+\.json", "data": "checkpoints/", "probe": r"commits/\.tmp-"}
        match what:
            case "put" | "manifest" | "probe" | "data":
                path = key.get(what, "")
                return {"method": "PUT", "path": rf"{path}[^?]*(\?x-id=PutObject)?$"}
            case "start":
                return {"method": "POST", "path": r"\?uploads"}
            case "part":
                return {"method": "PUT", "path": r"partNumber="}
            case "part-2":
                return {"method": "PUT", "path": r"partNumber=2\b"}
            case "finish":
                return {"method": "POST", "path": r"\?(.*&)?uploadId="}
            case "abort":
                return {"method": "DELETE", "path": r"uploadId="}
            case "delete":
                return {"when": _is_delete}
            case "get":
                return {
                    "method": "GET",
                    "path": r"checkpoints/[^?]*(\?|$)",
                    "when": lambda r: "list-type" not in r.target,
                }
            case "head":
                return {"method": "HEAD"}
            case "list":
                return {"method": "GET", "path": "list-type=2"}
            case "copy":
                return {"method": "PUT", "path": r"copied"}
        raise AssertionError(what)

    def _gcs(self, what):  # noqa: PLR0911 - likewise
        upload = "/upload/storage/v1/"
        match what:
            case "put" | "probe" | "data" | "start" | "part":  # names are in the bodies
                return {"method": "POST", "path": upload}
            case "part-2":
                return {"method": "POST", "path": upload, "after": 1}
            case "manifest":  # after the two files of a small checkpoint, when the store is probed already
                return {"method": "POST", "path": upload, "after": 2}
            case "finish":
                return {"method": "POST", "path": "/compose"}
            case "abort" | "delete":
                return {"method": "DELETE"}
            case "get":
                return {"method": "GET", "path": r"checkpoints.*alt=media"}
            case "head":
                return {"method": "GET", "path": r"/o/[^?]*\?fields="}
            case "list":
                return {"method": "GET", "path": r"/o\?"}
            case "copy":
                return {"method": "POST", "path": "/rewriteTo/"}
        raise AssertionError(what)


def from_part(number):
    """Return a condition: true of every request from the part (or upload) of that number on, whichever it is."""
    seen = 0

    def when(record):
        nonlocal seen
        seen += "partNumber=" in record.target or "/upload/" in record.target
        return seen >= number

    return when


def _is_delete(record):
    return (record.method == "DELETE" and "uploadId=" not in record.target) or (
        record.method == "POST" and record.target.partition("?")[2].startswith("delete")
    )


def gcs_error(status, reason, message=""):
    """Answer as Google does when it says no."""
    text = message or reason
    errors = [{"message": text, "domain": "global", "reason": reason}]
    body = json.dumps({"error": {"code": status, "message": text, "errors": errors}}).encode()
    return http_faults.answer(status, body, content_type="application/json; charset=UTF-8")


# ── what is saved ────────────────────────────────────────────────────────────────────────────────────────────────


def large(mib=6, seed=0):
    """Return arrays that take several parts of 5 MiB."""
    return {**weights(seed), "layer.weight": np.random.default_rng(seed).integers(0, 255, mib * MIB, np.uint8)}


def assert_whole(store, run):
    """Check that all that the run saved is listed, once, and loads bit for bit, and that nothing else is listed."""
    found = store.read().checkpoints()
    assert [checkpoint.name for checkpoint in found] == list(run.wrote)
    for checkpoint in found:
        assert same(checkpoint.load("model"), run.wrote[checkpoint.name]), checkpoint.name


def assert_usable(store, run):
    """Check that what was saved before still loads, and that the next save works."""
    assert_whole(store, run)
    run.save()
    assert_whole(store, run)


@contextlib.contextmanager
def within(seconds):
    """Check that the block does not hang: it takes no longer, but for a loaded machine up to 25 seconds.

    What is promised is 30 by default; a busy machine alone can take most of a short deadline.
    """
    begin = time.monotonic()
    yield
    took = time.monotonic() - begin
    assert took < max(seconds, 25), took


def whole_text(error):
    """Return all that a traceback shows of an error: its whole chain, with notes."""
    return "".join(traceback.format_exception(error))
