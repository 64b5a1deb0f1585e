"""Setting: a frozen, validated value whose mistakes read as a PolicyError, never as a traceback of the validator."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Self, cast

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from ..errors import ConfigError, KeepbestError, PolicyError, did_you_mean
from .checks import as_int, shown

Whole = Annotated[int, BeforeValidator(as_int), Field(strict=True)]
"""A whole number. True is not one."""
Count = Annotated[int, BeforeValidator(as_int), Field(gt=0, strict=True)]
"""A whole number, 1 or more. True is not one."""
Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False, strict=True)]
"""A finite time above 0."""


def as_tuple(value: Any) -> Any:
    """Return a list as a tuple, so that a frozen value holds nothing that changes; anything else as it is."""
    return tuple(value) if isinstance(value, list) else value


class Setting(BaseModel):
    """A frozen value with checked fields; a field that does not exist is a mistake.

    Raises:
        PolicyError: a field is wrong, missing or unknown; or what a check inside raised, as it is.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    _FIRST: ClassVar[str]
    """The field that comes to mind first."""

    def __new__(cls, /, *values: object, **_data: object) -> Self:
        """Refuse values without names, which `__init__` would answer with Python's own words."""
        if values:
            value = shown(values[0]) if isinstance(values[0], str) else "…"
            raise PolicyError(
                f"{cls.__name__} takes its fields by name: {cls.__name__}({cls._FIRST}={value}), or **fields."
            )
        return super().__new__(cls)

    def __init__(self, /, **data: Any) -> None:
        _checked(type(self), super().__init__, **data)

    @classmethod
    def model_validate(cls, obj: Any, **options: Any) -> Self:
        """Return the setting that `obj` holds: one, or its fields in a dict. `options` are pydantic's."""
        return cast("Self", _checked(cls, super().model_validate, obj, **options))

    @classmethod
    def model_validate_json(cls, json_data: str | bytes | bytearray, **options: Any) -> Self:
        """Return the setting whose fields a JSON text holds. `options` are pydantic's."""
        return cast("Self", _checked(cls, super().model_validate_json, json_data, **options))

    @classmethod
    def model_validate_strings(cls, obj: Any, **options: Any) -> Self:
        """Return the setting whose fields `obj` holds; numbers in text are refused. `options` are pydantic's."""
        return cast("Self", _checked(cls, super().model_validate_strings, obj, **options))

    if not TYPE_CHECKING:  # with these in sight, a checker would believe that any field can be set

        def __setattr__(self, name: str, value: object) -> None:
            raise _unchanging(self, name)

        def __delattr__(self, name: str) -> None:
            raise _unchanging(self, name)

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """Return a copy with the fields in `update` replaced, checked as any other."""
        fields = {name: getattr(self, name) for name in self.model_fields_set} | dict(update or {})
        return type(self)(**(copy.deepcopy(fields) if deep else fields))


def _unchanging(setting: Setting, name: str) -> PolicyError:
    """Return the error of who sets or deletes a field."""
    kind = type(setting).__name__
    return PolicyError(f"a {kind} does not change: make another one, by model_copy(update={{'{name}': …}}).")


def _checked(kind: type[BaseModel], make: Callable[..., Any], /, *values: Any, **data: Any) -> Any:
    """Return what `make` does, whose mistakes read as ours."""
    try:
        return make(*values, **data)
    except ValidationError as error:
        found = _readable(error, kind)
    except UnicodeEncodeError as error:  # of half a surrogate pair, pydantic can make no message
        raise PolicyError(f"{kind.__name__}: what it holds cannot be written as text: {error}.") from error
    except RecursionError as error:
        raise PolicyError(f"{kind.__name__}: it refers to itself, or is nested too deeply.") from error
    except TypeError as error:
        # A dictionary in place of a nested setting, with keys that are not words.
        raise PolicyError(f"{kind.__name__}: the name of a field must be a word ({error}).") from error
    # Raised here, it does not hold pydantic's, which may hold it: Python sees no such circle.
    raise found.with_traceback(None)


def _readable(error: ValidationError, kind: type[BaseModel]) -> KeepbestError:
    problems = error.errors(include_url=False)
    for problem in problems:
        cause = problem.get("ctx", {}).get("error")
        if isinstance(cause, KeepbestError):
            return PolicyError(str(cause)) if type(cause) is ConfigError else cause
    # A field of several kinds has one problem for each kind that the value is not.
    fields: dict[str, list[Any]] = {}
    for problem in problems:
        fields.setdefault(str(problem["loc"][0]) if problem["loc"] else "it", []).append(problem)
    texts = "; ".join(_sentence(name, found, kind) for name, found in fields.items())
    return PolicyError(f"{kind.__name__}: {texts}{'' if texts.endswith('?') else '.'}")


def _sentence(field: str, problems: list[Any], kind: type[BaseModel]) -> str:
    first = problems[0]
    if first["type"] == "extra_forbidden":
        inside = first["input"] if isinstance(first["input"], Mapping) else ()
        if any(name in kind.model_fields for name in inside):
            return (
                f"there is no field '{field}'. Fields stand by themselves, in no section: leave out the line "
                f"[{field}], or in YAML and JSON move what is in '{field}' one level up"
            )
        return f"there is no field '{field}'.{did_you_mean(field, kind.model_fields)}".removesuffix(".")
    if first["type"] == "missing":
        return f"{field} is missing"
    wanted = dict.fromkeys(problem["msg"].replace("Input should be ", "", 1) for problem in problems)
    verb = " must be" if first["msg"].startswith("Input should be ") else ":"
    return f"{field}{verb} {' or '.join(wanted)} (got {shown(first['input'])})"
