"""The classic PyTorch loop on real images, with keepbest in three lines (marked ◀).

    python examples/pytorch_loop.py [RUN] [EPOCHS]

RUN is a folder, or a bucket's URL: s3://my-bucket/run. Kill it at any moment and start it again: it continues, and ends
with the same weights, bit for bit.
"""

import sys

import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from keepbest import Checkpointer, CheckpointPolicy


def load_data():
    digits = load_digits()  # 1,797 images of 8 × 8 pixels
    x = torch.tensor(digits.data / 16, dtype=torch.float32)
    y = torch.tensor(digits.target)
    x_train, x_val, y_train, y_val = train_test_split(x, y, test_size=0.25, random_state=0, stratify=y)
    train = DataLoader(TensorDataset(x_train, y_train), batch_size=32, shuffle=True)
    return train, DataLoader(TensorDataset(x_val, y_val), batch_size=256)


def build_model():
    return nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Dropout(0.4), nn.Linear(128, 10))


def train_epoch(model, loader, criterion, optimizer):
    model.train()
    total_loss, correct, seen = 0.0, 0, 0
    for x, y in loader:
        optimizer.zero_grad()
        logits = model(x)
        loss = criterion(logits, y)
        loss.backward()
        optimizer.step()
        total_loss += loss.item() * len(y)
        correct += (logits.argmax(1) == y).sum().item()
        seen += len(y)
    return total_loss / seen, correct / seen


def validate_epoch(model, loader, criterion):
    model.eval()
    total_loss, correct, seen = 0.0, 0, 0
    with torch.no_grad():
        for x, y in loader:
            logits = model(x)
            total_loss += criterion(logits, y).item() * len(y)
            correct += (logits.argmax(1) == y).sum().item()
            seen += len(y)
    return total_loss / seen, correct / seen


def main(run="demo-runs/pytorch", epochs=20):
    torch.manual_seed(0)
    train_loader, val_loader = load_data()
    model = build_model()
    criterion = nn.CrossEntropyLoss()
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, step_size=8, gamma=0.5)

    policy = CheckpointPolicy(monitor="val_loss", mode="min", keep_best=3, keep_last=1, patience=5)
    with Checkpointer(run, policy, model=model, optimizer=optimizer, scheduler=scheduler) as ckpt:  # ◀ 1
        for epoch in ckpt.epochs(epochs):  # ◀ 2, was: for epoch in range(epochs)
            train_loss, train_acc = train_epoch(model, train_loader, criterion, optimizer)
            val_loss, val_acc = validate_epoch(model, val_loader, criterion)
            scheduler.step()
            print(
                f"Epoch {epoch + 1}/{epochs}: Train Loss: {train_loss:.4f}, Train Acc: {train_acc:.4f}, "
                f"Val Loss: {val_loss:.4f}, Val Acc: {val_acc:.4f}",
                flush=True,
            )
            ckpt.log(train_loss=train_loss, train_acc=train_acc, val_loss=val_loss, val_acc=val_acc)  # ◀ 3
        best = ckpt.restore("best")

    _, val_acc = validate_epoch(model, val_loader, criterion)
    print(f"Best: epoch {best.epoch + 1}, Val Loss: {best.metrics['val_loss']:.4f}, Val Acc: {val_acc:.4f}")


if __name__ == "__main__":
    main(*sys.argv[1:2], *map(int, sys.argv[2:3]))
