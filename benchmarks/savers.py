"""A `Saver` is one way to save a training, durably; here: keepbest, torch.save and safetensors."""

from __future__ import annotations

import abc
import copy
import os
import shutil
import threading
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from models import Training
from safetensors.torch import load_file, save_file
from typing_extensions import override

from keepbest import Checkpointer, CheckpointPolicy


class Saver(abc.ABC):
    """One way to save. A checkpoint replaces the one before, and is durable before that one goes.

    A measurement calls, in this order: `save`; then `finish`; then, not measured, `tidy`. In a training, `fence` comes
    between backward and update of the step after `save`.
    """

    def __init__(self, training: Training, folder: Path) -> None:
        self.training = training
        self.folder = folder
        self._number = 0

    @abc.abstractmethod
    def save(self) -> None:
        """Return when training may go on."""

    def fence(self) -> None:  # noqa: B027 - most need none
        """Return when the state may change."""

    def finish(self) -> None:
        """Return when the checkpoint is whole and survives a loss of power."""
        self.join()
        settle(self.path)

    def join(self) -> None:  # noqa: B027 - most have nothing in the background
        """Wait for what is written behind training."""

    def tidy(self) -> None:
        """Delete all but the newest."""
        for path in self.folder.iterdir():
            if path != self.path:
                shutil.rmtree(path) if path.is_dir() else path.unlink()

    @abc.abstractmethod
    def restore(self) -> None:
        """Set the training to the newest checkpoint."""

    def close(self) -> None:  # noqa: B027 - most hold nothing
        """End threads and the like."""

    @property
    def path(self) -> Path:
        """The newest checkpoint: a file or a folder."""
        return self.folder / f"checkpoint-{self._number}"

    def next_path(self) -> Path:
        """Return a new one."""
        self._number += 1
        return self.path


def settle(path: Path) -> None:
    """Flush every file at or below `path`, and every folder from there up to the one that `path` is in."""
    inside = sorted(path.rglob("*"), reverse=True) if path.is_dir() else []
    for each in (*inside, path, path.parent):
        fd = os.open(each, os.O_RDONLY)
        os.fsync(fd)
        os.close(fd)


class Keepbest(Saver):
    """`Checkpointer.save` as it is by default; retiring the checkpoint before is part of it."""

    mode: ClassVar[Literal["async", "sync"]] = "async"

    def __init__(self, training: Training, folder: Path) -> None:
        super().__init__(training, folder)
        policy = CheckpointPolicy(keep_last=1, at_end=False)
        self._checkpointer = Checkpointer(
            folder / "run", policy, mode=self.mode, model=training.model, optimizer=training.optimizer
        )

    @override
    def save(self) -> None:
        self._handle = self._checkpointer.save()

    @override
    def finish(self) -> None:
        self._handle.result()
        self._checkpointer.wait()

    def tidy(self) -> None:
        """It has done so already."""

    @override
    def restore(self) -> None:
        self._checkpointer.restore("latest")

    @override
    def close(self) -> None:
        self._checkpointer.close(save=False)


class KeepbestSync(Keepbest):
    """The same, and `save` returns when all is durable."""

    mode = "sync"


class TorchSave(Saver):
    """`torch.save` into one file."""

    @override
    def save(self) -> None:
        torch.save(self.training.state(), self.next_path())

    @override
    def restore(self) -> None:
        self.training.load(torch.load(self.path, weights_only=True))


class TorchSaveInThread(TorchSave):
    """What people write themselves: deepcopy the state; `torch.save` and fsync in a thread."""

    @override
    def save(self) -> None:
        state, path = copy.deepcopy(self.training.state()), self.next_path()

        def write() -> None:
            torch.save(state, path)
            settle(path)

        self._thread = threading.Thread(target=write)
        self._thread.start()

    @override
    def finish(self) -> None:
        self.join()

    @override
    def join(self) -> None:
        self._thread.join()


class Safetensors(Saver):
    """`safetensors.torch.save_file` of all tensors."""

    @override
    def save(self) -> None:
        save_file(self.training.tensors(), self.next_path())

    @override
    def restore(self) -> None:
        found: dict[str, Any] = load_file(self.path)
        for name, tensor in self.training.tensors().items():
            tensor.copy_(found[name])
