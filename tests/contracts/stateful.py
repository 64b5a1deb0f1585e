"""Stateful objects that tests train, without a framework."""

from __future__ import annotations

import numpy as np


class Weights:
    """A Stateful with one array."""

    def __init__(self):
        self.values = np.zeros(4)

    def state_dict(self):
        return {"values": self.values}

    def load_state_dict(self, state):
        self.values = state["values"]


class Holder:
    """A Stateful whose state is whatever it is given."""

    def __init__(self, state):
        self.state = state

    def state_dict(self):
        return self.state

    def load_state_dict(self, state):
        self.state = state
