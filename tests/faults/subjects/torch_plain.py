"""torch.save onto the file of the epoch before, as PyTorch's tutorial on checkpoints shows."""

from __future__ import annotations

from pathlib import Path

import torch
from faults.children import Voice
from faults.subjects.torch_state import content, epoch_of

NAME = "torch.save"
PROMISE = "none of crashes or damage"
VERSION = torch.__version__


def train(folder: Path, voice: Voice, *, warm: int, window: int) -> None:
    """Go on where the file is, and save each epoch."""
    train_with(lambda state: torch.save(state, folder / "checkpoint.pt"), folder, voice, warm=warm, window=window)


def train_with(save, folder: Path, voice: Voice, *, warm: int, window: int) -> None:
    """Go on where the file is, and save each epoch by `save`."""
    found = newest(folder)
    begin = 0 if found is None else found + 1
    for epoch in range(begin, begin + warm + window):
        if epoch == begin + warm:
            voice.ready()
        save({"model": {"weight": content(epoch)}, "epoch": epoch})
        voice.say(f"saved {epoch}")


def newest(folder: Path) -> int | None:
    """Load the file."""
    path = folder / "checkpoint.pt"
    return epoch_of(torch.load(path, weights_only=True)["model"]["weight"]) if path.exists() else None


def load(folder: Path, epoch: int) -> int:
    """Load the file."""
    found = newest(folder)
    assert found is not None
    return found
