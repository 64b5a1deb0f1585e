"""TensorFlow without Keras' `fit`: modules, variables, iterators, generators. A facade: names only.

Keras models, layers and optimizers are the Keras adapter's, also where a `tf.Module` holds them.
"""

from .rng import capture_rng, restore_rng
from .state import capture, mismatches, restore, role
from .tensors import defer, from_view, tensor

NAME = "tensorflow"
TENSOR_FILE_METADATA: dict[str, str] = {}

__all__ = [
    "NAME",
    "TENSOR_FILE_METADATA",
    "capture",
    "capture_rng",
    "defer",
    "from_view",
    "mismatches",
    "restore",
    "restore_rng",
    "role",
    "tensor",
]
