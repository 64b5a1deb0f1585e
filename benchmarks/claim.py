"""Memory is claimed before it is measured what somebody does with it.

In a virtual machine the first touch of memory that the host has not handed over yet, or has taken back, takes many
times as long as any later one: measured here, 4.7 s for 1 GB, then 0.2 s. Who is measured first would pay for all.
"""

from __future__ import annotations

import numpy as np


def claim(nbytes: int) -> None:
    """Touch so much memory, and let go of it."""
    np.empty(nbytes, np.uint8)[::4096] = 1
