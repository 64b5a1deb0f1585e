"""Steps: what is told of two trainings, one that saves and one that does not."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from typing import NamedTuple


def overhead_of(plain: list[float], saving: list[float]) -> dict[str, list[float]]:
    """Return the mean of each, as one block, and every single step; all in seconds."""
    return {
        "plain_10": [statistics.mean(plain)],
        "every_10": [statistics.mean(saving)],
        "plain_steps": plain,
        "saving_steps": saving,
    }


class Compared(NamedTuple):
    """What is compared; each the name of what was measured."""

    saving: str
    plain: str
    turn: str
    """Has one sample for each turn: a block with saving, and the one before it."""


STEPS = Compared("saving_steps", "plain_steps", "plain_10")
BLOCKS = Compared("every_10", "plain_10", "plain_10")
DENSE = Compared("every_1", "plain_1", "plain_1")
"""Saving every step."""


def rise(of: Callable[[str], list[float]], compared: Compared) -> float:
    """Return by what share steps are longer, in the median; not a number where nothing was measured.

    Each is compared with those of its own turn: how fast a machine is changes from one to the next, and a median of all
    would say how often it was which.
    """
    plain, saving, turns = of(compared.plain), of(compared.saving), len(of(compared.turn))
    if not turns:
        return float("nan")
    size, without = len(saving) // turns, len(plain) // turns
    usual = [statistics.median(plain[begin : begin + without]) for begin in range(0, len(plain), without)]
    return statistics.median(seconds / usual[number // size] for number, seconds in enumerate(saving)) - 1
