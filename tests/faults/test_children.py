"""Forked children: what their parent left is not theirs to end."""

from __future__ import annotations

import gc
import os
import weakref

import pytest
from faults import confined
from faults.children import ask


class Garbage:
    """Part of a cycle, so that only a collection finds it."""

    def __init__(self) -> None:
        self.me = self


def _in_child(job):
    return ask(job)


def _in_confined(job):
    ((_, ((_, found),)),) = confined.try_all([1], lambda _: [("found", str(job()))])
    return int(found)


@pytest.mark.parametrize("run", [_in_child, _in_confined])
def test_a_child_collects_nothing_of_its_parent(run):
    """The end of an object may wait for a thread that only the parent has."""
    ended = []
    gc.disable()
    try:
        weakref.finalize(Garbage(), ended.append, os.getpid())
        assert run(lambda: (gc.collect(), len(ended))[1]) == 0
    finally:
        gc.enable()
    gc.collect()
    assert ended == [os.getpid()]
