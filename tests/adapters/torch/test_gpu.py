"""On a GPU: state comes back bit for bit to its device, and log_step never waits for the device."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

import keepbest
from keepbest import Checkpointer, CheckpointPolicy

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here"),
]


def trained():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 64), nn.BatchNorm1d(64), nn.Dropout(0.5), nn.Linear(64, 10)).cuda()
    optimizer = torch.optim.Adam(model.parameters(), fused=True)
    return model, optimizer


def step(model, optimizer, number):
    generator = torch.Generator("cuda").manual_seed(number)
    optimizer.zero_grad()
    loss = model(torch.randn(32, 64, device="cuda", generator=generator)).square().mean()
    loss.backward()
    optimizer.step()
    return loss


def test_a_training_on_a_gpu_continues_bit_for_bit(tmp_path):
    """Weights, fused optimizer state and the device's random numbers continue as if nothing had happened."""
    url = str(tmp_path / "run")
    model, optimizer = trained()
    with Checkpointer(url, CheckpointPolicy(), model=model, optimizer=optimizer) as ckpt:
        for number in range(3):
            step(model, optimizer, number)
        ckpt.save().result()
        for number in range(3, 6):
            step(model, optimizer, number)
    other, other_optimizer = trained()
    with Checkpointer(url, model=other, optimizer=other_optimizer) as ckpt:
        ckpt.resume()
    for number in range(3, 6):
        step(other, other_optimizer, number)
    assert all(torch.equal(value, other.state_dict()[key]) for key, value in model.state_dict().items())
    assert all(value.is_cuda for value in other.state_dict().values())


def test_log_step_does_not_wait_for_the_device(tmp_path):
    """A scalar on the device is recorded without a synchronisation, and read later as it was then."""
    url = str(tmp_path / "run")
    model, optimizer = trained()
    with Checkpointer(url, CheckpointPolicy(), model=model) as ckpt:
        losses = [step(model, optimizer, number) for number in range(3)]
        torch.cuda.set_sync_debug_mode("error")
        try:
            for loss in losses:
                ckpt.log_step(loss=loss)
                loss.data.add_(1000)
        finally:
            torch.cuda.set_sync_debug_mode("default")
        ckpt.log(val_loss=1.0)
    logged = [row.metrics["loss"] for row in keepbest.open_run(url).history().steps_log]
    assert len(logged) == 3
    assert max(logged) < 1000


def test_every_checkpoint_is_the_state_at_its_step(tmp_path):
    """Copied beside the next forward and backward, each checkpoint is bit for bit what training had at its step."""
    url = str(tmp_path / "run")
    model, optimizer = trained()
    policy = CheckpointPolicy(every_n_epochs=None, every_n_steps=1, keep_all=True)
    expected = {}
    with Checkpointer(url, policy, model=model, optimizer=optimizer) as ckpt:
        for number in range(20):
            loss = step(model, optimizer, number)
            ckpt.log_step(loss=loss)
            expected[number + 1] = copy.deepcopy(model.state_dict())
    for checkpoint in keepbest.open_run(url).checkpoints():
        found = checkpoint.load("model", framework="torch")
        assert all(torch.equal(value.cpu(), found[key]) for key, value in expected[checkpoint.step].items())
    assert len(expected) == 20


def test_a_save_and_the_next_step_do_not_wait_for_the_device(tmp_path):
    """Neither the snapshot nor the fence before the next step synchronises the training stream."""
    model, optimizer = trained()
    with Checkpointer(str(tmp_path / "run"), CheckpointPolicy(), model=model, optimizer=optimizer) as ckpt:
        step(model, optimizer, 0)
        ckpt.save().result()
        torch.cuda.set_sync_debug_mode("error")
        try:
            handle = ckpt.save()
            step(model, optimizer, 1)
        finally:
            torch.cuda.set_sync_debug_mode("default")
        handle.result()
