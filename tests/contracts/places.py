"""Places where files lie, on disk and in buckets, as their owner sees them: without keepbest."""

from __future__ import annotations

import json
import urllib.parse
from pathlib import Path

import pytest

from .servers import ask, gcs_environment, s3_environment

BUCKETS = [pytest.param(kind, marks=pytest.mark.bucket) for kind in ("s3", "gcs")]
LASTING = ["local", *BUCKETS]
"""The kinds of places that outlive a process, as parameters of a fixture or a test."""


def new_place(request):
    """Return an empty place of the kind that the fixture's parameter says."""
    kind = request.param
    if kind == "local":
        return LocalPlace(request.getfixturevalue("tmp_path") / "place")
    url, server = (request.getfixturevalue(f"{kind}_{what}") for what in ("url", "server"))
    return {"s3": S3Place, "gcs": GcsPlace}[kind](url, server)


def leading_to(url, server):
    """Return the variables that lead the clients of `url` to a server, a proxy say."""
    return s3_environment(server) if url.startswith("s3:") else gcs_environment(server)


class _Place:
    """Has a `url`; what its other methods do is said at `LocalPlace`."""

    server = None
    """Of a bucket."""

    def at(self, name):
        """Return the URL of a file."""
        return f"{self.url}/{name}"

    def download(self, name, folder):
        """Copy a file to a local folder, under its own name, and return its path."""
        path = Path(folder) / Path(name).name
        path.write_bytes(self.read(name))
        return path


class LocalPlace(_Place):
    """A folder."""

    def __init__(self, folder):
        self.url = str(folder)
        self._folder = folder

    def files(self):
        """Return the names of all files, hidden ones too, relative to the place, sorted."""
        return sorted(str(path.relative_to(self._folder)) for path in self._folder.rglob("*") if path.is_file())

    def read(self, name):
        """Return the content of a file."""
        return (self._folder / name).read_bytes()

    def write(self, name, data):
        """Set the content of a file."""
        (self._folder / name).parent.mkdir(parents=True, exist_ok=True)
        (self._folder / name).write_bytes(data)

    def delete(self, name):
        """Delete a file."""
        (self._folder / name).unlink()


class _Bucket(_Place):
    """A prefix of a bucket."""

    def __init__(self, url, server):
        self.url = url
        self.server = server
        self._bucket, _, prefix = url.partition("://")[2].partition("/")
        self._prefix = prefix and f"{prefix}/"

    def files(self):
        """List anew."""
        return sorted(key.removeprefix(self._prefix) for key in self._keys())


class S3Place(_Bucket):
    """A prefix of an S3 bucket, by boto3."""

    def __init__(self, url, server):
        super().__init__(url, server)
        self._client = server.client()

    def _keys(self):
        pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=self._bucket, Prefix=self._prefix)
        return [found["Key"] for page in pages for found in page.get("Contents", ())]

    def read(self, name):
        """GetObject."""
        return self._client.get_object(Bucket=self._bucket, Key=self._prefix + name)["Body"].read()

    def write(self, name, data):
        """PutObject."""
        self._client.put_object(Bucket=self._bucket, Key=self._prefix + name, Body=data)

    def delete(self, name):
        """DeleteObject."""
        self._client.delete_object(Bucket=self._bucket, Key=self._prefix + name)


class GcsPlace(_Bucket):
    """A prefix of a GCS bucket, by its JSON API."""

    def _keys(self):
        query, page = {"prefix": self._prefix}, {}
        while page is not None:
            found = json.loads(self._ask("GET", f"/storage/v1/b/{self._bucket}/o", query | page))
            yield from (item["name"] for item in found.get("items", ()))
            page = {"pageToken": found["nextPageToken"]} if found.get("nextPageToken") else None

    def read(self, name):
        """Get the media."""
        return self._ask("GET", self._object(name), {"alt": "media"})

    def write(self, name, data):
        """Insert."""
        query = {"uploadType": "media", "name": self._prefix + name}
        self._ask("POST", f"/upload/storage/v1/b/{self._bucket}/o", query, data)

    def delete(self, name):
        """Delete."""
        self._ask("DELETE", self._object(name), {})

    def _object(self, name):
        return f"/storage/v1/b/{self._bucket}/o/{urllib.parse.quote(self._prefix + name, safe='')}"

    def _ask(self, method, path, query, body=None):
        return ask(self.server.url, method, f"{path}?{urllib.parse.urlencode(query)}", body)
