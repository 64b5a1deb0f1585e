"""Training: what was logged so far and where it stands, and going back to what it was at a checkpoint."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping
from typing import Any

from msgspec import Struct

from ..errors import ConfigError, DamagedFileError, MetricError, StorageError
from ..storage.checkpoint import Checkpoint
from ..storage.history import History, Row
from ..storage.journal import Journal, Mark
from ..storage.layout import STATE_FILE
from ..storage.manifest import Score
from ..storage.notes import Note
from ..storage.run import Run
from .caller import warn_caller
from .hooks import Hooks
from .metric import scalars
from .monitor import MetricMonitor
from .notebook import Cause, Notebook
from .policy import CheckpointPolicy
from .position import Position
from .steps import StepRows
from .verdict import Verdict


class Rewind(Struct, frozen=True, kw_only=True):
    """Everything that becomes what it was at a checkpoint; read and checked before anything is changed."""

    checkpoint: Checkpoint
    position: Position
    monitors: tuple[MetricMonitor, ...]
    history: History
    mark: Mark


class Training:
    """The log of one training."""

    def __init__(self, run: Run, policy: CheckpointPolicy, hooks: Hooks) -> None:
        self.position = Position()
        self.history = History()
        self.monitors = policy.monitors()
        self._reductions = {name: how for monitor in self.monitors for name, how in monitor.reductions.items()}
        self._policy = policy
        self._run = run
        self._journal = Journal(run.backend)
        self._steps = StepRows()
        self._unwritten: list[Row | Note] = []
        self._hooks = hooks
        self.notes = Notebook(policy, self._unwritten.append)
        """Puts down what follows from the rows; written with the next `flush`."""
        self._current: tuple[Position, Mapping[str, float], Callable[[], tuple[Score, ...]]] | None = None

    def begin(self) -> None:
        """Write that training begins here, or goes on, so that whoever follows it need not wait for its first row.

        Cost: nothing, but once for each process and each way back. Raises as `flush`.
        """
        if self.notes.begin(self.position):
            self._write()

    def close_epoch(self, metrics: Mapping[str, object], *, epoch: int | None, step: int | None) -> tuple[Verdict, ...]:
        """Judge and record the metrics of an epoch; returns what each monitor made of them. Written with what follows.

        Raises:
            MetricError: a value is missing or no number; nothing was recorded.
        """
        position = self.position.after_epoch(epoch, step)
        closed = position.next_epoch - 1
        values = scalars(metrics, self._reductions)
        self._drain_steps()
        verdicts = _judged(self.monitors, metrics, epoch=closed, step=position.step)
        self.notes.begin(self.position)
        self.position = position
        self._current = (position, values, lambda: tuple(verdict.score for verdict in verdicts))
        self._record(Row(kind="epoch", epoch=closed, step=position.step, time=time.time(), metrics=values))
        self.notes.judged(position, metrics, verdicts, self.monitors)
        return verdicts

    def close_step(self, metrics: Mapping[str, object], *, step: int | None) -> None:
        """Record the metrics of a step; scalars on a device stay there until `flush`."""
        position = self.position.after_step(step)
        self._steps.add(metrics, epoch=position.next_epoch, step=position.step, time=time.time())
        self.notes.begin(self.position)
        self.position = position

    def flush(self) -> None:
        """Record the steps that wait, and write what the journal does not have yet.

        Raises:
            StorageError: it cannot be written now, and the policy does not say that training goes on; it stays here.
        """
        self._drain_steps()
        self._write()

    def make_up(self) -> None:
        """Try once more to write rows that could not be written: a checkpoint is about to say that they led to it."""
        if any(isinstance(entry, Row) for entry in self._unwritten):
            self._write()

    def metrics_and_scores(self) -> tuple[Mapping[str, float], tuple[Score, ...]]:
        """Return what was logged at this very position; a checkpoint taken later must not be ranked by old values."""
        if self._current is not None and self._current[0] == self.position:
            return self._current[1], self._current[2]()
        return {}, tuple(
            Score(monitor=monitor.key, mode=monitor.mode, value=None, constrained=bool(monitor.where))
            for monitor in self.monitors
        )

    @property
    def stopped(self) -> bool:
        """A monitor says that training should end."""
        return any(monitor.stopped for monitor in self.monitors)

    def to_json(self) -> dict[str, Any]:
        """Return what `rewind` needs, as plain data of bounded size."""
        mark = self._journal.mark
        return {
            "position": self.position.to_json(),
            "journal": {"branch": mark.branch, "rows": mark.rows},
            "monitors": [monitor.standing() for monitor in self.monitors],
        }

    def rewind(self, checkpoint: Checkpoint) -> Rewind:
        """Read what training was like at `checkpoint`; changes nothing.

        Raises:
            ConfigError: a metric was judged in another direction, or smoothed otherwise, then.
            DamagedError: the checkpoint is damaged.
        """
        stored = checkpoint.state().training
        try:
            position, mark = Position.from_json(stored["position"]), _mark(stored["journal"])
            monitors = {standing["monitor"]: standing for standing in stored["monitors"]}
        except (LookupError, TypeError, ConfigError) as error:
            raise DamagedFileError(
                f"{checkpoint.name}/{STATE_FILE}", f"it does not say where training stood ({error})"
            ) from error
        history = self._run.history_at(mark)
        if len(history.rows) < mark.rows:
            warn_caller(
                f"{self._run.url} has lost rows of its metrics.jsonl: {len(history.rows)} are left of {mark.rows} or "
                f"more that led to {checkpoint.name}. The history has a gap; the best, patience and state are whole."
            )
        return Rewind(
            checkpoint=checkpoint,
            position=position,
            monitors=_continued(self._policy.monitors(), monitors, history),
            history=history,
            mark=mark,
        )

    def go_back(self, rewind: Rewind) -> None:
        """Go on from there; what is logged from now on is a new branch."""
        self.flush()
        self._unwritten.clear()  # they belong to the branch that is left
        self.position, self.history, self.monitors = rewind.position, rewind.history, rewind.monitors
        self._journal.continue_from(rewind.mark)
        self.notes.went_back(rewind.checkpoint.name)
        self._current = (rewind.position, rewind.checkpoint.metrics, lambda: rewind.checkpoint.scores)

    def decided(
        self, event: str, reasons: tuple[str, ...], *, checkpoint: str | None = None, busy: bool = False
    ) -> None:
        """Write what was logged, and what was decided about it; raises as `flush`."""
        self._drain_steps()
        self.notes.decided(self.position, event, reasons, checkpoint=checkpoint, busy=busy)
        self._write()

    def end(self, cause: Cause, error: BaseException | None = None) -> None:
        """Note that training ended, "stopped" if that came from a monitor; `close` tells what cannot be written.

        Raises:
            Exception: a scalar on a device could not be read; that training ended is noted all the same.
        """
        try:
            self._drain_steps()
        finally:
            by_itself = cause not in ("signal", "exception")
            self.notes.ended(self.position, "stopped" if by_itself and self.stopped else cause, error)
            with contextlib.suppress(StorageError):
                self._write()

    def close(self) -> None:
        """Record what waits and let go of the journal and the hooks; each also if what comes before it fails."""
        with contextlib.ExitStack() as stack:
            stack.callback(self._hooks.close)
            stack.callback(self._journal.close)
            self.flush()

    def _drain_steps(self) -> None:
        for row in self._steps.drain():
            self._record(row)

    def _record(self, row: Row) -> None:
        self.history.append(row)
        self._unwritten.append(row)

    def _write(self) -> None:
        if not self._unwritten:
            return
        entries = tuple(self._unwritten)
        try:
            self._journal.append(*entries)
        except StorageError as error:
            if self._policy.on_save_error == "raise":
                raise
            warn_caller(f"{error} What was logged is kept, and written when that is possible again.")
            return
        self._unwritten.clear()
        self._hooks.tell(entries)


def _mark(stored: Mapping[str, Any]) -> Mark:
    branch, rows = stored["branch"], stored["rows"]
    if not isinstance(branch, str) or not isinstance(rows, int) or not branch.isprintable():
        raise TypeError(f"the journal's branch {branch!r:.80} and number of rows {rows!r:.80} are none")
    return Mark(branch=branch, rows=rows)


def _judged(
    monitors: tuple[MetricMonitor, ...], metrics: Mapping[str, object], *, epoch: int, step: int
) -> tuple[Verdict, ...]:
    """Let all judge or none: what one of them cannot judge must not count with the others."""
    if len(monitors) == 1:
        return (monitors[0].judge(metrics, epoch=epoch, step=step),)
    before = [monitor.standing() for monitor in monitors]
    try:
        return tuple(monitor.judge(metrics, epoch=epoch, step=step) for monitor in monitors)
    except MetricError:
        for monitor, standing in zip(monitors, before, strict=True):
            monitor.restore_standing(standing)
        raise


def _continued(
    monitors: tuple[MetricMonitor, ...], known: Mapping[str, Mapping[str, Any]], history: History
) -> tuple[MetricMonitor, ...]:
    """Set fresh monitors to the standings of the same metric; one that is new judges the history from its start."""
    for monitor in monitors:
        if monitor.key in known:
            monitor.restore_standing(known[monitor.key])
        else:
            _replay(monitor, history)
    return monitors


def _replay(monitor: MetricMonitor, history: History) -> None:
    for row in history.rows:
        if row.kind == "epoch" and monitor.key in row.metrics:
            try:
                monitor.judge(row.metrics, epoch=row.epoch, step=row.step)
            except MetricError:  # a constraint's metric was not logged then, or NaN was: that epoch is past
                continue
