"""What the tests of hooks share: a tiny training whose values are given, and that may break off."""

from __future__ import annotations

import contextlib

import pytest
from contracts.stateful import Weights

from keepbest import Checkpointer, CheckpointPolicy

LOSSES = (0.9, 0.5, 0.7, 0.4, 0.3, 0.2)


class BreakOffError(Exception):
    """Training breaks off here."""


@pytest.fixture
def train(tmp_path):
    """Call it to train the run `tmp_path / "run"`, from where it stands, to the end of an epoch (exclusive).

    Epoch n (from 0) logs `val_loss` as `LOSSES` says, and `loss` as n + `shift`; each of its steps `loss` as 10 n +
    the number of the step, + `shift`. With `cut`, training breaks off after the last, and every second
    epoch is saved.
    """

    def call(*hooks, epochs=3, steps=3, shift=0.0, cut=False, **more):
        rule = {"every_n_epochs": 2, "on_improvement": False, "at_end": False} if cut else {}
        policy = CheckpointPolicy(monitor="val_loss", keep_all=True, **rule)
        with contextlib.suppress(BreakOffError):
            with Checkpointer(tmp_path / "run", policy, hooks=hooks, model=Weights()) as ckpt:
                for epoch in ckpt.epochs(epochs):
                    for step in range(steps):
                        ckpt.log_step(loss=10.0 * epoch + step + shift)
                    ckpt.log(val_loss=LOSSES[epoch], loss=epoch + shift, **more)
                    if cut and epoch == epochs - 1:
                        raise BreakOffError
        return ckpt

    return call
