"""PyTorch: modules, optimizers, generators and tensors.

Whatever else has `state_dict` (schedulers, GradScaler, StatefulDataLoader) is served by the generic protocol.
"""

from __future__ import annotations

import inspect
from collections.abc import Hashable, Iterator, Mapping
from typing import Any

import torch
from msgspec.structs import replace
from torch import nn

from ...core.caller import warn_caller
from ...core.tensor import Remote, TensorSource
from ...errors import UnsupportedStateError
from ...storage.arrays import COMPLEX128
from ...storage.statefile import Role
from ...storage.tensorfile import TensorView
from . import cuda, fence

NAME = "torch"
TENSOR_FILE_METADATA = {"format": "pt"}
"""transformers refuses a file without it."""

_DTYPES = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
    "I64": torch.int64, "I32": torch.int32, "I16": torch.int16, "I8": torch.int8,
    "U64": torch.uint64, "U32": torch.uint32, "U16": torch.uint16, "U8": torch.uint8,
    "BOOL": torch.bool, "C64": torch.complex64,
    "F8_E4M3": torch.float8_e4m3fn, "F8_E5M2": torch.float8_e5m2,
    "F8_E4M3FNUZ": torch.float8_e4m3fnuz, "F8_E5M2FNUZ": torch.float8_e5m2fnuz,
}  # fmt: skip
if hasattr(torch, "float8_e8m0fnu"):  # torch 2.7
    _DTYPES["F8_E8M0"] = torch.float8_e8m0fnu
_NAMES = {dtype: name for name, dtype in _DTYPES.items()}

_SHAPED_LIKE_THE_PARAMETER = frozenset(
    {
        "exp_avg",
        "exp_avg_sq",
        "max_exp_avg_sq",
        "momentum_buffer",
        "square_avg",
        "grad_avg",
        "acc_delta",
        "sum",
        "exp_inf",
    }
)


# ── objects ───────────────────────────────────────────────────────────────────────────────────────────────────────


def role(obj: Any) -> Role | None:
    """Modules are weights, optimizers optimizers; generators and bare tensors are state."""
    if isinstance(obj, nn.Module):
        return "weights"
    if isinstance(obj, torch.optim.Optimizer):
        return "optimizer"
    return "state" if isinstance(obj, torch.Generator | torch.Tensor) else None


def capture(obj: Any) -> Any:
    """Return the state dict of the plain module, whatever wraps it; of an optimizer its own."""
    if isinstance(obj, nn.Module):
        module = _unwrapped(obj)
        return dict(module.state_dict(keep_vars=True) if _takes_keep_vars(module) else module.state_dict())
    if isinstance(obj, torch.optim.Optimizer):
        fence.watch(obj)
        return obj.state_dict()
    return obj.get_state() if isinstance(obj, torch.Generator) else obj


def mismatches(obj: Any, state: Any) -> list[str]:
    """Compare keys, shapes and dtypes of a module; groups, hyperparameters and buffers of an optimizer."""
    if isinstance(obj, nn.Module):
        return list(_module_problems(_unwrapped(obj).state_dict(), state))
    if isinstance(obj, torch.optim.Optimizer):
        return list(_optimizer_problems(obj, state))
    here = obj.get_state() if isinstance(obj, torch.Generator) else obj
    return list(_tensor_problems("value", here, state))


def restore(obj: Any, state: Any) -> None:
    """Copy into the tensors that are there, on whatever device they are."""
    if isinstance(obj, nn.Module):
        module = _unwrapped(obj)
        # The versions of the modules' own formats are those of this code: `mismatches` has seen that the keys agree.
        versions = getattr(module.state_dict(), "_metadata", None)
        module.load_state_dict(_with_metadata(state, versions))  # strictly, unless the module's own knows no such word
    elif isinstance(obj, torch.optim.Optimizer):
        # load_state_dict keeps the tensors it is given where device and dtype agree: give it memory of its own.
        obj.load_state_dict(_cloned(state))
        _undo_casts(obj, state)
    elif isinstance(obj, torch.Generator):
        obj.set_state(state.clone())
    else:
        with torch.no_grad():
            obj.copy_(state)


# ── tensors ───────────────────────────────────────────────────────────────────────────────────────────────────────


