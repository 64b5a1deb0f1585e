"""Resumption: whether training may go on in a run, and from which checkpoint it does."""

from __future__ import annotations

from ..errors import RunExistsError, StateMismatchError, TornStateError, UsageError
from ..storage.checkpoint import Checkpoint
from .restoring import Restore
from .training import Rewind


class Resumption:
    """What was restored into the objects, and what may be done with them since."""

    def __init__(self, url: str, holding: tuple[str, str] | None) -> None:
        """Begin with objects as their owner made them.

        Args:
            url: the run's, for messages.
            holding: where the newest checkpoint lies that is there already, and its name.
        """
        self._url = url
        self._holding = holding
        self.going_back: Rewind | None = None
        """Where training goes on from, once it does."""
        self._must_resume = holding is not None
        self._overwritten: Checkpoint | None = None
        """What the objects were set to, while training has not gone on since."""
        self._torn: str | None = None
        """The checkpoint whose restore broke off half-way."""

    @property
    def must_resume(self) -> bool:
        """There are checkpoints, and training does not continue them yet."""
        return self._must_resume

    @property
    def holds_trained(self) -> bool:
        """The objects are as training left them."""
        return not self._must_resume and self._overwritten is None and self._torn is None

    def begin_anew(self) -> None:
        """There is nothing to continue."""
        self._must_resume = False

    def apply(self, prepared: Restore) -> None:
        """Set the objects; raises as `Restore.apply` does, and `check_whole` does as long as they are torn."""
        self._torn = prepared.checkpoint  # also if Ctrl-C comes
        try:
            prepared.apply()
        except StateMismatchError:
            self._torn = None
            raise
        self._torn = None

    def restored(self, checkpoint: Checkpoint, rewind: Rewind | None) -> None:
        """Note what the objects hold; with None, training does not go on from there."""
        self.going_back, self._overwritten = rewind or self.going_back, checkpoint

    def went_back(self) -> None:
        """Training goes on from what was restored."""
        self.going_back = self._overwritten = None
        self._must_resume = False

    def check_whole(self) -> None:
        """Raise `TornStateError` if the objects do not belong together."""
        if self._torn is not None:
            raise TornStateError(self._torn)

    def trains_on(self) -> None:
        """Something is about to be recorded.

        Raises:
            TornStateError: as `check_whole`.
            RunExistsError, UsageError: that would not continue what is there.
        """
        self.check_whole()
        if self._must_resume and self._overwritten is not None:
            raise UsageError(
                f"training cannot go on in {self._url}: only some objects were restored of checkpoint "
                f"{self._overwritten.name}. Call resume() before restore(), so that the others are those of the latest "
                "checkpoint, or give another URL for a fresh run."
            )
        if self._must_resume and self._holding is not None:
            raise RunExistsError(*self._holding)
        self._overwritten = None
