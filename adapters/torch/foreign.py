"""Foreign: PyTorch's own files, and Lightning's, into a run and out of it. Nothing in them is run.

They are pickles, and read only as far as `torch.load(weights_only=True)` goes: tensors and plain data.
"""

from __future__ import annotations

import pickle
import re
import struct
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import torch

from ...core.foreign import Found, Lazy, Part
from ...core.position import Position
from ...core.state import source_of
from ...errors import ForeignFileError, UnsupportedStateError
from ...storage import typedjson
from ...storage.checkpoint import Checkpoint
from ...storage.printable import printable
from ...storage.tensorfile import TensorView
from . import TENSOR_FILE_METADATA, from_view

MALFORMED = (
    ArithmeticError, AssertionError, AttributeError, BufferError, EOFError, LookupError, MemoryError, OSError,
    RuntimeError, TypeError, ValueError, pickle.UnpicklingError, struct.error, zipfile.BadZipFile,
)  # fmt: skip
"""What reading a stranger's pickle can raise."""

_WEIGHTS = ("state_dict", "model_state_dict", "model", "model_state", "module", "net", "network", "weights")
_OPTIMIZERS = ("optimizer_states", "optimizer_state_dict", "optimizer", "optimizer_state", "optim", "opt")
_SCHEDULERS = ("lr_schedulers", "lr_scheduler", "scheduler_state_dict", "scheduler", "sched")
_EPOCHS = ("epoch",)
_STEPS = ("global_step", "step", "iteration", "iter")
"""The names that training loops give to the parts of what they save; the first that is there counts."""

_LIGHTNING = "pytorch-lightning_version"
_LIGHTNINGS_OWN = (_LIGHTNING, "callbacks", "loops", "hparams_name")
_LARGEST_COUNT = 2**62
_TIMES = 16
"""Views of one tensor that are stored once may be this much more, when each is stored by itself."""


@contextmanager
def read(path: Path, name: str) -> Iterator[Found]:
    """Read a file that `torch.save` or Lightning wrote; its tensors stay mapped, where the format allows it.

    Raises:
        ForeignFileError: it is damaged, or holds what cannot be had without running code.
    """
    with path.open("rb") as file:
        zipped = check_archive(str(path), file)
    loaded = load(str(path), str(path), mmap=zipped)
    yield sort_out(loaded, str(path), name, stored=path.stat().st_size)


def write_pth(path: Path, checkpoint: Checkpoint, name: str) -> None:
    """Write one object's state by `torch.save`; tied tensors are one again. Cost: one object in memory.

    Raises:
        ForeignFileError: it holds plain data that `weights_only=True` would not load.
    """
    made: dict[int, tuple[TensorView, torch.Tensor]] = {}

    def convert(view: TensorView, logical: str | None) -> torch.Tensor:
        if id(view) not in made:
            made[id(view)] = view, from_view(view, logical)
        return made[id(view)][1]

    torch.save(checkpoint.restore_state(name, lambda _tag: convert), path)
    load(str(path), f"{checkpoint.name}/{name}", mmap=True)


def check_archive(location: str, file: IO[bytes]) -> bool:
    """Say whether it is a zip file, as `torch.save` writes them, rather than the older format.

    Raises:
        ForeignFileError: it is a program, or would be unpacked to something larger.
    """
    if not zipfile.is_zipfile(file):
        file.seek(0)
        if file.read(4) == b"PK\x03\x04":  # torch would take it for one
            raise ForeignFileError(location, "it is no whole zip file.")
        return False
    try:
        with zipfile.ZipFile(file) as archive:
            members = archive.infolist()
    except MALFORMED as error:
        raise ForeignFileError(location, f"it is no whole zip file ({error!s:.200}).") from error
    if any(member.filename.endswith("/constants.pkl") for member in members):
        raise ForeignFileError(
            location,
            "it is a TorchScript program, not a state. If you trust it: "
            "torch.save(torch.jit.load(…).state_dict(), 'weights.pth'), and convert that.",
        )
    if any(member.compress_type != zipfile.ZIP_STORED for member in members):
        raise ForeignFileError(location, "it is compressed, and torch.save compresses nothing.")
    return True


