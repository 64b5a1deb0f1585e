"""The trainings whose state is saved: a module, AdamW with its moments, and one training step."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn


@dataclass(slots=True, kw_only=True)
class Training:
    """What a script holds while it trains."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    loss: Callable[[], torch.Tensor]
    _entered: float = field(default=0.0, init=False)

    def step(self, fence: Callable[[], None] = lambda: None) -> float:
        """Train one step; return the seconds between the end of backward and the begin of the update.

        That is where a snapshot that overlaps with training has to be waited for: by `fence`, where the script does
        that itself, or by a hook of the optimizer. Without either it is some microseconds.
        """
        self.optimizer.zero_grad(set_to_none=True)
        self.loss().backward()
        begin = time.perf_counter()
        fence()
        self.optimizer.step()
        return self._entered - begin

    def watch(self) -> None:
        """Note when the update begins. To be called last: hooks run in the order in which they came."""

        def enter(*_: Any) -> None:
            self._entered = time.perf_counter()

        self.optimizer.register_step_pre_hook(enter)

    def rest(self) -> None:
        """Let go of what a step leaves behind and no checkpoint holds."""
        self.optimizer.zero_grad(set_to_none=True)

    def state(self) -> dict[str, Any]:
        """Return what a script hands to its framework; no copy."""
        return {"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict()}

    def load(self, state: dict[str, Any]) -> None:
        """Take a state as `state` returns it."""
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])

    def tensors(self) -> dict[str, torch.Tensor]:
        """Return the same by flat names, tied tensors once; no copy."""
        named = {f"model.{name}": tensor for name, tensor in self.model.state_dict().items()}
        for number, moments in self.optimizer.state_dict()["state"].items():
            named |= {f"optimizer.{number}.{name}": tensor for name, tensor in moments.items()}
        once = {tensor.data_ptr(): name for name, tensor in reversed(named.items())}
        return {name: named[name] for name in sorted(once.values())}

    @property
    def nbytes(self) -> int:
        """Bytes of the state, tied tensors once."""
        return sum(tensor.nbytes for tensor in self.tensors().values())


def _training(model: nn.Module, loss: Callable[[], torch.Tensor]) -> Training:
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    training = Training(model=model, optimizer=torch.optim.AdamW(trained, lr=1e-5), loss=loss)
    training.step()  # now the optimizer has its moments
    return training


def few_large(megabytes: int, batch: int = 32) -> Training:
    """Return four square matrices; with their moments they are that many MB (10⁶ bytes)."""
    width = int((megabytes * 10**6 / (4 * 4 * 3)) ** 0.5)
    model = nn.Sequential(*(layer for _ in range(4) for layer in (nn.Linear(width, width, bias=False), nn.ReLU())))
    inputs = torch.randn(batch, width)
    return _training(model, lambda: model(inputs).square().mean())


class _ManySmall(nn.Module):
    def __init__(self, count: int, size: int) -> None:
        super().__init__()
        self.parts = nn.ParameterList(torch.randn(size) for _ in range(count))

    def forward(self) -> torch.Tensor:
        return torch.stack([part.square().sum() for part in self.parts]).mean()


def many_small() -> Training:
    """Return 3,334 vectors of 6,000 numbers; with their moments, some 10,000 tensors (and 3,334 counters)."""
    model = _ManySmall(3_334, 6_000)
    return _training(model, model)


class _Block(nn.Module):
    def __init__(self, given: int, width: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(given, width, 3, stride, 1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, 1, 1, bias=False),
            nn.BatchNorm2d(width),
        )
        self.skip = nn.Sequential(nn.Conv2d(given, width, 1, stride, bias=False), nn.BatchNorm2d(width))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.body(images) + self.skip(images))


def resnet() -> Training:
    """Return a ResNet of 18 layers with BatchNorm, 11 million parameters, on small images."""
    widths = (64, 64, 128, 128, 256, 256, 512, 512)
    blocks = [_Block(a, b, 1 + (a != b)) for a, b in zip((64, *widths[:-1]), widths, strict=True)]
    stem = (nn.Conv2d(3, 64, 3, 1, 1, bias=False), nn.BatchNorm2d(64), nn.ReLU())
    model = nn.Sequential(*stem, *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, 10))
    images = torch.randn(8, 3, 32, 32)
    return _training(model, lambda: model(images).square().mean())


class _Transformer(nn.Module):
    def __init__(self, words: int, width: int, layers: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(words, width)
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(width, 8, 4 * width, batch_first=True) for _ in range(layers)
        )
        self.head = nn.Linear(width, words, bias=False)
        self.head.weight = self.embedding.weight

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        found = self.embedding(tokens)
        for layer in self.layers:
            found = layer(found)
        return self.head(found)


def transformer(*, frozen: bool) -> Training:
    """Return a transformer of 23 million parameters with tied embeddings; frozen: less than 5 % of them train."""
    model = _Transformer(8_000, 512, 6)
    if frozen:
        model.requires_grad_(False)
        model.layers[-1].linear2.requires_grad_(True)
    tokens = torch.randint(0, 8_000, (2, 16))
    return _training(model, lambda: model(tokens).square().mean())


MODELS: dict[str, Callable[[], Training]] = {
    "few large tensors, 1 GiB": lambda: few_large(1074, batch=8),
    "few large tensors, 0.5 GB": lambda: few_large(502),
    "few large tensors, 0.1 GB": lambda: few_large(100),
    "10,000 small tensors": many_small,
    "ResNet with BatchNorm": resnet,
    "transformer, tied, 95 % frozen": lambda: transformer(frozen=True),
    "transformer, tied, all training": lambda: transformer(frozen=False),
}
