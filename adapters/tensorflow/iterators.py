"""Iterators: where a `tf.data` iterator stands, what lies in its shuffle buffers included, as one row of bytes.

TensorFlow promises nothing about these bytes between versions of its own, and they fit one pipeline only.
"""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from ...errors import StateError, UnsupportedStateError


def concerns(obj: Any) -> bool:
    """Say whether an object is an iterator, or what people take for one."""
    return isinstance(
        obj, tf.data.Iterator | tf.data.Dataset | tf.distribute.DistributedIterator | tf.distribute.DistributedDataset
    )


def capture(iterator: Any) -> Any:
    """Return plain data and one tensor of bytes; what cannot be saved as it is, for `check` to say why.

    Cost: a copy or two of the elements in its shuffle and prefetch buffers, while training waits.
    """
    if not isinstance(iterator, tf.data.Iterator):
        return iterator
    try:
        pieces = [tf.io.serialize_tensor(piece) for piece in tf.unstack(_position(iterator))]
    except tf.errors.OpError:
        return iterator
    return {
        "elements": _elements(iterator),
        "lengths": [int(tf.strings.length(piece)) for piece in pieces],
        "bytes": tf.io.decode_raw(tf.strings.join(pieces), tf.uint8),
    }


def check(path: str, value: Any) -> None:
    """Raise if `value` is an iterator, or taken for one: what `capture` saves of it holds none.

    Raises:
        UnsupportedStateError: says why it cannot be saved.
    """
    if not concerns(value):
        return
    why = "has no position of its own: hand over one iterator for all epochs, made by iter(dataset.repeat())"
    if isinstance(value, tf.distribute.DistributedIterator):
        why = "reads for several replicas, and TensorFlow does not say where it stands"
    elif isinstance(value, tf.data.Iterator):
        why = "is to be handed over by a name of its own, not within other data"
        try:
            _position(value)
        except tf.errors.OpError as error:
            why = f"cannot say where it stands ({error.message:.300})"
    raise UnsupportedStateError(path, value, why=why)


def mismatches(iterator: Any, state: Any) -> list[str]:
    """Compare what the elements are, and have the iterator take the state and then its own again."""
    here = _elements(iterator)
    if here != state["elements"]:
        return [f"the iterator's elements are {state['elements']} in the checkpoint, {here} here"]
    before = _position(iterator)
    try:
        _set(iterator, _variant(state))
    except tf.errors.OpError as error:
        return [f"the iterator does not take its position, so its dataset is another: {error.message:.300}"]
    finally:
        _set(iterator, before)
    return []


def restore(iterator: Any, state: Any) -> None:
    """Have the iterator go on where it stood."""
    _set(iterator, _variant(state))


def _elements(iterator: tf.data.Iterator) -> str:
    return str(iterator.element_spec)


def _position(iterator: tf.data.Iterator) -> tf.Tensor:
    """Return where it stands, as TensorFlow's own checkpoints have it: a vector of variants."""
    return iterator._serialize_to_tensors()["_STATE"]  # noqa: SLF001 - its public way leads through files


def _set(iterator: tf.data.Iterator, position: tf.Tensor) -> None:
    iterator._restore_from_tensors({"_STATE": position})  # noqa: SLF001 - as above


def _variant(state: Any) -> tf.Tensor:
    data, pieces, begin = memoryview(state["bytes"].numpy()), [], 0
    for length in state["lengths"]:
        pieces.append(tf.io.parse_tensor(bytes(data[begin : begin + length]), tf.variant))
        begin += length
    if begin != len(data):
        raise StateError(f"the position of an iterator has {len(data)} bytes, and not {begin}.")
    return tf.stack(pieces)
