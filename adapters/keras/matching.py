"""Matching: which stored tensor belongs to which variable: by path, or by rank where Keras only counted otherwise."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence

import keras
import numpy as np
from msgspec import Struct

from .tensors import Array, dtype_of

_COUNTER = re.compile(r"_\d+(?=[/_~]|$)")
"""What Keras appends to the names it gives: the second Dense of a process is dense_1, wherever it is used."""

_NAMELESS = "variable"

OPTIMIZER = "optimizer"
"""What the owner of an optimizer's variables is called."""


class Pair(Struct, frozen=True):
    """A stored tensor and the variable it is for."""

    path: str
    """In the checkpoint."""
    stored: Array
    variable: keras.Variable

    def problems(self) -> Iterator[str]:
        """Yield every way in which they differ."""
        here, there = tuple(self.variable.shape), self.stored.shape
        if here != there:
            yield f"'{self.path}' has shape {there} in the checkpoint, {here} here"
        if self.stored.dtype.name != dtype_of(self.variable) and not self._counts_otherwise():
            yield f"'{self.path}' is {self.stored.dtype.name} in the checkpoint, {dtype_of(self.variable)} here"

    def _counts_otherwise(self) -> bool:
        """Say whether both are integers, of another width here, into which every value fits.

        The seed of a generator is uint32 on JAX, int64 on TensorFlow, int32 on PyTorch; an optimizer's step too.
        """
        stored, here = self.stored.dtype, dtype_of(self.variable)
        if stored.kind not in "iu" or not here.startswith(("int", "uint")) or stored.name == here:
            return False
        return bool(np.array_equal(self.stored.astype(here).astype(object), self.stored.astype(object)))


def named(variables: Sequence[keras.Variable]) -> dict[str, keras.Variable]:
    """Return the variables by path, in order; of equal paths the second is called "path~2", and so on."""
    found: dict[str, keras.Variable] = {}
    for variable in variables:
        path, number = variable.path, 1
        while path in found:
            number += 1
            path = f"{variable.path}~{number}"
        found[path] = variable
    return found


def pairs(here: Mapping[str, keras.Variable], stored: Mapping[str, Array], *, owner: str) -> list[Pair]:
    """Return what belongs together; what has no counterpart is left out.

    What a model is called does not matter; what an optimizer is called says what it is.
    """
    if here.keys() != stored.keys():
        renamed = owner != OPTIMIZER and _are_below_one_name(here) and _are_below_one_name(stored)
        for rank in (_rank, _rank_without_scope, *((_rank_below,) if renamed else ())):
            ours, theirs = sorted(here, key=rank), sorted(stored, key=rank)
            if [rank(path)[0] for path in ours] == [rank(path)[0] for path in theirs]:
                belonging = dict(zip(ours, theirs, strict=True))
                return [Pair(belonging[path], stored[belonging[path]], variable) for path, variable in here.items()]
    return [Pair(path, stored[path], variable) for path, variable in here.items() if path in stored]


def problems(here: Mapping[str, keras.Variable], stored: Mapping[str, Array], *, owner: str) -> list[str]:
    """Return every difference between the variables of `owner` and what is stored for them."""
    matched = pairs(here, stored, owner=owner)
    found = [problem for pair in matched for problem in pair.problems()]
    if len(matched) == len(here) == len(stored):
        return found
    found += [f"'{path}' is not in the checkpoint" for path in here if path not in stored]
    return found + [f"'{path}' is in the checkpoint and not in the {owner}" for path in stored if path not in here]


def _rank(path: str) -> tuple[str, list[int]]:
    """Return the path without counters, and the counters: of layers of one kind, the one made first comes first."""
    return _COUNTER.sub("", path), [int(match[1:]) for match in _COUNTER.findall(path)]


def _rank_without_scope(path: str) -> tuple[str, list[int]]:
    """Return the rank; of a variable that was given no name without where it was made.

    Nadam makes one in the optimizer's scope in its first step, and in none when it is built before.
    """
    plain, counters = _rank(path)
    return (_NAMELESS if plain.endswith(f"/{_NAMELESS}") else plain), counters


def _are_below_one_name(paths: Collection[str]) -> bool:
    """Say whether all are of layers below one name, a model's, as those of a Sequential are."""
    return len({path.partition("/")[0] for path in paths}) == 1 and all(path.count("/") > 1 for path in paths)


def _rank_below(path: str) -> tuple[str, list[int]]:
    """Return the rank without the name of the model, which whoever builds it anew may call otherwise."""
    return _rank(path.partition("/")[2])
