"""The bars, in a real terminal: when they appear, what is left of them, and where there are none."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest
from contracts.runs import SmallRun
from contracts.terminal import run_in_terminal

from keepbest.storage.backend import open_backend
from keepbest.storage.layout import data_key

LONG = """
from keepbest.storage import progress
print("begin", flush=True)
go()
with progress.waiting(), progress.task("verify", "runs/7", 10**9) as task:
    for _ in range(17):
        time.sleep(0.1)
        task.advance(5 * 10**7)
print("end")
"""
"""Takes well over a second."""

LONG_ENOUGH = LONG.replace("range(17)", "range(13)")
"""For what must not be seen: a slow machine cannot make it seen."""

ELSEWHERE = LONG_ENOUGH.replace("go()", "")


def test_a_bar_appears_after_a_second_and_is_gone_at_the_end():
    """It says what, how much of how much, how fast, how long; what was printed before and after is all that stays."""
    ran = run_in_terminal(LONG)
    assert min(moment for moment, text in ran.moments if "verify" in text) >= 1.0
    for text in ("verify runs/7", "%", "/1.0 GB", "MB/s", "0:00:0", "━"):
        assert text in ran.written, text
    assert (ran.code, ran.screen) == (0, ["begin", "end"])
    assert "\x1b[?" not in ran.written, "a process that is killed must not leave the cursor hidden"


def test_what_is_quick_writes_nothing():
    """Not a byte goes to the terminal for what takes no second."""
    ran = run_in_terminal(LONG.replace("range(17)", "range(1)"))
    assert ran.written == "begin\r\nend\r\n"


def test_the_bar_of_another_program_is_not_damaged():
    """A line that is not ended, as tqdm and Keras leave it, is there afterwards, and the cursor is in it."""
    program = LONG.replace('print("begin"', 'print("\\r 50%|█████     | 1/2", end=""').replace('"end"', '"\\r100%"')
    assert run_in_terminal(program).screen == ["100%|█████     | 1/2"]


@pytest.mark.parametrize("columns", [80, 30])
def test_bars_fit_their_terminal(columns):
    """No bar is wider than the terminal, where it could not be erased."""
    program = LONG.replace("runs/7", "s3://bucket/experiments/" + "a-long-name/" * 12)
    ran = run_in_terminal(program, columns=columns)
    assert ran.screen == ["begin", "end"]
    drawn = re.split(r"[\r\n]+", re.sub(r"\x1b\[[0-9;]*[A-Za-z]", "", ran.written))
    assert any("%" in line for line in drawn)
    assert max(map(len, drawn)) <= columns


def test_several_operations_have_several_bars():
    """What goes on in other threads is shown while somebody waits, each in a line of its own."""
    program = """
import threading
from keepbest.storage import progress
def upload():
    with progress.task("mirror", "epoch-001", 100):
        time.sleep(1.6)
threading.Thread(target=upload).start()
go()
with progress.waiting(), progress.task("save", "epoch-002", 100):
    time.sleep(1.4)
print("end")
"""
    ran = run_in_terminal(program)
    assert "mirror epoch-001" in ran.written
    assert "save epoch-002" in ran.written
    assert ran.screen == ["end"]


def test_loading_exporting_and_collecting_are_shown(tmp_path):
    """Each has its bar where a store is slow."""
    run = SmallRun(open_backend(tmp_path / "run"))
    run.save()
    run.backend.put(data_key("epoch-009_step-000090_abcdef", "state.json"), [b"12345"])
    program = """
import mmap, sys, keepbest
def slow(call):
    def slower(*args, **options):
        time.sleep(1.4)
        return call(*args, **options)
    return slower
mmap.mmap = slow(mmap.mmap)
run = keepbest.open_run(sys.argv[1])
go()
run.best.load("model")
run.best.export(sys.argv[1] + "/../model.safetensors")
os.unlink = slow(os.unlink)
run.gc(grace=0.0)
"""
    ran = run_in_terminal(program, run.backend.url, columns=200)
    name = run.writer.checkpoints[0].name
    for text in (f"load {name}/model.safetensors", f"export {name}", f"gc {run.backend.url}"):
        assert text in ran.written
    assert (ran.code, ran.screen) == (0, [""])


def test_ctrl_c_leaves_the_terminal_clean():
    """The bar is erased, and what follows stands in lines of its own."""
    program = """
from keepbest.storage import progress
print("begin", flush=True)
go()
try:
    with progress.waiting(), progress.task("verify", "runs/7", 10**9):
        time.sleep(60)
except KeyboardInterrupt:
    print("left")
"""
    ran = run_in_terminal(program, interrupt="verify")
    assert ran.code == 0
    assert [line for line in ran.screen if line not in {"", "^C"}] == ["begin", "left"]


@pytest.mark.parametrize(
    ("before", "environment"),
    [
        pytest.param("", {"KEEPBEST_PROGRESS": "0"}, id="switched-off"),
        pytest.param("", {"TERM": "dumb"}, id="dumb-terminal"),
        pytest.param("import sys; sys.modules['rich'] = None", {}, id="without-rich"),
        pytest.param("import keepbest; keepbest.on_progress(lambda p: None)", {}, id="callback"),
        pytest.param("import sys; sys.stderr = None", {}, id="no-stderr"),
        pytest.param("import sys; sys.stderr.close()", {}, id="closed-stderr"),
        pytest.param("import sys; sys.stderr = open('/dev/null', 'w')", {}, id="stderr-elsewhere"),
    ],
)
def test_there_is_no_bar(before, environment):
    """Where nobody wants or sees bars, or rich is not installed, the work is done and nothing is drawn."""
    ran = run_in_terminal(f"{before}\n{LONG_ENOUGH}", **environment)
    assert ran.written == "begin\r\nend\r\n"
    assert ran.code == 0


def test_a_live_display_of_the_users_own_is_left_alone():
    """Two programs that draw in one place would fight: ours gives way."""
    program = "from rich.live import Live\nfrom rich.console import Console\n" + LONG.replace(
        "with progress", "with Live('mine', console=Console(stderr=True)), progress"
    )
    ran = run_in_terminal(program)
    assert "verify" not in ran.written


def test_a_log_file_gets_nothing():
    """Neither standard error nor standard output has a byte of it, where they are no terminals."""
    ran = subprocess.run(
        [sys.executable, "-c", f"import time\n{ELSEWHERE}\nimport sys\nprint('rich' in sys.modules)"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert (ran.stdout, ran.stderr) == ("begin\nend\nFalse\n", "")


def test_a_terminal_that_goes_away_costs_the_bar_only():
    """When the connection to the terminal breaks, what is being done comes to its end."""
    program = """
import os, pty, sys, time
outer, inner = os.openpty()
sys.stderr = os.fdopen(inner, "w")
""" + ELSEWHERE.replace("for _ in range(13):", "os.close(outer)\n    for _ in range(13):")
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stdout) == (0, "begin\nend\n")
