"""CUDA: copies from a GPU to pinned host memory, in a stream beside those of training, and without waiting for any.

A snapshot marks a moment of the training stream. The side stream waits for that moment, copies, and marks its own end,
for which the training stream waits before the next optimizer step. Only the thread that copies waits by itself.

Source: the CUDA programming guide, "Overlap of Data Transfer and Kernel Execution": host memory must be page-locked.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator

import torch


@functools.cache
def lane_of(index: int) -> Lane:
    """Return the lane of a GPU, by its number."""
    return Lane(torch.device("cuda", index))


class Lane:
    """The way from one GPU to host memory."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]

    def mark(self) -> Moment:
        """Mark this moment of the calling thread's stream."""
        return Moment(self)

    def pin(self, block: memoryview) -> Callable[[], None]:
        """Lock host memory in place, so that the GPU writes to it by itself; returns what lets go of it.

        Where the driver refuses (a limit on locked memory), nothing is lost but that copies then block the copier.
        """
        address = torch.frombuffer(block, dtype=torch.uint8).data_ptr()
        runtime = torch.cuda.cudart()  # type: ignore[no-untyped-call]
        with torch.cuda.device(self.device):
            refused = int(runtime.cudaHostRegister(address, len(block), 0))
        if refused:
            return lambda: None
        return lambda: runtime.cudaHostUnregister(address)


class Moment:
    """A moment of a stream, at which tensors had the values that are copied."""

    def __init__(self, lane: Lane) -> None:
        self._lane = lane
        self._marked = torch.cuda.Event()  # type: ignore[no-untyped-call]
        self._copied = torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]
        self._marked.record(torch.cuda.current_stream(lane.device))

    @contextlib.contextmanager
    def copying(self) -> Iterator[None]:
        """Queue copies, in the block, behind this moment and beside what training queues."""
        stream = self._lane.stream
        with torch.cuda.stream(stream):
            stream.wait_event(self._marked)
            try:
                yield
            finally:
                self._copied.record(stream)

    def hold_up(self) -> None:
        """Have what the calling thread queues from now on run behind the copies; waits for nothing itself."""
        torch.cuda.current_stream(self._lane.device).wait_event(self._copied)

    def finish(self) -> None:
        """Wait until everything is copied."""
        self._copied.synchronize()
