"""Saves: what went wrong behind training, and is said at its next call."""

from __future__ import annotations

from collections.abc import Sequence

from .base import KeepbestError, listed


class SaveFailedError(KeepbestError):
    """A save in the background failed. Older checkpoints are unharmed; `__cause__` is the reason.

    When: at the next `log()`, `save()`, `wait()` or `close()`, or at the handle's `result()`.

    Do: Put right what `__cause__` names; the next save is tried as if nothing had been.
    """

    def __init__(self, checkpoint: str, cause: BaseException) -> None:
        self.checkpoint = checkpoint
        super().__init__(f"saving {checkpoint} failed, older checkpoints are unharmed: {cause}")
        self.__cause__ = cause


class MirrorFailedError(KeepbestError):
    """Checkpoints did not reach the mirror. They are saved where training saves; `__cause__` is the reason.

    When: at `wait()` or `close()`.

    Do: Put right what `__cause__` names, and start the training again, also if it is complete: it copies what is
    missing.
    """

    def __init__(self, url: str, mirror: str, checkpoints: Sequence[str], cause: BaseException | None) -> None:
        self.url, self.mirror, self.checkpoints = url, mirror, tuple(checkpoints)
        super().__init__(
            f"{listed(self.checkpoints)} did not reach the mirror {mirror}: {cause or 'the copying broke off'} The "
            f"checkpoints are safe in {url}. Start the training again to copy what is missing, also if it is complete."
        )
        self.__cause__ = cause
