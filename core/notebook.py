"""Notebook: puts into notes what follows from the rows of one training, so that `explain` can answer for it later."""

from __future__ import annotations

import re
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

from ..errors import KeepbestError
from ..storage.notes import Began, Check, Decided, Ended, Note, Saved, SaveFailed, WentBack
from ..storage.printable import without_passwords
from .metric import Measured
from .monitor import MetricMonitor
from .policy import CheckpointPolicy
from .position import Position
from .saver import Committed
from .verdict import Verdict
from .versions import versions

_LONGEST = 200
"""Characters of what an exception says."""

_QUERY = re.compile(r"(\w[\w+.-]*://[^\s?]*)\?[^\s,;)'\"]+")
"""A URL up to its query, which may be signed."""

Cause = Literal["complete", "stopped", "callback", "signal", "exception", "closed"]


class Notebook:
    """Hands notes to `write`. That a process began is noted before all else that is: who only looks leaves none.

    Cost: some 10 µs a note, and as much to write it.
    """

    def __init__(self, policy: CheckpointPolicy, write: Callable[[Note], None]) -> None:
        self._policy = policy
        self._write = write
        self._begun = False
        self._from: str | None = None
        self._turned = True
        """Training begins, or goes on from `_from`, and that is not noted yet."""
        self._ended = True
        self._loop: tuple[int, int] | None = None
        self._checks: tuple[Check, ...] = ()

    def begin(self, position: Position) -> bool:
        """Note where training goes on from, before anything else is; once. Returns whether this was the time."""
        self._ended = False
        if not self._turned:
            return False
        self._turned = False
        at = _at(position)
        if self._begun and self._from is not None:
            self._write(WentBack(checkpoint=self._from, **at))
            return True
        self._begun = True
        policy = self._policy.model_dump(mode="json")
        self._write(Began(checkpoint=self._from, policy=policy, host=socket.gethostname(), versions=versions(), **at))
        return True

    def went_back(self, checkpoint: str) -> None:
        """Training goes on from a checkpoint, if it does."""
        self._from, self._turned = checkpoint, True

    def loops(self, epoch: int, planned: int) -> None:
        """Keep in which epoch a loop is, and of how many, until it is left: only then nothing else is said of it."""
        self._loop = (epoch, planned)

    def looped(self) -> None:
        """The loop came to its end."""
        self._loop = None

    def judged(
        self,
        position: Position,
        metrics: Mapping[str, object],
        verdicts: Sequence[Verdict],
        monitors: Sequence[MetricMonitor],
    ) -> None:
        """Keep what the monitors made of an epoch, until it is decided whether to save."""
        self._checks = tuple(
            _check(verdict, monitor, _age(metrics.get(monitor.key), position.step))
            for verdict, monitor in zip(verdicts, monitors, strict=True)
        )

    def decided(
        self,
        position: Position,
        event: str,
        reasons: tuple[str, ...],
        *,
        checkpoint: str | None = None,
        busy: bool = False,
    ) -> None:
        """Note whether a checkpoint is saved now, and why; of a step, only if one is, or was due."""
        if event != "epoch" and not reasons:
            return
        self.begin(position)
        checks, self._checks = (self._checks if event == "epoch" else ()), ()
        stop = any(check.stop for check in checks)
        self._write(
            Decided(
                event=event,
                checkpoint=checkpoint,
                reasons=reasons,
                busy=busy,
                checks=checks,
                stop=stop,
                **_at(position),
            )
        )

    def saved(self, position: Position, committed: Committed, *, began: float, blocked: float) -> None:
        """Note that a save ended well. `began` is monotonic; `blocked` are the seconds for which training was held."""
        self._write(
            Saved(
                checkpoint=committed.checkpoint,
                sequence=committed.sequence,
                nbytes=committed.nbytes,
                blocked=blocked,
                seconds=committed.time - began,
                retired=committed.retired,
                **_at(position),
            )
        )

    def failed(self, position: Position, checkpoint: str, error: BaseException) -> None:
        """Note that a save failed. Of errors that are not ours only the class: nobody knows what they may hold."""
        name = type(error).__name__
        why = f"{name}: {error}" if isinstance(error, KeepbestError) else name
        written = why.encode(errors="backslashreplace").decode()  # a path may have bytes that are no text
        self._write(SaveFailed(checkpoint=checkpoint, error=written, **_at(position)))

    def ended(self, position: Position, cause: Cause, error: BaseException | None = None) -> None:
        """Note that the training of this process ended; once, unless it goes on after all."""
        if self._ended:
            return
        self._ended = True
        within, planned = self._loop or (None, None)
        if within is not None and not within <= position.next_epoch <= within + 1:
            within = planned = None  # the loop was left, and training went on without it
        self._write(
            Ended(
                cause=cause,
                error=None if error is None else type(error).__name__,
                text="" if error is None else said(error),
                within=within,
                planned=planned,
                **_at(position),
            )
        )


def said(error: BaseException) -> str:
    """Return the first line of what an exception says, of at most 200 characters, without what in a URL is secret."""
    try:
        text = str(error).strip()
    except Exception:  # noqa: BLE001 - its text is a stranger's code; who sees the error itself needs none of it
        return ""
    line = _QUERY.sub(r"\1?…", without_passwords(next(iter(text.splitlines()), "")))
    short = line if len(line) <= _LONGEST else f"{line[: _LONGEST - 1]}…"
    return short.encode(errors="backslashreplace").decode()


def _at(position: Position) -> dict[str, Any]:
    return {"time": time.time(), "epoch": position.epoch, "step": position.step}


def _age(value: object, step: int) -> int:
    if isinstance(value, Measured) and value.step is not None:
        return max(0, step - value.step)
    return 0


def _check(verdict: Verdict, monitor: MetricMonitor, age: int) -> Check:
    return Check(
        monitor=verdict.monitor,
        mode=verdict.mode,
        value=verdict.value,
        judged=verdict.smoothed,
        age=age,
        best=verdict.best,
        best_epoch=verdict.best_epoch,
        wait=verdict.wait,
        patience=monitor.patience,
        improved=verdict.improved,
        stop=verdict.stop,
        eligible=verdict.eligible,
        gap=verdict.gap,
        overfitting=verdict.overfitting,
        unmet=verdict.unmet,
        reason=verdict.reason,
    )
