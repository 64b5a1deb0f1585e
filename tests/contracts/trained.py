"""Trained runs: small real trainings of a NumPy object, and journals as long as those of large ones."""

from __future__ import annotations

import contextlib
import itertools
import math

from contracts.stateful import Weights

from keepbest import Checkpointer, CheckpointPolicy
from keepbest.storage.backend import open_backend
from keepbest.storage.history import Row
from keepbest.storage.journal import Journal
from keepbest.storage.notes import Began, Check, Decided

BEST = 5
"""The epoch (from 0) of the best of `overfitted`."""
STOPPED = 11
"""The epoch (from 0) at which patience ends `overfitted`."""


class CrashError(Exception):
    """Ends a training half-way."""


def overfitted(url, *, shift=0.0, crash_at=4, **settings):
    """Train until patience ends it, with a crash and a resumption on the way; validation turns worse after `BEST`."""
    policy = CheckpointPolicy(monitor="val_loss", patience=6, keep_last=2, **settings)
    with contextlib.suppress(CrashError), Checkpointer(url, policy, model=Weights()) as ckpt:
        for epoch in ckpt.epochs(40):
            if epoch == crash_at:
                raise CrashError
            _log(ckpt, epoch, shift)
    with Checkpointer(url, policy, model=Weights()) as ckpt:
        for epoch in ckpt.epochs(40):
            _log(ckpt, epoch, shift)
    return url


def _log(ckpt, epoch, shift):
    for _ in range(3):
        ckpt.log_step(loss=1.0 / (epoch + 1))
    ckpt.log(
        train_loss=1.0 / (epoch + 1),
        val_loss=0.5 + shift + 0.01 * (epoch - BEST) ** 2,
        learning_rate=0.1 * 0.9**epoch,
    )


def long(url, rows=100_000, steps=99):
    """Write a journal of so many rows, one epoch after every `steps` single steps, with its decision."""
    journal = Journal(open_backend(url))
    numbers = itertools.count(1)
    entries = [Began(checkpoint=None, time=1.7e9, epoch=None, step=0, host="testhost")]
    for epoch in range(rows // (steps + 1)):
        entries.extend(_row("step", epoch, next(numbers)) for _ in range(steps))
        number = next(numbers)
        entries.append(_row("epoch", epoch, number))
        entries.append(_decided(entries[-1]))
    journal.append(*entries)
    journal.close()
    return url


def _row(kind, epoch, number):
    wave = math.sin(number * 0.7) * 0.1
    metrics = {"loss": 2.0 / (1 + number / 500) + wave, "grad_norm": 1.0 + wave, "tokens_per_second": 1e5 * (1 + wave)}
    if kind == "epoch":
        metrics = {"train_loss": metrics["loss"], "val_loss": metrics["loss"] + number * 1e-5}
    return Row(kind=kind, epoch=epoch, step=number, time=1.7e9 + number, metrics=metrics)


def _decided(row):
    value = row.metrics["val_loss"]
    check = Check(
        monitor="val_loss", mode="min", value=value, judged=value, best=value, best_epoch=row.epoch, wait=0,
        improved=False, stop=False, eligible=True, reason=f"val_loss {value:.6g} is not better than 0.1",
    )  # fmt: skip
    return Decided(time=row.time, epoch=row.epoch, step=row.step, event="epoch", checkpoint=None, checks=(check,))
