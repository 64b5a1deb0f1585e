"""Direction: which way the model's own compiled metric says is better, and how a policy takes it up."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import keras

from ...core.direction import Mode, known_direction
from ...core.policy import CheckpointPolicy, checked_policy
from ...core.spec import MonitorSettings, MonitorSpec
from ...errors import AmbiguousModeError

Directions = Callable[[str], "Mode | None"]
"""The name of a logged metric → which way is better, None where the model does not say."""


def compiled_direction(model: keras.Model, monitor: str) -> Mode | None:
    """Return which way the metric that `monitor` names is better, as its class declares it; None if none does."""
    name = monitor.removeprefix("val_")
    for metric in _metrics(model):
        declared = getattr(metric, "_direction", None)
        if metric.name == name and declared is not None:
            return "max" if declared == "up" else "min"
    return "min" if name == "loss" else None


def check_fields(fields: Mapping[str, Any]) -> None:
    """Raise for every mistake in the fields of a policy but a direction that the model may still tell.

    Raises:
        PolicyError, ConfigError: as `CheckpointPolicy`.
    """
    try:
        CheckpointPolicy(**fields)
    except AmbiguousModeError:
        CheckpointPolicy(**{**fields, "mode": "min"})


def directed(policy: CheckpointPolicy | Mapping[str, Any], directions: Directions) -> CheckpointPolicy:
    """Return the policy with the mode of every monitor that says "auto" set to what the model declares.

    Raises:
        AmbiguousModeError: neither the model nor the table of names says which way a metric is better.
    """
    fields = _fields(policy)
    given = fields.get("monitor")
    entries = list(given) if isinstance(given, list | tuple) else [given] if given else []
    own = {name: fields[name] for name in MonitorSettings.model_fields if name in fields}
    specs = [_spec(entry, own) for entry in entries]
    told = [_told(spec, directions) for spec in specs]
    if not any(told):
        return checked_policy(policy)
    rest = {name: value for name, value in fields.items() if name not in own}
    monitors = [
        MonitorSpec(**(spec | ({"mode": mode} if mode else {}))) for spec, mode in zip(specs, told, strict=True)
    ]
    return CheckpointPolicy(**(rest | {"monitor": monitors if isinstance(given, list | tuple) else monitors[0]}))


def _fields(policy: CheckpointPolicy | Mapping[str, Any]) -> dict[str, Any]:
    if isinstance(policy, Mapping):
        return dict(policy)
    return {name: getattr(policy, name) for name in policy.model_fields_set}


def _spec(entry: Any, own: Mapping[str, Any]) -> dict[str, Any]:
    if isinstance(entry, str):
        return {"key": entry, **own}
    return (
        dict(entry) if isinstance(entry, Mapping) else {name: getattr(entry, name) for name in entry.model_fields_set}
    )


def _told(spec: Mapping[str, Any], directions: Directions) -> Mode | None:
    """Return the direction to set, or None where the settings or the table say the same already."""
    if spec.get("mode", "auto") != "auto":
        return None
    declared = directions(spec["key"])
    return None if declared == known_direction(spec["key"]) else declared


def _metrics(model: keras.Model) -> Iterator[Any]:
    """Yield the metrics of `compile`, also before the first batch has built them."""
    for metric in model.metrics:
        yield from getattr(metric, "metrics", [metric])
    compiled = getattr(model, "_compile_metrics", None)
    for name in ("_user_metrics", "_user_weighted_metrics"):
        yield from (m for m in keras.tree.flatten(getattr(compiled, name, None)) if isinstance(m, keras.metrics.Metric))