def tensor(value: Any, path: str) -> TensorSource | None:
    """Return how to read a dense tensor on any device."""
    if not isinstance(value, torch.Tensor):
        return None
    if nn.parameter.is_lazy(value):
        raise UnsupportedStateError(
            path, value, why="has no values yet: call the lazy module with one batch before the Checkpointer is made"
        )
    found = value.detach()
    if found.layout != torch.strided or found.is_quantized or found.is_meta or type(found) not in _PLAIN:
        raise UnsupportedStateError(
            path, value, why=f"({_kind(found)}) is not a plain dense tensor, and only those are saved"
        )
    logical = None
    if found.dtype == torch.complex128:
        found, logical = torch.view_as_real(found.resolve_conj()), COMPLEX128
    if found.dtype not in _NAMES:
        raise UnsupportedStateError(path, value, why=f"of dtype {found.dtype} cannot be stored as a tensor")
    lies = found.device.type == "cpu" and found.is_contiguous() and bool(found.numel()) and not _lazy(found)
    guarded = fence.may_guard(value)
    return _Dense(
        dtype=_NAMES[found.dtype],
        shape=tuple(found.shape),
        logical=logical,
        identity=_identity(found) if found.numel() else None,
        remote=_remote(value, found, path) if found.device.type == "cuda" else None,
        lasts=True,
        value=value,
        stored=found,
        memory=found.reshape(-1).view(torch.uint8).numpy().data if lies else None,
        met=_met(value),
        guarded=guarded,
        may_rest=guarded and lies and isinstance(value, nn.Parameter),
    )


class _Dense(TensorSource, frozen=True, kw_only=True):
    value: torch.Tensor
    """As it stands in the state."""
    stored: torch.Tensor
    """The same memory, as it is stored."""
    memory: memoryview | None
    met: tuple[int, torch.dtype, tuple[int, ...], tuple[int, ...]]
    """Where and of what form `value` was."""
    guarded: bool
    may_rest: bool

    def view(self) -> memoryview | None:
        return self.memory

    def copy_into(self, target: memoryview) -> None:
        torch.frombuffer(target, dtype=self.stored.dtype).view(self.stored.shape).copy_(self.stored)

    def version(self) -> int | None:
        return fence.version(self.value) if self.guarded else None

    def rests(self) -> int | None:
        return fence.rests(self.value) if self.may_rest else None

    def serves(self, value: torch.Tensor) -> bool:
        return _met(value) == self.met


def _met(value: torch.Tensor) -> tuple[int, torch.dtype, tuple[int, ...], tuple[int, ...]]:
    return value.data_ptr(), value.dtype, tuple(value.shape), value.stride()


def _remote(value: torch.Tensor, stored: torch.Tensor, path: str) -> Remote:
    """Return what can be done with a tensor on a GPU; `stored` is how it is stored."""

    def queue(target: memoryview) -> None:
        torch.frombuffer(target, dtype=stored.dtype).view(stored.shape).copy_(stored, non_blocking=True)

    def clone() -> TensorSource:
        made = tensor(value.detach().clone(), path)
        assert isinstance(made, _Dense)
        return replace(made, guarded=False)

    return Remote(lane=cuda.lane_of(stored.device.index), queue=queue, clone=clone)


def _lazy(found: torch.Tensor) -> bool:
    """Say whether its values are the negatives or conjugates of what lies in memory."""
    return found.is_neg() or found.is_conj()


def from_view(view: TensorView, logical: str | None) -> torch.Tensor:
    """Return a CPU tensor on the memory of `view`."""
    dtype = _DTYPES[view.spec.dtype]
    if not view.data:
        made = torch.empty(view.spec.shape, dtype=dtype)
    else:
        made = torch.frombuffer(view.data, dtype=dtype).view(view.spec.shape)
    if logical != COMPLEX128:
        return made
    # As floats it lies on a multiple of 8 bytes, and torch's own copies of complex numbers crash on less than 16.
    return torch.view_as_complex(made.clone() if made.data_ptr() % 16 else made)


def defer(value: Any) -> Any:
    """Clone a scalar, on a device in its stream, which waits for nothing."""
    if not isinstance(value, torch.Tensor):
        return value
    return value.detach().clone()


# ── random numbers ────────────────────────────────────────────────────────────────────────────────────────────────


def capture_rng() -> Any:
    """Return the states of the CPU's generator and, where CUDA is in use, of every device's."""
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() and torch.cuda.is_initialized() else []  # type: ignore[no-untyped-call]
    return {"cpu": torch.get_rng_state(), "cuda": cuda}


def restore_rng(state: Any) -> None:
    """Set them; warns if the devices are other in number than they were."""
    torch.set_rng_state(state["cpu"].clone())
    devices = torch.cuda.device_count() if state["cuda"] else 0
    if devices == len(state["cuda"]):
        for number, device in enumerate(state["cuda"]):
            torch.cuda.set_rng_state(device.clone(), number)
    else:
        warn_caller(
            f"the checkpoint holds the random numbers of {len(state['cuda'])} CUDA devices, here are {devices}: they "
            "were left as they are, so training goes on, but not bit for bit as it would have."
        )


# ── helpers ───────────────────────────────────────────────────────────────────────────────────────────────────────

_PLAIN = (torch.Tensor, nn.Parameter, nn.Buffer) if hasattr(nn, "Buffer") else (torch.Tensor, nn.Parameter)


def _identity(tensor: torch.Tensor) -> Hashable:
    """Return what is equal for tensors of equal memory and equal values; a lazy conjugate shares only the memory."""
    return *_met(tensor), tensor.device, tensor.is_conj(), tensor.is_neg()


