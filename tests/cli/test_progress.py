"""Bars while a verb works, in a real terminal."""

from __future__ import annotations

import json

import pytest
from contracts.terminal import run_in_terminal

SLOW = """
import mmap, sys
mapped = mmap.mmap
def slow(*args, **options):  # as a cold disk, or a network file system
    time.sleep(0.35)
    return mapped(*args, **options)
mmap.mmap = slow
from keepbest.cli import main
go()
sys.exit(main(sys.argv[1:]))
"""
"""The command, on a slow disk: a run of three checkpoints of three files each takes about three seconds to read."""


@pytest.fixture
def big(local_build):
    """A run of three checkpoints."""
    for epoch in range(3):
        local_build.save(epoch, val_loss=1.0 / (epoch + 1))
    return local_build.url


def test_verify_shows_how_far_it_is(big):
    """A bar while it reads; what stays is the answer alone."""
    ran = run_in_terminal(SLOW, "verify", big, columns=200)
    assert f"verify {big}" in ran.written
    assert ran.code == 0
    assert [line.split()[0] for line in ran.screen] == ["whole"] * 3 + [f"{big}:"]


def test_json_and_bars_do_not_meet(big):
    """With `--json > file` the bar goes to the terminal and the object to the file."""
    ran = run_in_terminal(SLOW, "verify", big, "--json", columns=200, redirect=True)
    assert f"verify {big}" in ran.written
    assert ran.screen == [""]
    assert json.loads(ran.out)["ok"]


def test_ctrl_c_while_verify_reads_leaves_the_terminal_clean(big):
    """The exit code is that of an interrupt, and no bar stays."""
    ran = run_in_terminal(SLOW, "verify", big, columns=200, interrupt=f"verify {big}")
    assert ran.code == 130
    assert not [line for line in ran.screen if line not in {"", "^C"}]
    assert "\x1b[?" not in ran.written
