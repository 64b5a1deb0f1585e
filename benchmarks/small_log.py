"""What a call costs that saves nothing: `log` of four metrics and `log_step` of one, history and journal included.

A program of its own, with the one framework that a training has loaded: `python benchmarks/small_log.py FOLDER`.
"""

from __future__ import annotations

from pathlib import Path

import torch
from measure import human, interleaved, main, report, verdict

from keepbest import Checkpointer, CheckpointPolicy

CALLS, ROUNDS = 2_000, 15


def run(folder: Path) -> bool:
    policy = CheckpointPolicy(monitor="val_loss", every_n_epochs=None)
    with Checkpointer(str(folder / "log"), policy, mode="sync", model=torch.nn.Linear(1, 1)) as ckpt:
        ckpt.log(train_loss=0.0, train_acc=1.0, val_loss=0.0, val_acc=1.0)

        def logs() -> None:
            for _ in range(CALLS):
                ckpt.log(train_loss=0.5, train_acc=0.9, val_loss=0.6, val_acc=0.8)

        def steps() -> None:
            for _ in range(CALLS):
                ckpt.log_step(loss=0.5)
            # Rows of steps are written with the end of their epoch: without it, the next case would pay for them.
            ckpt.log(train_loss=0.5, train_acc=0.9, val_loss=0.6, val_acc=0.8)

        seconds = interleaved({"log of 4 metrics": logs, "log_step of 1 metric": steps}, repetitions=ROUNDS)
    per_call = {name: [total / CALLS for total in runs] for name, runs in seconds.items()}
    medians = report(f"A call that saves nothing, {ROUNDS} × {CALLS:,} calls", per_call, baseline="log of 4 metrics")
    cost = medians["log of 4 metrics"]
    # It was 20 µs while a log wrote only its row; what was decided, and why, is written with it now, and takes 3 times
    # as long. The rest is for slow machines.
    return verdict("a log that saves nothing costs under 100 µs", held=cost < 100e-6, figure=human(cost))


if __name__ == "__main__":
    main(run, __doc__)
