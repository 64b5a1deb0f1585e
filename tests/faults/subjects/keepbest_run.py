"""keepbest, as its README tells: `log` each epoch, `resume` on the next start."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path

import torch
from faults.children import Voice
from faults.subjects.torch_state import content, epoch_of

import keepbest
from keepbest import Checkpointer, CheckpointPolicy

NAME = "keepbest"
PROMISE = "what was said to be saved is whole, and damage is an error that names it"
VERSION = metadata.version("keepbest")


def train(folder: Path, voice: Voice, *, warm: int, window: int) -> None:
    """Resume, and save each epoch."""
    model = _model()
    voice_at = 0 if not warm else None
    with Checkpointer(folder / "run", CheckpointPolicy(), model=model) as ckpt:
        ckpt.resume()
        begin = ckpt.position.next_epoch
        voice_at = begin + warm
        for epoch in range(begin, begin + warm + window):
            if epoch == voice_at:
                voice.ready()
            model.weight.data.copy_(content(epoch).view_as(model.weight))
            ckpt.log()
            ckpt.wait()
            voice.say(f"saved {epoch}")


def newest(folder: Path) -> int | None:
    """Load the latest."""
    model = _model()
    with Checkpointer(folder / "run", CheckpointPolicy(), model=model) as ckpt:
        if ckpt.resume() is None:
            return None
    return epoch_of(model.weight.detach())


def load(folder: Path, epoch: int) -> int:
    """Load one of the run."""
    run = keepbest.open_run(folder / "run")
    (found,) = (checkpoint for checkpoint in run.checkpoints() if checkpoint.epoch == epoch)
    return epoch_of(torch.as_tensor(found.load("model")["weight"]))


def _model() -> torch.nn.Module:
    return torch.nn.Linear(content(0).numel() // 64, 64, bias=False)
