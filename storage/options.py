"""Options: what is wrong with `storage_options`, said before anything is contacted. Values are never shown."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from typing import Any

from ..errors import ConfigError, did_you_mean
from .transfer import TransferSettings

_FSSPEC = (
    "asynchronous", "loop", "batch_size", "skip_instance_cache", "use_listings_cache", "listings_expiry_time",
    "max_paths",
)  # fmt: skip
"""What every filesystem of fsspec takes."""


def check_known(kind: type, options: Mapping[str, Any], more: Iterable[str] = ()) -> None:
    """Raise ConfigError for an option that a filesystem does not have, or that cannot hold what is handed on.

    Many filesystems take any and look at some.

    Args:
        kind: the filesystem's class.
        options: those that are not ours.
        more: further names that it takes.
    """
    takes = {
        name
        for base in kind.__mro__
        if base.__module__.partition(".")[0] == kind.__module__.partition(".")[0]
        for name, parameter in inspect.signature(base.__init__).parameters.items()  # type: ignore[misc]
        if name != "self" and parameter.kind not in {parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL}
    }
    known = sorted({*takes, *_FSSPEC, *more, *TransferSettings.__struct_fields__})
    for name, value in options.items():
        if name not in known:
            raise ConfigError(
                f"there is no storage option '{name}'.{did_you_mean(str(name), known)} There are: {', '.join(known)}."
            )
        if name.endswith("_kwargs") and not (value is None or _names_options(value)):
            raise ConfigError(f"the storage option '{name}' must be a dictionary of options by name.")


def _names_options(value: Any) -> bool:
    return isinstance(value, Mapping) and all(isinstance(name, str) for name in value)
