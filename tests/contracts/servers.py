"""Real servers of buckets, on this machine: S3 by SeaweedFS, GCS by fake-gcs-server.

    with S3Server() as server:
        os.environ |= server.environment
        Checkpointer(f"s3://{server.make_bucket()}/run-1", …)

A server lives exactly as long as somebody holds it: each holder has a shared lock on a file, which the operating system
takes from it whichever way it ends, and `keeper.py` waits for that. Processes that name one folder share one server.
"""

from __future__ import annotations

import fcntl
import http.client
import json
import os
import random
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.parse
import uuid
from pathlib import Path

from . import sigv4
from .permissions import Identity

HOST = "127.0.0.1"

UNRESOLVABLE = "bucket.keepbest.invalid"
"""A host name that no name server knows (RFC 2606 keeps `.invalid` free)."""


class _Server:
    """Held from its making until `stop`, the end of the process, or the end of a `with` block.

    Args:
        folder: Where the processes meet that share one server; None for a server of one's own.
    """

    kind = ""

    def __init__(self, folder=None):
        self._own = folder is None
        self._folder = Path(tempfile.mkdtemp(prefix="keepbest-server-")) if self._own else Path(folder) / self.kind
        self._folder.mkdir(parents=True, exist_ok=True)
        self._keeper = None
        self._held = (self._folder / "held").open("a")
        try:
            fcntl.flock(self._held, fcntl.LOCK_SH)  # waits for a keeper that is about to end its server
            self._facts = self._join()
        except BaseException:
            self.stop()
            raise
        self.url = self._facts["url"]
        self.pid = self._facts["pid"]

    def _join(self):
        facts, log = self._folder / "facts.json", self._folder / "keeper.log"
        with (self._folder / "starting").open("a") as starting:
            fcntl.flock(starting, fcntl.LOCK_EX)
            if facts.exists() and _is_open(json.loads(facts.read_text())["url"]):
                return json.loads(facts.read_text())
            facts.unlink(missing_ok=True)
            with log.open("ab") as output:
                self._keeper = subprocess.Popen(
                    [sys.executable, "-m", f"{__package__}.keeper", self.kind, str(self._folder)],
                    env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])},
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    start_new_session=True,  # Ctrl-C is for the tests, which may still need it to end well
                )
            while not facts.exists():
                if self._keeper.poll() is not None:
                    raise RuntimeError(f"the {self.kind} server did not start:\n{log.read_text(errors='replace')}")
                time.sleep(0.02)
            return json.loads(facts.read_text())

    def stop(self):
        """Let go of it; when nobody else holds it, it ends. One of one's own has ended on return, its data gone."""
        if not self._held.closed:
            fcntl.flock(self._held, fcntl.LOCK_UN)  # before it is closed: a forked child may have it open too
            self._held.close()
        if self._own:
            if self._keeper is not None:
                self._keeper.wait(timeout=30)
            shutil.rmtree(self._folder, ignore_errors=True)
        elif self._keeper is not None:
            self._keeper.returncode = 0  # it may go on for others: nobody waits for it, and that is no cause to warn

    def __enter__(self):
        return self

    def __exit__(self, *_error):
        self.stop()


