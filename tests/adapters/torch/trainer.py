"""A small, ordinary PyTorch training for the tests: shuffling DataLoader, dropout, Adam, a scheduler, real images."""

from __future__ import annotations

import hashlib
import sys

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from keepbest import Checkpointer, CheckpointPolicy

EPOCHS = 4


def images():
    digits = load_digits()
    x = torch.tensor(digits.data[:320] / 16, dtype=torch.float32)
    return x, torch.tensor(digits.target[:320])


def build(seed=0):
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(64, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Dropout(0.3), nn.Linear(32, 10))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, step_size=2, gamma=0.5)
    return model, optimizer, scheduler


def loaders(x, y):
    train = DataLoader(TensorDataset(x[:256], y[:256]), batch_size=64, shuffle=True)
    return train, (x[256:], y[256:])


def train_epoch(model, optimizer, loader, after_step=lambda loss: None):
    model.train()
    total = 0.0
    for x, y in loader:
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        total += loss.item()
        after_step(loss)
    return total / len(loader)


def validate(model, x, y):
    model.eval()
    with torch.no_grad():
        return nn.functional.cross_entropy(model(x), y).item()


def train(url, data=None, policy=None, epochs=EPOCHS, after_epoch=lambda decision: None, **settings):
    """Train, or go on training, to the end; returns the three objects."""
    torch.set_num_threads(1)
    model, optimizer, scheduler = build()
    train_loader, validation = loaders(*(data or images()))
    policy = policy or CheckpointPolicy(monitor="val_loss")
    with Checkpointer(url, policy, model=model, optimizer=optimizer, scheduler=scheduler, **settings) as ckpt:
        for _ in ckpt.epochs(epochs):
            train_loss = train_epoch(model, optimizer, train_loader, lambda loss: ckpt.log_step(loss=loss))
            scheduler.step()
            after_epoch(ckpt.log(train_loss=train_loss, val_loss=validate(model, *validation)))
    return model, optimizer, scheduler


def fingerprint(model, optimizer):
    """Return a digest over every bit of the model's and the optimizer's tensors."""
    found = hashlib.sha256()
    for value in model.state_dict().values():
        found.update(value.numpy().tobytes())
    for state in optimizer.state_dict()["state"].values():
        for value in state.values():
            found.update(value.numpy().tobytes())
    return found.hexdigest()


if __name__ == "__main__":
    trained = train(sys.argv[1])
    sys.stdout.write(fingerprint(*trained[:2]) + "\n")
