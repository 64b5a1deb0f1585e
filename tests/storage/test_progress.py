"""Progress: what is counted, who is told of it, and what is drawn."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import threading
import time
import warnings
from concurrent.futures import ThreadPoolExecutor

import pytest
from contracts.faults import WrappedBackend
from contracts.runs import SmallRun

import keepbest
from keepbest.storage import progress
from keepbest.storage.layout import data_key
from keepbest.storage.progress_bar import facts, title
from keepbest.storage.progress_board import DELAY, Board, Drawing
from keepbest.storage.progress_task import Progress
from keepbest.storage.run import Run


class Clock:
    """A clock that a test moves."""

    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def board(clock):
    """A board of its own, in a process without a terminal."""
    return Board(clock, lambda: None)


@pytest.fixture
def small(backend):
    run = SmallRun(backend)
    for _ in range(3):
        run.save()
    return run


@pytest.fixture
def told():
    """Everything that a callback is told while the test runs."""
    heard = []
    with keepbest.on_progress(heard.append):
        yield heard


def seen(**fields):
    """Return a Progress with these fields."""
    given = {"action": "load", "subject": "x", "unit": "bytes", "done": 0, "total": None, "seconds": 1.0}
    return Progress(**{"id": 1, "finished": False, **given, **fields})


# ── counting ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_task_counts_what_many_threads_move(board):
    """No byte is lost when parts arrive in several threads at once."""
    with board.task("load", "x", 80_000) as task:
        with ThreadPoolExecutor(8) as parts:
            for _ in range(8):
                parts.submit(lambda: [task.advance(1) for _ in range(10_000)])
        assert task.progress(0.0).done == 80_000


def test_a_byte_that_is_moved_and_hashed_counts_once(board):
    """What comes over the network and is then hashed here is one byte, whichever is reported first."""
    with board.task("load", "x", 10) as task:
        task.advance(6)
        task.process(4)
        assert task.progress(0.0).done == 6
        task.process(5)
        assert task.progress(0.0).done == 9


def test_done_is_never_more_than_there_is(board):
    """A part that is sent again, or a gap that is read along, takes no bar beyond its end."""
    with board.task("load", "x", 10) as task:
        task.advance(15)
        assert task.progress(0.0).done == 10


def test_a_total_can_be_unknown_and_grow(board):
    """A listing may have to come first; until then there is no total."""
    with board.task("gc", "x", unit="objects") as task:
        assert task.progress(0.0).total is None
        task.expect(3)
        task.expect(2)
        assert task.progress(0.0).total == 5


def test_time_is_the_clocks(board, clock):
    """Seconds count from when the task began."""
    with board.task("load", "x") as task:
        clock.now += 2.5
        assert task.progress(clock.now).seconds == 2.5


def test_whoever_moves_bytes_finds_the_innermost_task():
    """`current` is the task of the code that called, and a harmless one where there is none."""
    nothing = progress.current()
    nothing.advance(1)
    nothing.process(1)
    nothing.expect(1)
    with progress.task("load", "outer") as outer:
        assert progress.current() is outer
        with progress.task("verify", "inner") as inner:
            assert progress.current() is inner
        assert progress.current() is outer
        with ThreadPoolExecutor(1) as other:
            assert other.submit(progress.current).result() is nothing
    assert progress.current() is nothing


def test_bytes_are_not_taken_for_objects():
    """What is read while objects are deleted does not count as deleted objects."""
    with progress.task("load", "x"), progress.task("gc", "y", unit="objects") as task:
        progress.current().advance(4096)
        assert task.progress(0.0).done == 0


# ── callbacks ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_callback_hears_of_the_end_exactly_once(told):
    """However short it was, its last call says that it is finished and all is done."""
    with progress.task("load", "x", 7) as task:
        task.advance(3)
    (last,) = [heard for heard in told if heard.finished]
    assert last is told[-1]
    assert (last.action, last.subject, last.unit, last.done, last.total) == ("load", "x", "bytes", 7, 7)


def test_a_callback_hears_that_something_was_broken_off(told):
    """An operation that fails ends with what it had done."""
    with pytest.raises(ZeroDivisionError), progress.task("load", "x", 7) as task:
        task.advance(3)
        raise ZeroDivisionError
    assert (told[-1].finished, told[-1].done) == (True, 3)


def test_a_callback_hears_of_it_meanwhile_but_not_too_often():
    """It is called while the operation goes on, at most ten times a second, one call after the other."""
    calls, overlapping = [], []
    twice = threading.Event()
    turn = threading.Lock()

    def hear(heard):
        overlapping.append(not turn.acquire(blocking=False))
        calls.append(heard)
        if len(calls) >= 3:
            twice.set()
        turn.release()

    began = time.monotonic()
    with keepbest.on_progress(hear), progress.task("load", "x", 10**9) as task:
        while not twice.is_set() and time.monotonic() < began + 30:
            task.advance(1)
        task.advance(1)
    took = time.monotonic() - began
    assert 3 <= len(calls) <= took / 0.1 + 1
    assert [heard.done for heard in calls] == sorted(heard.done for heard in calls)
    assert [heard.finished for heard in calls] == [False] * (len(calls) - 1) + [True]
    assert not any(overlapping)


def test_a_slow_callback_is_not_called_again_meanwhile():
    """The end is told when the call before has returned, though that runs in another thread."""
    called, said = threading.Event(), []

    def hear(heard):
        called.set()
        said.append("begins")
        time.sleep(0.2)
        said.append("ends" if not heard.finished else "the end")

    with keepbest.on_progress(hear):
        with progress.task("load", "x"):
            assert called.wait(30)
        assert said[-4:] == ["begins", "ends", "begins", "the end"]


def test_nothing_is_told_after_the_end(board):
    """An operation that ends while another one is told of is not told of as if it went on."""
    heard, testing = [], threading.current_thread()
    with contextlib.ExitStack() as first, contextlib.ExitStack() as second:
        first.enter_context(board.task("load", "first"))
        second.enter_context(board.task("load", "second"))

        def hear(one):
            if threading.current_thread() is testing:
                heard.append((one.subject, one.finished))
                second.close()

        with board.subscribe(hear, ("here", 1)):
            board.tell()
    assert heard == [("first", False), ("second", True)]


def test_operations_at_once_are_told_apart(told):
    """Each has a number of its own, whatever they are called."""
    with progress.task("load", "x", 1), progress.task("load", "x", 2):
        pass
    ends = {heard.total: heard.id for heard in told if heard.finished}
    assert len(set(ends.values())) == 2


def test_a_subscription_ends_when_it_is_closed():
    """After `close`, or its `with` block, the callback hears nothing more; others do."""
    first, second = [], []
    one, two = keepbest.on_progress(first.append), keepbest.on_progress(second.append)
    one.close()
    one.close()
    with two:
        with progress.task("load", "x"):
            pass
    with progress.task("load", "y"):
        pass
    assert (first, len(second)) == ([], 1)


@pytest.mark.parametrize("treatment", ["always", "error"])
def test_a_callback_that_raises_breaks_nothing(treatment):
    """It is warned about once, where it was given, and dropped; the operation and other callbacks go on."""
    heard = []

    def broken(_):
        raise ValueError("no such bar")

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter(treatment)
        with keepbest.on_progress(broken), keepbest.on_progress(heard.append):
            for subject in "xy":
                with progress.task("load", subject, 1):
                    pass
    assert [one.subject for one in heard if one.finished] == ["x", "y"]
    if treatment == "always":
        (warned,) = caught
        assert "on_progress raised ValueError: no such bar" in str(warned.message)
        assert warned.filename == __file__


def test_a_callback_may_itself_load_something(backend, small):
    """A callback that uses keepbest does not wait for itself."""
    heard = []

    def hear(one):
        heard.append(one.action)
        if one.action == "verify":
            Run(backend).latest.load("model")

    with keepbest.on_progress(hear):
        Run(backend).verify()
    assert {"verify", "load"} <= set(heard)


def test_a_forked_child_is_not_held_up_by_its_parents_threads():
    """A callback that is running when a process forks does not stop the child's own work."""
    program = """
import os, sys, threading, time, keepbest
from keepbest.storage import progress
parent, running = os.getpid(), threading.Event()
def hear(heard):
    if os.getpid() == parent:
        running.set()
        time.sleep(0.5)
keepbest.on_progress(hear)
with progress.task("load", "x"):
    running.wait(30)
    child = os.fork()
    if not child:
        with progress.waiting(), progress.task("load", "y"):
            pass
        os._exit(7)
    for _ in range(200):
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            os._exit(os.waitstatus_to_exitcode(status))
        time.sleep(0.05)
    os.kill(child, 9)
"""
    assert subprocess.run([sys.executable, "-c", program], check=False, timeout=60).returncode == 7


