"""Foreign: PyTorch's own files, and Lightning's, into a run and out of it. Nothing in them is run.

They are pickles, and read only as far as `torch.load(weights_only=True)` goes: tensors and plain data. What
that takes itself is not bounded: a hundred bytes can have torch make a bytearray that fills the memory.
"""

from __future__ import annotations

import pickle
import re
import struct
import warnings
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import IO, Any

import torch

from ...core import object_names, rng
from ...core.foreign import Found, Lazy, Part, add_part
from ...core.position import LONGEST, Position
from ...core.state import source_of
from ...errors import ForeignFileError, UnsupportedStateError
from ...storage import typedjson
from ...storage.checkpoint import Checkpoint
from ...storage.foreign import check_size
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
_TIMES = 16
"""Views of one tensor that are stored once may be this much more, when each is stored by itself; so may plain data."""
_BY_NAMES = (
    "The optimizer's state goes by the names of parameters, and an optimizer takes it by their numbers: the checkpoint "
    "counts as weights only."
)


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

    state = checkpoint.restore_state(name, lambda _tag: convert)
    with path.open("wb") as file:  # given a name, torch keeps the system's error to itself
        try:
            torch.save(state, file)
        except RuntimeError as error:  # "unexpected pos 640 vs 598", of a full disk
            if isinstance(error.__context__, OSError):
                raise error.__context__ from None
            raise
    try:
        load(str(path), str(path), mmap=True)
    except ForeignFileError as error:
        refused = re.search(r"GLOBAL ([\w.]+)", str(error.__cause__))
        held = f"a {refused[1]}" if refused else "plain data of a kind"
        raise ForeignFileError(
            f"{checkpoint.name}/{name}",
            f"it holds {held} that a .pth for torch.load(weights_only=True) cannot have. In Python, "
            f"open_run(…).get('{checkpoint.name}').load('{name}') gives it as it is; or save the object with a list, a "
            "tuple or a dict in its place, and convert that.",
        ) from error


def check_archive(location: str, file: IO[bytes]) -> bool:
    """Say whether it is a zip file, as `torch.save` writes them, rather than the older format.

    Raises:
        ForeignFileError: it is a program, or would be unpacked to something larger.
    """
    try:
        zipped = zipfile.is_zipfile(file)
        members = zipfile.ZipFile(file).infolist() if zipped else []
    except MALFORMED as error:
        raise ForeignFileError(location, f"it is no whole zip file ({error!s:.200}).") from error
    if not zipped:
        file.seek(0)
        if file.read(4) == b"PK\x03\x04":  # torch would take it for one
            raise ForeignFileError(location, "it is no whole zip file.")
        return False
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
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Detected pickle protocol")  # it asks to file an issue
            return torch.load(source, map_location="cpu", weights_only=True, mmap=mmap)
    except MALFORMED as error:
        refused = re.search(r"(?:GLOBAL|[cC]lass|type) ([\w.]+\.[\w.]+)", str(error))
        if refused is None:
            raise ForeignFileError(
                location,
                "it is no PyTorch checkpoint, or a damaged one, or only running code that is in it could tell what it "
                f"holds ({_why(error)}). Nothing was run. If it was downloaded, see whether it came whole, and is not "
                "a page about it; where it loads, save what you need of it anew, "
                "torch.save(model.state_dict(), 'weights.pth'), and convert that.",
            ) from error
        raise ForeignFileError(
            location,
            f"there is a {refused[1]} in it, and to make one, code that whoever made the file has chosen would run. "
            "Nothing was run. If you trust the file, save what you need of it without that: "
            "torch.save(torch.load(…, weights_only=False)['state_dict'], 'weights.pth'), and convert that.",
        ) from error


def _why(error: Exception) -> str:
    """Return what torch says is wrong, without its advice, which is to run what is in the file."""
    own = re.search(r"WeightsUnpickler error:\s*(.*?)\s*(?:Check the documentation|$)", str(error), re.DOTALL)
    text = own[1] if own is not None else "" if "weights_only" in str(error) else str(error)
    return ": ".join(filter(None, [type(error).__name__, printable(" ".join(text.split()))[:200]]))


def sort_out(loaded: Any, location: str, name: str, *, stored: int, kind: str = "a PyTorch file") -> Found:
    """Tell weights, optimizers and the rest apart, by the names that they usually have.

    What is no dictionary of such names is taken for weights as a whole.
    """
    if not isinstance(loaded, Mapping):
        loaded = {"value": loaded}
    _check_plain(loaded, location, stored)
    rest = {key: value for key, value in loaded.items() if key not in _LIGHTNINGS_OWN}
    lightning = _LIGHTNING in loaded
    weights = _take(rest, _WEIGHTS, _is_mapping)
    if weights is None or _is_state_dict(loaded):
        return _whole(dict(loaded), location, name, stored, kind)
    parts = {name: _part("weights", dict(weights))}
    optimizers = _several("optimizer", _take(rest, _OPTIMIZERS, _are_optimizers))
    for key, value in optimizers.items():
        add_part(parts, key, _part("optimizer", {"state": {}, **value}), location)  # torch.distributed writes no {}
    for key, value in _several("scheduler", _take(rest, _SCHEDULERS, _is_mapping_or_list)).items():
        add_part(parts, key, _part("state", value), location)
    epoch, step = _take_count(rest, _EPOCHS), _take_count(rest, _STEPS)
    left_out = [f"'{key}' belongs to Lightning's Trainer." for key in ("callbacks", "loops") if key in loaded]
    for key, value in rest.items():
        problem = _unplain(key, value, parts)
        if problem is None:
            parts[key] = _part("state", value)
        else:
            left_out.append(f"'{key}' was left out: it {problem}.")
    by_numbers = all(_goes_by_numbers(value) for value in optimizers.values())
    next_epoch = _lightnings_next_epoch(loaded) if lightning else None
    if next_epoch is None:
        next_epoch = 0 if epoch is None else epoch + 1
    position = Position(next_epoch=next_epoch, step=step or 0)
    return Found(
        location=location,
        format=f"a checkpoint of Lightning {printable(str(loaded[_LIGHTNING]))[:20]}" if lightning else kind,
        parts=parts,
        position=position,
        complete=bool(optimizers) and by_numbers,
        left_out=(*left_out, *(() if by_numbers else (_BY_NAMES,))),
        stored=stored,
        times=_TIMES,
    )


