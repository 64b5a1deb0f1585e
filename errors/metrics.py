"""Metrics: a value that was logged cannot be judged, or none was logged."""

from __future__ import annotations

from collections.abc import Iterable

from .base import KeepbestError, did_you_mean, listed


class MetricError(KeepbestError, ValueError):
    """A logged value cannot be judged.

    When: at `log()` and `log_step()`.

    Do: Log one finite number under the name that the policy monitors.
    """


class MissingMetricError(MetricError, KeyError):
    """The monitored metric, or one that a constraint needs, is not among those that were logged.

    When: at the `log()` of an epoch in which it is due.

    Do: Log it, monitor another one, or say every=n where validation runs only every n epochs.
    """

    def __init__(
        self, metric: str, logged: Iterable[str], *, epoch: int | None = None, constraint: str | None = None
    ) -> None:
        self.metric, self.logged, self.epoch = metric, tuple(logged), epoch
        where = "" if epoch is None else f" in epoch {epoch + 1}"
        what, other = "the monitored metric", "monitor another one"
        if constraint is not None:
            what, other = f"of the constraint {constraint} the metric", "leave the constraint out"
        super().__init__(
            f"{what} '{metric}' was not logged{where}. Logged: {listed(self.logged)}."
            f"{did_you_mean(metric, self.logged)} Log it, {other}, or say every=n where validation runs only every n "
            "epochs."
        )


class MetricValueError(MetricError, TypeError):
    """A metric's value is not one number: a string, None, a vector without a named reduction.

    When: at `log()` and `log_step()`.

    Do: Log a number or a tensor with one element; for a vector say reduce= in the monitor.
    """

    def __init__(self, metric: str, value: object, problem: str) -> None:
        self.metric, self.problem, self.kind = metric, problem, type(value).__name__
        super().__init__(f"the metric '{metric}' is {problem} (got {self.kind}: {value!r:.80}).")


class NonFiniteMetricError(MetricError):
    """A monitored value is NaN or infinite, and the policy says to raise.

    When: at the `log()` of such a value, with on_nonfinite='raise'. The best checkpoint is unharmed.

    Do: Lower the learning rate, look at the data, and resume; on_nonfinite='warn' would train on.
    """

    def __init__(self, metric: str, value: float, *, epoch: int, step: int) -> None:
        self.metric, self.value, self.epoch, self.step = metric, value, epoch, step
        super().__init__(
            f"the monitored metric '{metric}' is {value} in epoch {epoch + 1} (step {step}). The best checkpoint is "
            "unharmed. Lower the learning rate or look at the data; on_nonfinite='warn' would train on."
        )


class PlaceholderError(MetricError, KeyError):
    """A file's name has a placeholder, such as `{val_loss:.2f}`, for what was not logged.

    When: when `ModelCheckpoint` makes up the name of the file that it is about to write.

    Do: Log the metric, or take the placeholder out of `filepath`.
    """

    def __init__(self, filepath: str, placeholder: str, logged: Iterable[str]) -> None:
        self.filepath, self.placeholder, self.logged = filepath, placeholder, tuple(logged)
        super().__init__(
            f"Failed to format this callback filepath: \"{filepath}\". Reason: '{placeholder}' was not logged. "
            f"Logged: {listed(self.logged)}.{did_you_mean(placeholder, self.logged)}"
        )


class UnknownMetricError(KeepbestError, KeyError):
    """A history has no such metric.

    When: at `history[…]`, `history.epochs[…]` and `history.steps[…]`; `in` and `get()` answer as those of a dict.

    Do: Correct the name. What was logged for single steps alone is in `steps_log`.
    """

    def __init__(self, metric: object, known: Iterable[str]) -> None:
        self.metric, self.known = metric, tuple(known)
        super().__init__(
            f"the history has no metric {metric!r}. Logged at the ends of epochs: {listed(self.known)}."
            f"{did_you_mean(str(metric), self.known)} What was logged for single steps alone is in steps_log."
        )
