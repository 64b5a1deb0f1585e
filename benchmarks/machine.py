"""What the figures were measured on."""

from __future__ import annotations

import os
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil

PACKAGES = (
    "keepbest",
    "torch",
    "safetensors",
    "pytorch-lightning",
    "orbax-checkpoint",
    "jax",
    "keras",
    "tensorflow-cpu",
    "numpy",
)


def describe(folder: Path) -> dict[str, str]:
    """Return the facts, by name; `folder` says which disk."""
    disk = _disk(folder)
    free = psutil.disk_usage(str(folder)).free
    return {
        "CPU": f"{_cpu()}, {len(os.sched_getaffinity(0))} of {os.cpu_count()} cores, {platform.machine()}",
        "memory": f"{psutil.virtual_memory().total / 1e9:.0f} GB",
        "file system": f"{disk.fstype} ({disk.opts}), {free / 1e9:.0f} GB free",
        "kernel": platform.release(),
        "Python": platform.python_version(),
        "packages": ", ".join(f"{name} {version(name)}" for name in PACKAGES),
    }


def load() -> str:
    """Return how many processes have run or wanted to in the last minute: others disturb what is measured."""
    return f"{os.getloadavg()[0]:.1f}"


def _cpu() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return "unknown"


def _disk(folder: Path) -> Any:
    holds = [disk for disk in psutil.disk_partitions(all=True) if folder.is_relative_to(disk.mountpoint)]
    return max(holds, key=lambda disk: len(disk.mountpoint))
