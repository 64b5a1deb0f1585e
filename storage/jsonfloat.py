"""JSON floats: how the three floats that JSON has no word for are written down, everywhere in a run and in `--json`."""

from __future__ import annotations

from collections.abc import Mapping


def float_to_json(value: float) -> float | str:
    """Return a finite float as it is, the others as "nan", "inf" or "-inf", which `float` reads."""
    return value if value - value == 0 else repr(value)


def floats_to_json(values: Mapping[str, float]) -> dict[str, float | str]:
    """Return all of `values` so."""
    return {name: float_to_json(value) for name, value in values.items()}
