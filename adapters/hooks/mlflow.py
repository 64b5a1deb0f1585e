"""MLflow: rows as the metrics of a run on a tracking server, many in one request. No artifact is uploaded."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from ...errors import ConfigError
from ...storage.history import Row
from ...storage.notes import Began, Decided, Ended, Note, Saved
from ...storage.printable import without_passwords
from .behind import Behind
from .entries import axis, missing, values_of

_TAG = "keepbest.run"
_LIMIT = 1000
"""Values in one request: the server takes no more."""
_WAIT = 2.0
"""Seconds for which a row waits for others."""
_STATUS = {"signal": "KILLED", "exception": "FAILED"}


class MLflow:
    """Logs each row to a run of MLflow.

    A metric of an epoch is logged under its own name, one of a single step as `step/loss`, both at the training step
    (at the epoch, from 0, where the loop counts no steps). Characters that MLflow refuses in names become `_`. Tags:
    `keepbest.latest` and `keepbest.best`, names of checkpoints.

    Training that resumes goes on in the same run of MLflow, found by its tag `keepbest.run`; training that begins anew
    makes a new one. MLflow deletes no values: those that were logged after the checkpoint from which training goes on
    stay, and those that take their place come after them.

    Cost: less than 10 µs a row for the thread that trains. A thread of its own sends the requests, one for all that was
    logged in 2 s, or for 1000 values.

    Args:
        name: what the run of MLflow is called. Two trainings of one experiment have different names.
        experiment: made if it is not there.
        tracking_uri: the server; None: as `MLFLOW_TRACKING_URI` says.

    Raises:
        ConfigError: the package `mlflow` or `mlflow-skinny` is not installed, the name has a quote in it, or the server
            refused.

    Example:
        >>> hook = MLflow("run-7", experiment="digits", tracking_uri="http://localhost:5000")
        >>> Checkpointer("runs/7", policy, model=model, hooks=[hook])
    """

    def __init__(self, name: str, *, experiment: str = "Default", tracking_uri: str | None = None) -> None:
        if not name or re.search(r"['\"`\\]", name):
            raise ConfigError(f"MLflow: the run's name has no quotes or backslashes, and is not empty (got {name!r}).")
        try:
            from mlflow import MlflowClient, entities  # noqa: PLC0415 - only if asked for
            from mlflow.exceptions import MlflowException  # noqa: PLC0415
        except ImportError as error:
            raise missing("MLflow", "mlflow", "mlflow", error) from error
        self._name = name
        self._entities: Any = entities
        try:
            self._client: Any = MlflowClient(tracking_uri=tracking_uri)
            found = self._client.get_experiment_by_name(experiment)
            self._experiment = found.experiment_id if found else self._client.create_experiment(experiment)
        except (MlflowException, ImportError) as error:
            said = str(error)
            shown = without_passwords(said)
            raise ConfigError(f"MLflow cannot use the experiment {experiment!r}: {shown}") from (
                error if shown == said else None
            )
        self.run_id: str | None = None
        """The id of the run of MLflow, once a row was sent."""
        self._status = "FINISHED"
        self._behind = Behind("keepbest-mlflow", self._send, every=_WAIT, last=self._end)

    def __call__(self, entry: Row | Note, /) -> None:
        """Take one entry.

        Raises:
            MlflowException: what the server said to an earlier one.
        """
        self._behind.put(entry)

    def close(self) -> None:
        """Send what waits, and say to MLflow how the run ended; raises as a call.

        Raises:
            TimeoutError: the server has not taken it all within a minute; the rest is not sent.
        """
        self._behind.close()

    def _end(self, whole: bool) -> None:  # noqa: FBT001 - `Behind` gives it so
        if whole and self.run_id is not None:
            self._client.set_terminated(self.run_id, self._status)

    def _send(self, entries: Sequence[Row | Note]) -> None:
        values: list[Any] = []
        tags: dict[str, str] = {}
        for entry in entries:
            if isinstance(entry, Row):
                values += self._metrics(entry)
            elif isinstance(entry, Began):
                self.run_id = self._run(goes_on=entry.checkpoint is not None)
            elif isinstance(entry, Ended):
                self._status = _STATUS.get(entry.cause, "FINISHED")
            else:
                tags |= _tags(entry)
        if not values and not tags:
            return
        self.run_id = self.run_id or self._run(goes_on=True)
        marks = [self._entities.RunTag(key, text) for key, text in tags.items()]
        for first in range(0, max(1, len(values)), _LIMIT):
            self._client.log_batch(self.run_id, metrics=values[first : first + _LIMIT], tags=marks)
            marks = []

    def _metrics(self, row: Row) -> list[Any]:
        at, moment = axis(row.epoch, row.step), round(row.time * 1000)
        return [
            self._entities.Metric(re.sub(r"[^\w\-. :/]", "_", name, flags=re.ASCII), value, moment, at)
            for name, value in values_of(row).items()
        ]

    def _run(self, *, goes_on: bool) -> str:
        """Return the id of the run that goes on, or of a new one."""
        if goes_on:
            theirs = self._client.search_runs(
                [self._experiment], f"tags.`{_TAG}` = '{self._name}'", max_results=1, order_by=["start_time DESC"]
            )
            if theirs:
                run_id: str = theirs[0].info.run_id
                self._client.update_run(run_id, status="RUNNING")
                return run_id
        run = self._client.create_run(self._experiment, tags={_TAG: self._name}, run_name=self._name)
        return str(run.info.run_id)


def _tags(note: Note) -> dict[str, str]:
    if isinstance(note, Saved):
        return {"keepbest.latest": note.checkpoint}
    if isinstance(note, Decided) and note.checkpoint is not None and note.checks and note.checks[0].improved:
        return {"keepbest.best": note.checkpoint}
    return {}
