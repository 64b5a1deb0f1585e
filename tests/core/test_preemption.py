"""SIGTERM: training saves at its next boundary, hands the signal on, and ends; started again, it goes on from there."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import textwrap

import pytest
from contracts import places
from contracts.proxy import FaultProxy

import keepbest
from keepbest.storage.backend import open_backend
from keepbest.storage.run import Run

anywhere = pytest.mark.parametrize("run_url", places.LASTING, indirect=True)

LOOP = """
import os, signal, sys
import numpy as np
from keepbest import Checkpointer, CheckpointPolicy

{before}
weights = {{"w": np.zeros(3)}}
policy = CheckpointPolicy(monitor="val_loss", every_n_epochs=None, on_improvement=False, at_end=False{policy})
with Checkpointer(sys.argv[1], policy, weights=weights) as ckpt:
    for epoch in ckpt.epochs(3):
        for step in range(4):
            weights["w"] = weights["w"] + 1
            if (epoch, step) == (1, 2) and len(sys.argv) == 2:
                os.kill(os.getpid(), signal.SIGTERM)
                print("still here", flush=True)
            {step}
        ckpt.log(val_loss=1.0)
print("ended", weights["w"][0])
{after}
"""


def run(url, *arguments, before="", step="ckpt.log_step(loss=0.1)", after="", policy=""):
    script = textwrap.dedent(LOOP).format(before=textwrap.dedent(before), step=step, after=after, policy=policy)
    return subprocess.run(
        [sys.executable, "-c", script, url, *arguments], capture_output=True, text=True, timeout=60, check=False
    )


@anywhere
def test_training_saves_and_exits(run_url):
    """SIGTERM in the middle of an epoch saves after the step under way and exits with 143."""
    done = run(run_url)
    assert (done.returncode, done.stdout) == (128 + signal.SIGTERM, "still here\n"), done.stderr
    latest = keepbest.open_run(run_url).latest
    assert (latest.info.reasons, latest.epoch, latest.step) == (("signal",), 1, 7)
    assert latest.load("weights")["w"].tolist() == [7.0] * 3


@anywhere
def test_a_preempted_training_goes_on_in_its_epoch(run_url):
    """Started again, the epoch that was under way is run again from the saved state, and a warning says so."""
    run(run_url)
    done = run(run_url, "again")
    assert done.returncode == 0, done.stderr
    assert done.stdout == "ended 15.0\n"  # 7, and the epochs 1 and 2 of 4 steps each
    assert "in the middle of epoch 2" in done.stderr


def test_a_loop_without_steps_saves_at_the_end_of_the_epoch(tmp_path):
    """Where only log is called, that is the boundary."""
    url = str(tmp_path / "run")
    assert run(url, step="pass").returncode == 143
    latest = keepbest.open_run(url).latest
    assert (latest.epoch, latest.step, latest.metrics) == (1, 0, {"val_loss": 1.0})


@anywhere
def test_the_handler_that_was_there_is_called_after_the_save(run_url):
    """An existing handler still runs, once the checkpoint is safe."""
    before = """
    def mine(number, frame):
        from keepbest import open_run
        print("mine", number, len(open_run(sys.argv[1]).checkpoints()), flush=True)
        sys.exit(7)
    signal.signal(signal.SIGTERM, mine)
    """
    done = run(run_url, before=before)
    assert (done.returncode, done.stdout) == (7, "still here\nmine 15 1\n"), done.stderr


def test_an_ignored_signal_does_not_end_training(tmp_path):
    """Who ignores SIGTERM gets the checkpoint and goes on."""
    done = run(str(tmp_path / "run"), before="signal.signal(signal.SIGTERM, signal.SIG_IGN)")
    assert (done.returncode, done.stdout) == (0, "still here\nended 12.0\n"), done.stderr


def test_a_log_that_fails_does_not_swallow_the_signal(tmp_path):
    """The signal may come in the middle of a write to where the log goes, which cannot be written to then."""
    before = """
        import logging

        class Busy(logging.Handler):
            def emit(self, record):
                if "SIGTERM" in record.getMessage():
                    raise RuntimeError("reentrant call inside <_io.BufferedWriter>")

        logging.getLogger("keepbest").addHandler(Busy())
    """
    done = run(str(tmp_path / "run"), before=before)
    assert done.returncode == 128 + signal.SIGTERM, done.stderr
    assert keepbest.open_run(tmp_path / "run").latest.step == 7


@anywhere
def test_a_second_signal_ends_at_once(run_url):
    """Whoever cannot wait sends it twice."""
    before = "import time"
    step = (
        "os.kill(os.getpid(), signal.SIGTERM) if (epoch, step) == (1, 2) and len(sys.argv) == 2 else ckpt.log_step(l=1)"
    )
    done = run(run_url, before=before, step=step)
    assert done.returncode == 143
    assert Run(open_backend(run_url)).checkpoints() == []


@pytest.mark.parametrize(
    "policy", ["", ", on_sigterm=False, on_exception=True"], ids=["after the loop", "switched off"]
)
def test_the_signal_is_given_back(tmp_path, policy):
    """After the loop, or if the policy does not want it, SIGTERM ends the process as it always did."""
    step = "pass" if policy else "None"
    after = "os.kill(os.getpid(), signal.SIGTERM); print('never printed')"
    done = run(str(tmp_path / "run"), "again", step=step, after=after, policy=policy)
    assert done.returncode == -signal.SIGTERM
    assert "never printed" not in done.stdout


def test_forked_children_still_end(tmp_path):
    """A process forked during training (a worker of a pool) dies of SIGTERM as it would without keepbest."""
    step = (
        "ready, told = os.pipe()\n"
        "            child = os.fork()\n"
        "            if not child:\n"
        "                os.write(told, b'!')\n"  # Python drops signals that come while it forks
        "                for _ in range(3000):\n"  # a signal just before a sleep is acted on after it
        "                    time.sleep(0.01)\n"
        "                os._exit(1)\n"
        "            os.read(ready, 1)\n"
        "            os.kill(child, signal.SIGTERM)\n"
        "            assert os.waitpid(child, 0)[1] == signal.SIGTERM\n"
        "            ckpt.log_step(loss=0.1)"
    )
    done = run(str(tmp_path / "run"), "again", before="import time", step=step)
    assert (done.returncode, done.stdout) == (0, "ended 12.0\n"), done.stderr


@anywhere
@pytest.mark.parametrize("loop", ["epochs", "own"])
def test_a_signal_after_the_last_boundary_is_not_swallowed(run_url, loop):
    """SIGTERM that comes while the last save is being written still ends the program, once that is durable."""
    script = f"""
        import os, signal, sys
        from keepbest import Checkpointer
        state = {{"w": 1}}
        with Checkpointer(sys.argv[1], state=state) as ckpt:
            for epoch in {"ckpt.epochs(1)" if loop == "epochs" else "range(1)"}:
                ckpt.log(loss=1.0)
                os.kill(os.getpid(), signal.SIGTERM)
        print("went on")
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script), run_url],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout) == (128 + signal.SIGTERM, ""), done.stderr
    assert keepbest.open_run(run_url).verify().ok