class S3Server(_Server):
    """S3, by SeaweedFS; ready after 3 to 8 seconds.

    It enforces `If-None-Match: *` and `If-Match` on single and multipart uploads and on copies, verifies Content-MD5
    and S3's checksums for each part, and each identity's permissions. A write makes no bucket. Any region will do.
    """

    kind = "s3"

    @property
    def environment(self):
        """What clients take their settings from, so that `s3://…` means this server, as the identity "admin"."""
        return s3_environment(self.url) | self.identity("admin").environment

    def identity(self, name="admin"):
        """Return who asks.

        Args:
            name: "admin" may everything; "writer" all of `S3_ACTIONS`; "no-PutObject" (or another one) all but that;
                "reader" GetObject and ListBucket; "nobody" nothing; "prefix" what "writer" may, but only below `runs/`.
        """
        return Identity(name, *self._facts["identities"][name])

    @property
    def secrets(self):
        """Access key → secret key, of every identity."""
        return dict(self._facts["identities"].values())

    def client(self, identity="admin", url=None, **config):
        """Return a boto3 client that asks once.

        Args:
            identity: A name that `identity` knows, or an `Identity`.
            url: Where to ask, when not the server itself but a proxy before it.
            config: For `botocore.config.Config`.
        """
        import boto3
        import botocore.config

        asks = identity if isinstance(identity, Identity) else self.identity(identity)
        return boto3.client(
            "s3",
            endpoint_url=url or self.url,
            aws_access_key_id=asks.access,
            aws_secret_access_key=asks.secret,
            region_name="us-east-1",
            config=botocore.config.Config(**{"retries": {"total_max_attempts": 1}} | config),
        )

    def make_bucket(self, name=None):
        """Make a bucket that nobody else uses, and return its name."""
        name = name or f"keepbest-{uuid.uuid4().hex[:12]}"
        self._admin("PUT", f"/{name}")
        return name

    def drop_bucket(self, name):
        """Delete a bucket with all that is in it, and give its space on disk back."""
        self._admin("DELETE", f"/{name}")

    def _admin(self, method, target):
        ask(self.url, method, target, headers=sigv4.signed_headers(self.identity("admin"), method, self.url + target))


class GcsServer(_Server):
    """GCS, by fake-gcs-server, in memory; ready at once.

    It enforces `ifGenerationMatch` only on uploads with `uploadType=multipart`: it ignores it on media and resumable
    uploads, on rewrite, copy and compose. It verifies no checksum, and knows no permissions and no multipart upload of
    the XML interface.
    """

    kind = "gcs"

    @property
    def environment(self):
        """What clients take their settings from, so that `gs://…` means this server."""
        return gcs_environment(self.url)

    def make_bucket(self, name=None):
        """Make a bucket that nobody else uses, and return its name."""
        name = name or f"keepbest-{uuid.uuid4().hex[:12]}"
        ask(self.url, "POST", "/storage/v1/b", json.dumps({"name": name}), {"content-type": "application/json"})
        return name

    def drop_bucket(self, name):
        """Delete a bucket with all that is in it, and give its memory back."""
        while found := json.loads(ask(self.url, "GET", f"/storage/v1/b/{name}/o")).get("items"):
            for item in found:
                ask(self.url, "DELETE", f"/storage/v1/b/{name}/o/{urllib.parse.quote(item['name'], safe='')}")
        ask(self.url, "DELETE", f"/storage/v1/b/{name}")


def s3_environment(url):
    """Return the variables that lead S3 clients to a URL, a proxy's for example, and keep other settings from them."""
    return {
        "AWS_ENDPOINT_URL": url,
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
    }


def gcs_environment(url):
    """Return the variables that lead GCS clients to a URL, a proxy's for example."""
    return {"STORAGE_EMULATOR_HOST": url, "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT": "false"}


STRAY_VARIABLES = (
    "AWS_PROFILE",
    "AWS_SESSION_TOKEN",
    "AWS_ENDPOINT_URL_S3",
    "AWS_ROLE_ARN",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "GOOGLE_APPLICATION_CREDENTIALS",
)
"""What would lead a client elsewhere, and is to be taken out of the environment."""


def free_ports(count, *, also=0):
    """Return ports on which nobody listens, nor on the ones `also` above them.

    They lie below the range from which the system takes the ports of outgoing connections.
    """
    found = []
    candidates = iter(random.SystemRandom().sample(range(10_000, 22_000), 2_000))
    while len(found) < count:
        port = next(candidates)
        if all(_is_free(one) for one in {port, port + also}):
            found.append(port)
    return found


def _is_free(port):
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
        return True


def _is_open(url):
    parts = urllib.parse.urlsplit(url)
    try:
        socket.create_connection((parts.hostname, parts.port), timeout=5).close()
    except OSError:
        return False
    return True


def ask(url, method, target, body=None, headers=None):
    """Send one request, and return the body of a reply that says yes; `OSError` for one that says no."""
    parts = urllib.parse.urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=30)
    try:
        connection.request(method, parts.path + target, body, headers or {})
        reply = connection.getresponse()
        found = reply.read()
    finally:
        connection.close()
    if reply.status >= 300:
        raise OSError(f"{method} {parts.path}{target}: {reply.status} {found[:300]!r}")
    return found
