"""Behind: what is handed to a thread arrives, and a server that is gone does not hold anybody up."""

from __future__ import annotations

import threading

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
    assert hands.close()
    assert sent == list(range(2500))


def test_a_server_that_does_not_answer_does_not_keep_training_from_its_end(gate, monkeypatch):
    """The end of training waits for a while, then says what is missing."""
    monkeypatch.setattr(behind, "PATIENCE", 0.05)
    hands = Behind("test", lambda entries: gate.wait(), every=0.0)
    hands.put(1)
    with pytest.raises(TimeoutError, match="not everything was sent"):
        hands.close()


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
    assert not hands.close()
    late = Behind("test", send, every=0.0)
    late.put(1)
    with pytest.raises(OSError, match="no route"):
        late.close()
