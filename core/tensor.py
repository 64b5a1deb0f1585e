"""TensorSource: how core reads a tensor of any framework into host memory, without knowing the framework."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable
from contextlib import AbstractContextManager
from typing import Any, Protocol

import numpy as np
from msgspec import Struct

from ..errors import UnsupportedStateError
from ..storage.arrays import COMPLEX128, dtype_name
from ..storage.file_hasher import PIECE

Came = Callable[[int, int], None]
_SLOW = 0.005
"""Seconds for a piece that say that the interpreter was waited for: a copy takes a hundredth of that."""


class Moment(Protocol):
    """A moment in what an accelerator computes, at which tensors had the values that are copied."""

    def copying(self) -> AbstractContextManager[None]:
        """Queue copies, in the block, behind this moment and beside what training queues."""

    def hold_up(self) -> None:
        """Have what the calling thread queues from now on run behind the copies; waits for nothing itself."""

    def finish(self) -> None:
        """Wait until everything is copied."""


class Lane(Protocol):
    """The way from an accelerator to host memory."""

    def mark(self) -> Moment:
        """Mark this moment of the calling thread's work."""

    def pin(self, block: memoryview) -> Callable[[], None]:
        """Lock host memory in place, so that the accelerator writes to it by itself; returns what lets go of it."""


class Remote(Struct, frozen=True, kw_only=True):
    """What can be done with a tensor that lies on an accelerator."""

    lane: Lane
    queue: Callable[[memoryview], None]
    """Have the bytes copied; between `mark` and `finish`."""
    clone: Callable[[], TensorSource]
    """Return a source of a copy that lies there too, and is made in the order of the calling thread's work."""


class TensorSource(Struct, frozen=True, kw_only=True, eq=False):
    """A live tensor that can be copied into staging; each framework has a class of its own for its tensors.

    There is one of these for each tensor of a training, for as long as that goes on, and Python's collector of garbage
    looks at every object: so what a tensor can do are methods, and no functions made for it.
    """

    dtype: str
    """The safetensors name it is stored as."""
    shape: tuple[int, ...]
    """As it is stored."""
    logical: str | None = None
    """`COMPLEX128` where the last axis of `shape` holds (real, imaginary)."""
    identity: Hashable | None = None
    """Equal for tensors that are the same memory seen in the same way (tied weights); None: never the same."""
    held: bool = False
    """The values stay as they are while this is kept, whatever training does: assigning copies, or never happens."""
    lets_go: bool = False
    """Assigning to what is held copies, until `let_go` was called."""
    remote: Remote | None = None
    """Given where the tensor lies on an accelerator that copies while it computes."""
    lasts: bool = False
    """The next snapshot may meet the same tensor, and need none made anew; see `serves`."""
    unwrap: Callable[[Any], Any] | None = None
    """Returns the tensor that what stands in the state holds; None: it is the tensor itself."""

    def view(self) -> memoryview | None:
        """Return the bytes where they lie, if they lie contiguously in host memory."""
        return None

    def copy_into(self, target: memoryview) -> None:
        """Fill a writable view of exactly the tensor's bytes, C order."""
        lies = self.view()
        if lies is None:
            raise NotImplementedError(f"{type(self).__name__} has neither a view nor a way to copy")
        target[:] = lies

    def let_go(self) -> None:
        """Hold the values no longer: somebody else has them."""

    def version(self) -> object:
        """Return what changes with the values, where a fence holds up whatever may change them; None: none does."""
        return None

    def rests(self) -> object:
        """Return what stays equal until somebody is known to have changed the values; None: somebody trains them."""
        return None

    def serves(self, value: Any) -> bool:  # noqa: ARG002 - for those that last
        """Say whether this reads the tensor `value`, as it is now."""
        return False

    def is_still(self, value: Any) -> bool:
        """Say whether this reads what now stands in the state, so that none is made anew."""
        return self.lasts and self.serves(value if self.unwrap is None else self.unwrap(value))

    @property
    def facts(self) -> tuple[str, tuple[int, ...], str | None]:
        """What a file says of the tensor."""
        return self.dtype, self.shape, self.logical

    def fill(self, target: memoryview, came: Came | None = None) -> None:
        """Copy the bytes to `target`, in this thread alone, and letting others run meanwhile.

        `came` is told begin and end of each piece while that is in the cache. Where the interpreter is so busy that a
        piece has to wait for it, the rest is one piece.
        """
        lies = self.view()
        if lies is None:
            self.copy_into(target)
            if came is not None:
                came(0, len(target))
            return
        source, copied = np.frombuffer(lies, np.uint8), np.frombuffer(target, np.uint8)
        begin, piece = 0, len(copied) if came is None else PIECE
        while begin < len(copied):
            since, end = time.monotonic(), min(begin + piece, len(copied))
            np.copyto(copied[begin:end], source[begin:end])
            if came is not None:
                came(begin, end)
            if time.monotonic() - since > _SLOW:
                piece = len(copied)
            begin = end


class Lying(TensorSource, frozen=True, kw_only=True):
    """A tensor whose bytes are known to lie in host memory."""

    lies: memoryview

    def view(self) -> memoryview:
        """Return them."""
        return self.lies


class _Array(TensorSource, frozen=True, kw_only=True):
    array: np.ndarray[Any, Any]
    """As it is stored."""

    def view(self) -> memoryview | None:
        array = self.array
        return array.reshape(-1).view(np.uint8).data if array.flags.c_contiguous and array.size else None

    def copy_into(self, target: memoryview) -> None:
        np.copyto(np.frombuffer(target, self.array.dtype).reshape(self.array.shape), self.array)


def numpy_source(value: np.ndarray[Any, Any] | np.generic, path: str) -> TensorSource:
    """Return how to read a NumPy array or scalar.

    Raises:
        UnsupportedStateError: its dtype is none that a tensor file can hold (object, str, datetime, …); or it is
            masked.
    """
    if isinstance(value, np.ma.MaskedArray):
        raise UnsupportedStateError(path, value, why="would lose its mask; save its data and its mask as two arrays")
    array = np.asarray(value)
    if not array.dtype.isnative:
        array = array.astype(array.dtype.newbyteorder("="))
    shape: tuple[int, ...] = array.shape
    logical = None
    if array.dtype.name == "complex128":
        array = np.ascontiguousarray(array).view(np.float64).reshape((*shape, 2))
        logical = COMPLEX128
    dtype = dtype_name(array.dtype.name)
    if dtype is None:
        raise UnsupportedStateError(path, value, why=f"of dtype {array.dtype} cannot be stored as a tensor")
    return _Array(dtype=dtype, shape=tuple(array.shape), logical=logical, array=array)
