"""Peers: the kills and the damage that keepbest is put through, on other libraries, each used as it is documented.

Lost is what a library had said to be complete and cannot load in its own documented way, or loads an older one instead.
Torn is what it finds as its newest and cannot load. Unnoticed is what loads with other values, without an error. What a
kill leaves behind on the disk is not counted: few of them have anything that clears it away.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from faults import hosts, kills
from faults.tally import Tally


@dataclass(frozen=True, slots=True)
class Peer:
    """A module of `subjects/`, and how much of it there is time for."""

    module: str
    needs: str
    kills: int
    calls: int
    damages: int


PEERS = (
    Peer("keepbest_run", "torch", 60, 90, 60),
    Peer("torch_plain", "torch", 60, 90, 60),
    Peer("torch_replace", "torch", 60, 90, 60),
    Peer("dcp", "torch", 40, 60, 40),
    Peer("dcp_threads", "torch", 40, 60, 40),
    Peer("lightning", "pytorch_lightning", 20, 30, 20),
    Peer("lightning_across", "pytorch_lightning", 0, 30, 0),
    Peer("ignite", "ignite", 40, 30, 40),
    Peer("transformers", "transformers", 12, 30, 12),
    Peer("keras_checkpoint", "keras", 20, 40, 30),
    Peer("keras_backup", "keras", 20, 40, 30),
    Peer("orbax", "orbax.checkpoint", 20, 60, 30),
)


def measure(folder: Path, *, sample: bool, seed: int) -> Iterator[Tally]:
    """Try each that is installed; a sample takes a tenth."""
    part = 10 if sample else 1
    with kills.in_memory(folder) as memory:
        for peer in PEERS:
            if not _installed(peer.needs):
                sys.stderr.write(f"peers: {peer.module} is left out, {peer.needs} is not installed\n")
                continue
            place = memory / peer.module
            place.mkdir()
            counts = [str(count // part) for count in (peer.kills, peer.calls, peer.damages)]
            yield from hosts.rows_of("faults.peer_trials", peer.module, str(place), str(seed), *counts)


def _installed(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:
        return False
