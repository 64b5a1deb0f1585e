"""Account: what a run's journal and manifests say, sorted by what people ask for. Values only; the words are put apart.

Everything is as it stood on the way to the row logged last: what a training left behind by going back is not told.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from functools import cached_property
from typing import Any

from msgspec import Struct, field

from ..core.direction import Mode, direction, known_direction
from ..core.overfitting import OverfittingWatch, generalisation_gap, training_partners
from ..core.recorded import RecordedPolicy, read_policy
from ..core.retention import KeepAll, KeepBest, KeepLast, SimpleKeepRule, simple_keep_rules
from ..storage.history import Row
from ..storage.journal import NOTHING_LOST, Lost
from ..storage.manifest import CheckpointInfo, todays_scores, with_todays_scores
from ..storage.notes import Began, Check, Decided, Ended, Note, Saved, SaveFailed, WentBack
from ..storage.ranking import newest_complete
from .after_best import WINDOW, AfterBest, after_best, window_of
from .marks import left, marks


class Epoch(Struct, kw_only=True):
    """One epoch."""

    number: int
    """From 0."""
    row: Row | None = None
    """What was logged at its end; None: it was not closed (yet)."""
    steps: int = 0
    """Rows of single steps."""
    policy: RecordedPolicy | None = None
    """The one in force; None: no note says."""
    decided: Decided | None = None
    """What was decided at its end; None: no note says."""
    saves: list[Decided] = field(default_factory=list)
    """Other saves, due within it or after it."""
    ended: Ended | None = None
    """The process ended with it."""

    @property
    def notes(self) -> list[Decided]:
        """All that was decided about it, that of its end first."""
        return [note for note in (self.decided, *self.saves) if note is not None]


class Best(Struct, frozen=True, kw_only=True):
    """What is the best by one monitor."""

    monitor: str
    mode: Mode
    checkpoint: CheckpointInfo | None
    """None: no checkpoint was ranked by it, or none is left."""
    value: float | None
    """What it is ranked by."""
    check: Check | None
    """What the monitor said last."""


class Better(Struct, frozen=True, kw_only=True):
    """An epoch that looked better than the best checkpoint, or was no number, and is not the best."""

    epoch: Epoch
    monitor: str
    value: float
    """Judged, else logged."""
    check: Check | None


class Overfitting(Struct, frozen=True, kw_only=True):
    """How one metric stands to training."""

    monitor: str
    partner: str | None
    """The training metric beside it; None: none was logged."""
    seen: tuple[int, ...]
    """Epochs (from 0) at whose end it overfitted, in order."""
    last: int | None
    """The epoch (from 0) looked at last."""
    gaps: Mapping[int, float]
    """Epoch → how much worse validation was than training."""
    noted: bool
    """The monitor said so; False: found now, in the history."""
    window: int
    """Checks that were looked at each time."""
    since: int | None
    """The first of the epochs in a row, up to the last one, that overfitted; None: the last one did not."""
    after_best: AfterBest | None
    """None: they were never logged together."""


class Account:
    """All that is known of a run. Cost: a few passes over the journal."""

    def __init__(
        self,
        url: str,
        entries: Sequence[Row | Note],
        checkpoints: Sequence[CheckpointInfo],
        lost: Lost = NOTHING_LOST,
    ) -> None:
        self.url = url
        self.entries = entries
        self.lost = lost
        """What the journal does not say any more."""
        self.checkpoints = checkpoints
        """Oldest first."""
        self.by_name = {info.name: info for info in checkpoints}
        self.epochs: dict[int, Epoch] = {}
        """By number, from 0, in ascending order."""
        self.begun: list[str] = []
        """The checkpoints whose saves began, in order."""
        self.saved: dict[str, Saved] = {}
        """By checkpoint."""
        self.failed: dict[str, SaveFailed] = {}
        self.retired_by: dict[str, Saved] = {}
        """Checkpoint → the save after which it was deleted."""
        self.retired_under: dict[str, RecordedPolicy | None] = {}
        """Checkpoint → the policy that was in force then; None: no note says."""
        self.turns: list[Began | WentBack] = []
        """Where processes began and training went back, in order."""
        self.end: Ended | None = None
        """The last thing in the journal, if the process let go of the run."""
        self.settings: Mapping[str, Any] | None = None
        """Of the policy in force last; None: no note says."""
        self.policy: RecordedPolicy | None = None
        """The same; None, too, where this keepbest cannot read the settings."""
        self.unreadable_policy = False
        """There are such settings, or what stands in their place is none."""
        self.steps = 0
        """Rows of single steps."""
        for entry in entries:
            self._take(entry)
        self.epochs = dict(sorted(self.epochs.items()))

    @property
    def has_notes(self) -> bool:
        """False: a keepbest that kept no notes wrote the whole of it, or it has no journal."""
        return any(not isinstance(entry, Row) for entry in self.entries)

    @property
    def closed(self) -> list[Epoch]:
        """The epochs whose end was logged."""
        return [epoch for epoch in self.epochs.values() if epoch.row is not None]

    @property
    def last_row(self) -> Row | None:
        """What was logged last."""
        return next((entry for entry in reversed(self.entries) if isinstance(entry, Row)), None)

    @property
    def last_decided(self) -> Decided | None:
        """What was decided at the end of the last epoch."""
        return next((epoch.decided for epoch in reversed(self.epochs.values()) if epoch.decided is not None), None)

    @cached_property
    def decided_in(self) -> dict[str, int]:
        """Checkpoint → the epoch at whose end it was decided to save it."""
        decided = (epoch.decided for epoch in self.epochs.values() if epoch.decided is not None)
        return {note.checkpoint: note.epoch for note in decided if note.checkpoint and note.epoch is not None}

    @cached_property
    def ended_well(self) -> AbstractSet[str]:
        """The checkpoints whose saves ended well, by a note or, as a process may be killed before it, by what followed.

        They are held, were resumed from, deleted by a later save, or are the parent of one that is held.
        """
        resumed = {turn.checkpoint for turn in self.turns if turn.checkpoint is not None}
        known = {*self.saved, *self.by_name, *self.retired_by, *resumed}
        numbers = {*(note.sequence for note in self.saved.values()), *(info.sequence for info in self.checkpoints)}
        for before, name in itertools.pairwise(self.begun):
            parent = self.by_name[name].parent if name in self.by_name else None
            if parent is not None and parent not in numbers and before not in self.failed:
                known.add(before)
        return known

    @cached_property
    def unnoted(self) -> list[str]:
        """The checkpoints whose saves ended well though no note says so."""
        without = self.ended_well - {*self.saved, *self.failed}
        return [name for name in self.begun if name in without]

    @cached_property
    def gone(self) -> list[str]:
        """The checkpoints whose saves ended well and that are not held, though no note says that they were deleted."""
        without = self.ended_well - {*self.by_name, *self.retired_by}
        return [name for name in self.begun if name in without]

    def epoch_of(self, checkpoint: CheckpointInfo) -> Epoch | None:
        """Return the epoch of a checkpoint; None: training left the way it lies on, or nothing tells of it."""
        return (
            None if checkpoint.epoch is None or checkpoint.sequence in self._left else self.epochs.get(checkpoint.epoch)
        )

    @cached_property
    def _left(self) -> AbstractSet[int]:
        return left(self.checkpoints, self.entries)

    @cached_property
    def monitors(self) -> dict[str, Mode]:
        """Metric → the direction in which it improves, the primary one first."""
        decided = self.last_decided
        found: dict[str, Mode] = {check.monitor: check.mode for check in (decided.checks if decided else ())}
        if not found and self.policy is not None:
            found = {monitor.key: monitor.mode for monitor in self.policy.monitors()}
        for score in todays_scores(self.checkpoints):
            found.setdefault(score.monitor, score.mode)
        return found

    def best(self, monitor: str) -> Best:
        """Return what is the best by a monitor."""
        sequence = marks(self.checkpoints).best.get(monitor)
        found = next((info for info in with_todays_scores(self.checkpoints) if info.sequence == sequence), None)
        score = None if found is None else found.score(monitor)
        return Best(
            monitor=monitor,
            mode=self.monitors[monitor],
            checkpoint=found,
            value=None if score is None else score.value,
            check=next((check for epoch in reversed(self.closed) for check in checks(epoch, monitor)), None),
        )

    def better(self, best: Best) -> list[Better]:
        """Return the epochs that looked better than the best checkpoint, in order; not those that were no number."""
        if best.checkpoint is None or best.value is None:
            return []
        sign, found, own = (1.0 if best.mode == "min" else -1.0), [], self.epoch_of(best.checkpoint)
        smoothed = best.checkpoint.metrics.get(best.monitor) != best.value
        for epoch, value, check in self._values(best.monitor):
            if epoch is own or (check is None and smoothed):
                continue  # logged and smoothed values cannot be compared
            if math.isfinite(value) and sign * value < sign * best.value:
                found.append(Better(epoch=epoch, monitor=best.monitor, value=value, check=check))
        return found

    def not_finite(self, monitor: str) -> list[Better]:
        """Return the epochs in which a metric was NaN or infinite."""
        return [
            Better(epoch=epoch, monitor=monitor, value=value, check=check)
            for epoch, value, check in self._values(monitor)
            if not math.isfinite(value)
        ]

    def overfitting(self, monitor: str) -> Overfitting:
        """Return how a monitor stands to training: as it was noted, else as the history shows.

        Another metric may be asked for, too, if its name says in which direction it improves.
        """
        mode = self.monitors.get(monitor) or direction(monitor)
        partner = next((name for name in training_partners(monitor) if name in self._logged), None)
        noted = {epoch.number: check for epoch in self.closed for check in checks(epoch, monitor)}
        if noted:
            gaps = {number: check.gap for number, check in noted.items() if check.gap is not None}
            seen = tuple(number for number, check in noted.items() if check.overfitting)
        else:
            gaps, seen = self._watched(monitor, partner, mode)
        last, window = max(gaps, default=None), window_of(self.policy, monitor) if noted else WINDOW
        return Overfitting(
            monitor=monitor,
            partner=partner,
            seen=seen,
            last=last,
            gaps=gaps,
            noted=bool(noted),
            window=window,
            since=_since(gaps, set(seen)) if seen and seen[-1] == last else None,
            after_best=after_best(list(self._pairs(monitor, partner)), mode, window),
        )

    @cached_property
    def unwatched(self) -> list[Overfitting]:
        """How metrics stand to training that no monitor watches, if they overfit or did so: as the report shades it."""
        names = [name for name in self._logged if name not in self.monitors and known_direction(name) is not None]
        paired = [name for name in names if not self._logged.keys().isdisjoint(training_partners(name))]
        found = map(self.overfitting, paired)
        return [each for each in found if each.seen or (each.after_best is not None and each.after_best.overfits)]

    def kept_as(self, checkpoint: CheckpointInfo) -> list[str]:
        """Return why a checkpoint is there: "the best by val_loss", "one of the last 3", "a milestone, every 5 epochs".

        Without a policy that can be read, what it is among the others.
        """
        scored = with_todays_scores(self.checkpoints)
        if self.policy is None:
            found = marks(self.checkpoints)
            named = [f"the best by {name}" for name, sequence in found.best.items() if sequence == checkpoint.sequence]
            return [*named, *(["the latest"] if found.latest == checkpoint.sequence else [])]
        primary = next(iter(self.monitors), "")
        rules = [rule for rule in simple_keep_rules(self.policy.keep_rule) if checkpoint.sequence in rule.keeps(scored)]
        kept = [_kept_as(rule, primary) for rule in rules]
        newest = newest_complete(self.checkpoints)
        if not kept and newest is not None and newest.sequence == checkpoint.sequence:
            return ["the newest, from which training can continue"]
        return kept

    # ── taking it in ──────────────────────────────────────────────────────────────────────────────────────────────

    def _take(self, entry: Row | Note) -> None:
        if isinstance(entry, Row):
            self.end = None
            if entry.kind == "epoch":
                self._epoch(entry.epoch).row = entry
            else:
                self.steps += 1
                self._epoch(entry.epoch).steps += 1
        elif isinstance(entry, Began):
            self.end = None
            self.turns.append(entry)
            self.settings = entry.policy
            self.policy = read_policy(entry.policy or {})
            self.unreadable_policy = self.policy is None and entry.policy != {}
        elif isinstance(entry, WentBack):
            self.end = None
            self.turns.append(entry)
        elif isinstance(entry, Decided):
            self._take_decided(entry)
        elif isinstance(entry, Saved):
            self.saved[entry.checkpoint] = entry
            self.retired_by.update(dict.fromkeys(entry.retired, entry))
            self.retired_under.update(dict.fromkeys(entry.retired, self.policy))
        elif isinstance(entry, SaveFailed):
            self.failed[entry.checkpoint] = entry
        else:
            self.end = entry
            if entry.epoch is not None:
                self._epoch(entry.epoch).ended = entry

    def _take_decided(self, note: Decided) -> None:
        if note.epoch is None:
            return
        epoch = self._epoch(note.epoch)
        if note.checkpoint is not None:
            self.begun.append(note.checkpoint)
        if note.event == "epoch":
            epoch.decided, epoch.policy = note, self.policy
        else:
            epoch.saves.append(note)

    @cached_property
    def _logged(self) -> dict[str, None]:
        """The metrics of epochs, in the order in which they were first logged."""
        return dict.fromkeys(name for epoch in self.closed if epoch.row for name in epoch.row.metrics)

    def _epoch(self, number: int) -> Epoch:
        return self.epochs.setdefault(number, Epoch(number=number))

    def _values(self, monitor: str) -> Iterator[tuple[Epoch, float, Check | None]]:
        for epoch in self.closed:
            check = next(checks(epoch, monitor), None)
            value = epoch.row.metrics.get(monitor) if epoch.row is not None else None
            if check is not None and check.judged is not None:
                value = check.judged
            if value is not None:
                yield epoch, value, check

    def _watched(self, monitor: str, partner: str | None, mode: Mode) -> tuple[dict[int, float], tuple[int, ...]]:
        watch, gaps, seen = OverfittingWatch(mode, WINDOW), dict[int, float](), []
        for epoch, validation, training in self._pairs(monitor, partner):
            gaps[epoch] = generalisation_gap(validation, training, mode)
            if watch.see(validation, training):
                seen.append(epoch)
        return gaps, tuple(seen)

    def _pairs(self, monitor: str, partner: str | None) -> Iterator[tuple[int, float, float]]:
        """Yield the epochs that logged both, with their values."""
        for epoch in self.closed:
            metrics = epoch.row.metrics if epoch.row is not None else {}
            validation, training = metrics.get(monitor, math.nan), metrics.get(partner or "", math.nan)
            if math.isfinite(validation) and math.isfinite(training):
                yield epoch.number, validation, training


def checks(epoch: Epoch, monitor: str) -> Iterator[Check]:
    """Yield what a monitor made of an epoch, if a note says."""
    if epoch.decided is not None:
        yield from (check for check in epoch.decided.checks if check.monitor == monitor)


def _since(looked: Iterable[int], seen: AbstractSet[int]) -> int | None:
    """Return the first of the epochs in a row, up to the last that was looked at, that are among those seen."""
    row = itertools.takewhile(seen.__contains__, sorted(looked, reverse=True))
    return min(row, default=None)


def _kept_as(rule: SimpleKeepRule, primary: str) -> str:
    if isinstance(rule, KeepBest):
        by = f" by {rule.monitor or primary}" if rule.monitor or primary else ""
        return f"the best{by}" if rule.n == 1 else f"one of the best {rule.n}{by}"
    if isinstance(rule, KeepLast):
        return "the last" if rule.n == 1 else f"one of the last {rule.n}"
    return "one of all, which the policy keeps" if isinstance(rule, KeepAll) else f"a milestone, one {rule}"
