"""A fit that is killed and started again ends with the very bits of one that was never interrupted."""

import contextlib
import importlib.util
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from contracts import places
from contracts.http_faults import kill_process
from contracts.proxy import FaultProxy

from keepbest import open_run

TRAINER = Path(__file__).parent / "trainer.py"


def start(url, kind, moment=0, *more, proxy=None):
    """Run the trainer; returns its exit code, what it printed at its end, and its errors.

    The kind "request", of this function's own: killed when it sends the request of that number through the proxy.
    """
    own = kind == "request"
    through = {} if proxy is None else places.leading_to(url, proxy.url)
    command = [sys.executable, str(TRAINER), url, "never" if own else kind, str(moment), *more]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ | through
    ) as running:
        if own:
            proxy.clear()
            proxy.on(kill_process(running.pid), after=moment - 1)
        out, errors = running.communicate()
    ended = [line.split(maxsplit=2)[1:] for line in out.splitlines() if line.startswith("ended")]
    return running.returncode, ended[0] if ended else None, errors


def lives(url, deaths, *more, proxy=None):
    """Start, die and start again until training ends; returns the fingerprint and the epochs of the last life."""
    for kind, moment in deaths:
        code, ended, errors = start(url, kind, moment, *more, proxy=proxy)
        assert (code, ended) == (-signal.SIGKILL, None), errors
    code, ended, errors = start(url, "never", 0, *more)
    assert code == 0, errors
    return ended


@pytest.fixture
def trainer(keras):
    spec = importlib.util.spec_from_file_location("keras_trainer", TRAINER)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_killed_fit_changes_no_bit(trainer, place, run_url, tmp_path):
    """Killed within an epoch, then within a save, on disk or in a bucket: the end is the same, bit for bit."""
    model, _ = trainer.train(str(tmp_path / "once"))
    expected = trainer.fingerprint(model)
    with contextlib.ExitStack() as stack:
        proxy = stack.enter_context(FaultProxy(place.server.url)) if place.server else None
        deaths = [("request", 25)] if proxy else [("step", 21), ("call", 14)]
        fingerprint, epochs = lives(run_url, deaths, proxy=proxy)
    assert fingerprint == expected
    assert epochs.endswith("4]")
    assert not epochs.startswith("[0")
    assert open_run(run_url).verify().ok


@pytest.mark.slow
@pytest.mark.parametrize("moment", [1, 5, 9, 13, 17, 23, 29, 37, 43])
def test_a_kill_before_any_file_system_call_changes_no_bit(trainer, url, moment):
    """Whatever call of a save a process dies before, a restart leads to the same bits."""
    model, _ = trainer.train(f"{url}-once")
    assert lives(url, [("call", moment)])[0] == trainer.fingerprint(model)


@pytest.mark.slow
def test_a_killed_fit_that_shuffles(url):
    """With fit's own shuffle of arrays and a seed set at the start, too."""
    assert lives(url, [("step", 21), ("step", 9)], "shuffle")[0] == lives(f"{url}-once", [], "shuffle")[0]


def test_sigterm_saves_and_ends(url):
    """SIGTERM ends fit with code 143 after saving where it stands; a restart begins that epoch anew, and says so."""
    code, ended, _ = start(url, "term", 12)
    assert (code, ended) == (143, None)
    latest = open_run(url).latest
    assert latest.step == 12
    assert "signal" in latest.info.reasons
    code, (_, epochs), errors = start(url, "never")
    assert code == 0
    assert epochs == "[1, 2, 3, 4]"
    assert "was left in the middle of epoch 2, after 4 of its steps" in errors


def test_the_environment_is_this_backend():
    """The processes that these tests start train on the backend that is tested."""
    assert os.environ["KERAS_BACKEND"] in ("tensorflow", "jax", "torch")