# ── what each operation says ──────────────────────────────────────────────────────────────────────────────────────


def test_verify_says_how_far_it_is(backend, small):
    """When a file's turn comes, the files before it are done."""
    looks = []

    class Watched(WrappedBackend):
        def _call(self, name, *args):
            if name == "head" and args[0].startswith("checkpoints/"):
                looks.append(progress.current().progress(0.0))
            return super()._call(name, *args)

    Run(Watched(backend)).verify()
    held = [checkpoint.manifest().artifacts.values() for checkpoint in Run(backend).checkpoints()]
    sizes = [artifact.size for artifacts in held for artifact in artifacts]
    before = [sum(sizes[:at]) for at in range(len(sizes))]
    assert len(looks) == len(sizes) == 6
    assert all(look.done >= least for look, least in zip(looks, before, strict=True))
    assert looks[0].done < looks[0].total == sum(sizes)


def test_each_operation_is_told_by_its_name(backend, small, told, tmp_path):
    """Loading, exporting and verifying count the bytes of what they read, and end with all of them."""
    checkpoint = Run(backend).latest
    tensors = sum(array.nbytes for array in small.wrote[checkpoint.name].values())
    file = checkpoint.manifest().artifacts["model.safetensors"].size
    checkpoint.load("model")
    checkpoint.load("model", only="layer.bias")
    checkpoint.export(tmp_path / "model.safetensors")
    Run(backend).verify()
    assert [(one.action, one.subject, one.total) for one in told if one.finished] == [
        ("load", f"{checkpoint.name}/model.safetensors", tensors),
        ("load", f"{checkpoint.name}/model.safetensors", 24),
        ("export", checkpoint.name, file),
        ("verify", backend.url, sum(held.nbytes for held in small.writer.checkpoints)),
    ]
    assert all(one.done == one.total and one.unit == "bytes" for one in told if one.finished)


