"""The event loop of fsspec: who waits for it, and who must not."""

from __future__ import annotations

import asyncio

import pytest
from fsspec.asyn import get_loop

from keepbest.errors import UsageError
from keepbest.storage import event_loop
from keepbest.storage.backend import open_backend


async def answer():
    return 42


def test_another_loop_may_wait():
    """Whoever is in an event loop of their own waits as everybody does."""

    async def program():
        return event_loop.run(get_loop(), answer())

    assert asyncio.run(program()) == 42


@pytest.mark.parametrize("url", ["s3://bucket/run", "gs://bucket/run"])
def test_the_loop_does_not_wait_for_itself(url):
    """What is called from within fsspec's own loop is an error that says how to call it, and no wait without end."""
    options = {"key": "a", "secret": "b"} if url.startswith("s3") else {"token": "anon"}
    backend = open_backend(url, options | {"endpoint_url": "http://127.0.0.1:9"})

    async def program():
        return backend.list("")

    with pytest.raises(UsageError, match="Call it from another thread"):
        asyncio.run_coroutine_threadsafe(program(), get_loop()).result(5)
