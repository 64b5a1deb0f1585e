"""What the subjects of PyTorch save: one tensor, different in every place and every epoch."""

from __future__ import annotations

import torch

NBYTES = 2 << 20


def content(epoch: int) -> torch.Tensor:
    """Return what the tensor is at the end of an epoch."""
    return torch.arange(NBYTES // 4, dtype=torch.float32) % 8191 + epoch * 8192


def epoch_of(tensor: torch.Tensor) -> int:
    """Return the epoch that a tensor is of.

    Raises:
        ValueError: it is of none, or of several.
    """
    epoch = round(float(tensor.reshape(-1)[0]) / 8192)
    if not torch.equal(tensor.reshape(-1), content(epoch)):
        raise ValueError("these are no epoch's values")
    return epoch
