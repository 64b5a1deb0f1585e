"""Modules: what of a `tf.Module` is state, found by walking its attributes as TensorFlow does, and named by the way.

Each object is named by the shortest way to it ("encoder.layers.0.w"), so what two modules share is stored once. What
another adapter knows (a Keras layer, an optimizer) is left to that adapter, and stands under its name as one item.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from typing import Any

import tensorflow as tf

from ...core.registry import Adapter, adapter_of
from ...errors import StateError

_Trackable = tf.__internal__.tracking.Trackable
_PLAIN = frozenset({type(None), bool, int, float, str, bytes, complex})
_DATASETS = (tf.data.Dataset, tf.distribute.DistributedDataset)
"""Their iterators have a position, they have none."""
_NOTHING = (
    "the tf.Module '{}' has no variables to save or to restore yet. If it makes them when it is first called, call it "
    "on a batch before."
)


def capture(module: tf.Module) -> dict[str, Any]:
    """Return path → variable, trainable or not, or the state of another object; what cannot be saved stands as it is.

    Raises:
        StateError: there is nothing yet.
    """
    found = _found(module)
    if not found:
        raise StateError(_NOTHING.format(module.name))
    return {path: obj if adapter is None else adapter.capture(obj) for path, (obj, adapter) in found.items()}


def mismatches(module: tf.Module, state: Mapping[str, Any]) -> list[str]:
    """Compare paths, shapes and dtypes."""
    found = _found(module)
    if not found:
        return [_NOTHING.format(module.name)]
    problems = [f"'{path}' is not in the checkpoint" for path in found if path not in state]
    problems += [f"'{path}' is in the checkpoint and not in the module" for path in state if path not in found]
    for path, (obj, adapter) in found.items():
        if path in state and adapter is not None:
            problems += [f"'{path}': {problem}" for problem in adapter.mismatches(obj, state[path])]
    return problems


def restore(module: tf.Module, state: Mapping[str, Any]) -> None:
    """Set what is there to its state; nothing is made anew."""
    for path, (obj, adapter) in _found(module).items():
        if adapter is not None:
            adapter.restore(obj, state[path])


def holds_more(obj: Any) -> bool:
    """Say whether an object holds values that are in no variable, by what TensorFlow's own checkpoints do with it."""
    kind: Any = type(obj)
    return isinstance(obj, _Trackable) and (
        kind._serialize_to_tensors is not _Trackable._serialize_to_tensors  # noqa: SLF001 - TensorFlow's way to say so
        or kind._gather_saveables_for_checkpoint is not _Trackable._gather_saveables_for_checkpoint  # noqa: SLF001
    )


def _found(module: tf.Module) -> dict[str, tuple[Any, Adapter | None]]:
    """Return by path what is state within a module, and the adapter that knows it. Nearest first, each thing once."""
    found: dict[str, tuple[Any, Adapter | None]] = {}
    met: dict[int, Any] = {id(module): module}  # holds on to what is met, so that no `id` is given twice
    waiting: deque[tuple[str, Any]] = deque([("", module)])
    while waiting:
        way, holder = waiting.popleft()
        for key, obj in _inside(holder):
            if type(obj) in _PLAIN or id(obj) in met or isinstance(obj, _DATASETS):
                continue
            met[id(obj)] = obj
            path = f"{way}.{key}" if way else key
            adapter = adapter_of(obj)
            if isinstance(obj, tf.Module | list | tuple | deque | Mapping):
                waiting.append((path, obj))
            elif adapter is not None and adapter.role(obj) is not None:
                found[_unused(path, found)] = obj, adapter
            elif holds_more(obj):
                found[_unused(path, found)] = obj, None
            elif isinstance(obj, _Trackable):
                waiting.append((path, obj))
    return found


def _inside(holder: Any) -> Iterator[tuple[str, Any]]:
    """Yield what an object holds, and how it is called there; a module's attributes in alphabetical order."""
    if isinstance(holder, tf.Module):
        ignored = holder._TF_MODULE_IGNORED_PROPERTIES  # noqa: SLF001 - where a class of modules names its bookkeeping
        attributes = vars(holder)
        yield from ((key, attributes[key]) for key in sorted(attributes) if key not in ignored)
    elif isinstance(holder, Mapping):
        yield from ((str(key), item) for key, item in holder.items())
    elif isinstance(holder, _Trackable) and not isinstance(holder, list | tuple):
        yield from tf.train.TrackableView.children(holder).items()
    else:
        names = getattr(holder, "_fields", None) or map(str, range(len(holder)))
        yield from zip(names, holder, strict=True)


def _unused(path: str, taken: Mapping[str, Any]) -> str:
    """Return the path, or where two ways read the same, the first of "path~2", "path~3", … that is free."""
    name, number = path, 1
    while name in taken:
        number += 1
        name = f"{path}~{number}"
    return name
