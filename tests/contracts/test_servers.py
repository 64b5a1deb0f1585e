"""The servers that tests use: they end with their users, whichever way those end, and know who may what."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest
from contracts.permissions import S3_ACTIONS
from contracts.servers import UNRESOLVABLE, GcsServer, free_ports

pytestmark = pytest.mark.bucket

HOLD = """
import sys, time
sys.path.insert(0, sys.argv[1])
from contracts.servers import GcsServer
server = GcsServer(sys.argv[2] or None)
print(server.pid, flush=True)
sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def temporary(tmp_path, monkeypatch):
    """The folder in which data of servers lies."""
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    monkeypatch.setattr(tempfile, "tempdir", None)
    (tmp_path / "tmp").mkdir()
    return tmp_path / "tmp"


def holder(folder=""):
    """Start a process that holds a server; return it and the server's process."""
    command = [sys.executable, "-c", HOLD, str(Path(__file__).parents[1]), str(folder)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    return process, psutil.Process(int(process.stdout.readline()))


def end(process):
    process.stdin.close()
    process.wait(timeout=30)
    process.stdout.close()


def ends(server):
    """Wait for the end of a server's process, and say whether it came."""
    try:
        server.wait(timeout=10)
    except psutil.TimeoutExpired:
        return False
    return True


def empties(folder):
    """Wait until nothing is in a folder."""
    until = time.monotonic() + 10
    while found := list(folder.iterdir()):
        assert time.monotonic() < until, found
        time.sleep(0.02)


def test_a_server_of_ones_own_ends_with_its_block(temporary):
    """When the block is left, the process is gone and so is its data."""
    with GcsServer() as server:
        process = psutil.Process(server.pid)
        bucket = server.make_bucket()
        server.drop_bucket(bucket)
        assert list(temporary.iterdir())
    assert not process.is_running()
    assert not list(temporary.iterdir())


def test_a_server_ends_when_its_user_is_killed(temporary):
    """SIGKILL leaves a user no time to tidy up, and still the server ends and its data is removed."""
    process, server = holder(temporary / "shared")
    process.kill()
    assert ends(server)
    end(process)
    (temporary / "shared" / "gcs").rename(temporary.parent / "read")
    (temporary / "shared").rmdir()
    empties(temporary)
    assert not (temporary.parent / "read" / "facts.json").exists()


def test_a_server_ends_when_its_keeper_is_killed(tmp_path):
    """The server's parent takes the server with it."""
    process, server = holder(tmp_path / "shared")
    server.parent().kill()
    assert ends(server)
    end(process)


def test_users_of_one_folder_share_a_server(tmp_path):
    """The first starts it, the second finds it, it outlives the first and ends with the second."""
    first, server = holder(tmp_path)
    second, same = holder(tmp_path)
    assert server == same
    end(first)
    time.sleep(0.3)
    assert server.is_running()
    third, still = holder(tmp_path)
    assert server == still
    end(second)
    end(third)
    assert ends(server)


@pytest.mark.parametrize("who", [lambda server: server, lambda server: server.parent()], ids=["server", "keeper"])
def test_a_server_that_died_is_replaced(tmp_path, who):
    """Whoever comes after the death of a server, or of its keeper, gets a new one."""
    first, server = holder(tmp_path)
    who(server).kill()
    assert ends(server)
    second, other = holder(tmp_path)
    assert other != server
    end(first)
    assert other.is_running()
    end(second)
    assert ends(other)


def test_users_that_come_at_once_share_a_server(tmp_path, temporary):
    """Of several that need it at the same moment one starts it."""
    with ThreadPoolExecutor(4) as pool:
        users = list(pool.map(lambda _: GcsServer(tmp_path), range(4)))
    time.sleep(0.5)
    assert len({user.url for user in users}) == 1
    assert len(list(temporary.iterdir())) == 1
    for user in users:
        user.stop()
    empties(temporary)


def test_a_server_survives_ctrl_c(tmp_path):
    """A Ctrl-C goes to the tests, which may need the server to end well."""
    process, server = holder(tmp_path)
    assert os.getpgid(server.pid) != os.getpgid(process.pid)
    os.kill(process.pid, signal.SIGINT)
    end(process)
    assert ends(server)


def test_ports_are_free_with_those_above():
    """Ports come with the ones that a server derives from them."""
    ports = free_ports(20, also=10_000)
    assert len(set(ports)) == 20
    assert max(ports) + 10_000 < 32_768


def test_a_name_that_nobody_knows():
    """The host for tests of name resolution cannot be resolved."""
    with pytest.raises(socket.gaierror):
        socket.getaddrinfo(UNRESOLVABLE, 80)


# ── who may what ─────────────────────────────────────────────────────────────────────────────────────────────────


def operations(client, bucket, key):
    """Return IAM's action → a call that needs it alone."""
    return {
        "GetObject": lambda: client.get_object(Bucket=bucket, Key=key),
        "PutObject": lambda: client.put_object(Bucket=bucket, Key=f"{key}-new", Body=b"new"),
        "DeleteObject": lambda: client.delete_object(Bucket=bucket, Key=key),
        "ListBucket": lambda: client.list_objects_v2(Bucket=bucket, Prefix="runs/"),
        "ListBucketMultipartUploads": lambda: client.list_multipart_uploads(Bucket=bucket, Prefix="runs/"),
    }


def on_upload(client, bucket, key, upload):
    """Return the actions on an upload that is under way."""
    return {
        "ListMultipartUploadParts": lambda: client.list_parts(Bucket=bucket, Key=key, UploadId=upload),
        "AbortMultipartUpload": lambda: client.abort_multipart_upload(Bucket=bucket, Key=key, UploadId=upload),
    }


def refused_actions(server, name, bucket, key):
    """Return the actions that an identity may not do."""
    from botocore.exceptions import ClientError

    admin, client = server.client(), server.client(name)
    admin.put_object(Bucket=bucket, Key=key, Body=b"there")
    upload = admin.create_multipart_upload(Bucket=bucket, Key=key)["UploadId"]
    refused = set()
    for action, call in (operations(client, bucket, key) | on_upload(client, bucket, key, upload)).items():
        try:
            call()
        except ClientError as error:
            if error.response["Error"]["Code"] != "AccessDenied":
                raise
            refused.add(action)
    return refused


@pytest.mark.parametrize("action", S3_ACTIONS)
def test_each_permission_can_be_missing_alone(s3_server, s3_bucket, action):
    """There is an identity for each action that may do all but that."""
    assert refused_actions(s3_server, f"no-{action}", s3_bucket, f"runs/{action}") == {action}


def test_the_other_identities(s3_server, s3_bucket):
    """A writer may do everything with objects, a reader read and list, nobody nothing, and some only below a prefix."""
    assert refused_actions(s3_server, "admin", s3_bucket, "runs/admin") == set()
    assert refused_actions(s3_server, "writer", s3_bucket, "runs/writer") == set()
    assert refused_actions(s3_server, "nobody", s3_bucket, "runs/nobody") == set(S3_ACTIONS)
    assert "GetObject" not in refused_actions(s3_server, "reader", s3_bucket, "runs/reader")
    assert refused_actions(s3_server, "prefix", s3_bucket, "runs/prefix") == {"ListBucketMultipartUploads"}
    assert "PutObject" in refused_actions(s3_server, "prefix", s3_bucket, "other")


def test_a_bucket_that_is_not_there_is_not_made(s3_server):
    """A write into a bucket that does not exist is refused, even to an administrator."""
    client = s3_server.client()
    for call in (client.put_object, client.create_multipart_upload):
        with pytest.raises(client.exceptions.ClientError, match="NoSuchBucket"):
            call(Bucket="keepbest-none", Key="key")


def test_a_bucket_can_be_dropped(s3_server):
    """With a bucket go its objects and the space they took on disk."""
    client, bucket = s3_server.client(), s3_server.make_bucket()
    client.put_object(Bucket=bucket, Key="key", Body=b"body")
    s3_server.drop_bucket(bucket)
    with pytest.raises(client.exceptions.ClientError, match="NoSuchBucket"):
        client.list_objects_v2(Bucket=bucket)


def test_an_identity_does_not_show_its_secret(s3_server):
    """What a failing test prints holds no key."""
    assert repr(s3_server.identity("writer")) == "Identity('writer')"


def test_clients_find_the_servers_by_the_environment(s3_server, s3_bucket, gcs_server, gcs_bucket):
    """In a subprocess too, `s3://` and `gs://` mean these servers, without a word about where they are."""
    script = """
import fsspec, json, sys
for url in sys.argv[1:]:
    fsspec.filesystem(url.partition(":")[0]).pipe_file(url, b"body")
    print(json.dumps(fsspec.filesystem(url.partition(":")[0]).cat_file(url).decode()))
"""
    urls = [f"s3://{s3_bucket}/environment", f"gs://{gcs_bucket}/environment"]
    printed = subprocess.run([sys.executable, "-c", script, *urls], capture_output=True, text=True, check=True).stdout
    assert [json.loads(line) for line in printed.splitlines()] == ["body", "body"]
