"""The Trainer of Hugging Face Transformers, saving each epoch, resumed by `resume_from_checkpoint=True`."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path
from typing import Any

import torch
import transformers
from faults.children import Voice
from faults.subjects.torch_state import content, epoch_of
from safetensors.torch import load_file
from transformers import Trainer, TrainerCallback, TrainingArguments
from transformers.trainer_utils import get_last_checkpoint

NAME = "Transformers Trainer"
PROMISE = "none of crashes or damage"
VERSION = transformers.__version__


class Model(torch.nn.Module):
    """One parameter, and a loss that does not move it."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(content(0))

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return a loss whose gradient is 0."""
        return {"loss": (self.weight[:1] * 0.0).sum() + 0.0 * x.sum()}


class Say(TrainerCallback):
    """Gives the model the values of the epoch; says what is saved."""

    def __init__(self, voice: Voice, ready_at: int) -> None:
        self._voice, self._ready_at = voice, ready_at

    def on_epoch_begin(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
        """Become what training makes of it."""
        epoch = round(state.epoch or 0)
        if epoch == self._ready_at:
            self._voice.ready()
        model.weight.data.copy_(content(epoch))

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Called when a checkpoint is complete."""
        self._voice.say(f"saved {round(state.epoch) - 1}")


def train(folder: Path, voice: Voice, *, warm: int, window: int) -> None:
    """Train for some epochs more."""
    _quiet()
    last = get_last_checkpoint(str(folder))
    begin = 0 if last is None else int(last.rpartition("-")[2])
    arguments = TrainingArguments(
        output_dir=str(folder),
        num_train_epochs=begin + warm + window,
        save_strategy="epoch",
        save_total_limit=2,
        per_device_train_batch_size=1,
        learning_rate=0.0,
        report_to=[],
        logging_strategy="no",
        disable_tqdm=True,
        use_cpu=True,
    )
    data = [{"x": torch.zeros(1)}]
    trainer = Trainer(Model(), arguments, train_dataset=data, callbacks=[Say(voice, begin + warm)])
    trainer.train(resume_from_checkpoint=last is not None)


def newest(folder: Path) -> int | None:
    """Load the weights of the last checkpoint."""
    last = get_last_checkpoint(str(folder))
    return None if last is None else _epoch_in(Path(last))


def load(folder: Path, epoch: int) -> int:
    """Load the weights of one checkpoint."""
    return _epoch_in(folder / f"checkpoint-{epoch + 1}")


def _epoch_in(folder: Path) -> int:
    model = Model()
    model.load_state_dict(load_file(folder / "model.safetensors"))
    return epoch_of(model.weight.detach())


def _quiet() -> None:
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
