"""WandB: rows as the history of a run of Weights & Biases. Checkpoints stay where they are; nothing is uploaded."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ...errors import ConfigError
from ...storage.history import Row
from ...storage.notes import Began, Decided, Ended, Note
from .behind import Behind
from .entries import axis, missing, values_of

if TYPE_CHECKING:
    import wandb

_FACTS = ("step", "epoch")
_WAIT = 0.2
"""Seconds for which a row waits for others."""


class WandB:
    """Logs each row to a run of Weights & Biases.

    A metric of an epoch is logged under its own name, one of a single step as `step/loss`, with `epoch` (from 0) and
    `step` beside them, the axis (the epoch, where the loop counts no steps). A metric that is called like one of the
    two is called `metric_epoch` and so on. The summary has the best so far as `best/val_loss`, and the name of its
    checkpoint as `best/checkpoint`; the config has the policy as `keepbest`.

    W&B deletes nothing of a run that goes on under the same id: rows that were logged after the checkpoint from which
    training goes on stay, and those that take their place come after them.

    Cost: less than 10 µs a row for the thread that trains. W&B takes some 0.5 ms a row, in a thread of its own.

    Args:
        run: one that `wandb.init` returned; whoever made it finishes it.
        **init: or else what `wandb.init` takes (`project="…"`, `id="…"` with `resume="allow"`, `mode="offline"` …); the
            run is made here, and finished when the Checkpointer closes.

    Raises:
        ConfigError: the package `wandb` is not installed, `wandb.init` refused, or both a run and arguments were given.

    Example:
        >>> hook = WandB(project="digits", id="run-7", resume="allow")
        >>> Checkpointer("runs/7", policy, model=model, hooks=[hook])
    """

    def __init__(self, run: wandb.Run | None = None, **init: Any) -> None:
        if run is not None and init:
            raise ConfigError(f"WandB takes a run, or what wandb.init takes ({', '.join(init)}), not both.")
        self._ours = run is None
        self.run: Any = run if run is not None else _init(init)
        """The run of W&B."""
        self._defined: set[str] = set()
        self._exit_code = 0
        self._behind = Behind("keepbest-wandb", self._send, every=_WAIT, last=self._finish if self._ours else None)

    def __call__(self, entry: Row | Note, /) -> None:
        """Take one entry.

        Raises:
            Exception: what W&B raised at an earlier one.
        """
        self._behind.put(entry)

    def close(self) -> None:
        """Log what waits, and finish the run if it was made here: W&B then waits until its server has everything.

        Raises:
            TimeoutError: that takes more than a minute. What W&B has not been given by then is not logged, and what it
                has, it sends until the program ends.
        """
        self._behind.close()

    def _finish(self, whole: bool) -> None:  # noqa: ARG002, FBT001 - `Behind` gives it so
        self.run.finish(exit_code=self._exit_code)

    def _send(self, entries: Sequence[Row | Note]) -> None:
        for entry in entries:
            if isinstance(entry, Row):
                self._log(entry)
            elif isinstance(entry, Decided):
                self._decided(entry)
            elif isinstance(entry, Began):
                self.run.config.update({"keepbest": entry.policy}, allow_val_change=True)
            elif isinstance(entry, Ended):
                self._exit_code = int(entry.cause in {"exception", "signal"})

    def _log(self, row: Row) -> None:
        values = values_of(row, taken=_FACTS)
        for name in values.keys() - self._defined:
            self._defined.add(name)
            if "*" not in name:  # W&B would take it for a pattern
                self.run.define_metric(_escaped(name), step_metric="step")
        self.run.log({**values, "step": axis(row.epoch, row.step), "epoch": row.epoch})

    def _decided(self, note: Decided) -> None:
        best: dict[str, object] = {f"best/{check.monitor}": check.best for check in note.checks if check.improved}
        if note.checkpoint is not None and note.checks and note.checks[0].improved:
            best["best/checkpoint"] = note.checkpoint
        if best:
            self.run.summary.update(best)


def _escaped(name: str) -> str:
    """Return a name as `define_metric` reads it: points in it are not steps into nested values."""
    return name.replace("\\", "\\\\").replace(".", "\\.")


def _init(settings: dict[str, Any]) -> Any:
    try:
        import wandb  # noqa: PLC0415 - only if asked for
    except ImportError as error:
        raise missing("WandB", "wandb", "wandb", error) from error
    try:
        return wandb.init(**settings)
    except (wandb.Error, TypeError, ValueError) as error:
        raise ConfigError(f"wandb.init refused: {error}") from error
