"""Digits: a small real training of a PyTorch network on scikit-learn's handwritten digits that overfits."""

from __future__ import annotations

import contextlib

from keepbest import Checkpointer, CheckpointPolicy

_TRAINED_ON = 200
"""Images; so few that the network learns them by heart."""
_BATCH = 20


class PreemptedError(Exception):
    """Ends the first of the two processes that train."""


def train(url, *, seed=0, preempted_at=9):
    """Train until patience ends it, with a break and a resumption on the way; returns the run's URL."""
    import torch
    from sklearn.datasets import load_digits

    torch.manual_seed(seed)
    digits = load_digits()
    order = torch.randperm(len(digits.target))
    images = torch.tensor(digits.data / 16, dtype=torch.float32)[order]
    labels = torch.tensor(digits.target)[order]
    wrong = torch.rand(_TRAINED_ON) < 0.15
    labels[:_TRAINED_ON][wrong] = torch.randint(10, (int(wrong.sum()),))  # which can only be learnt by heart
    policy = CheckpointPolicy(
        monitor="val_loss", keep_best=2, keep_last=2, every_n_epochs=2, patience=15, keep_every_n_epochs=10
    )
    for end in (preempted_at, None):
        model = torch.nn.Sequential(torch.nn.Linear(64, 128), torch.nn.ReLU(), torch.nn.Linear(128, 10))
        optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
        with contextlib.suppress(PreemptedError), Checkpointer(url, policy, model=model, optimizer=optimizer) as ckpt:
            for epoch in ckpt.epochs(200):
                if epoch == end:
                    raise PreemptedError
                _epoch(ckpt, model, optimizer, images, labels)
    return url


def _epoch(ckpt, model, optimizer, images, labels):
    import torch

    losses = []
    for batch in torch.randperm(_TRAINED_ON).split(_BATCH):
        loss = torch.nn.functional.cross_entropy(model(images[batch]), labels[batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        ckpt.log_step(loss=loss)
        losses.append(loss.item())
    with torch.no_grad():
        found = model(images[_TRAINED_ON:])
    right = labels[_TRAINED_ON:]
    ckpt.log(
        train_loss=sum(losses) / len(losses),
        val_loss=torch.nn.functional.cross_entropy(found, right),
        val_acc=(found.argmax(1) == right).float().mean(),
    )
