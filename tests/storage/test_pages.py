"""Pages: memory that begins on a page, and that a forked child gets none of."""

from __future__ import annotations

import mmap
import os
import sys
from pathlib import Path

import numpy as np
import pytest

from keepbest.storage.pages import pages


@pytest.mark.parametrize("nbytes", [1, 4096, 5_000_001])
def test_memory_begins_on_a_page_and_is_zero(nbytes):
    """It is writable, and nothing is in it."""
    block = pages(nbytes)
    array = np.frombuffer(block, np.uint8)
    assert len(block) == nbytes
    assert array.__array_interface__["data"][0] % mmap.PAGESIZE == 0
    assert not array.any()
    block[nbytes - 1] = 7
    assert array[-1] == 7


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux can keep memory from children")
@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
def test_a_forked_child_holds_none_of_it(monkeypatch):
    """What a child of `fork` sees there is zeros, so that the parent's next writes copy no pages."""
    monkeypatch.setattr("keepbest.storage.pages._is_counted_for_children", lambda: False)
    block = pages(1 << 20)
    block[:3] = b"abc"
    child = os.fork()
    if child == 0:
        os._exit(0 if block[:3] == bytes(3) else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert block[:3] == b"abc"


def test_more_than_there_is_is_an_error():
    """So that a save can do without."""
    with pytest.raises(OSError, match=r"\[Errno 12\]"):
        pages(1 << 62)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux counts memory so")
@pytest.mark.parametrize("mode", [0, 2])
def test_where_memory_is_promised_only_once_children_share_it(monkeypatch, mode):
    """With strict accounting, a fork needs no promise of as much memory again."""
    monkeypatch.setattr("keepbest.storage.pages._is_counted_for_children", lambda: mode == 2)
    block = pages(1 << 20)
    lines = Path("/proc/self/maps").read_text().splitlines()
    address = np.frombuffer(block, np.uint8).__array_interface__["data"][0]
    spans = {tuple(int(end, 16) for end in line.split()[0].split("-")): line.split()[1] for line in lines}
    assert next(flags for (low, high), flags in spans.items() if low <= address < high)[3] == (
        "s" if mode == 2 else "p"
    )