def test_export_says_how_far_it_is(backend, small, tmp_path, told):
    """The bytes that are copied are counted as they are written, once, though they are both read and written."""
    looks = []

    class Watched(WrappedBackend):
        def _call(self, name, *args):
            if name == "head":
                looks.append(progress.current().progress(0.0).done)
            return super()._call(name, *args)

    checkpoint = Run(Watched(backend)).latest
    checkpoint.export(tmp_path, with_records=True)
    sizes = [artifact.size for artifact in checkpoint.manifest().artifacts.values()]
    assert looks == [0, sizes[0]]


def test_gc_counts_what_it_deletes(backend, small, told):
    """Garbage is counted in objects, and how many there are is known once the listing is there."""
    for file in ("model.safetensors", "state.json"):
        backend.put(data_key("epoch-009_step-000090_abcdef", file), [b"12345"])
    Run(backend).gc(grace=0.0)
    (end,) = [one for one in told if one.finished]
    assert (end.action, end.subject, end.unit, end.done, end.total) == ("gc", backend.url, "objects", 2, 2)


def test_gc_says_how_far_it_is(backend, small, told):
    """What has been deleted is told while the rest is."""
    for name, file in (("a", "model.safetensors"), ("a", "state.json"), ("b", "state.json")):
        backend.put(data_key(f"epoch-009_step-000090_{name}bcdef", file), [b"12345"])
    began = time.monotonic()

    class Watched(WrappedBackend):
        def _call(self, name, *args):
            if name == "delete" and "_bbcdef" in args[0][0]:
                while told[-1:] == [] or told[-1].done == 0:
                    assert time.monotonic() < began + 30
                    time.sleep(0.01)
            return super()._call(name, *args)

    Run(Watched(backend)).gc(grace=0.0)
    assert 2 in {one.done for one in told}


