"""CheckpointPolicy: when to save and what to keep, as one frozen value. It decides; it touches no clock and no disk."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from functools import cached_property
from types import UnionType
from typing import Annotated, Any, ClassVar, Literal, Self

import msgspec
from pydantic import BeforeValidator, Field, PlainSerializer, PlainValidator, model_validator

from ..errors import ConfigError, PolicyError
from ..storage.manifest import CheckpointInfo
from . import plan
from .checks import shown
from .direction import known_direction
from .monitor import MetricMonitor
from .policyfile import parse_file, parse_json
from .retention import KeepBest, KeepRule, RetentionPlan, retain, simple_keep_rules
from .rule import rule_of
from .setting import Count, Seconds, Whole, as_tuple
from .spec import MonitorSettings, MonitorSpec
from .when import Facts, OnImprovement, SimpleWhenRule, WhenRule
from .wording import in_words, sentences


def _rule(field: str, kinds: UnionType) -> PlainValidator:
    """Return what takes a rule, or its fields."""
    return PlainValidator(lambda given: None if given is None else rule_of(field, given, kinds))


_AS_FIELDS = PlainSerializer(msgspec.to_builtins)


class CheckpointPolicy(MonitorSettings):
    """When to save, what to keep, and when training should end.

    The fields of `MonitorSettings` are those of `monitor` where it is a name (or of each one, where it is several).
    Without a monitor, metrics are only recorded: nothing improves, and nothing is kept for being the best.

    Raises:
        PolicyError: a field is wrong or unknown, or the whole contradicts itself.
        UnknownModeError, AmbiguousModeError, ConfigError: as `MetricMonitor` raises them.

    Example:
        >>> print(CheckpointPolicy(monitor="val_loss", keep_best=3, patience=5))
        Saves every epoch, when val_loss improves (lower is better), at the end, on SIGTERM.
        Keeps the best 3 by val_loss, and the last one.
        Stops after 5 checks of val_loss without improvement.
    """

    _FIRST: ClassVar = "monitor"

    monitor: Annotated[str | MonitorSpec | Sequence[str | MonitorSpec] | None, BeforeValidator(as_tuple)] = None
    """What is judged, the primary one first."""

    every_n_epochs: Count | None = 1
    every_n_steps: Count | None = None
    every_n_seconds: Seconds | None = None
    on_improvement: bool = True
    """Save when a monitor sees a new best; False unless there is a monitor."""
    at_end: bool = True
    on_sigterm: bool = True
    """Save when the machine is about to be taken away (preemption)."""
    on_exception: bool = False
    when: Annotated[WhenRule | None, _rule("when", WhenRule), _AS_FIELDS] = None
    """A rule of `core/when.py` in place of the seven fields above."""

    keep_best: Annotated[Whole, Field(ge=0)] = 1
    """How many by each monitor; 0 keeps none for being the best, and is the default without a monitor."""
    keep_last: Count = 1
    """How many complete ones."""
    keep_every_n_epochs: Count | None = None
    """Milestones."""
    keep_every_n_steps: Count | None = None
    """Milestones."""
    keep_max_bytes: Count | None = None
    """What all together may take; the newest and the best stay even beyond it."""
    keep_all: bool = False
    keep: Annotated[KeepRule | None, _rule("keep", KeepRule), _AS_FIELDS] = None
    """A rule of `core/retention.py` in place of the six fields above."""

    best_contents: Literal["everything", "weights"] = "everything"
    """What is saved for being the best and for no other reason; "weights" cannot be resumed from."""
    on_save_error: Literal["raise", "warn"] = "raise"
    """Whether a failed save ends training, or is a warning and training goes on."""

    on_busy: Literal["wait", "skip", "supersede"] = "wait"
    """What happens to a save that is due while the one before is still being written: training waits; it is left
    out; or it is made once the writer is free, of the state of then. The best and the last are always waited for."""

    _WHEN: ClassVar = (
        "every_n_epochs", "every_n_steps", "every_n_seconds", "on_improvement", "at_end", "on_sigterm", "on_exception",
    )  # fmt: skip
    _KEEP: ClassVar = (
        "keep_best", "keep_last", "keep_every_n_epochs", "keep_every_n_steps", "keep_max_bytes", "keep_all",
    )  # fmt: skip

    # ── deciding ──────────────────────────────────────────────────────────────────────────────────────────────────

    def monitors(self) -> tuple[MetricMonitor, ...]:
        """Return fresh monitors, the primary one first."""
        return plan.monitors(self)

    def decide(self, facts: Facts) -> tuple[str, ...]:
        """Return the reasons to save at this moment; none, and nothing is to be saved. Cost: a microsecond."""
        reasons = []
        for rule in self.when_rules:
            reason = rule.reason(facts)
            if reason is not None and reason not in reasons:
                reasons.append(reason)
        return tuple(reasons)

    def retain(self, checkpoints: Sequence[CheckpointInfo]) -> RetentionPlan:
        """Plan which of `checkpoints` stay; see `retention.retain` for what is guaranteed."""
        return retain(checkpoints, self.keep_rule)

    @cached_property
    def when_rules(self) -> tuple[SimpleWhenRule, ...]:
        """The rules that say when to save, however they were written."""
        return plan.when_rules(self)

    @cached_property
    def keep_rule(self) -> KeepRule:
        """The rule that says what stays, however it was written."""
        return plan.keep_rule(self, self._keys())

    # ── files ─────────────────────────────────────────────────────────────────────────────────────────────────────

    @classmethod
    def from_file(cls, path: str | os.PathLike[str]) -> Self:
        """Return the policy in a .json, .yaml, .yml or .toml file.

        Raises:
            ConfigError: the file cannot be read, is of another kind, or needs PyYAML, which is not installed.
            PolicyError, UnknownModeError, AmbiguousModeError: it holds no valid policy; the text names the file.
        """
        fields = parse_file(path)
        try:
            return cls(**fields)
        except ConfigError as error:
            error.args = (f"{os.fspath(path)}: {error}",)
            raise

    @classmethod
    def from_json(cls, text: str | bytes) -> Self:
        """Return the policy that `to_json` wrote.

        Raises:
            PolicyError: it is not JSON, or no valid policy.
        """
        return cls(**parse_json(text))

    def to_json(self) -> str:
        """Return all fields as JSON, defaults too: what a policy says must not change with a later version."""
        return self.model_dump_json(indent=2)

    def __str__(self) -> str:
        return in_words(self)

    def _repr_html_(self) -> str:
        """Return what a notebook shows: what the policy does, in words."""
        from ..storage.htmltable import html_table  # noqa: PLC0415 - only notebooks need it

        return html_table(type(self).__name__, [], [[line] for line in sentences(self)])

    # ── contradictions, refused at construction ───────────────────────────────────────────────────────────────────

    @model_validator(mode="before")
    @classmethod
    def _without_monitor(cls, given: Any) -> Any:
        """With nothing to judge by, nothing improves and nothing is the best, unless somebody asks for it."""
        if isinstance(given, dict) and given.get("monitor") is None:
            return {"keep_best": 0, "on_improvement": False} | given
        return given

    @model_validator(mode="after")
    def _check(self) -> Self:
        self._check_monitors()
        self._check_when()
        self._check_keep()
        self._check_text()
        return self

    def _check_monitors(self) -> None:
        entries = plan.entries(self)
        own = [name for name in MonitorSettings.model_fields if self._is_set(name)]
        if own and not entries:
            raise PolicyError(f"{_and(own)} without a monitor: say which metric is meant, monitor='val_loss'.")
        if own and any(isinstance(entry, MonitorSpec) for entry in entries):
            raise PolicyError(f"{_and(own)} beside a MonitorSpec: put them into the MonitorSpec they are meant for.")
        if isinstance(self.monitor, tuple) and not entries:
            raise PolicyError(
                "monitor is empty: name a metric, or leave monitor out so that metrics are only recorded."
            )
        keys = self._keys()
        if twice := sorted({key for key in keys if keys.count(key) > 1}):
            raise PolicyError(f"{_and(twice)} is monitored more than once: name each metric once.")
        self.monitors()
        if len(keys) == 1 or self.mode == "auto":
            return
        if opposed := [key for key in keys if known_direction(key) not in {None, self.mode}]:
            raise PolicyError(
                f"mode='{self.mode}' would hold for each of {_and(keys)}, and {_and(opposed)} is better the other way. "
                "Leave mode out, or say it of one: MonitorSpec(key='…', mode='…')."
            )

    def _check_when(self) -> None:
        if self.when is not None and (fields := [name for name in self._WHEN if self._is_set(name)]):
            raise PolicyError(f"when=… and {_and(fields)} exclude each other: put all of it into the rule, AnyOf([…]).")
        if not self.when_rules:
            raise PolicyError(
                "this policy never saves: set every_n_epochs, every_n_steps, at_end or another when-field."
            )
        if not self._keys() and any(isinstance(rule, OnImprovement) for rule in self.when_rules):
            raise PolicyError("on_improvement without a monitor: say which metric is to improve, monitor='val_loss'.")

    def _check_keep(self) -> None:
        if self.keep is not None and (fields := [name for name in self._KEEP if self._is_set(name)]):
            raise PolicyError(f"keep=… and {_and(fields)} exclude each other: put all into the rule, KeepAnyOf([…]).")
        limits = [name for name in self._KEEP if name != "keep_all" and self._is_set(name)]
        if self.keep_all and limits:
            raise PolicyError(f"keep_all and {_and(limits)} exclude each other: leave out one or the other.")
        keys = self._keys()
        bests = [rule for rule in simple_keep_rules(self.keep_rule) if isinstance(rule, KeepBest)]
        if not keys and (self.keep_best or bests):
            raise PolicyError("keep_best without a monitor: say by which metric, monitor='val_loss', or keep_best=0.")
        if unknown := [rule.monitor for rule in bests if rule.monitor is not None and rule.monitor not in keys]:
            raise PolicyError(f"KeepBest names {_and(unknown)}, and this policy monitors {_and(keys)}.")
        if self.best_contents == "weights" and not bests:
            raise PolicyError("best_contents='weights', and nothing is kept for being the best: set keep_best.")

    def _check_text(self) -> None:
        try:
            self.model_dump_json()
        except ValueError as error:
            raise PolicyError(f"this policy cannot be written as text: {error}.") from error

    def _is_set(self, name: str) -> bool:
        """Say whether the field differs from what it is when nobody sets it."""
        unset = type(self).model_fields[name].default
        if self.monitor is None and name in ("keep_best", "on_improvement"):
            unset = type(unset)(0)
        return bool(getattr(self, name) != unset)

    def _keys(self) -> list[str]:
        return [entry if isinstance(entry, str) else entry.key for entry in plan.entries(self)]


def checked_policy(given: CheckpointPolicy | Mapping[str, Any]) -> CheckpointPolicy:
    """Return a policy that was given as one, or as its fields.

    Raises:
        PolicyError: it is neither, or a field is wrong.
    """
    if isinstance(given, CheckpointPolicy):
        return given
    if not isinstance(given, Mapping):
        raise PolicyError(
            f"a policy is CheckpointPolicy(monitor='val_loss', …), or its fields in a dict, not {shown(given)}."
        )
    return CheckpointPolicy(**given)


def _and(names: Sequence[str]) -> str:
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))
