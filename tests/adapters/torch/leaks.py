"""Child of test_leaks.py: saves again and again, and prints what the process holds at some moments, as JSON."""

from __future__ import annotations

import gc
import json
import os
import sys
import threading
from pathlib import Path

import torch
from torch import nn

from keepbest import Checkpointer, CheckpointPolicy

ONE = CheckpointPolicy(every_n_epochs=None, at_end=False, keep_last=1)


def status(field):
    """Return a size of this process in bytes, as the kernel counts it."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith(f"{field}:"))


def held():
    """Return what the process holds now."""
    gc.collect()
    return {
        "rss": status("VmRSS"),
        "objects": len(gc.get_objects()),
        "threads": threading.active_count(),
        "files": len(os.listdir("/proc/self/fd")),
    }


def trained(width):
    """Return a model and its optimizer, after a step, with gradients. Fused, a step takes no memory of its own."""
    model = nn.Sequential(nn.Linear(width, width), nn.Linear(width, width))
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    return model, optimizer


def many(url, mode, *saves):
    """Step and save; print what is held after so many saves, and once it is closed."""
    torch.set_num_threads(1)
    model, optimizer = trained(48)
    done, found = 0, []
    with Checkpointer(url, ONE, mode=mode, model=model, optimizer=optimizer) as ckpt:
        for upto in map(int, saves):
            for _ in range(done, upto):
                optimizer.step()
                ckpt.save()
            done = upto
            ckpt.wait()
            found.append(held())
    return [*found, held()]


def large(url, width, saves):
    """Step now and then, and save; print what that took at its height, what the state takes, and what is left of it."""
    model, optimizer = trained(int(width))
    state = sum(tensor.nbytes for tensor in tensors(model, optimizer))
    gc.collect()
    before = held()
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # the height counts from here
    with Checkpointer(url, ONE, model=model, optimizer=optimizer) as ckpt:
        for number in range(int(saves)):
            if number % 10 == 0:
                optimizer.step()
            ckpt.save()
        ckpt.wait()
        high, during = status("VmHWM"), held()
    return {"state": state, "high": high, "before": before, "during": during, "after": held()}


def tensors(model, optimizer):
    """Yield all that is saved of them."""
    yield from model.state_dict().values()
    for state in optimizer.state.values():
        yield from (value for value in state.values() if isinstance(value, torch.Tensor))


if __name__ == "__main__":
    what, *arguments = sys.argv[1:]
    json.dump({"many": many, "large": large}[what](*arguments), sys.stdout)
