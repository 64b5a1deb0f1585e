"""Tensor names: under which name each tensor of an object stands in its file, tied ones under one."""

from __future__ import annotations

from collections.abc import Hashable, Mapping

from .tensor import TensorSource


class TensorNames:
    """Gives each tensor its name, in the order in which they come.

    Args:
        metadata: of the file, to begin with.
    """

    def __init__(self, metadata: Mapping[str, str]) -> None:
        self.sources: dict[str, TensorSource] = {}
        """By name; each memory once."""
        self.metadata = dict(metadata)
        """With the names under which tied tensors are known besides, as safetensors has it."""
        self._ties: dict[Hashable, str] = {}

    def enter(self, wanted: str, source: TensorSource) -> str:
        """Return the name under which a tensor is stored that is called `wanted`."""
        if source.identity is not None and source.identity in self._ties:
            stored = self.metadata[wanted] = self._ties[source.identity]
            return stored
        stored = self._unused(wanted)
        self.sources[stored] = source
        if source.identity is not None:
            self._ties[source.identity] = stored
        return stored

    def _unused(self, wanted: str) -> str:
        """Return `wanted`; where a nested key spells the same name, the first of "name~2", "name~3", … that is free."""
        stored, number = wanted, 1
        while stored in self.sources or stored == "__metadata__":
            number += 1
            stored = f"{wanted}~{number}"
        return stored
