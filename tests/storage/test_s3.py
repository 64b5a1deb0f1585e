"""S3, against a real server."""

from __future__ import annotations

import time
import uuid

import pytest
from contracts.backend_contract import BackendContract

from keepbest.errors import CredentialsError
from keepbest.storage.backend import open_backend
from keepbest.storage.s3_filesystem import _time


class TestS3(BackendContract):
    """The contract, on S3."""

    RACES = 1  # the server makes those who lose wait a second each

    @pytest.fixture
    def url(self, s3_bucket):
        """A fresh prefix."""
        return f"s3://{s3_bucket}/run-{uuid.uuid4().hex}"

    @pytest.fixture
    def outside(self, url):
        """Beside the run."""
        return lambda name: f"{url}-outside/{name}"

    @staticmethod
    def peek(url):
        """By boto3."""
        import boto3

        bucket, _, key = url.removeprefix("s3://").partition("/")
        return boto3.client("s3").get_object(Bucket=bucket, Key=key)["Body"].read()

    @staticmethod
    def names_beside(url):
        """By boto3."""
        import boto3

        bucket, _, key = url.removeprefix("s3://").partition("/")
        prefix = key.rpartition("/")[0] + "/"
        found = boto3.client("s3").list_objects_v2(Bucket=bucket, Prefix=prefix)["Contents"]
        return sorted(item["Key"].removeprefix(prefix) for item in found)


def test_what_the_environment_says_now_counts(s3_server, s3_url, monkeypatch):
    """Credentials that were mended in the environment serve the next one who opens the run, in the same process."""
    with monkeypatch.context() as patch:
        patch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
        with pytest.raises(CredentialsError):
            open_backend(s3_url).list("")
    assert open_backend(s3_url).list("") == []


def test_the_times_of_a_listing_are_those_of_its_objects(s3_url):
    """Though they are not read by botocore, which guesses how each is written."""
    backend = open_backend(s3_url)
    before = time.time()
    backend.replace("a", b"1")
    (listed,) = backend.list("")
    assert listed.modified == pytest.approx(before, abs=5)
    assert listed.modified == pytest.approx(backend.head("a").modified, abs=1)


@pytest.mark.parametrize(
    "written", ["2015-10-21T07:28:00.000Z", "2015-10-21T07:28:00+00:00", "Wed, 21 Oct 2015 07:28:00 GMT", 1445412480]
)
def test_a_time_may_be_written_in_any_way(written):
    """As S3 does in XML, as headers do, and as other services do."""
    assert _time(written).timestamp() == 1445412480
