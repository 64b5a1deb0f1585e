"""Every optimizer and scheduler of torch.optim goes on after a restore exactly as it would have without."""

from __future__ import annotations

import inspect

import pytest
import torch
from contracts.torch_optimizers import OPTIMIZERS, SETTINGS
from torch import nn
from torch.optim import lr_scheduler

from keepbest import Checkpointer, CheckpointPolicy

SCHEDULERS = {
    "LambdaLR": lambda o: lr_scheduler.LambdaLR(o, lambda epoch: 0.9**epoch),
    "MultiplicativeLR": lambda o: lr_scheduler.MultiplicativeLR(o, lambda epoch: 0.9),
    "StepLR": lambda o: lr_scheduler.StepLR(o, 2),
    "MultiStepLR": lambda o: lr_scheduler.MultiStepLR(o, [1, 3, 3, 5]),
    "ConstantLR": lambda o: lr_scheduler.ConstantLR(o, 0.5, 3),
    "LinearLR": lambda o: lr_scheduler.LinearLR(o, 0.1, total_iters=5),
    "ExponentialLR": lambda o: lr_scheduler.ExponentialLR(o, 0.9),
    "PolynomialLR": lambda o: lr_scheduler.PolynomialLR(o, 7),
    "CosineAnnealingLR": lambda o: lr_scheduler.CosineAnnealingLR(o, 6),
    "CosineAnnealingWarmRestarts": lambda o: lr_scheduler.CosineAnnealingWarmRestarts(o, 3),
    "CyclicLR": lambda o: lr_scheduler.CyclicLR(o, 0.01, 0.1, step_size_up=2),
    "OneCycleLR": lambda o: lr_scheduler.OneCycleLR(o, 0.1, total_steps=9),
    "ReduceLROnPlateau": lambda o: lr_scheduler.ReduceLROnPlateau(o, patience=1),
    "SequentialLR": lambda o: lr_scheduler.SequentialLR(
        o, [lr_scheduler.ConstantLR(o, 0.1, 2), lr_scheduler.ExponentialLR(o, 0.9)], [2]
    ),
    "ChainedScheduler": lambda o: lr_scheduler.ChainedScheduler(
        [lr_scheduler.ConstantLR(o, 0.1, 2), lr_scheduler.ExponentialLR(o, 0.9)], optimizer=o
    ),
    "SWALR": lambda o: torch.optim.swa_utils.SWALR(o, 0.05),
}


def model_for(name):
    torch.manual_seed(0)
    if name == "SparseAdam":
        return nn.Embedding(10, 4, sparse=True)
    return nn.Linear(6, 4, bias=name != "Muon")


def step(model, optimizer, number):
    """One training step on data that depends on `number` only."""
    generator = torch.Generator().manual_seed(number)

    def closure():
        optimizer.zero_grad()
        if isinstance(model, nn.Embedding):
            loss = model(torch.randint(0, 10, (5,), generator=generator)).square().sum()
        else:
            loss = model(torch.randn(8, 6, generator=torch.Generator().manual_seed(number))).square().mean()
        loss.backward()
        return loss

    if isinstance(optimizer, torch.optim.LBFGS):
        optimizer.step(closure)
    else:
        closure()
        optimizer.step()


@pytest.mark.parametrize("name", sorted(OPTIMIZERS))
def test_an_optimizer_continues_bit_for_bit(tmp_path, name):
    """Three steps, save, three steps; restored elsewhere, the last three lead to the same weights and state."""

    def make():
        model = model_for(name)
        groups = [{"params": list(model.parameters()), **({"lr": 0.03} if name != "LBFGS" else {})}]
        return model, OPTIMIZERS[name](groups if name != "LBFGS" else model.parameters(), **SETTINGS.get(name, {}))

    model, optimizer = make()
    for number in range(3):
        step(model, optimizer, number)
    with Checkpointer(str(tmp_path / "run"), CheckpointPolicy(), model=model, optimizer=optimizer) as ckpt:
        ckpt.save().result()
        for number in range(3, 6):
            step(model, optimizer, number)
    other, other_optimizer = make()
    with Checkpointer(str(tmp_path / "run"), model=other, optimizer=other_optimizer) as ckpt:
        ckpt.resume()
    for number in range(3, 6):
        step(other, other_optimizer, number)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), other.parameters(), strict=True))
    for one, two in zip(optimizer.state.values(), other_optimizer.state.values(), strict=True):
        assert one.keys() == two.keys()
        for key, value in one.items():
            found = two[key]
            assert torch.equal(value, found) if isinstance(value, torch.Tensor) else str(value) == str(found), key


@pytest.mark.parametrize("name", sorted(SCHEDULERS))
def test_a_scheduler_continues_where_it_was(tmp_path, name):
    """The learning rates after a restore are those that would have come."""

    def make():
        model = nn.Linear(2, 2)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        return optimizer, SCHEDULERS[name](optimizer)

    def advance(optimizer, scheduler, times):
        rates = []
        for _ in range(times):
            optimizer.step()
            scheduler.step(*([1.0] if name == "ReduceLROnPlateau" else []))
            rates.append([group["lr"] for group in optimizer.param_groups])
        return rates

    optimizer, scheduler = make()
    advance(optimizer, scheduler, 3)
    with Checkpointer(str(tmp_path / "run"), optimizer=optimizer, scheduler=scheduler) as ckpt:
        ckpt.save().result()
    expected = advance(optimizer, scheduler, 4)
    other_optimizer, other_scheduler = make()
    with Checkpointer(str(tmp_path / "run"), optimizer=other_optimizer, scheduler=other_scheduler) as ckpt:
        ckpt.resume()
    assert advance(other_optimizer, other_scheduler, 4) == expected


def test_all_schedulers_of_torch_are_in_the_table():
    """A scheduler that a new torch brings is noticed here."""
    known = {
        name
        for name, kind in vars(lr_scheduler).items()
        if inspect.isclass(kind) and issubclass(kind, lr_scheduler.LRScheduler) and not name.startswith("_")
    }
    assert known - {"LRScheduler"} <= set(SCHEDULERS)
