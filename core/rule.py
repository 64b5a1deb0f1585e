"""Rule: a small frozen value that says when to save, or what to keep; whose mistakes read as a PolicyError."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, get_args

from msgspec import Struct, StructMeta
from msgspec.structs import force_setattr

from ..errors import ConfigError, PolicyError, did_you_mean
from .checks import shown

_DEEPEST = 50
"""Of rules within rules. Python could go on to about 150 before it can write them down no more."""


class _Named(StructMeta):
    """Makes named errors of fields that a rule does not have, or lacks."""

    def __call__(cls, *values: Any, **fields: Any) -> Any:  # noqa: N805 - of a metaclass
        names = cls.__struct_fields__
        if len(values) > len(names):
            raise PolicyError(f"{cls.__name__} takes at most {len(names)} values, not {len(values)}.")
        for field in fields:
            if field not in names:
                raise PolicyError(f"{cls.__name__}: there is no field '{field}'.{did_you_mean(field, names)}")
            if field in names[: len(values)]:
                raise PolicyError(f"{cls.__name__} got {field} twice.")
        try:
            return super().__call__(*values, **fields)
        except RecursionError:
            raise PolicyError(f"{cls.__name__}: it refers to itself, or is nested too deeply.") from None
        except TypeError as error:
            raise PolicyError(f"{cls.__name__}: {error}.") from None


class Rule(Struct, metaclass=_Named, frozen=True, tag_field="kind"):
    """A small setting, made by position or by name: `KeepBest(3)`. Its `kind` is its name in files.

    Raises:
        PolicyError: a field is wrong, missing or unknown.
    """

    @property
    def kind(self) -> str:
        """Its name in files."""
        return str(self.__struct_config__.tag)

    def _check(self) -> None:
        """Raise ConfigError if a field is wrong."""

    def __post_init__(self) -> None:
        try:
            self._check()
        except ConfigError as error:
            name = f"{type(self).__name__}: "
            raise PolicyError(f"{'' if str(error).startswith(name) else name}{error}") from None

    def _set(self, field: str, value: object) -> None:
        """Set a field while the rule is being made."""
        force_setattr(self, field, value)


def rule_of(field: str, value: object, kinds: Any) -> Any:
    """Return a rule that was given as one, or as its fields in a dict, its kind among them.

    Args:
        field: what it is given for, for the error.
        value: the rule, or its fields.
        kinds: the union of the kinds that it may be of.

    Raises:
        ConfigError: it is none.
        PolicyError: a field of it is wrong.
    """
    named = {str(kind.__struct_config__.tag): kind for kind in get_args(kinds)}
    if isinstance(value, kinds):
        return value
    if not isinstance(value, Mapping) or "kind" not in value:
        raise ConfigError(f"{field} must be a rule, or its fields with its kind (got {shown(value)}).")
    kind = value["kind"]
    if not isinstance(kind, str) or kind not in named:
        only = ", ".join(map(repr, named))
        hint = did_you_mean(kind, named) if isinstance(kind, str) else ""
        raise ConfigError(f"{field} has no kind {shown(kind)}, only {only}.{hint}")
    return named[kind](**{name: held for name, held in value.items() if name != "kind"})


def rules_of(value: object, kinds: Any) -> tuple[Any, ...]:
    """Return several.

    Raises:
        ConfigError: they are no list of rules, there is none, or they are nested more than 50 deep.
        PolicyError: a field of one is wrong.
    """
    if not isinstance(value, list | tuple) or not value:
        raise ConfigError(f"rules must be a list of at least 1 rule (got {shown(value)}).")
    rules = tuple(rule_of("each of rules", each, kinds) for each in value)
    if max(map(_depth, rules)) >= _DEEPEST:
        raise ConfigError(f"rules are nested too deeply ({_DEEPEST} at most): one list of them all says the same.")
    return rules


def _depth(rule: Rule) -> int:
    """Return how many rules are nested in one another, the innermost too."""
    return 1 + max(map(_depth, getattr(rule, "rules", ())), default=0)
