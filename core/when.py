"""When to save: small rules, each a pure function of the facts of one moment. They compose by `AnyOf`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal

from msgspec import Struct

from .checks import check_positive, check_whole
from .rule import Rule, rules_of


class Facts(Struct, frozen=True, kw_only=True):
    """What is known at the moment that is decided about."""

    event: Literal["epoch", "step", "end", "signal", "exception"]
    """What just happened: an epoch or a step was closed, training ended, a signal came, an exception was raised."""
    epoch: int | None
    """From 0, the epoch closed last; None before the first."""
    step: int
    """Training steps closed, over the whole run."""
    time: float
    """Seconds, monotonic."""
    improved: bool
    """A monitor saw a new best at this moment."""
    last_saved_epoch: int | None
    """`epoch` at the last save; None before the first."""
    last_saved_step: int | None
    """`step` at the last save; None before the first."""
    last_saved_time: float
    """`time` at the last save, a failed one too; the start of training before the first."""
    last_tried_step: int | None = None
    """`step` at the last save that failed: a full disk is tried again n steps later, not at every step."""
    within_epoch: bool = False
    """The epoch is under way: steps of it are closed, it is not."""
    last_saved_within_epoch: bool = False
    """`within_epoch` at the last save."""
    ranks: bool = False
    """A monitor judged at this moment, so that what is saved now has a rank among the best."""

    @property
    def changed(self) -> bool:
        """Training went on since the last save, or since the very start; to close an epoch is to go on."""
        saved = self.last_saved_epoch, self.last_saved_step or 0, self.last_saved_within_epoch
        return (self.epoch, self.step, self.within_epoch) != saved


class OnImprovement(Rule, frozen=True, tag="on_improvement"):
    """Save when a monitored metric has a new best."""

    def reason(self, facts: Facts) -> str | None:
        """Return "improvement" if a save is due, else None."""
        return "improvement" if facts.improved else None

    def __str__(self) -> str:
        return "when the metric improves"


class EveryNEpochs(Rule, frozen=True, tag="every_n_epochs"):
    """Save at the end of every n-th epoch, counted from the first of the run."""

    n: int

    def _check(self) -> None:
        self._set("n", check_whole("n", self.n, least=1))

    def reason(self, facts: Facts) -> str | None:
        """Return "epoch" if a save is due, else None."""
        if facts.event != "epoch" or facts.epoch is None:
            return None
        return "epoch" if (facts.epoch + 1) % self.n == 0 else None

    def __str__(self) -> str:
        return "every epoch" if self.n == 1 else f"every {self.n} epochs"


class EveryNSteps(Rule, frozen=True, tag="every_n_steps"):
    """Save at, or as soon as possible after, every multiple of n steps of the run; a resumed run keeps to them.

    What was saved at the last step of an epoch is saved again when the epoch was judged: only then it has a rank.
    """

    n: int

    def _check(self) -> None:
        self._set("n", check_whole("n", self.n, least=1))

    def reason(self, facts: Facts) -> str | None:
        """Return "step" if a save is due, else None."""
        if facts.event != "step" and facts.event != "epoch":  # noqa: PLR1714 - on the path of every step
            return None
        last = max(facts.last_saved_step or 0, facts.last_tried_step or 0)
        return "step" if facts.step // self.n > last // self.n or _has_no_rank_yet(facts) else None

    def __str__(self) -> str:
        return "every step" if self.n == 1 else f"every {self.n:,} steps"


def _has_no_rank_yet(facts: Facts) -> bool:
    """Say whether this very state was saved before its epoch was judged."""
    return facts.ranks and facts.last_saved_within_epoch and facts.step == facts.last_saved_step


class EveryNSeconds(Rule, frozen=True, tag="every_n_seconds"):
    """Save at the end of the first step or epoch that comes `seconds` or more after the last save."""

    seconds: float

    def _check(self) -> None:
        self._set("seconds", check_positive("seconds", self.seconds))

    def reason(self, facts: Facts) -> str | None:
        """Return "time" if a save is due, else None."""
        if facts.event != "step" and facts.event != "epoch":  # noqa: PLR1714 - on the path of every step
            return None
        return "time" if facts.time - facts.last_saved_time >= self.seconds else None

    def __str__(self) -> str:
        return f"every {self.seconds:g} seconds"


class AtEnd(Rule, frozen=True, tag="at_end"):
    """Save when training ends, if it went on since the last save."""

    def reason(self, facts: Facts) -> str | None:
        """Return "end" if a save is due, else None."""
        return "end" if facts.event == "end" and facts.changed else None

    def __str__(self) -> str:
        return "at the end"


class OnSignal(Rule, frozen=True, tag="on_signal"):
    """Save when SIGTERM says that the machine will be taken away, if training went on since the last save."""

    def reason(self, facts: Facts) -> str | None:
        """Return "signal" if a save is due, else None."""
        return "signal" if facts.event == "signal" and facts.changed else None

    def __str__(self) -> str:
        return "on SIGTERM"


class OnException(Rule, frozen=True, tag="on_exception"):
    """Save when an exception ends training, if it went on since the last save."""

    def reason(self, facts: Facts) -> str | None:
        """Return "exception" if a save is due, else None."""
        return "exception" if facts.event == "exception" and facts.changed else None

    def __str__(self) -> str:
        return "on an exception"


class AnyOf(Rule, frozen=True, tag="any_of"):
    """Save when any of `rules` says so.

    Example:
        >>> rule = AnyOf([EveryNSteps(1000), AtEnd()])
        >>> str(rule)
        'every 1,000 steps, at the end'
    """

    rules: Sequence[WhenRule]

    def _check(self) -> None:
        self._set("rules", rules_of(self.rules, WhenRule))

    def reason(self, facts: Facts) -> str | None:
        """Return the reason of the first rule that has one, else None."""
        return next((reason for rule in self.rules if (reason := rule.reason(facts)) is not None), None)

    def __str__(self) -> str:
        return ", ".join(map(str, self.rules))


SimpleWhenRule = OnImprovement | EveryNEpochs | EveryNSteps | EveryNSeconds | AtEnd | OnSignal | OnException
WhenRule = SimpleWhenRule | AnyOf


def simple_rules(rule: WhenRule) -> Iterator[SimpleWhenRule]:
    """Yield the rules that `rule` is made of, in their order."""
    if isinstance(rule, AnyOf):
        for part in rule.rules:
            yield from simple_rules(part)
    else:
        yield rule
