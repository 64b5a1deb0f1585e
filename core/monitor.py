"""MetricMonitor: is this value better? It judges one metric, and remembers the best, the patience and the history."""

from __future__ import annotations

import time as clock
from collections.abc import Iterable, Mapping
from typing import Any

from ..errors import ConfigError, MissingMetricError, NonFiniteMetricError
from ..storage.history import History, Row
from .caller import warn_caller
from .checks import check_finite, check_key, check_min_delta, check_nonfinite, check_whole
from .constraint import parse_constraints
from .direction import direction
from .metric import Measured, Reduce, check_reduce, scalar, scalars
from .overfitting import OverfittingWatch, generalisation_gap, training_partners
from .smoothing import Smoothing, State, parse_smoothing
from .standing import Standing, rows_from_json, rows_to_json
from .verdict import Verdict


class MetricMonitor:
    """Judges one metric: its best value, how long it has not improved, and what it says about overfitting.

    Args:
        key: the metric's name, as it is logged.
        mode: "min" (lower is better), "max", or "auto" for the names of `core/direction.py`.
        min_delta: a value improves only if it is better than the best by *more* than this: a number, or a share of the
            best's size such as "1%".
        patience: checks without improvement in a row after which `stop` is True; None for never. 0 and 1 both stop at
            the first check that does not improve; the first value judged always improves.
        baseline: until a value is better than this, no value counts as an improvement, so patience runs.
        start_epoch: earlier epochs (from 0) are recorded but not judged: no best, no smoothing, no patience.
        every: the metric is due in every n-th epoch, where (epoch + 1) % n == 0. In the others it may be absent, which
            uses no patience; where it is present it is judged.
        smoothing: judge by `ExponentialMean`, `MovingMean` or `MovingMedian`, or "ema:0.9", "mean:5", "median:5".
        on_nonfinite: what NaN and infinity lead to, which are never the best and never enter the smoothing:
            "ignore" says nothing and uses no patience; "warn" warns once and counts as a check without improvement;
            "stop" ends training; "raise" raises NonFiniteMetricError.
        nonfinite_limit: how many in a row it takes to stop or raise (the first unless given); earlier ones warn.
        reduce: how a vector becomes one number, see `scalar`.
        where: what must hold for a value to count as the best: "val_loss < 0.5", or several of these.
        overfit_window: checks over which the overfitting signal looks, see `overfits`.
        max_age: a `Measured` value made more than this many steps ago is stale, as is one of an earlier epoch: it is
            not ranked and uses no patience.

    Raises:
        ConfigError: a setting makes no sense (UnknownModeError, AmbiguousModeError, PolicyError among them).

    Not safe for use by several threads at once.

    Example:
        >>> monitor = MetricMonitor("val_loss", patience=2)
        >>> [monitor.update({"val_loss": value}).improved for value in (0.5, 0.4, 0.45)]
        [True, True, False]
        >>> monitor.best, monitor.best_epoch, monitor.wait
        (0.4, 1, 1)
    """

    def __init__(  # noqa: PLR0913 - each is a setting of its own, and all but two are named
        self,
        key: str,
        mode: str = "auto",
        *,
        min_delta: float | str = 0.0,
        patience: int | None = None,
        baseline: float | None = None,
        start_epoch: int = 0,
        every: int = 1,
        smoothing: Smoothing | str | None = None,
        on_nonfinite: str = "warn",
        nonfinite_limit: int | None = None,
        reduce: Reduce = None,
        where: str | Iterable[str] = (),
        overfit_window: int = 5,
        max_age: int = 0,
    ) -> None:
        self.key = check_key(key)
        self.mode = direction(key, mode)
        self.min_delta = min_delta
        self._absolute, self._relative = check_min_delta(min_delta)
        self.patience = None if patience is None else check_whole("patience", patience, least=0)
        self.baseline = None if baseline is None else check_finite("baseline", baseline)
        self.start_epoch = check_whole("start_epoch", start_epoch, least=0)
        self.every = check_whole("every", every, least=1)
        self.smoothing = parse_smoothing(smoothing)
        self.on_nonfinite, self.nonfinite_limit = check_nonfinite(on_nonfinite, nonfinite_limit)
        check_reduce(reduce)
        self.reduce = reduce
        self.where = parse_constraints(where)
        self.overfit_window = overfit_window
        self.max_age = check_whole("max_age", max_age, least=0)

        self.history = History()
        self.best: float | None = None
        self.best_epoch: int | None = None
        self.best_step: int | None = None
        self.wait = 0
        self._nonfinite = 0
        self._smoothing_state: State = ()
        self._watch = OverfittingWatch(self.mode, overfit_window)
        self._partners = training_partners(key)
        self._warned = False

    # ── judging ───────────────────────────────────────────────────────────────────────────────────────────────────

    def update(
        self, metrics: Mapping[str, object], *, epoch: int | None = None, step: int = 0, time: float | None = None
    ) -> Verdict:
        """Record the metrics of an epoch in `history`, then judge them.

        Args:
            metrics: name → value, all of them recorded.
            epoch: from 0; the one after the last recorded unless given.
            step: training steps closed.
            time: seconds since 1970; now unless given.

        Raises:
            MetricValueError: a value is not one number. Nothing was recorded.
            MissingMetricError: the metric, or one of a constraint, is due and absent.
            NonFiniteMetricError: NaN or infinity, and `on_nonfinite` is "raise".
        """
        if epoch is None:
            epoch = self.history.rows[-1].epoch + 1 if self.history.rows else 0
        floats = scalars(metrics, self.reductions)
        when = clock.time() if time is None else time
        self.history.append(Row(kind="epoch", epoch=epoch, step=step, time=when, metrics=floats))
        return self.judge(metrics, epoch=epoch, step=step)

    def judge(self, metrics: Mapping[str, object], *, epoch: int, step: int = 0) -> Verdict:
        """Judge the metrics of an epoch; `history` is left alone.

        Args:
            metrics: name → value. Only the metric, its training partner and those of constraints are looked at.
            epoch: from 0.
            step: training steps closed; tells how old a `Measured` value is.

        Raises:
            MetricValueError: a value that is looked at is not one number. Nothing changed.
            MissingMetricError: the metric, or one of a constraint, is due and absent. Nothing changed.
            NonFiniteMetricError: NaN or infinity, and `on_nonfinite` is "raise".
        """
        if self.key not in metrics:
            if (epoch + 1) % self.every == 0 and epoch >= self.start_epoch:
                raise MissingMetricError(self.key, metrics, epoch=epoch)
            return self._verdict(None, f"{self.key} was not logged in this epoch")
        raw = metrics[self.key]
        value = raw if type(raw) is float else scalar(self.key, raw, self.reduce)
        finite = value - value == 0
        unmet = self._unmet(metrics, epoch, step) if self.where else ()
        training = self._training_value(metrics, epoch, step) if self._partners and finite else None
        if epoch < self.start_epoch:
            return self._verdict(value, f"epoch {epoch + 1} comes before start_epoch, so {self.key} is not judged")
        if age := self._stale(raw, epoch, step):
            return self._verdict(value, f"{self.key} {value:.6g} is stale ({age}), so it is not ranked")
        if not finite:
            return self._judge_nonfinite(value, epoch, step)
        return self._judge_finite(value, training, unmet, epoch=epoch, step=step)

    @property
    def reductions(self) -> dict[str, Reduce]:
        """Name → reduction of the metrics that `reduce` is for: the metric and its training partners."""
        return {} if self.reduce is None else dict.fromkeys((self.key, *self._partners), self.reduce)

    def better(self, value: float, than: float | None) -> bool:
        """Say whether `value` is better than `than` by more than `min_delta`; than None, any finite value is."""
        if value - value != 0:
            return False
        if than is None:
            return True
        delta = self._absolute + self._relative * abs(than)
        return value < than - delta if self.mode == "min" else value > than + delta

    @property
    def stopped(self) -> bool:
        """Training should end: patience is used up, or too many values in a row were not finite."""
        if self.patience is not None and self.wait and self.wait >= self.patience:
            return True
        return self.on_nonfinite == "stop" and self._nonfinite >= self.nonfinite_limit

    def _judge_finite(
        self, value: float, training: float | None, unmet: tuple[str, ...], *, epoch: int, step: int
    ) -> Verdict:
        self._nonfinite = 0
        current, shown = value, f"{self.key} {value:.6g}"
        if self.smoothing is not None:
            self._smoothing_state, current = self.smoothing.fold(self._smoothing_state, value)
            shown = f"{self.key} {value:.6g} (smoothed {current:.6g})"
        overfitting = training is not None and self._watch.see(value, training)
        improved = not unmet and self._beats_baseline(current) and self.better(current, self.best)
        if improved:
            before, self.best, self.best_epoch, self.best_step, self.wait = self.best, current, epoch, step, 0
            reason = (
                f"{shown} is the first value judged"
                if before is None
                else f"{self.key} improved from {before:.6g} to {current:.6g}"
            )
        else:
            self.wait += 1
            reason = self._why_not(shown, unmet, current)
        return self._verdict(
            value,
            reason,
            smoothed=current,
            improved=improved,
            eligible=not unmet,
            gap=None if training is None else generalisation_gap(value, training, self.mode),
            overfitting=overfitting,
            unmet=unmet,
        )

    def _judge_nonfinite(self, value: float, epoch: int, step: int) -> Verdict:
        self._nonfinite += 1
        if self.on_nonfinite != "ignore":
            self.wait += 1
            if self.on_nonfinite == "raise" and self._nonfinite >= self.nonfinite_limit:
                raise NonFiniteMetricError(self.key, value, epoch=epoch, step=step)
            ends = self.on_nonfinite == "stop" and self._nonfinite >= self.nonfinite_limit
            if not self._warned and not ends:
                self._warned = True
                warn_caller(
                    f"the monitored metric '{self.key}' is {value} in epoch {epoch + 1} (step {step}). It is never the "
                    "best, and counts as a check without improvement. on_nonfinite='stop' or 'raise' would end "
                    "training; this is said once."
                )
        row = f", {self._nonfinite} times in a row" if self._nonfinite > 1 else ""
        return self._verdict(value, f"{self.key} is {value}{row}, which is never the best{self._patience_used()}")

    def _verdict(  # noqa: PLR0913 - one verdict has these facts
        self,
        value: float | None,
        reason: str,
        *,
        smoothed: float | None = None,
        improved: bool = False,
        eligible: bool = False,
        gap: float | None = None,
        overfitting: bool = False,
        unmet: tuple[str, ...] = (),
    ) -> Verdict:
        return Verdict(
            monitor=self.key,
            mode=self.mode,
            value=value,
            smoothed=smoothed,
            improved=improved,
            best=self.best,
            best_epoch=self.best_epoch,
            wait=self.wait,
            stop=self.stopped,
            eligible=eligible,
            gap=gap,
            overfitting=overfitting,
            unmet=unmet,
            constrained=bool(self.where),
            reason=reason,
        )

    def _beats_baseline(self, value: float) -> bool:
        return self.baseline is None or (value < self.baseline if self.mode == "min" else value > self.baseline)

    def _why_not(self, shown: str, unmet: tuple[str, ...], current: float) -> str:
        if unmet:
            return f"{shown} is not ranked: {'; '.join(unmet)}{self._patience_used()}"
        if not self._beats_baseline(current):
            return f"{shown} is not better than the baseline {self.baseline:.6g}{self._patience_used()}"
        margin = f" by more than {self.min_delta}" if self._absolute or self._relative else ""
        return f"{shown} is not better than {self.best:.6g}{margin}{self._patience_used()}"

    def _patience_used(self) -> str:
        return "" if self.patience is None else f" ({self.wait} of {self.patience} checks of patience used)"

    def _unmet(self, metrics: Mapping[str, object], epoch: int, step: int) -> tuple[str, ...]:
        unmet = []
        for constraint in self.where:
            if constraint.metric not in metrics:
                raise MissingMetricError(constraint.metric, metrics, epoch=epoch, constraint=str(constraint))
            raw = metrics[constraint.metric]
            value = scalar(constraint.metric, raw)
            if age := self._stale(raw, epoch, step):
                unmet.append(f"constraint {constraint} not met ({constraint.metric} is stale: {age})")
            elif not constraint.met(value):
                unmet.append(f"constraint {constraint} not met ({value:.6g})")
        return tuple(unmet)

    def _training_value(self, metrics: Mapping[str, object], epoch: int, step: int) -> float | None:
        for name in self._partners:
            if name in metrics:
                raw = metrics[name]
                value = scalar(name, raw, self.reduce)
                return value if value - value == 0 and not self._stale(raw, epoch, step) else None
        return None

    def _stale(self, value: object, epoch: int, step: int) -> str | None:
        """Return how old a value is when it is too old to be judged, else None."""
        if not isinstance(value, Measured):
            return None
        if value.epoch is not None and value.epoch < epoch:
            return f"measured in epoch {value.epoch + 1}, this is epoch {epoch + 1}"
        if value.step is not None and step - value.step > self.max_age:
            return f"measured at step {value.step}, this is step {step}"
        return None

    # ── what outlives the process ─────────────────────────────────────────────────────────────────────────────────

    def standing(self) -> dict[str, Any]:
        """Return all that judging goes on from, as plain JSON of bounded size; the history is not in it."""
        return self._standing().to_json()

    def restore_standing(self, standing: Mapping[str, Any]) -> None:
        """Go on from what `standing()` returned, as if there had been no break.

        Patience and the other limits are this monitor's own, so a run that stopped may go on with more patience.

        Raises:
            ConfigError: it is of another metric, direction or smoothing, or of other constraints, so its best cannot
                be compared; or it is no standing at all. Nothing changed.
        """
        before = Standing.from_json(standing)
        self._standing().check_continues(before)
        self.best, self.best_epoch, self.best_step = before.best, before.best_epoch, before.best_step
        self.wait, self._nonfinite, self._smoothing_state = before.wait, before.nonfinite, before.smoothing_state
        self._watch.pairs = before.overfit_pairs

    def state_dict(self) -> dict[str, Any]:
        """Return the standing and the history as plain JSON (NaN and infinity as the strings "nan", "inf", "-inf")."""
        return {"standing": self.standing(), "history": rows_to_json(self.history.rows)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state_dict()` returned.

        Raises:
            ConfigError: as `restore_standing`. Nothing changed.
        """
        try:
            standing, history = state["standing"], state["history"]
        except (KeyError, TypeError) as error:
            raise ConfigError(
                f"this is not the state of a monitor ({error!r}): {state!r:.200}. Give what state_dict() returned."
            ) from error
        rows = rows_from_json(history)
        self.restore_standing(standing)
        self.history = History(rows)

    def _standing(self) -> Standing:
        return Standing(
            monitor=self.key,
            mode=self.mode,
            smoothing=None if self.smoothing is None else str(self.smoothing),
            where=tuple(map(str, self.where)),
            best=self.best,
            best_epoch=self.best_epoch,
            best_step=self.best_step,
            wait=self.wait,
            nonfinite=self._nonfinite,
            smoothing_state=self._smoothing_state,
            overfit_pairs=self._watch.pairs,
        )

    def __repr__(self) -> str:
        return f"MetricMonitor({self.key!r}, {self.mode!r}, best={self.best}, wait={self.wait})"
