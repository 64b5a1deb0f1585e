"""RecordedPolicy: a policy as the journal holds it. It says what a `CheckpointPolicy` says, and decides nothing.

To read it takes a tenth of the time: whoever asks what a run did need not wait for what checks a policy that somebody
writes. What stands here was checked then; a stranger's is looked at as closely as needed to put it into words.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any, Literal

import msgspec
from msgspec import Struct

from ..errors import KeepbestError
from . import plan
from .monitor import MetricMonitor
from .retention import KeepRule
from .rule import rule_of
from .when import SimpleWhenRule, WhenRule
from .wording import in_words


class _Judged(Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """The fields of `MonitorSettings`."""

    mode: str
    min_delta: float | str
    patience: int | None
    baseline: float | None
    start_epoch: int
    every: int
    smoothing: str | None
    on_nonfinite: str
    nonfinite_limit: int | None
    reduce: str | int | None
    where: str | tuple[str, ...]
    overfit_window: int
    max_age: int

    def monitor_for(self, key: str) -> MetricMonitor:
        return MetricMonitor(key, **{name: getattr(self, name) for name in _Judged.__struct_fields__})


class _Monitor(_Judged, kw_only=True, frozen=True):
    """The fields of `MonitorSpec`."""

    key: str


class RecordedPolicy(_Judged, kw_only=True, frozen=True, dict=True):
    """What `CheckpointPolicy.model_dump(mode="json")` gives; the fields are those of a policy."""

    monitor: str | _Monitor | tuple[str | _Monitor, ...] | None
    every_n_epochs: int | None
    every_n_steps: int | None
    every_n_seconds: float | None
    on_improvement: bool
    at_end: bool
    on_sigterm: bool
    on_exception: bool
    when: Any
    keep_best: int
    keep_last: int
    keep_every_n_epochs: int | None
    keep_every_n_steps: int | None
    keep_max_bytes: int | None
    keep_all: bool
    keep: Any
    best_contents: Literal["everything", "weights"]
    on_save_error: Literal["raise", "warn"]
    on_busy: Literal["wait", "skip", "supersede"]

    def __post_init__(self) -> None:
        for field, kinds in (("when", WhenRule), ("keep", KeepRule)):
            held = getattr(self, field)
            if held is not None:
                msgspec.structs.force_setattr(self, field, rule_of(field, held, kinds))

    def monitors(self) -> tuple[MetricMonitor, ...]:
        """Return fresh monitors, the primary one first."""
        return plan.monitors(self)

    @cached_property
    def when_rules(self) -> tuple[SimpleWhenRule, ...]:
        """The rules that said when to save, however they were written."""
        return plan.when_rules(self)

    @cached_property
    def keep_rule(self) -> KeepRule:
        """The rule that said what stays, however it was written."""
        return plan.keep_rule(self, [monitor.key for monitor in self.monitors()])

    def __str__(self) -> str:
        return in_words(self)


def read_policy(settings: Mapping[str, Any]) -> RecordedPolicy | None:
    """Return the policy that a note holds; None for one that only another version of keepbest, or nobody, can read."""
    try:
        found = msgspec.convert(settings, RecordedPolicy)
        str(found)  # what cannot be put into words is none
    except (KeepbestError, LookupError, RecursionError, TypeError, ValueError):
        return None
    return found
