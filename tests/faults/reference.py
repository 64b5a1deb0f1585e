"""Reference: what a run must hold, said with dicts and tuples. Nothing of keepbest is asked here."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass, field, replace

DIRECTIONS = {"val_loss": 1, "val_acc": -1}
"""Metric → the sign that makes lower the better."""


@dataclass(frozen=True, kw_only=True)
class Rules:
    """What the policy of a run says."""

    monitors: tuple = ()
    keep_best: int = 1
    keep_last: int = 1
    keep_every: int | None = None
    keep_all: bool = False
    every_epochs: int | None = 1
    every_steps: int | None = None
    on_improvement: bool = True
    at_end: bool = True
    weights_only_best: bool = False
    patience: int | None = None
    on_busy: str = "wait"

    def policy(self):
        """Return them as arguments of `CheckpointPolicy`."""
        said = {"every_n_epochs": self.every_epochs, "every_n_steps": self.every_steps, "at_end": self.at_end}
        if self.keep_all:
            said |= {"keep_all": True}
        else:
            said |= {"keep_last": self.keep_last, "keep_every_n_epochs": self.keep_every}
        if self.monitors:
            said |= {"monitor": list(self.monitors), "on_improvement": self.on_improvement, "patience": self.patience}
            said |= {} if self.keep_all else {"keep_best": self.keep_best}
        if self.weights_only_best:
            said |= {"best_contents": "weights"}
        return said | {"on_busy": self.on_busy, "on_sigterm": False}


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a training stands."""

    next_epoch: int = 0
    step: int = 0
    inside: int = 0

    @property
    def epoch(self):
        """The epoch that was closed last, or is under way."""
        return self.next_epoch if self.inside else self.next_epoch - 1 if self.next_epoch else None


@dataclass(frozen=True, kw_only=True)
class Commit:
    """What one checkpoint must be."""

    parent: int | None
    place: Place
    metrics: dict
    values: dict
    """Monitor → what it ranks by, or None."""
    complete: bool
    state: object
    rows: tuple
    """Every row on the way to it."""
    standing: dict
    """Monitor → (best, checks without improvement)."""


def keeps(held, rules):
    """Return what stays of `held`, sequence → commit."""
    if rules.keep_all:
        return set(held)
    kept = set(sorted(number for number in held if held[number].complete)[-rules.keep_last :])
    for monitor in rules.monitors:
        kept.update(ranking(held, monitor)[: rules.keep_best])
    milestones = {}
    for number in sorted(held, key=lambda number: (held[number].complete, number)):
        epoch = held[number].place.epoch
        if rules.keep_every and epoch is not None and (epoch + 1) % rules.keep_every == 0:
            milestones[epoch] = number
    return kept | set(milestones.values())


def ranking(held, monitor):
    """Return the sequences of all that rank, the best first, of equals the earliest."""
    values = {number: commit.values.get(monitor) for number, commit in held.items()}
    ranked = [number for number, value in values.items() if value is not None]
    return sorted(ranked, key=lambda number: (DIRECTIONS[monitor] * values[number], number))


def latest(held):
    """Return the sequence of the newest that training can go on from, else of the newest, else None."""
    return max(held, key=lambda number: (held[number].complete, number), default=None)


@dataclass
class Save:
    """One save: what was listed before, what it adds, and what it retires."""

    before: dict
    added: dict
    going: set

    @property
    def after(self):
        """What is listed when it is done."""
        return {number: one for number, one in (self.before | self.added).items() if number not in self.going}

    def allows(self, found):
        """Say whether these sequences may be listed while it is under way, or after it was killed."""
        last = max(self.added)
        if last in found:
            return set(self.after) <= set(found) <= set(self.before) | set(self.added)
        return set(found) == set(self.before) | {number for number in self.added if number in found}


