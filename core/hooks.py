"""Hooks: who else hears of each row and note, as it is written to the journal."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol, runtime_checkable

from ..errors import ConfigError
from ..storage.history import Row
from ..storage.notes import Note
from ..storage.printable import without_passwords
from .caller import warn_caller


@runtime_checkable
class Hook(Protocol):
    """Takes each entry of the journal, in its order, in the thread that trains: training waits for it.

    An entry is a `Row` (what was logged) or a note (what was decided, what became of saves, begin and end), all of them
    frozen. If the hook has a `close`, it is called once, when the Checkpointer closes or the hook has failed. What a
    hook raises is a warning; it is not called again, and training goes on.
    """

    def __call__(self, entry: Row | Note, /) -> None:
        """Take one entry."""


class Hooks:
    """The hooks of one training."""

    def __init__(self, hooks: Sequence[Hook]) -> None:
        for hook in hooks:
            if not callable(hook):
                raise ConfigError(f"a hook is called with each row and note, and {hook!r:.80} cannot be called.")
        self._hooks = list(hooks)

    def tell(self, entries: Iterable[Row | Note]) -> None:
        """Call each hook with each entry."""
        if not self._hooks:
            return
        for entry in entries:
            for hook in list(self._hooks):
                self._call(hook, entry)

    def close(self) -> None:
        """Close the hooks that can be."""
        hooks, self._hooks = self._hooks, []
        for hook in hooks:
            _close(hook)

    def _call(self, hook: Hook, entry: Row | Note) -> None:
        try:
            hook(entry)
        except Exception as error:  # noqa: BLE001 - a hook must not end training
            self._hooks.remove(hook)
            warn_caller(f"the hook {_name(hook)} failed and is not called again; training goes on: {_said(error)}")
            _close(hook)


def _close(hook: Hook) -> None:
    close = getattr(hook, "close", None)
    if close is None:
        return
    try:
        close()
    except Exception as error:  # noqa: BLE001 - as above
        warn_caller(
            f"the hook {_name(hook)} could not be closed: {_said(error)}. The run is whole; what the hook had not sent "
            "yet may be missing there."
        )


def _said(error: Exception) -> str:
    return without_passwords(repr(error))


def _name(hook: Hook) -> str:
    return getattr(hook, "__qualname__", type(hook).__qualname__)
