"""The savers of Orbax and of Lightning."""

from __future__ import annotations

import functools
import logging
from pathlib import Path
from typing import Any

import torch
from models import Training
from savers import Saver
from typing_extensions import override


class OrbaxNumpy(Saver):
    """`StandardCheckpointer`, which saves asynchronously, from NumPy arrays that share the tensors' memory."""

    def __init__(self, training: Training, folder: Path) -> None:
        super().__init__(training, folder)
        import orbax.checkpoint

        logging.getLogger("absl").setLevel(logging.ERROR)
        self._checkpointer = orbax.checkpoint.StandardCheckpointer()

    def arrays(self) -> dict[str, Any]:
        """Return what is saved."""
        return {name: tensor.detach().numpy() for name, tensor in self.training.tensors().items()}

    @override
    def save(self) -> None:
        self._checkpointer.save(self.next_path(), self.arrays())

    @override
    def join(self) -> None:
        self._checkpointer.wait_until_finished()

    @override
    def restore(self) -> None:
        found = self._checkpointer.restore(self.path, self.arrays())
        for name, tensor in self.training.tensors().items():
            tensor.copy_(torch.from_numpy(found[name]))

    @override
    def close(self) -> None:
        self._checkpointer.close()


class OrbaxJax(OrbaxNumpy):
    """The same from JAX arrays of the same shapes, made before the clock starts; restored as JAX arrays."""

    @functools.cached_property
    def _arrays(self) -> dict[str, Any]:
        import jax

        return {name: jax.numpy.array(array) for name, array in super().arrays().items()}

    @override
    def arrays(self) -> dict[str, Any]:
        return self._arrays

    @override
    def restore(self) -> None:
        import jax

        jax.block_until_ready(self._checkpointer.restore(self.path, self._arrays))


class Lightning(Saver):
    """`AsyncCheckpointIO`, called as a Trainer would."""

    def __init__(self, training: Training, folder: Path) -> None:
        super().__init__(training, folder)
        from lightning_fabric.plugins import TorchCheckpointIO
        from pytorch_lightning.plugins.io import AsyncCheckpointIO

        self._io = AsyncCheckpointIO(TorchCheckpointIO())

    @override
    def save(self) -> None:
        self._io.save_checkpoint(self.training.state(), self.next_path())

    @override
    def join(self) -> None:
        self._io.teardown()  # its only way to wait; it makes itself a new thread for the next save

    @override
    def restore(self) -> None:
        self.training.load(self._io.load_checkpoint(self.path, weights_only=True))