def load(source: str | IO[bytes], location: str, *, mmap: bool = False) -> Any:
    """Return tensors and plain data; raises as `read`."""
    try:
        return torch.load(source, map_location="cpu", weights_only=True, mmap=mmap)
    except MALFORMED as error:
        refused = re.search(r"(?:GLOBAL|[cC]lass|type) ([\w.]+\.[\w.]+)", str(error))
        if refused is None:
            text = printable(" ".join(str(error).split()))[:200]
            raise ForeignFileError(location, f"torch cannot read it ({type(error).__name__}: {text}).") from error
        raise ForeignFileError(
            location,
            f"there is a {refused[1]} in it, and to make one, code that whoever made the file has chosen would run. "
            "Nothing was run. If you trust the file, save what you need of it without that: "
            "torch.save(torch.load(…, weights_only=False)['state_dict'], 'weights.pth'), and convert that.",
        ) from error


def sort_out(loaded: Any, location: str, name: str, *, stored: int, kind: str = "a PyTorch file") -> Found:
    """Tell weights, optimizers and the rest apart, by the names that they usually have.

    What is no dictionary of such names is taken for weights as a whole.
    """
    if not isinstance(loaded, Mapping):
        loaded = {"value": loaded}
    rest = {key: value for key, value in loaded.items() if key not in _LIGHTNINGS_OWN}
    lightning = _LIGHTNING in loaded
    weights = _take(rest, _WEIGHTS, Mapping)
    if weights is None or _is_state_dict(loaded):
        return _whole(dict(loaded), location, name, stored, kind)
    parts = {name: _part("weights", dict(weights))}
    optimizers = _several("optimizer", _take(rest, _OPTIMIZERS, Mapping | list))
    parts |= {key: _part("optimizer", value) for key, value in optimizers.items()}
    schedulers = _several("scheduler", _take(rest, _SCHEDULERS, Mapping | list))
    parts |= {key: _part("state", value) for key, value in schedulers.items()}
    epoch, step = _take_count(rest, _EPOCHS), _take_count(rest, _STEPS)
    left_out = [f"'{key}' belongs to Lightning's Trainer." for key in ("callbacks", "loops") if key in loaded]
    for key, value in rest.items():
        problem = _unplain(str(key), value, parts)
        if problem is None:
            parts[key] = _part("state", value)
        else:
            left_out.append(f"'{key}' was left out: it {problem}.")
    position = Position(next_epoch=0 if epoch is None else epoch + 1, step=step or 0)
    return Found(
        location=location,
        format=f"a checkpoint of Lightning {printable(str(loaded[_LIGHTNING]))[:20]}" if lightning else kind,
        parts=parts,
        position=position,
        complete=bool(optimizers),
        left_out=tuple(left_out),
        stored=stored,
        times=_TIMES,
    )


def _whole(loaded: dict[Any, Any], location: str, name: str, stored: int, kind: str) -> Found:
    if not loaded:
        raise ForeignFileError(location, "it is empty.")
    return Found(location=location, format=kind, parts={name: _part("weights", loaded)}, stored=stored, times=_TIMES)


def _part(role: Any, value: Any) -> Part:
    return Part(role=role, value=value, metadata=TENSOR_FILE_METADATA)


def _is_state_dict(loaded: Mapping[Any, Any]) -> bool:
    return all(isinstance(value, torch.Tensor | Lazy) for value in loaded.values())


def _take(rest: dict[Any, Any], names: tuple[str, ...], kind: Any) -> Any:
    for each in names:
        if each in rest and isinstance(rest[each], kind):
            return rest.pop(each)
    return None


def _several(name: str, states: Any) -> dict[str, Any]:
    """Return one state under the name itself, several with numbers."""
    if not isinstance(states, list):
        return {} if states is None else {name: states}
    return {name if len(states) == 1 else f"{name}_{number}": state for number, state in enumerate(states)}


def _take_count(rest: dict[Any, Any], names: tuple[str, ...]) -> int | None:
    for each in names:
        value = rest.get(each)
        if isinstance(value, torch.Tensor) and value.numel() == 1 and not value.is_floating_point():
            value = value.item()
        if type(value) is int and 0 <= value < _LARGEST_COUNT:
            del rest[each]
            return value
    return None


def _unplain(key: str, value: Any, taken: Mapping[str, Part]) -> str | None:
    """Return why a value cannot be an object of the checkpoint; None if it can."""
    if not key.isidentifier() or key in taken:
        return "has no name that an object can have"

    def tensor(path: str, leaf: Any) -> tuple[str, Any] | None:
        return (leaf.tag, None) if isinstance(leaf, Lazy) else source_of(path, leaf)

    try:
        typedjson.encode(value, key, tensor)
    except UnsupportedStateError:
        return "holds what is neither a tensor nor plain data"
    return None
