"""What a small checkpoint costs, all of it durable: the digits MLP with Adam, against torch.save and Keras.

A program of its own: `python benchmarks/small_save.py FOLDER`.
"""

from __future__ import annotations

import itertools
import os
from pathlib import Path

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")

import keras
import numpy as np
import torch
from measure import interleaved, main, report, verdict
from safetensors.torch import save_file
from torch import nn

from keepbest import Checkpointer, CheckpointPolicy

REPETITIONS = 60


def torch_training():
    model = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Dropout(0.4), nn.Linear(128, 10))
    optimizer = torch.optim.Adam(model.parameters())
    model(torch.randn(8, 64)).sum().backward()
    optimizer.step()
    return model, optimizer


def keras_training():
    model = keras.Sequential(
        [
            keras.Input((64,)),
            keras.layers.Dense(128, activation="relu"),
            keras.layers.Dropout(0.4),
            keras.layers.Dense(10),
        ]
    )
    model.compile(optimizer="adam", loss="mse")
    model.fit(np.zeros((8, 64)), np.zeros((8, 10)), verbose=0)
    return model


def sync(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY)
    os.fsync(fd)
    os.close(fd)


def run(folder: Path) -> bool:
    model, optimizer = torch_training()
    keras_model = keras_training()
    numbers = itertools.count()

    def fresh(suffix: str) -> Path:
        return folder / f"file-{next(numbers)}{suffix}"

    def torch_save() -> None:
        path = fresh(".pt")
        with path.open("wb") as file:
            torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, file)
            file.flush()
            os.fsync(file.fileno())

    def safetensors_save() -> None:
        path = fresh(".safetensors")
        save_file(model.state_dict(), path)
        sync(path)

    def keras_save(*, durable: bool) -> None:
        path = fresh(".keras")
        keras_model.save(path)
        if durable:
            sync(path)

    policy = CheckpointPolicy(monitor="val_loss")
    losses = itertools.count(1)
    with (
        Checkpointer(str(folder / "sync"), policy, mode="sync", model=model, optimizer=optimizer) as every,
        Checkpointer(str(folder / "async"), policy, model=model, optimizer=optimizer) as behind,
    ):
        blocked: list[float] = []

        def keepbest_async() -> None:
            behind.log(val_loss=next(losses))

        cases = {
            "torch.save + fsync, one file": torch_save,
            "safetensors.save_file + fsync, model only": safetensors_save,
            "keras model.save('.keras'), not durable": lambda: keras_save(durable=False),
            "keras model.save('.keras') + fsync": lambda: keras_save(durable=True),
            "keepbest sync: save, commit, retire": lambda: every.log(val_loss=next(losses)),
        }
        seconds = interleaved(cases, repetitions=REPETITIONS)
        for _ in range(REPETITIONS):
            blocked.extend(interleaved({"": keepbest_async}, repetitions=1, warmup=0)[""])
            behind.wait()
    seconds["keepbest async: the loop is blocked for"] = blocked
    medians = report(
        f"A small checkpoint (MLP 64-128-10 with Adam), {REPETITIONS} repetitions", seconds, baseline=next(iter(cases))
    )
    mine = medians["keepbest sync: save, commit, retire"]
    to_torch = mine / medians["torch.save + fsync, one file"]
    to_keras = mine / medians["keras model.save('.keras'), not durable"]
    held = [
        verdict("at most 4× a bare torch.save + fsync of one file", held=to_torch <= 4, figure=f"{to_torch:.2f}×"),
        verdict("less than half of model.save('.keras')", held=to_keras < 0.5, figure=f"{to_keras:.2f}×"),
    ]
    return all(held)


if __name__ == "__main__":
    main(run, __doc__)
