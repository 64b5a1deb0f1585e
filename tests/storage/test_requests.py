"""Requests: docs/buckets.md says how many each thing costs, and a proxy counts them."""

from __future__ import annotations

import uuid

import numpy as np
import pytest
from contracts import documented
from contracts.proxy import FaultProxy

import keepbest
from keepbest import Checkpointer, CheckpointPolicy

TABLE = documented.table("requests to S3")


class Tensors:
    """State of so many bytes, which gets a file of its own."""

    def __init__(self, nbytes):
        self.values = np.zeros(nbytes, np.uint8)

    def state_dict(self):
        return {"values": self.values}

    def load_state_dict(self, state):
        self.values = state["values"]


@pytest.fixture(params=["S3", "GCS"])
def counted(request):
    """A store, the URL of a new run there, the options that lead through a proxy, and the proxy."""
    server = request.getfixturevalue(f"{request.param.lower()}_server")
    bucket = request.getfixturevalue(f"{request.param.lower()}_bucket")
    with FaultProxy(server.url) as proxy:
        if request.param == "S3":
            yield "S3", f"s3://{bucket}/run-{uuid.uuid4().hex}", {"endpoint_url": proxy.url}, proxy
        else:
            options = {"endpoint_url": proxy.url, "token": "anon"}
            yield "GCS", f"gs://{bucket}/run-{uuid.uuid4().hex}", options, proxy


@pytest.mark.bucket
def test_each_thing_costs_the_requests_that_the_page_says(counted):
    """What is paid for is what is written: opening, saving, logging, resuming, listing and loading."""
    store, url, options, proxy = counted
    found = {}

    def count(what):
        found[what] = proxy.count()
        proxy.clear()

    policy = CheckpointPolicy(monitor="val_loss")
    objects = {"model": Tensors(100_000), "optimizer": Tensors(200_000)}
    ckpt = Checkpointer(url, policy, storage_options=options, **objects)
    count("open")
    for epoch in range(3):
        ckpt.log(val_loss=1 / (epoch + 1))
        ckpt.wait()
        count("save")  # the last one retires another
    ckpt.close()
    proxy.clear()
    with Checkpointer(url, policy, storage_options=options, **objects) as ckpt:
        proxy.clear()
        ckpt.resume()
        count("resume")
    run = keepbest.open_run(url, storage_options=options)
    proxy.clear()
    run.checkpoints()
    count("list")
    run.best.load("model")
    count("load")
    assert found == {what: int(TABLE[what][f"requests to {store}"]) for what in found}


@pytest.mark.bucket
def test_a_large_object_costs_the_requests_that_the_page_says(counted):
    """An object of 20 MiB goes in three parts of 8 MiB, and comes in three ranges."""
    store, url, options, proxy = counted
    with Checkpointer(url, storage_options=options, model=Tensors(20 << 20)) as ckpt:
        proxy.clear()
        ckpt.save().result()
        # state.json, a look at the commits, the manifest, and the notes; there is no best without a monitor
        others = 4
        assert proxy.count() - others == int(TABLE["20 MiB"][f"requests to {store}"])
        proxy.clear()
    keepbest.open_run(url, storage_options=options).latest.load("model")
    assert proxy.count(path=r"model\.safetensors") == 3


@pytest.mark.bucket
def test_logging_alone_costs_nothing_at_once(counted):
    """A log that saves nothing sends nothing: its row waits for others."""
    store, url, options, proxy = counted
    policy = CheckpointPolicy(monitor="val_loss", every_n_epochs=100, on_improvement=False)
    with Checkpointer(url, policy, storage_options=options, model=Tensors(10)) as ckpt:
        proxy.clear()
        for _ in range(20):
            ckpt.log(val_loss=1.0)
        assert proxy.count() == int(TABLE["log"][f"requests to {store}"]) == 0
