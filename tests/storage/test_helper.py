"""The thread that does for another what must not wait for a core: whose priority it has, and when it ends."""

import os
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from keepbest.storage import helper

linux = pytest.mark.skipif(sys.platform != "linux", reason="only Linux has niceness by thread")


def level():
    """The niceness of the thread that asks."""
    return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())


def be_nice():
    os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), level() + 3)


def keep_priority():
    """Keep it, and wait until the thread has begun: before that, each task gets one of its own."""
    helper.keep_priority()
    assert helper._own.helper.begun.wait(10)


def outcome(task, **how):
    """What a task returns that is run beside the calling thread."""
    ended, found = threading.Event(), []
    helper.run(lambda: (found.append(task()), ended.set()), **how)
    assert ended.wait(10)
    return found[0]


def a_thread():
    """Runs one function after the other in a thread of its own, which may become nice."""
    with ThreadPoolExecutor(1) as pool:
        yield lambda do, *given, **named: pool.submit(do, *given, **named).result(20)


thread, other = pytest.fixture(a_thread, name="thread"), pytest.fixture(a_thread, name="other")


@linux
def test_the_priority_is_the_one_that_was_kept(thread):
    """A thread that has become nice has others work at the priority it had before, if it asks for that."""
    before = thread(level)
    thread(keep_priority)
    assert thread(outcome, threading.get_ident) == thread(outcome, threading.get_ident)
    thread(be_nice)
    assert thread(level) == before + 3
    assert thread(outcome, level) == before
    assert thread(outcome, level, own_priority=False) == before + 3


@linux
def test_without_one_that_was_kept_it_is_that_of_now(thread, other):
    """Another thread's helper is nobody else's."""
    other(keep_priority)
    before = thread(level)
    thread(be_nice)
    assert thread(outcome, level) == before + 3


@linux
def test_the_thread_ends_with_its_owner():
    """Nothing is left of it."""
    before = len(os.listdir("/proc/self/task"))
    with ThreadPoolExecutor(1) as pool:
        pool.submit(keep_priority).result(10)
        pool.submit(outcome, level).result(10)
        assert len(os.listdir("/proc/self/task")) == before + 2
    until = time.monotonic() + 10
    while len(os.listdir("/proc/self/task")) > before and time.monotonic() < until:
        time.sleep(0.01)
    assert len(os.listdir("/proc/self/task")) == before


def test_where_no_thread_can_be_had_priorities_are_as_they_are(thread, monkeypatch):
    """Keeping one fails without a word; running says so."""
    with monkeypatch.context() as patch:
        patch.setattr(helper._thread, "start_new_thread", refuse)
        thread(helper.keep_priority)
        with pytest.raises(RuntimeError, match="can't start new thread"):
            thread(helper.run, level)
    assert thread(outcome, lambda: "done") == "done"


def refuse(task, given):
    raise RuntimeError("can't start new thread")


def test_tasks_are_done_one_after_the_other(thread):
    """One that comes while another is at work waits for that."""
    done, go = [], threading.Event()
    thread(keep_priority)
    thread(helper.run, lambda: (go.wait(10), done.append("first")))
    thread(helper.run, lambda: done.append("second"))
    assert done == []
    go.set()
    assert thread(outcome, lambda: "third") == "third"
    assert done == ["first", "second"]
