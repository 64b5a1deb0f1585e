"""Steps: what is told of two trainings, one that saves and one that does not."""

from __future__ import annotations

import statistics


def overhead_of(plain: list[float], saving: list[float]) -> dict[str, list[float]]:
    """Return the mean of each, as one block, and every single step; all in seconds."""
    return {
        "plain_10": [statistics.mean(plain)],
        "every_10": [statistics.mean(saving)],
        "plain_steps": plain,
        "saving_steps": saving,
    }
