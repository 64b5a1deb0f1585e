"""Keras 3 on TensorFlow, JAX and PyTorch: the adapter's functions and the callbacks for `fit`. A facade: names only."""

from ...storage.arrays import from_view
from .best_checkpoint import BestCheckpoint
from .model_checkpoint import ModelCheckpoint
from .rng import capture_rng, restore_rng
from .state import capture, companions, mismatches, restore, role
from .tensors import defer, tensor
from .weights import load_weights

NAME = "keras"
TENSOR_FILE_METADATA: dict[str, str] = {}

__all__ = [  # noqa: RUF022 - what users write first, then what core calls
    "BestCheckpoint",
    "ModelCheckpoint",
    "load_weights",
    "NAME",
    "TENSOR_FILE_METADATA",
    "capture",
    "capture_rng",
    "companions",
    "defer",
    "from_view",
    "mismatches",
    "restore",
    "restore_rng",
    "role",
    "tensor",
]
