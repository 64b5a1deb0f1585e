"""JSON floats: how the three floats that JSON has no word for are written down, everywhere in a run and in `--json`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from msgspec import Struct
from msgspec.structs import asdict, force_setattr

if TYPE_CHECKING:
    JsonFloat = float
else:
    JsonFloat = float | Literal["nan", "inf", "-inf"]
    """A float that stands in JSON as a number or as one of these words. A record that holds one reads the words."""


def float_to_json(value: float) -> float | str:
    """Return a finite float as it is, the others as "nan", "inf" or "-inf", which `float` reads."""
    return value if value - value == 0 else repr(value)


def floats_to_json(values: Mapping[str, float]) -> dict[str, float | str]:
    """Return all of `values` so."""
    return {name: float_to_json(value) for name, value in values.items()}


def plain(value: Any) -> Any:
    """Return a record, or nested plain data, as what JSON holds."""
    if isinstance(value, float):
        return float_to_json(value)
    if isinstance(value, Struct):
        value = asdict(value)
    if isinstance(value, Mapping):
        return {name: plain(held) for name, held in value.items()}
    return [plain(held) for held in value] if isinstance(value, list | tuple) else value


def read_floats(record: Struct, *names: str) -> None:
    """Make floats of the words in fields of a record that was just made: a float, None, or a dict of floats each."""
    for name in names:
        value = getattr(record, name)
        if isinstance(value, str):
            force_setattr(record, name, float(value))
        elif isinstance(value, dict) and any(isinstance(held, str) for held in value.values()):
            force_setattr(record, name, {key: float(held) for key, held in value.items()})