def _check_plain(loaded: Mapping[Any, Any], location: str, stored: int) -> None:
    """Let no list that a small file holds in a thousand places be written in each."""
    try:
        check_size(location, "its plain data", typedjson.size(loaded, "it"), stored, times=_TIMES)
    except UnsupportedStateError as error:
        raise ForeignFileError(location, f"of what it holds, {error}") from error


def _whole(loaded: dict[Any, Any], location: str, name: str, stored: int, kind: str) -> Found:
    if not loaded:
        raise ForeignFileError(location, "it is empty.")
    return Found(location=location, format=kind, parts={name: _part("weights", loaded)}, stored=stored, times=_TIMES)


def _part(role: Any, value: Any) -> Part:
    return Part(role=role, value=value, metadata=TENSOR_FILE_METADATA)


def _is_state_dict(loaded: Mapping[Any, Any]) -> bool:
    return all(isinstance(value, torch.Tensor | Lazy) for value in loaded.values())


def _is_mapping(value: Any) -> bool:
    return isinstance(value, Mapping)


def _is_mapping_or_list(value: Any) -> bool:
    return isinstance(value, Mapping | list)


def _are_optimizers(value: Any) -> bool:
    """Say whether it is what an optimizer of torch's gives, or a list of such; "opt" may be the command line's."""
    return all(map(_is_optimizer, value if isinstance(value, list) else [value]))


def _is_optimizer(value: Any) -> bool:
    groups = value.get("param_groups") if isinstance(value, Mapping) else None
    return (
        isinstance(groups, list)
        and all(isinstance(group, Mapping) and isinstance(group.get("params"), list) for group in groups)
        and isinstance(value.get("state", {}), Mapping)
    )


def _goes_by_numbers(optimizer: Mapping[str, Any]) -> bool:
    """Say whether an optimizer takes its state as it is: torch numbers parameters through all groups, from 0 on."""
    numbers = chain.from_iterable(group["params"] for group in optimizer["param_groups"])
    numbered = all(type(number) is int and number == place for place, number in enumerate(numbers))
    return numbered and all(type(key) is int for key in optimizer.get("state", {}))


def _take(rest: dict[Any, Any], names: tuple[str, ...], fits: Callable[[Any], bool]) -> Any:
    for each in names:
        if each in rest and fits(rest[each]):
            return rest.pop(each)
    return None


def _several(name: str, states: Any) -> dict[str, Any]:
    """Return one state under the name itself, several with numbers."""
    if not isinstance(states, list):
        return {} if states is None else {name: states}
    return {name if len(states) == 1 else f"{name}_{number}": state for number, state in enumerate(states)}


def _take_count(rest: dict[Any, Any], names: tuple[str, ...]) -> int | None:
    for each in names:
        value: Any = rest.get(each)
        if _is_whole_number(value):
            value = value.item()
        if type(value) is int and 0 <= value <= LONGEST:
            del rest[each]
            return value
    return None


def _is_whole_number(value: Any) -> bool:
    return isinstance(value, torch.Tensor) and value.numel() == 1 and not (value.is_floating_point() or value.is_meta)


def _lightnings_next_epoch(loaded: Mapping[Any, Any]) -> int | None:
    """Return how many epochs have ended; its own "epoch" is one more once `fit` is over."""
    try:
        loop = loaded["loops"]["fit_loop"]
        current = loop["epoch_progress"]["current"]
        count = current["processed"]
        if loop["epoch_loop.batch_progress"]["is_last_batch"] is True:
            count = current["ready"]  # only validation was left of the one under way
    except (LookupError, TypeError):
        return None
    return count if type(count) is int and 0 <= count <= LONGEST else None


def _unplain(key: Any, value: Any, taken: Mapping[str, Part]) -> str | None:
    """Return why a value cannot be an object of the checkpoint; None if it can."""
    if key in taken or key == rng.NAME:
        return "has a name that is taken"
    if type(key) is not str or object_names.why_not(key) is not None:
        return "has no name that an object can have"

    def tensor(path: str, leaf: Any) -> tuple[str, Any] | None:
        return (leaf.tag, None) if isinstance(leaf, Lazy) else source_of(path, leaf)

    try:
        typedjson.encode(value, key, tensor)
    except UnsupportedStateError:
        return "holds what is neither a tensor nor plain data"
    return None
