"""torch.distributed.checkpoint, writing with two threads."""

from __future__ import annotations

from functools import partial

from faults.subjects import dcp

NAME = "torch.distributed.checkpoint, thread_count=2"
PROMISE, VERSION = dcp.PROMISE, dcp.VERSION
newest, load = dcp.newest, dcp.load
train = partial(dcp.train, threads=2)
