"""What the bucket benchmarks save: random bytes as one file, as 200 tensors, or in the shape of a large model."""

from __future__ import annotations

import json
import warnings
from dataclasses import dataclass

import numpy as np
import torch
from safetensors.torch import save

MB, GB = 10**6, 10**9
ITEM = 4
"""Bytes of a float32."""


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """The tensors, and for one file the bytes that they are."""

    size: int
    """Bytes."""
    tensors: dict[str, torch.Tensor]
    data: bytes | None
    """None: a client of bytes has to serialize the tensors first, and its time counts."""

    def serialized(self) -> bytes:
        """Return what a client of bytes puts: the bytes at hand, or a safetensors file made in memory."""
        return save(self.tensors) if self.data is None else self.data

    def parsed(self, data: bytes | bytearray | memoryview) -> object:
        """Return what a client of bytes got: the bytes, or tensors that lie in them; nothing is copied."""
        return data if self.data is not None else tensors_in(data)

    def check(self, found: object) -> None:
        """Compare with what was downloaded.

        Raises:
            ValueError: it is something else.
        """
        if isinstance(found, dict):
            same = found.keys() == self.tensors.keys() and all(
                torch.equal(tensor, found[name]) for name, tensor in self.tensors.items()
            )
        else:
            same = self.data is not None and np.array_equal(
                np.frombuffer(found, np.uint64), np.frombuffer(self.data, np.uint64)
            )
        if not same:
            raise ValueError("what came back is not what was sent")


def one_file(size: int) -> State:
    """Return one tensor of `size` bytes, a multiple of 8; its bytes are at hand."""
    data = _numbers(size).tobytes()
    return State(size=size, tensors={"weight": _view(data, 0, size)}, data=data)


def many_tensors(size: int, count: int = 200) -> State:
    """Return `count` tensors of together `size` bytes, each in memory of its own."""
    part = size // count // ITEM
    tensors = {f"layer.{n:03d}.weight": torch.from_numpy(_numbers(part * ITEM, seed=n)) for n in range(count)}
    return State(size=part * ITEM * count, tensors=tensors, data=None)


def large_model(size: int) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """Return a model and its optimizer's state, two moments for each tensor: together about `size` bytes.

    A third of the model lies in two tensors (the embedding and the output), nearly all the rest in 224 matrices, and
    beside them stand 3,000 vectors of 16 KB and less.
    """
    model = size // 3
    rows = 3_000
    shapes = {"embed.weight": model // 6, "output.weight": model // 6}
    shapes |= {f"layer.{n:03d}.matrix": model * 62 // 100 // 224 for n in range(224)}
    shapes |= {f"layer.{n:04d}.vector": 1024 << (n % 5) for n in range(rows)}
    weights = {name: torch.from_numpy(_numbers(nbytes, seed=n)) for n, (name, nbytes) in enumerate(shapes.items())}
    moments = {
        f"{name}.{moment}": torch.from_numpy(_numbers(nbytes, seed=n))
        for moment in ("exp_avg", "exp_avg_sq")
        for n, (name, nbytes) in enumerate(shapes.items())
    }
    return weights, moments


def tensors_in(data: bytes | bytearray | memoryview) -> dict[str, torch.Tensor]:
    """Return the float32 tensors of a safetensors file, as views of `data`."""
    view = memoryview(data)
    start = 8 + int.from_bytes(view[:8], "little")
    header = json.loads(bytes(view[8:start]))
    return {
        name: _view(view, start + item["data_offsets"][0], start + item["data_offsets"][1]).reshape(item["shape"])
        for name, item in header.items()
        if name != "__metadata__"
    }


def _numbers(nbytes: int, seed: int = 0) -> np.ndarray:
    """Random bits that no server can compress, and no NaN among them, which would equal nothing."""
    bits = np.random.default_rng(seed).integers(0, 1 << 30, nbytes // ITEM, dtype=np.uint32)
    return bits.view(np.float32)


def _view(data: bytes | memoryview, begin: int, end: int) -> torch.Tensor:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it may be read-only, and nobody writes to it
        return torch.frombuffer(data, dtype=torch.float32, count=(end - begin) // ITEM, offset=begin)
