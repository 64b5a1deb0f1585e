"""Versions: of the software that trains, for whoever reads a run later."""

from __future__ import annotations

import functools
import importlib.metadata
import platform
import sys

from .registry import adapters_in_use


def versions() -> dict[str, str]:
    """Return what a manifest says of the software that wrote it."""
    frameworks = {adapter.NAME: sys.modules.get(adapter.NAME) for adapter in adapters_in_use()}
    return {
        "keepbest": _own_version(),
        "python": platform.python_version(),
        **{name: str(getattr(module, "__version__", "unknown")) for name, module in frameworks.items()},
    }


@functools.cache
def _own_version() -> str:
    return importlib.metadata.version("keepbest")
