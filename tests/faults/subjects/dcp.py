"""torch.distributed.checkpoint, a folder for each epoch; of these the newest that has its `.metadata`."""

from __future__ import annotations

import shutil
import warnings
from pathlib import Path

import torch
import torch.distributed.checkpoint as dcp
from faults.children import Voice
from faults.subjects.torch_state import content, epoch_of

NAME = "torch.distributed.checkpoint"
PROMISE = "a folder with `.metadata` is complete; none of damage"
VERSION = torch.__version__
THREADS = 1


def train(folder: Path, voice: Voice, *, warm: int, window: int, threads: int = THREADS) -> None:
    """Go on after the newest folder; save each epoch, then delete all but the last two."""
    warnings.simplefilter("ignore")  # it says that there is one process
    found = newest(folder)
    begin = 0 if found is None else found + 1
    for epoch in range(begin, begin + warm + window):
        if epoch == begin + warm:
            voice.ready()
        half = content(epoch).view(2, -1)
        place = folder / f"epoch-{epoch}"
        shutil.rmtree(place, ignore_errors=True)  # what a crash left of this very epoch
        writer = dcp.FileSystemWriter(place, thread_count=threads)
        dcp.save({"first": half[0].clone(), "second": half[1].clone()}, storage_writer=writer)
        voice.say(f"saved {epoch}")
        for old in _folders(folder):
            if old < epoch - 1:
                shutil.rmtree(folder / f"epoch-{old}")


def newest(folder: Path) -> int | None:
    """Load the newest folder that has its metadata."""
    complete = [epoch for epoch in _folders(folder) if (folder / f"epoch-{epoch}/.metadata").exists()]
    return load(folder, max(complete)) if complete else None


def load(folder: Path, epoch: int) -> int:
    """Load one folder."""
    warnings.simplefilter("ignore")
    half = content(0).numel() // 2
    state = {"first": torch.zeros(half), "second": torch.zeros(half)}
    dcp.load(state, checkpoint_id=str(folder / f"epoch-{epoch}"))
    return epoch_of(torch.cat([state["first"], state["second"]]))


def _folders(folder: Path) -> list[int]:
    return [int(path.name.removeprefix("epoch-")) for path in folder.glob("epoch-*")]
