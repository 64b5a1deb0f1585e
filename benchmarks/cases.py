"""The ways to save that are compared, by the names that tables give them. A peer is imported where it is measured."""

from __future__ import annotations

import importlib
import importlib.util
from typing import Any

KEEPBEST = "keepbest"
KEEPBEST_SYNC = 'keepbest, mode="sync"'
TORCH = "torch.save"
THREAD = "torch.save in a thread, deepcopy"
DCP_ASYNC = "DCP async_save"
DCP_SHARED = "DCP async_save, shared memory"
DCP_OVERLAPPED = "DCP async_save, copies in a thread"
MEMCPY = "floor: memcpy"
RAW_FRESH = "floor: raw write, fresh file"
RAW_RECYCLED = "floor: raw write, recycled file"

SAVERS = {
    KEEPBEST: "savers:Keepbest",
    KEEPBEST_SYNC: "savers:KeepbestSync",
    TORCH: "savers:TorchSave",
    THREAD: "savers:TorchSaveInThread",
    "safetensors save_file": "savers:Safetensors",
    "DCP save": "savers_distributed:Distributed",
    DCP_ASYNC: "savers_distributed:DistributedAsync",
    DCP_SHARED: "savers_distributed:DistributedShared",
    DCP_OVERLAPPED: "savers_distributed:DistributedOverlapped",
    "Orbax async, NumPy": "savers_others:OrbaxNumpy",
    "Orbax async, JAX": "savers_others:OrbaxJax",
    "Lightning AsyncCheckpointIO": "savers_others:Lightning",
    MEMCPY: "floors:Memcpy",
    RAW_FRESH: "floors:RawFresh",
    RAW_RECYCLED: "floors:RawRecycled",
}

FLOORS = (MEMCPY, RAW_FRESH, RAW_RECYCLED)

KERAS_BEST = "keepbest BestCheckpoint"
KERAS_OWN = "Keras ModelCheckpoint, .keras"
KERAS = {
    KERAS_BEST: "keras_savers:best_checkpoint",
    "keepbest ModelCheckpoint, .keras": "keras_savers:model_checkpoint",
    "keepbest ModelCheckpoint, .safetensors": "keras_savers:model_checkpoint_safetensors",
    KERAS_OWN: "keras_savers:keras_model_checkpoint",
    "Keras OrbaxCheckpoint": "keras_savers:keras_orbax_checkpoint",
}

PEERS = ("safetensors", "orbax.checkpoint", "pytorch_lightning", "keras", "tensorflow", "jax", "psutil", "matplotlib")


def check_installed() -> None:
    """Ask for what is missing: a table without a peer would say that it was compared.

    Raises:
        SystemExit: something is not installed, with the command that does it.
    """
    missing = [name for name in PEERS if not _installed(name)]
    if missing:
        command = "python -m pip install -c constraints.txt -e '.[torch,keras,cli,test,bench]'"
        raise SystemExit(f"{', '.join(missing)}: not installed. `make bench` does it, or: {command}")


def class_of(place: str) -> Any:
    """Import what `module:name` names."""
    module, name = place.split(":")
    return getattr(importlib.import_module(module), name)


def _installed(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:
        return False
