"""File hasher: one pass over a tensor file, fed by whoever has the bytes."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keepbest.storage.digest import digest
from keepbest.storage.file_hasher import PIECE, FileHasher

HEADER = b"header"
SIZES = st.lists(st.sampled_from([0, 1, 7, 1000, PIECE - 1, PIECE, PIECE + 1, 3 * PIECE]), min_size=1, max_size=6)


def file(sizes):
    """Return data, and where each tensor lies in it."""
    ends = np.cumsum(sizes).tolist()
    data = np.random.default_rng(sum(sizes)).integers(0, 256, ends[-1], np.uint8).tobytes()
    return memoryview(data), {
        f"t{number}": (end - size, end) for number, (size, end) in enumerate(zip(sizes, ends, strict=True))
    }


def expected(data, offsets):
    """Return the digests of the tensors and of the file, each taken at once."""
    return {name: digest(data[begin:end]) for name, (begin, end) in offsets.items()}, digest(HEADER + bytes(data))


@settings(max_examples=80, deadline=None)
@given(sizes=SIZES, cuts=st.lists(st.floats(0, 1), max_size=5), by=st.lists(st.booleans(), min_size=6, max_size=6))
def test_whoever_feeds_it_the_digests_are_the_same(sizes, cuts, by):
    """In pieces of any length, offered with all that came before or fed alone, and fed once more from the beginning."""
    data, offsets = file(sizes)
    hasher = FileHasher(HEADER, offsets)
    places = sorted({0, *(int(cut * len(data)) for cut in cuts), len(data)})
    for begin, end, offered in zip(places, places[1:], by, strict=False):
        if offered:
            hasher.offer(data[:end], begin)
        else:
            hasher.feed(data[begin:end], begin)
        assert hasher.taken == end
        hasher.feed(data[:begin], 0)
        assert hasher.taken == end
    assert (hasher.digests, hasher.file_digest()) == expected(data, offsets)


def test_a_small_gap_is_taken_along_and_a_large_one_is_left():
    """What is offered behind bytes that were there before comes with them; but nobody hashes for others for long."""
    data, offsets = file([1000, 8 * PIECE])
    hasher = FileHasher(HEADER, offsets)
    hasher.offer(data[:2000], 1000)
    assert hasher.taken == 2000
    hasher.offer(data, 2001 + 4 * PIECE)
    assert hasher.taken == 2000
    hasher.offer(data[:1500], 1000)  # there already
    assert hasher.taken == 2000
    hasher.feed(data, 0)
    assert (hasher.digests, hasher.file_digest()) == expected(data, offsets)


def test_who_offers_waits_for_nobody():
    """While another thread is at it, what is offered is left to that one."""
    data, offsets = file([PIECE])
    hasher = FileHasher(HEADER, offsets)
    with hasher._lock:
        offering = threading.Thread(target=hasher.offer, args=(data, 0))
        offering.start()
        offering.join(30)
        assert not offering.is_alive()
    assert hasher.taken == 0


def test_many_threads_lose_nothing():
    """Two who feed and one who offers, all of it, in their own pieces."""
    data, offsets = file([3 * PIECE, 5, 20 * PIECE, 1000, 7 * PIECE])
    hasher = FileHasher(HEADER, offsets)

    def feed(length):
        for begin in range(0, len(data), length):
            hasher.feed(data[begin : begin + length], begin)

    def offer():
        for end in range(1000, len(data), 100_000):
            hasher.offer(data[:end], end - 1000)

    threads = [threading.Thread(target=feed, args=(n,)) for n in (70_000, 3 * PIECE)] + [threading.Thread(target=offer)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert (hasher.digests, hasher.file_digest()) == expected(data, offsets)


@pytest.mark.parametrize("sizes", [[0], [0, 0], [5, 0], [0, 5, 0]])
def test_tensors_without_bytes_have_a_digest(sizes):
    """That of nothing."""
    data, offsets = file(sizes)
    hasher = FileHasher(HEADER, offsets)
    hasher.feed(data, 0)
    assert (hasher.digests, hasher.file_digest()) == expected(data, offsets)
