"""Training killed with SIGKILL and started again ends with the very bits of a training that was never interrupted."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from contracts import places
from contracts.http_faults import kill_process
from contracts.proxy import FaultProxy

HERE = Path(__file__).parent


def trials(url, mode, moments, *, environment=(), before=lambda n, child: None):
    """Run kill.py; returns {moment: (killed, fingerprint)}, moment -1 being the uninterrupted run.

    Args:
        url: where the runs go.
        mode: what a moment is; see there.
        moments: a range.
        environment: variables to set.
        before: called before a child begins that nobody kills otherwise, with the moment and the child's number.
    """
    command = [sys.executable, str(HERE / "kill.py"), url, mode, str(moments.start), str(moments.step)]
    found = {}
    with (
        tempfile.TemporaryFile("w+") as errors,
        subprocess.Popen(
            [*command, str(moments.stop)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            env={**os.environ, **dict(environment)},
        ) as running,
    ):
        for line in running.stdout:
            match line.split():
                case ["child", n, child]:
                    before(int(n), int(child))
                    running.stdin.write("go\n")
                    running.stdin.flush()
                case [n, killed, whole, fingerprint]:
                    found[int(n)] = (killed == "1", fingerprint if whole == "1" else f"damaged, at {n}")
        running.wait()
        errors.seek(0)
        assert running.returncode == 0, errors.read()
        assert "failed" not in {fingerprint for _, fingerprint in found.values()}, errors.read()
    return found


@pytest.mark.parametrize("run_url", places.LASTING, indirect=True)
def test_a_kill_after_any_training_step_changes_no_bit(run_url):
    """Wherever in its training a process dies, a restart leads to the same weights and optimizer state, bit for bit."""
    moments = range(1, 17, 3 if "://" in run_url else 1)
    found = trials(run_url, "step", moments)
    assert len(found) == 1 + len(moments)
    assert all(killed for n, (killed, _) in found.items() if n > 0)
    assert {fingerprint for _, fingerprint in found.values()} == {found[-1][1]}


@pytest.mark.parametrize(
    ("first", "step"),
    [
        pytest.param(3, 7, id="sampled"),
        *(pytest.param(n, 4, id=f"all-{n}", marks=pytest.mark.slow) for n in (1, 2, 3, 4)),
    ],
)
def test_a_kill_before_any_file_system_call_changes_no_bit(tmp_path, first, step):
    """Whatever call of a save, a commit or a retirement a process dies before, a restart leads to the same bits."""
    found = trials(str(tmp_path), "call", range(first, 121, step))
    assert sum(killed for killed, _ in found.values()) > 70 / step
    assert {fingerprint for _, fingerprint in found.values()} == {found[-1][1]}


@pytest.mark.parametrize("run_url", places.BUCKETS, indirect=True)
def test_a_kill_at_any_request_changes_no_bit(request, run_url):
    """Whatever request to a bucket a process dies at, a restart leads to the same bits."""
    server = request.getfixturevalue("s3_server" if run_url.startswith("s3") else "gcs_server")
    with FaultProxy(server.url) as proxy:

        def before(n, child):
            proxy.clear()
            proxy.on(kill_process(child), after=n - 1, times=1)

        through = places.leading_to(run_url, proxy.url)
        found = trials(run_url, "told", range(2, 42, 3), environment=through, before=before)
    assert sum(killed for killed, _ in found.values()) > 10
    assert {fingerprint for _, fingerprint in found.values()} == {found[-1][1]}