@dataclass
class Training:
    """What one process knows that trains. Each method says what one call leads to."""

    rules: Rules
    view: dict
    """Sequence → commit, as it saw the run when it was opened, and what it did since."""
    written: list = field(default_factory=list)
    """The rows up to each one that was written to the journal, in order."""

    def __post_init__(self):
        self.place, self.rows, self.waiting = Place(), (), []
        self.standing = dict.fromkeys(self.rules.monitors, (None, 0))
        self.next, self.parent, self.saved = max(self.view, default=0) + 1, None, (None, 0)
        self.closed = None
        self.going_back = None
        self.continues = not self.view
        """It may train on: the run was empty, or it went on from what is there."""
        self.trained = self.continues
        """The objects are as training left them."""
        self.superseded = False
        """A save was left out that is due as soon as the writer is free."""

    def log(self, metrics):
        """An epoch is closed; returns whether something improved, and whether training should end."""
        self.begin()
        epoch = self.place.next_epoch
        self.flush()
        improved = [self._judge(monitor, metrics[monitor]) for monitor in self.rules.monitors]
        self.place = Place(next_epoch=epoch + 1, step=self.place.step)
        values = {name: metrics[name] if math.isfinite(metrics[name]) else None for name in self.rules.monitors}
        self.closed = (self.place, metrics, values)
        self._write(("epoch", epoch, self.place.step, shown(metrics)))
        patience = self.rules.patience
        return any(improved), patience is not None and any(wait >= patience for _, wait in self.standing.values())

    def log_step(self, metrics):
        """A step is closed."""
        self.begin()
        self.place = replace(self.place, step=self.place.step + 1, inside=self.place.inside + 1)
        if metrics:
            self.waiting.append(("step", self.place.next_epoch, self.place.step, shown(metrics)))

    def begin(self):
        """Something is about to be recorded."""
        if self.going_back is not None:
            self.go_back()
        self.trained = True

    def due(self, event, *, improved=False):
        """Say whether a save is due."""
        epoch, step = self.place.epoch, self.place.step
        rules, (saved_epoch, saved_step) = self.rules, self.saved
        if event == "end":
            return self.superseded or (rules.at_end and (epoch, step) != (saved_epoch, saved_step))
        by_steps = rules.every_steps and step // rules.every_steps > saved_step // rules.every_steps
        by_epochs = event == "epoch" and rules.every_epochs and (epoch + 1) % rules.every_epochs == 0
        return bool(by_steps or by_epochs or (improved and rules.on_improvement))

    def save(self, state, listed):
        """Return what a save of this state does to what is listed."""
        self.flush()
        _, metrics, values = self.closed if self.closed and self.closed[0] == self.place else (None, {}, {})
        self.saved, self.superseded = (self.place.epoch, self.place.step), False
        whole = Commit(
            parent=self.parent,
            place=self.place,
            metrics=metrics,
            values=values,
            complete=True,
            state=state,
            rows=self.rows,
            standing=dict(self.standing),
        )
        commits = [whole]
        if self.rules.weights_only_best and any(value is not None for value in values.values()):
            commits.insert(0, replace(whole, complete=False))
        added = dict(enumerate(commits, start=self.next))
        self.next += len(commits)
        self.parent = self.next - 1
        going = (set(self.view) | set(added)) - keeps(self.view | added, self.rules)
        self.view = {number: one for number, one in (self.view | added).items() if number not in going}
        return Save(before=dict(listed), added=added, going=going)

    def restored(self, number, commit):
        """The objects are set to a checkpoint; what is whole is where training goes on from, once it does."""
        if commit.complete:
            self.going_back = (number, commit)
        self.trained = False

    def go_back(self):
        """Training goes on from what was restored."""
        self.flush()
        number, commit = self.going_back
        self.going_back = None
        self.place, self.rows, self.standing = commit.place, commit.rows, dict(commit.standing)
        self.closed = (commit.place, commit.metrics, commit.values)
        self.parent, self.saved = number, (self.place.epoch, self.place.step)
        self.continues = self.trained = True

    def copy(self):
        """Return the same, for going on from in another way."""
        return copy.copy(self)

    def flush(self):
        """The rows of steps are written that waited."""
        while self.waiting:
            self._write(self.waiting.pop(0))

    def _write(self, row):
        self.rows += (row,)
        self.written.append(self.rows)

    def _judge(self, monitor, value):
        best, wait = self.standing[monitor]
        sign = DIRECTIONS[monitor]
        improved = math.isfinite(value) and (best is None or sign * value < sign * best)
        self.standing[monitor] = (value, 0) if improved else (best, wait + 1)
        return improved


def shown(metrics):
    """Return metrics so that NaN equals NaN."""
    return tuple(sorted((name, repr(float(value))) for name, value in metrics.items()))
