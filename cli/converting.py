"""Converting: which formats of others there are, how they are told apart, and who reads or writes each.

What needs a framework is in that framework's adapter, and is imported when such a file is there.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click
from msgspec import Struct

from ..storage.local import local_path
from ..storage.printable import printable
from . import install

if TYPE_CHECKING:
    from ..core.foreign import Found

    Reader = Callable[[Path, str], AbstractContextManager[Found]]

Kind = Literal["pth", "weights.h5", "hf"]

_TORCH = ("adapters.torch.foreign", "read")
_FILES = {
    ".pth": _TORCH,
    ".pt": _TORCH,
    ".bin": _TORCH,
    ".ckpt": _TORCH,
    ".h5": ("core.foreign_h5", "read_h5"),
    ".keras": ("core.foreign_h5", "read_keras"),
    ".safetensors": ("core.foreign_safetensors", "read_file"),
}
"""How names end → the module and function that read such a file."""
_DISTRIBUTED = ("adapters.torch.foreign_distributed", "read")
_SHARDS = ("core.foreign_safetensors", "read_folder")
_FOLDERS = {
    ".metadata": _DISTRIBUTED,
    "model.safetensors.index.json": _SHARDS,
    "model.safetensors": _SHARDS,
}
"""The file that makes a folder a checkpoint → the module and function that read it."""
_RUN = "commits"
"""What a run's folder has, and no other's."""
_WRITTEN: dict[str, Kind] = {".pth": "pth", ".pt": "pth", ".weights.h5": "weights.h5"}

_PACKAGES = {"torch": "torch", "keras": "keras", "tensorflow": "tensorflow", "jax": "jax"}
"""For each package that an adapter imports: the extra that has it."""


class Source(Struct, frozen=True, kw_only=True):
    """Another program's checkpoint, and who reads it."""

    path: Path
    reader: tuple[str, str]


def source_of(given: str) -> Source | None:
    """Return what is to be read, or None if `given` can only be a run.

    Raises:
        click.BadParameter: it is a file that nobody here reads, or not from there.
    """
    if _scheme(given):
        if Path(given).suffix.lower() in _FILES:
            raise click.BadParameter(
                f"{printable(given)} is the name of a file, and those of others are read from local paths. Copy it "
                "here first.",
                param_hint="SOURCE",
            )
        return None
    path = local_path(given)
    if path.is_dir():
        held = next((name for name in _FOLDERS if (path / name).is_file()), None)
        return None if held is None or (path / _RUN).is_dir() else Source(path=path, reader=_FOLDERS[held])
    if not path.exists() and path.suffix.lower() in _FILES:
        raise click.BadParameter(f"there is no file {printable(given)}.", param_hint="SOURCE")
    if not path.is_file():
        return None
    reader = _FILES.get(path.suffix.lower())
    if reader is None:
        raise click.BadParameter(
            f"{printable(given)} is a file, and none of {', '.join(_FILES)}. A run is a folder.", param_hint="SOURCE"
        )
    return Source(path=path, reader=reader)


def read(source: Source, name: str) -> AbstractContextManager[Found]:
    """Begin to read; raises as the format's reader does."""
    reader: Reader = imported(*source.reader)
    return reader(source.path, name)


def check_run(target: str) -> None:
    """Raise unless `target` can be the URL of a run.

    Raises:
        click.BadParameter: it is the name of a file in another format.
    """
    if not target.endswith("/") and Path(target).suffix.lower() in _FILES:
        raise click.BadParameter(
            f"{printable(target)} is the name of a file, and a checkpoint of others goes into a run, which is a folder "
            "or prefix. Convert the run to that format then.",
            param_hint="TARGET",
        )


def kind_of(target: str, wanted: str | None) -> tuple[Kind, Path]:
    """Return what a run's checkpoint is to become, and where.

    Raises:
        click.BadParameter: no such thing is written, or not by this verb, or not there.
    """
    if _scheme(target):
        raise click.BadParameter(
            f"{printable(target)} is no local path, and what is converted out of a run goes to local files.",
            param_hint="TARGET",
        )
    path = local_path(target)
    if wanted == "hf" or target.endswith("/") or path.is_dir():
        return "hf", path
    lower = path.name.lower()
    kind = next((kind for ending, kind in _WRITTEN.items() if lower.endswith(ending)), None)
    if kind is not None:
        return kind, path
    say = "A name that ends in .pth, .pt or .weights.h5 is written, or a folder (with a / at its end)."
    if lower.endswith(".safetensors"):
        say = "A run's tensors are in safetensors already: `keepbest export` copies them out."
    raise click.BadParameter(f"a run is not converted to {printable(path.name)}. {say}", param_hint="TARGET")


def imported(module: str, name: str) -> Any:
    """Return a function of ours whose module may need a framework.

    Raises:
        click.ClickException: it does, and it is not installed.
    """
    try:
        return getattr(importlib.import_module(f"...{module}", __name__), name)
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in _PACKAGES:
            raise
        raise click.ClickException(f"this format needs {package}. {install(_PACKAGES[package])}") from error


def _scheme(given: str) -> bool:
    scheme, found, _ = given.partition("://")
    return bool(found) and scheme not in {"file", "local"}
