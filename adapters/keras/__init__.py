"""Keras 3 on TensorFlow, JAX and PyTorch: the adapter's functions, and the callbacks for `fit`. A facade: names and nothing else."""

from ...storage.arrays import from_view
from .rng import capture_rng, restore_rng
from .state import capture, mismatches, restore, role
from .tensors import defer, tensor

NAME = "keras"
TENSOR_FILE_METADATA: dict[str, str] = {}
