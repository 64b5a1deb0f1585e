"""Lightning's ModelCheckpoint with save_last, resumed by `ckpt_path="last"`.

It writes a file in the system's folder for temporary files, and moves that: here, on the same file system.
"""

from __future__ import annotations

import logging
import tempfile
import warnings
from pathlib import Path

import pytorch_lightning as pl
import torch
from faults.children import Voice
from faults.subjects.torch_state import content, epoch_of
from pytorch_lightning.callbacks import Callback, ModelCheckpoint

NAME = "Lightning ModelCheckpoint"
PROMISE = "atomic saves on a local disk; none of damage"
VERSION = pl.__version__


class Model(pl.LightningModule):
    """Has the values of the epoch under way; there is nothing to optimise."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(content(0), requires_grad=False)

    def configure_optimizers(self) -> None:
        """None."""

    def training_step(self, batch: object, index: int) -> None:
        """Skip."""

    def on_train_epoch_start(self) -> None:
        """Become what training makes of it."""
        self.weight.data.copy_(content(self.current_epoch))


class Say(Callback):
    """Says what is saved. ModelCheckpoint is called after all other callbacks: so, when the next epoch begins."""

    def __init__(self, voice: Voice, ready_at: int) -> None:
        self._voice, self._ready_at, self._last = voice, ready_at, -1

    def on_train_epoch_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Say that the epoch before is saved."""
        if self._last >= 0:
            self._voice.say(f"saved {self._last}")
        if trainer.current_epoch == self._ready_at:
            self._voice.ready()
        self._last = trainer.current_epoch

    def said_all(self) -> None:
        """`fit` has returned."""
        self._voice.say(f"saved {self._last}")


def train(folder: Path, voice: Voice, *, warm: int, window: int) -> None:
    """Fit for some epochs more."""
    tempfile.tempdir = str(folder.parent)
    fit(folder, voice, warm=warm, window=window)


def fit(folder: Path, voice: Voice, *, warm: int, window: int) -> None:
    """Fit for some epochs more, with whatever folder for temporary files there is."""
    _quiet()
    found = newest(folder)
    begin = 0 if found is None else found + 1
    say = Say(voice, begin + warm)
    trainer = pl.Trainer(
        default_root_dir=folder,
        max_epochs=begin + warm + window,
        callbacks=[ModelCheckpoint(dirpath=folder, save_last=True), say],
        limit_train_batches=1,
        logger=False,
        accelerator="cpu",
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    loader = torch.utils.data.DataLoader([torch.zeros(1)])
    trainer.fit(Model(), loader, ckpt_path="last")
    say.said_all()


def newest(folder: Path) -> int | None:
    """Load what "last" means: the newest of the files of that name."""
    _quiet()
    found = sorted(folder.glob("last*.ckpt"), key=lambda path: path.stat().st_mtime)
    return _epoch_in(found[-1]) if found else None


def load(folder: Path, epoch: int) -> int:
    """Load the file of one epoch."""
    (found,) = folder.glob(f"epoch={epoch}-*.ckpt")
    return _epoch_in(found)


def _epoch_in(path: Path) -> int:
    return epoch_of(Model.load_from_checkpoint(path, map_location="cpu").weight.detach())


def _quiet() -> None:
    warnings.simplefilter("ignore")
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
