"""Behind: what is handed to a thread arrives, and a server that is gone does not hold anybody up."""

from __future__ import annotations

import contextlib
import threading
import time

import pytest

from keepbest.adapters.hooks import behind
from keepbest.adapters.hooks.behind import Behind


@pytest.fixture
def gate():
    """Open: `send` returns. Opened at the end, so that no thread is left."""
    gate = threading.Event()
    yield gate
    gate.set()


def test_everything_arrives_in_order():
    """What was put is sent before `close` returns."""
    sent = []
    hands = Behind("test", sent.extend, every=0.01)
    for number in range(2500):
        hands.put(number)
    hands.close()
    assert sent == list(range(2500))


def test_a_server_that_does_not_answer_does_not_keep_training_from_its_end(gate, monkeypatch):
    """The end of training waits for a while, then says what is missing."""
    monkeypatch.setattr(behind, "PATIENCE", 0.05)
    hands = Behind("test", lambda entries: gate.wait(), every=0.0)
    hands.put(1)
    with pytest.raises(TimeoutError, match="not everything was sent"):
        hands.close()


def test_what_comes_last_is_waited_for_no_longer(gate, monkeypatch):
    """Saying how the run ended is a request, too."""
    monkeypatch.setattr(behind, "PATIENCE", 0.05)
    hands = Behind("test", lambda entries: None, every=0.0, last=lambda whole: gate.wait())
    with pytest.raises(TimeoutError, match="not everything was sent"):
        hands.close()


def test_after_the_last_wait_nothing_is_sent_any_more(gate, monkeypatch):
    """What was being sent when nobody waited any longer is the last."""
    monkeypatch.setattr(behind, "PATIENCE", 0.05)
    sent = []
    hands = Behind("test", lambda entries: (sent.extend(entries), gate.wait()), every=0.0, last=sent.append)
    hands.put(1)
    while not sent:
        time.sleep(0.001)
    hands.put(2)
    thread = hands._thread
    with pytest.raises(TimeoutError):
        hands.close()
    gate.set()
    thread.join(10)
    assert sent == [1]


@pytest.mark.parametrize("fails", [False, True])
def test_what_comes_last_is_told_whether_all_was_sent(fails):
    """It is called once, also if nothing was put or something failed; its own error is raised."""

    def send(entries):
        if fails:
            raise OSError("no route")

    said = []
    hands = Behind("test", send, every=0.0, last=said.append)
    hands.put(1)
    with pytest.raises(OSError, match="no route") if fails else contextlib.nullcontext():
        hands.close()
    assert said == [not fails]
    none = Behind("test", send, every=0.0, last=said.append)
    none.close()
    assert said == [not fails, True]
    with pytest.raises(ZeroDivisionError):
        Behind("test", send, every=0.0, last=lambda whole: 1 / 0).close()


def test_an_error_is_raised_once(gate):
    """By the next `put`, or by `close`; `close` after that says that not all was sent, and raises nothing."""

    def send(entries):
        gate.set()
        raise OSError("no route")

    hands = Behind("test", send, every=0.0)
    hands.put(1)
    gate.wait()
    with pytest.raises(OSError, match="no route"):
        while True:  # until the thread has noted it
            hands.put(2)
    with pytest.raises(OSError, match="no route"):
        hands.put(3)
    hands.close()
    late = Behind("test", send, every=0.0)
    late.put(1)
    with pytest.raises(OSError, match="no route"):
        late.close()