def test_a_training_that_ends_leaves_the_others_handler(tmp_path):
    """Of two trainings in one process, the end of the first does not take the second's SIGTERM away."""
    script = """
        import os, signal, sys
        from keepbest import Checkpointer, CheckpointPolicy
        policy = CheckpointPolicy(every_n_epochs=None, at_end=False)
        first = Checkpointer(sys.argv[1] + "-a", policy, state={})
        with Checkpointer(sys.argv[1] + "-b", policy, state={}) as second:
            first.log()
            second.log()
            first.close()
            os.kill(os.getpid(), signal.SIGTERM)
            second.log()
        print("went on")
    """
    url = str(tmp_path / "run")
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script), url], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout) == (128 + signal.SIGTERM, ""), done.stderr
    assert keepbest.open_run(url + "-b").latest.info.reasons == ("signal",)


def test_a_training_that_another_thread_ends_swallows_no_signal(tmp_path):
    """Closed in another thread, where SIGTERM cannot be given back, a training keeps it from nothing."""
    script = """
        import os, signal, sys, threading
        from keepbest import Checkpointer
        ckpt = Checkpointer(sys.argv[1], state={})
        ckpt.log(loss=1.0)
        closing = threading.Thread(target=ckpt.close)
        closing.start()
        closing.join()
        os.kill(os.getpid(), signal.SIGTERM)
        print("went on")
    """
    command = [sys.executable, "-c", textwrap.dedent(script), str(tmp_path / "run")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (128 + signal.SIGTERM, ""), done.stderr


@pytest.fixture(params=places.BUCKETS)
def place(request):
    """An empty prefix of a bucket."""
    return places.new_place(request)


def test_a_signal_when_the_bucket_is_gone(place):
    """Where nothing can be saved any more, SIGTERM ends training soon and says what was not saved, and why."""
    script = """
        import os, signal, sys
        from keepbest import Checkpointer
        with Checkpointer(sys.argv[1], storage_options={"deadline": 4}, state={}) as ckpt:
            for epoch in ckpt.epochs(3):
                ckpt.log(loss=1.0)
                ckpt.wait()
                print("saved", flush=True)
                sys.stdin.readline()
                os.kill(os.getpid(), signal.SIGTERM)
    """
    place.write("first.txt", b"")  # a new bucket's first write takes its time
    with (
        FaultProxy(place.server.url) as proxy,
        subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(script), place.url],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | places.leading_to(place.url, proxy.url),
        ) as running,
    ):
        assert running.stdout.readline() == "saved\n"
        proxy.kill()
        out, errors = running.communicate("go\n", timeout=30)
    assert (running.returncode, out) == (1, "")
    assert re.search(r"SaveFailedError: saving epoch-002_\w+ failed, .*: the store cannot be reached", errors)
    assert [found.epoch for found in keepbest.open_run(place.url).checkpoints()] == [0]
