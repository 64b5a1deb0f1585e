"""Fence: holds up each step of an optimizer while a snapshot is being copied, and knows whose tensors that protects.

PyTorch calls a global hook before every optimizer's step: fused, with closures and compiled ones too. It does not
where a step was captured into a CUDA graph, which needs `capturable=True`, or where a class brings a `step` of its own
without the constructor of `Optimizer`: the tensors of such optimizers are not fenced.

Source: torch.optim.optimizer.register_optimizer_step_pre_hook, and `Optimizer.profile_hook_step`, which calls it.
"""

from __future__ import annotations

import weakref
from typing import Any

import torch
from torch._compile import _disable_dynamo
from torch.optim.optimizer import register_optimizer_step_pre_hook

from ...core.overlap import settle_all

_Fenced = dict[int, tuple["weakref.ref[torch.Tensor]", "weakref.ref[torch.optim.Optimizer]"]]
"""By `id`, which Python gives out again: whose it was and the optimizer must be there still."""
_OWNED: weakref.WeakKeyDictionary[torch.optim.Optimizer, _Fenced] = weakref.WeakKeyDictionary()
"""The tensors of each optimizer, as of its last capture."""
_fenced: _Fenced = {}
"""Those of all."""


def watch(optimizer: torch.optim.Optimizer) -> None:
    """Know the tensors of an optimizer, as they are now."""
    global _fenced  # noqa: PLW0603 - what is asked for each tensor must be at hand
    hooked = getattr(type(optimizer).step, "hooked", False)
    if not hooked or any(group.get("capturable") for group in optimizer.param_groups):
        _OWNED.pop(optimizer, None)
    else:
        owner = weakref.ref(optimizer)
        owned = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        for state in optimizer.state.values():
            values = state.values() if isinstance(state, dict) else (state,)  # one of all parameters, as MADGRAD's
            owned += [value for value in values if isinstance(value, torch.Tensor)]
        _OWNED[optimizer] = {id(tensor): (weakref.ref(tensor), owner) for tensor in owned}
    _fenced = {key: owned for fenced in _OWNED.values() for key, owned in fenced.items()}


def _is_fenced(tensor: torch.Tensor) -> bool:
    found = _fenced.get(id(tensor))
    return found is not None and found[0]() is tensor and found[1]() is not None


def may_guard(tensor: torch.Tensor) -> bool:
    """Say whether a fence can protect a tensor of this kind at all."""
    return tensor.device.type in ("cpu", "cuda") and not tensor.is_inference()


def version(tensor: torch.Tensor) -> int | None:
    """Return how often a tensor was changed, as far as PyTorch counts; None if no fence protects it."""
    return tensor._version if _is_fenced(tensor) else None  # noqa: SLF001 - there is no other way to it


def rests(tensor: torch.Tensor) -> int | None:
    """Return how often a frozen parameter was changed, as far as PyTorch counts; None if it is not frozen."""
    frozen = not tensor.requires_grad and not _is_fenced(tensor)
    return tensor._version if frozen else None  # noqa: SLF001 - as above


@_disable_dynamo  # `torch.compiler.disable`, without importing the compiler before something is compiled
def _before_step(*_: Any) -> None:
    """Compiled, it would be traced while a copier changes what it looks at, and the compiler gives up over that."""
    settle_all()


register_optimizer_step_pre_hook(_before_step)
