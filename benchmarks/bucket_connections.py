"""How busy the connections are while the state of a large model is saved: to the last byte, or with a long tail?

A model of 13 GB in the same shape, scaled down to a tenth: a few huge tensors, thousands of small ones, and an
optimizer's file of twice the size. A proxy before the server notes when each request began and ended; it takes
processor time of its own, so the rate is no measure.
"""

from __future__ import annotations

import functools
import itertools
import multiprocessing
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

import torch
from bucket_clients import DistributedCheckpoint
from bucket_cost import in_child
from bucket_servers import Place, bucket, started
from bucket_state import GB, State, large_model
from contracts.proxy import FaultProxy, Record
from measure import console, verdict
from rich.table import Table

from keepbest import Checkpointer, CheckpointPolicy
from keepbest.storage.transfer import TransferSettings

WIDTH = 60
"""Characters of the picture."""

BUSY = 0.9
"""Of the connections, on average, until the last byte."""

BULK = 64 << 10
"""Bytes of a request's body that make it more than a marker."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Traffic:
    """What a save did to the connections; times in seconds since its call."""

    requests: int
    most: int
    """Requests under way at the busiest moment."""
    first: float
    """When the first bytes were sent."""
    full: float
    """When all connections were busy for the last time."""
    last: float
    """When the last of the bytes were confirmed; only markers of a few kilobytes follow."""
    end: float
    """When the save returned."""
    counts: tuple[float, ...]
    """Requests under way from `first` to `last`, averaged over `WIDTH` equal spans."""
    busy: float
    """Share of the connections that were busy between `first` and `last`."""


def traffic(records: Sequence[Record], begin: float, end: float, connections: int | None) -> Traffic:
    """Return what the records between two moments say.

    `connections` are to be busy, and more count for nothing; None: as many as were at the busiest moment.
    """
    during = [record for record in records if record.end is not None and record.end > begin and record.start < end]
    bulk = [record for record in during if record.received >= BULK]
    spans = [(record.start - begin, record.end - begin) for record in bulk]
    first, last = min(start for start, _ in spans), max(stop for _, stop in spans)
    moments = sorted([(start, 1) for start, _ in spans] + [(stop, -1) for _, stop in spans])
    steps, count = [], 0
    for moment, change in moments:
        count += change
        steps.append((moment, count))
    most = connections or max(count for _, count in steps)
    held = sum(min(count, most) * (after - moment) for (moment, count), (after, _) in itertools.pairwise(steps))
    width = (last - first) / WIDTH
    return Traffic(
        requests=len(during),
        most=most,
        first=first,
        full=max(after for (_, count), (after, _) in itertools.pairwise(steps) if count >= most),
        last=last,
        end=end - begin,
        counts=tuple(_mean(spans, first + n * width, first + (n + 1) * width) for n in range(WIDTH)),
        busy=held / (last - first) / most,
    )


def run(*, quick: bool) -> bool:
    """Measure, and print whether the connections stay busy."""
    size = 13 * GB // 25 if quick else 13 * GB // 10
    model, moments = large_model(size)
    cases = {
        "keepbest": (keepbest_save, TransferSettings().connections),
        "DCP FsspecWriter": (distributed_save, None),  # what it may use is not for us to say
    }
    table = Table(
        title=f"Connections during a save of {size / GB:.2g} GB in {len(model) + len(moments):,} tensors",
        title_justify="left",
    )
    for column in (
        "case",
        "connections",
        "busy to the\nlast byte",
        "first byte\nafter",
        "not all busy\nat the end",
        "last byte\nafter",
        "committed\nafter",
    ):
        table.add_column(column, justify="left" if column == "case" else "right")
    found = {}
    with started("s3") as server:
        for name, (save, connections) in cases.items():
            with proxied(server.url) as (url, records), bucket("s3", server, endpoint=url) as place:
                begin, end = in_child(functools.partial(save, place, model, moments))
                this = found[name] = traffic(records(), begin, end, connections)
            seconds = (this.first, this.last - this.full, this.last, this.end)
            table.add_row(name, str(this.most), f"{this.busy:.0%}", *(f"{value:.2f} s" for value in seconds))
    console.print(table)
    for name, this in found.items():
        console.print(f"{picture(this)}  {name}, busy connections (of {this.most}) over time", highlight=False)
    mine = found["keepbest"]
    figure = f"{mine.busy:.0%} of {mine.most}, all of them until {mine.last - mine.full:.2f} s before the last byte"
    return verdict(
        f"at least {BUSY:.0%} of the connections are busy to the last byte", held=mine.busy >= BUSY, figure=figure
    )


def keepbest_save(
    place: Place, model: Mapping[str, torch.Tensor], moments: Mapping[str, torch.Tensor]
) -> tuple[float, float]:
    """Save with a Checkpointer, and return when that began and ended."""
    ckpt = Checkpointer(
        place.url("run"),
        CheckpointPolicy(),
        storage_options=place.storage_options,
        mode="sync",
        model=model,
        optimizer=moments,
    )
    begin = time.monotonic()
    ckpt.save()
    return begin, time.monotonic()


def distributed_save(
    place: Place, model: Mapping[str, torch.Tensor], moments: Mapping[str, torch.Tensor]
) -> tuple[float, float]:
    """Save with torch.distributed.checkpoint, and return when that began and ended."""
    tensors = {**model, **moments}
    client = DistributedCheckpoint(place)
    begin = time.monotonic()
    client.upload("run", State(size=0, tensors=tensors, data=None))
    return begin, time.monotonic()


@contextmanager
def proxied(url: str) -> Iterator[tuple[str, Any]]:
    """Run a proxy in a process of its own; yield its URL, and the function that returns the records of all requests."""
    fork = multiprocessing.get_context("fork")
    here, there = fork.Pipe()
    process = fork.Process(target=_proxy, args=(url, there))
    process.start()
    there.close()
    try:
        yield here.recv(), lambda: (here.send(None), here.recv())[1]
    finally:
        process.kill()
        process.join()


def picture(this: Traffic) -> str:
    """Return a line of bars, one for each span of time."""
    bars = " ▁▂▃▄▅▆▇█"
    return "".join(bars[round(min(1.0, count / this.most) * (len(bars) - 1))] for count in this.counts)


def _proxy(url: str, pipe: Connection) -> None:
    with FaultProxy(url) as proxy:
        pipe.send(proxy.url)
        while True:
            pipe.recv()
            pipe.send(proxy.records())


def _mean(spans: Sequence[tuple[float, float]], begin: float, end: float) -> float:
    return sum(max(0.0, min(stop, end) - max(start, begin)) for start, stop in spans) / (end - begin)