# ── bars ──────────────────────────────────────────────────────────────────────────────────────────────────────────


class Recorder:
    """A display that remembers what it was to show."""

    def __init__(self):
        self.drawn = []

    def draw(self, shown):
        self.drawn.append([one.subject for one in shown])

    def close(self):
        self.drawn.append("closed")


def test_a_bar_appears_when_somebody_has_waited_for_a_second(board, clock):
    """Not before, not for what nobody waits for, and not longer than somebody waits."""
    recorder = Recorder()
    drawing = Drawing(board.shown, lambda: recorder)
    with board.task("save", "behind"):
        clock.now += 60
        drawing.draw()
        with board.waiting(), board.waiting():
            clock.now += DELAY - 0.001
            drawing.draw()
            assert recorder.drawn == []
            clock.now += 0.001
            with board.task("load", "new"):
                drawing.draw()
            drawing.draw()
        drawing.draw()
    drawing.close()
    assert recorder.drawn == [["behind", "new"], ["behind"], [], "closed"]


def test_a_second_wait_is_a_new_one(board, clock):
    """Many short waits make no bar."""
    with board.task("save", "behind"):
        for _ in range(3):
            with board.waiting():
                clock.now += DELAY * 0.9
                assert board.shown() == []


def test_a_callback_takes_the_place_of_bars(board, clock):
    """Where a program shows progress itself, nothing is drawn over it."""
    with board.task("save", "x"), board.waiting():
        clock.now += DELAY
        assert [one.subject for one in board.shown()] == ["x"]
        with board.subscribe(lambda _: None, ("here", 1)):
            assert board.shown() == []


def test_nobody_waits_for_a_thread_that_works_behind(board, clock):
    """What training's own background threads do is not shown, though the same call in the foreground would be."""

    def collect():
        progress.work_behind()
        with board.waiting(), board.task("gc", "x", unit="objects"):
            clock.now += DELAY
            return board.shown()

    with ThreadPoolExecutor(1) as behind:
        assert behind.submit(collect).result() == []


def test_a_display_that_fails_is_never_tried_again(board, clock):
    """A terminal that goes away in the middle costs the bars, and nothing else."""
    tried = []

    class Gone(Recorder):
        def draw(self, shown):
            tried.append(shown)
            raise OSError(5, "Input/output error")

    drawing = Drawing(board.shown, Gone)
    with board.waiting(), board.task("load", "x"):
        clock.now += DELAY
        drawing.draw()
        drawing.draw()
    drawing.close()
    assert len(tried) == 1


@pytest.mark.parametrize(
    ("given", "said"),
    [
        pytest.param({}, "0 bytes", id="nothing-known"),
        pytest.param({"done": 0, "total": 5000}, "  0% 0.0/5.0 kB", id="nothing-done"),
        pytest.param(
            {"done": 1_500_000_000, "total": 6_000_000_000, "seconds": 5.0},
            " 25% 1.5/6.0 GB 300.0 MB/s 0:00:15",
            id="under-way",
        ),
        pytest.param({"done": 2_000_000, "seconds": 2.0}, "2.0 MB 1.0 MB/s", id="unknown-total"),
        pytest.param(
            {"done": 1200, "total": 4800, "unit": "objects", "seconds": 2.0},
            " 25% 1,200/4,800 objects 600/s 0:00:06",
            id="objects",
        ),
        pytest.param({"done": 7, "total": 7, "seconds": 0.0}, "100% 7/7 bytes 0:00:00", id="at-once"),
    ],
)
def test_a_bar_says_how_much_how_fast_and_how_long(given, said):
    """What is not known yet is left out."""
    assert facts(seen(**given)) == said


def test_a_narrow_terminal_gets_what_matters_most():
    """Where there is no room, the share and the time that is left remain."""
    assert facts(seen(done=1, total=4, seconds=20.0), short=True) == " 25% 0:01:00"


def test_a_name_cannot_steer_the_terminal():
    """Escape sequences in a name that a stranger chose are written out."""
    assert title(seen(subject="a\x1b[2J\r[bold]b")) == "load a\\x1b[2J\\r[bold]b"
