"""Constraint: what must hold of another metric before a value may count as the best."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Self

from ..errors import PolicyError


@dataclass(frozen=True, slots=True)
class Constraint:
    """One comparison of a metric with a number, such as `val_loss < 0.5`."""

    metric: str
    """The metric's name, as it is logged."""
    comparison: str
    """One of < <= > >=."""
    bound: float
    """Finite."""

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return the constraint that `text` writes.

        Raises:
            PolicyError: `text` is not of the form "name < number".
        """
        found = _FORM.fullmatch(str(text))
        if found is None:
            raise PolicyError(
                f"cannot read the constraint {text!r}. Write a metric, one of < <= > >= and a number: 'val_loss < 0.5'."
            )
        return cls(found["metric"], found["comparison"], float(found["bound"]))

    def met(self, value: float) -> bool:
        """Say whether `value` is within the bound; NaN never is."""
        return _COMPARE[self.comparison](value, self.bound)

    def __str__(self) -> str:
        bound = int(self.bound) if self.bound.is_integer() and abs(self.bound) < 1e15 else self.bound  # noqa: PLR2004
        return f"{self.metric} {self.comparison} {bound!r}"


def parse_constraints(where: str | Iterable[str]) -> tuple[Constraint, ...]:
    """Return the constraints in `where`: one text, or several.

    Raises:
        PolicyError: one of them cannot be read.
    """
    return tuple(map(Constraint.parse, (where,) if isinstance(where, str) else where))


_NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
_FORM = re.compile(
    rf"\s*(?P<metric>[^<>=\s](?:[^<>=]*[^<>=\s])?)\s*(?P<comparison><=|>=|<|>)\s*(?P<bound>{_NUMBER})\s*"
)
_COMPARE: dict[str, Callable[[float, float], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
