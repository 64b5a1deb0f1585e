"""Buckets and processes: what is forked, what ends while it uploads, and what is interrupted."""

from __future__ import annotations

import gc
import json
import os
import signal
import subprocess
import sys
import threading
import time
import weakref
from concurrent.futures import Future

import fsspec
import numpy as np
import pytest
from contracts import http_faults, stores
from contracts.stores import MIB, within

from keepbest.storage.backend import open_backend
from keepbest.storage.gc import GRACE


@pytest.fixture(params=stores.CLIENTS)
def store(request):
    """A bucket behind a proxy, asked by each client."""
    with stores.behind_proxy(request, request.param, deadline=10) as one:
        yield one


def start(store, script, **options):
    """Start a Python script that is given the run's URL and its storage options."""
    command = [sys.executable, "-W", "error", "-c", script, store.url, json.dumps(store.options | options)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ)


def finish(process, seconds=30):
    """Wait for its end; return status, output and errors."""
    try:
        output, errors = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        raise
    return process.returncode, output, errors


def descriptors():
    """Return how many this process has open."""
    return len(os.listdir("/proc/self/fd"))


def test_a_run_that_is_let_go_takes_its_connections_with_it(store):
    """Who opens one run after the other, in a notebook, has no more sockets and threads than after the first."""
    content, held = os.urandom(11 * MIB), []
    for number in range(4):
        backend = open_backend(store.url, store.options)
        backend.put(f"checkpoints/{number}/large", [content])
        assert bytes(backend.read_ranges(f"checkpoints/{number}/large", [(0, len(content))])[0]) == content
        client = weakref.ref(backend._client)
        del backend
        gc.collect()
        assert client() is None
        held.append(descriptors())
    until = time.monotonic() + 10  # the proxy's ends of the connections, in this process too, are closed behind it
    while descriptors() > held[0] + 5 and time.monotonic() < until:
        time.sleep(0.05)
    assert descriptors() <= held[0] + 5, held


def test_whoever_collects_clients_does_not_wait_for_the_loop(store, monkeypatch):
    """Python collects garbage in any thread, also in one that the loop waits for: nobody waits for the loop in turn."""
    for number in range(2):
        backend = open_backend(store.url, store.options)
        backend.put(f"small-{number}", [b"x"])
        client, backend.itself = weakref.ref(backend._client), backend
    del backend
    held, waits = threading.Event(), []
    fsspec.asyn.get_loop().call_soon_threadsafe(held.wait, 30)
    monkeypatch.setattr(Future, "result", lambda *asked, **_: waits.append(asked))
    for module in (fsspec.asyn, sys.modules.get("s3fs.core"), sys.modules.get("gcsfs.core")):
        if hasattr(module, "sync"):
            monkeypatch.setattr(module, "sync", lambda *asked, **_: waits.append(asked))
    gc.collect()
    held.set()
    assert (client(), waits) == (None, [])


FORK = """
import json, os, sys
from keepbest.storage.backend import open_backend

backend = open_backend(sys.argv[1], json.loads(sys.argv[2]))
content = os.urandom(11 << 20)

def work(name):
    key = f"checkpoints/{name}/large"
    backend.put(key, [content])
    assert bytes(backend.read_ranges(key, [(0, len(content))])[0]) == content
    backend.put_if_absent(f"commits/{name}.json", b"x")
    assert key in {entry.key for entry in backend.list("")}

work("parent")
children = []
for number in range(2):
    child = os.fork()
    if not child:
        try:
            work(f"child-{number}")
            backend.delete([f"checkpoints/child-{number}/large"])
            os._exit(0)
        except BaseException as error:
            print(repr(error), flush=True)
            os._exit(1)
    children.append(child)
work("parent-again")
assert [os.waitpid(child, 0)[1] for child in children] == [0, 0]
work("parent-at-last")
print("done")
"""


def test_a_forked_child_can_use_what_its_parent_opened(store):
    """A data loader's worker reads and writes through the backend it inherited, while its parent goes on."""
    status, output, errors = finish(start(store, FORK))
    assert (status, output) == (0, "done\n"), errors


FORGETFUL = """
import json, sys
import numpy as np
from keepbest import Checkpointer, CheckpointPolicy

model = {"weight": np.arange(6_000_000, dtype=np.float32)}
policy = CheckpointPolicy(on_sigterm=False)
training = Checkpointer(sys.argv[1], policy, storage_options=json.loads(sys.argv[2]), model=model)
training.log(loss=0.5)
print("ends", flush=True)
"""


def test_a_program_that_ends_while_it_uploads_has_saved(store):
    """When a training ends without `close`, the save behind it, parts and all, is waited for."""
    store.on("part", http_faults.delay(0.3))
    status, output, errors = finish(start(store, FORGETFUL))
    assert (status, output, errors) == (0, "ends\n", "")
    (checkpoint,) = store.read().checkpoints()
    assert np.array_equal(checkpoint.load("model")["weight"], np.arange(6_000_000, dtype=np.float32))


def test_a_program_that_ends_without_its_store_says_so_and_ends(store):
    """When the store is gone by then, the program ends in time, and says what was not saved."""
    store.proxy.on(http_faults.kill(), when=stores.from_part(2 if store.is_s3 else 5))
    with within(25):
        process = start(store, f"import warnings\nwarnings.resetwarnings()\n{FORGETFUL}")
        status, output, errors = finish(process)
    assert (status, output) == (0, "ends\n")
    assert "older checkpoints are unharmed" in errors
    assert "cannot be reached" in errors
    assert store.options.get("secret", "no secret") not in errors
    store.proxy.clear()
    store.proxy.revive()
    assert not [key for key in store.names() if "/commits/" in key and not key.rpartition("/")[2].startswith(".")]


UPLOADER = """
import json, sys
from keepbest.storage.backend import open_backend

backend = open_backend(sys.argv[1], json.loads(sys.argv[2]))
backend.put("checkpoints/epoch-001_step-000010_abcdef/model.safetensors", (bytes(5 << 20) for _ in range(100)))
"""


def test_what_a_killed_upload_leaves_is_shown_and_collected(store):
    """After SIGKILL in the middle of an upload nothing is visible, and `gc` removes its parts when they are old."""
    store.on("part", http_faults.delay(0.2))
    process = start(store, UPLOADER)
    until = time.monotonic() + 20
    while len([record for record in store.records("part") if record.status == 200]) < 8:
        assert time.monotonic() < until
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    finish(process)
    while any(record.end is None for record in store.proxy.records()):  # what had arrived is passed on all the same
        assert time.monotonic() < until
        time.sleep(0.05)
    store.proxy.clear()
    run = store.run()
    run.save()
    assert store.uploads()
    reader = store.read()
    assert reader.gc(grace=GRACE).removed == ()
    assert store.uploads()
    assert reader.gc(grace=0).removed
    assert store.uploads() == []
    stores.assert_whole(store, run)


def test_a_backend_is_used_by_many_threads_at_once(store):
    """Uploads in parts and reads from several threads share the connections, and do not mix."""
    from concurrent.futures import ThreadPoolExecutor

    backend = store.open(deadline=30)

    def work(number):
        content = bytes([number]) * (11 * MIB)
        backend.put(f"checkpoints/c/{number}", [content])
        return bytes(backend.read_ranges(f"checkpoints/c/{number}", [(0, len(content))])[0]) == content

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(work, range(4)))
