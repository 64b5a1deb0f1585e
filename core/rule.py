"""Rule: a small frozen value that says when to save, or what to keep; whose mistakes read as a PolicyError."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, ClassVar, NoReturn, get_args

from msgspec import Struct, StructMeta
from msgspec.structs import force_setattr

from ..errors import ConfigError, PolicyError, did_you_mean
from ..errors.base import listed
from .checks import shown

_DEEPEST = 50
"""Of rules within rules. Python could go on to about 150 before it can write them down no more."""


class _Named(StructMeta):
    """Makes named errors of fields that a rule does not have, or lacks, and of one that is set."""

    def __init__(cls, *made: Any, **options: Any) -> None:  # noqa: N805 - of a metaclass
        super().__init__(*made, **options)
        for method in ("__setattr__", "__delattr__"):  # msgspec has just set its own, in each class anew
            setattr(cls, method, _unchanging)

    def __call__(cls, *values: Any, **fields: Any) -> Any:  # noqa: N805 - of a metaclass
        names = cls.__struct_fields__
        if len(values) > len(names):
            raise _too_many(cls.__name__, names, len(values))
        for field in fields:
            if field not in names:
                hint = did_you_mean(field, names) or (f" Its fields: {listed(names)}." if names else " It has none.")
                raise PolicyError(f"{cls.__name__}: there is no field '{field}'.{hint}")
            if field in names[: len(values)]:
                raise PolicyError(f"{cls.__name__} got {field} twice.")
        needed = names[len(values) : len(names) - len(cls.__struct_defaults__)]
        if missing := [name for name in needed if name not in fields]:
            verb = "is" if len(missing) == 1 else "are"
            raise PolicyError(f"{cls.__name__}: {' and '.join(missing)} {verb} missing.")
        try:
            return super().__call__(*values, **fields)
        except RecursionError:
            raise PolicyError(f"{cls.__name__}: it refers to itself, or is nested too deeply.") from None
        except TypeError as error:
            raise PolicyError(f"{cls.__name__}: {error}.") from None


def _unchanging(rule: Any, field: str, *_value: object) -> NoReturn:
    kind = type(rule).__name__
    raise AttributeError(f"rules do not change, so {field} of {kind} stays. Make another one: {kind}(…).")


def _too_many(rule: str, fields: tuple[str, ...], given: int) -> PolicyError:
    if fields == ("rules",):
        return PolicyError(f"{rule} takes one list of rules, {rule}([…]), not {given} values.")
    most = f"at most {len(fields)} value{'s' if len(fields) > 1 else ''}" if fields else "no values"
    return PolicyError(f"{rule} takes {most}, not {given}.")


class Rule(Struct, metaclass=_Named, frozen=True, tag_field="kind"):
    """A small setting, made by position or by name: `KeepBest(3)`. Its `kind` is its name in files.

    Raises:
        PolicyError: a field is wrong, missing or unknown.
    """

    says: ClassVar[str] = "when to save"
    """What rules of its sort say."""

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
    if isinstance(value, kinds):
        return value
    named = _by_kind(get_args(kinds))
    if not isinstance(value, Mapping) or "kind" not in value:
        raise _no_rule(field, value, named)
    kind = value["kind"]
    if not isinstance(kind, str) or kind not in named:
        raise _no_kind(field, kind, named)
    return named[kind](**{name: held for name, held in value.items() if name != "kind"})


def _by_kind(rules: Iterable[type[Rule]]) -> dict[str, type[Rule]]:
    return {str(rule.__struct_config__.tag): rule for rule in rules}


def _no_rule(field: str, value: object, wanted: dict[str, type[Rule]]) -> ConfigError:
    """Return the error of a value that is no rule of those that are wanted, nor the fields of one."""
    if isinstance(value, list | tuple) and "any_of" in wanted:
        return ConfigError(f"{field} must be one rule: put the list of them into {wanted['any_of'].__name__}([…]).")
    if isinstance(value, type) and issubclass(value, Rule):
        if value in wanted.values():
            return ConfigError(f"{field} must be a rule such as {value.__name__}(…), not the class of one.")
        return _other_sort(field, value, wanted)
    if isinstance(value, Rule):
        return _other_sort(field, type(value), wanted)
    return ConfigError(f"{field} must be a rule, or its fields with its kind (got {shown(value)}).")


def _no_kind(field: str, kind: object, wanted: dict[str, type[Rule]]) -> ConfigError:
    """Return the error of a kind that is none of those that are wanted."""
    other = _by_kind(_leaves(Rule)).get(kind) if isinstance(kind, str) else None
    if other is not None and other.says == _says(wanted):
        return _other_sort(field, other, wanted)
    which = f", which says {other.says}" if other is not None else ""
    hint = did_you_mean(kind, wanted) if isinstance(kind, str) and other is None else ""
    return ConfigError(f"{field} has no kind {shown(kind)}{which}, only {', '.join(map(repr, wanted))}.{hint}")


def _other_sort(field: str, given: type[Rule], wanted: dict[str, type[Rule]]) -> ConfigError:
    """Return the error of a rule that is right elsewhere."""
    if given.says == _says(wanted):
        return ConfigError(
            f"{given.__name__} stands within another rule, and must be the outermost one: put the others into it."
        )
    twin = wanted.get(str(given.__struct_config__.tag))
    instead = f"write {twin.__name__}" if twin else f"write one of {listed(rule.__name__ for rule in wanted.values())}"
    return ConfigError(
        f"{field} must be a rule that says {_says(wanted)}, and {given.__name__} says {given.says}: {instead}."
    )


def _says(wanted: dict[str, type[Rule]]) -> str:
    return next(iter(wanted.values())).says


def _leaves(of: type[Rule]) -> Iterator[type[Rule]]:
    """Yield the rules that can be made."""
    for rule in of.__subclasses__():
        yield from _leaves(rule)
        if not rule.__subclasses__():
            yield rule


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
