"""Companions: what belongs to an object and is saved beside it as one of its own, because its adapter says so."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..errors import ConfigError
from .registry import adapter_of

_PLAIN = "model"
"""The object whose companions are called what they are; of others, the object's name comes first."""


def with_companions(objects: Mapping[str, Any]) -> dict[str, Any]:
    """Return the objects, and their companions: of `model` its "rnn_states", of `critic` its "critic_rnn_states".

    Raises:
        ConfigError: an object has the name of a companion.
        StateError: an object is not built yet, and its companions only come into being then.
    """
    found = dict(objects)
    for name, obj in objects.items():
        companions = getattr(adapter_of(obj), "companions", None)
        for kind, companion in (companions(obj) if companions is not None else {}).items():
            own = kind if name == _PLAIN else f"{name}_{kind}"
            if own in found:
                raise ConfigError(
                    f"'{own}' is the name under which what the object '{name}' carries is saved, without being handed "
                    "over. Leave it out, or call what it is something else."
                )
            found[own] = companion
    return found