def _kind(value: torch.Tensor) -> str:
    if value.is_meta:
        return "meta, without values"
    return (
        str(value.layout)
        if value.layout != torch.strided
        else "quantised"
        if value.is_quantized
        else type(value).__name__
    )


def _unwrapped(module: nn.Module) -> nn.Module:
    """Return the user's own module inside torch.compile, DataParallel and DistributedDataParallel."""
    while True:
        inner = getattr(module, "_orig_mod", None)
        if inner is None and isinstance(module, nn.DataParallel | nn.parallel.DistributedDataParallel):
            inner = module.module
        if not isinstance(inner, nn.Module):
            return module
        module = inner


def _takes_keep_vars(module: nn.Module) -> bool:
    """Say whether it gives the parameters themselves; what a method of its own gives without is copied at once."""
    if type(module).state_dict is nn.Module.state_dict:
        return True
    takes = inspect.signature(module.state_dict).parameters.values()
    return any(each.name == "keep_vars" or each.kind is inspect.Parameter.VAR_KEYWORD for each in takes)


def _module_problems(here: Mapping[str, Any], stored: Mapping[str, Any]) -> Iterator[str]:
    for key in here:
        if key not in stored:
            yield f"'{key}' is not in the checkpoint"
    for key, value in stored.items():
        if key not in here:
            yield f"'{key}' is in the checkpoint and not in the module"
        else:
            yield from _tensor_problems(key, here[key], value)


def _tensor_problems(key: str, here: Any, stored: Any) -> Iterator[str]:
    if not isinstance(here, torch.Tensor):
        return
    if not isinstance(stored, torch.Tensor):
        yield f"'{key}' is a {type(stored).__name__} in the checkpoint, a tensor here"
    elif here.shape != stored.shape:
        yield f"'{key}' has shape {tuple(stored.shape)} in the checkpoint, {tuple(here.shape)} here"
    elif here.dtype != stored.dtype:
        yield f"'{key}' is {stored.dtype} in the checkpoint, {here.dtype} here"


def _optimizer_problems(optimizer: torch.optim.Optimizer, stored: Mapping[str, Any]) -> Iterator[str]:
    groups, here = stored["param_groups"], optimizer.param_groups
    if len(groups) != len(here):
        yield f"it has {len(groups)} parameter groups in the checkpoint, {len(here)} here"
        return
    # Flags come with new releases of torch, numbers do not: a number that is missing means another algorithm.
    numbers = {name for name, value in optimizer.defaults.items() if isinstance(value, float | tuple)}
    for number, (group, own) in enumerate(zip(groups, here, strict=True)):
        if len(group["params"]) != len(own["params"]):
            yield f"group {number} has {len(group['params'])} parameters in the checkpoint, {len(own['params'])} here"
            continue
        if missing := sorted(numbers - set(group)):
            yield f"group {number} has no {', '.join(missing)}: the checkpoint's is another kind of optimizer"
        for index, parameter in zip(group["params"], own["params"], strict=True):
            for name, value in _state_of(stored, index).items():
                if (
                    name in _SHAPED_LIKE_THE_PARAMETER
                    and isinstance(value, torch.Tensor)
                    and value.shape != parameter.shape
                ):
                    yield (
                        f"'{name}' of parameter {index} has shape {tuple(value.shape)} in the checkpoint, "
                        f"{tuple(parameter.shape)} here"
                    )


def _state_of(stored: Mapping[str, Any], index: int) -> Mapping[str, Any]:
    """Return what an optimizer keeps for a parameter; one that keeps something else under a number has none for it."""
    found = stored["state"].get(index, {})
    return found if isinstance(found, dict) else {}


def _undo_casts(optimizer: torch.optim.Optimizer, stored: Mapping[str, Any]) -> None:
    """Give back its dtype to what load_state_dict cast to the parameter's, such as NAdam's products of bfloat16."""
    parameters = (parameter for group in optimizer.param_groups for parameter in group["params"])
    indices = (index for group in stored["param_groups"] for index in group["params"])
    for parameter, index in zip(parameters, indices, strict=True):
        held = optimizer.state.get(parameter, {})
        for name, value in _state_of(stored, index).items():
            cast = held.get(name)
            if isinstance(value, torch.Tensor) and isinstance(cast, torch.Tensor) and cast.dtype != value.dtype:
                held[name] = value.to(cast.device, copy=True)


def _with_metadata(state: Mapping[str, Any], versions: Any) -> dict[str, Any]:
    made = _StateDict(state)
    made._metadata = versions  # noqa: SLF001 - where load_state_dict looks for it
    return made


class _StateDict(dict[str, Any]):
    _metadata: Any


def _cloned(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return value.clone()
    if isinstance(value, dict):
        return {key: _cloned(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_cloned(item) for item in value]
    return tuple(_cloned(item) for item in value) if isinstance(value, tuple) else value
