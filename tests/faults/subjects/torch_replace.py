"""torch.save to a file beside, then os.replace, as many trainings do it by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from faults.children import Voice
from faults.subjects import torch_plain

NAME = "torch.save + os.replace"
PROMISE = "the old file or the new one after a crash of the process; none of damage"
VERSION = torch.__version__
newest, load = torch_plain.newest, torch_plain.load


def train(folder: Path, voice: Voice, *, warm: int, window: int) -> None:
    """Go on where the file is, and save each epoch."""

    def save(state: dict[str, Any]) -> None:
        torch.save(state, folder / "checkpoint.pt.tmp")
        (folder / "checkpoint.pt.tmp").replace(folder / "checkpoint.pt")

    torch_plain.train_with(save, folder, voice, warm=warm, window=window)
