"""Decision: what `log` answers."""

from __future__ import annotations

from dataclasses import dataclass

from .verdict import Verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What was decided at the end of an epoch, and why. `value` to `overfitting` speak of the primary monitor."""

    saved: bool
    """A checkpoint was saved, or with mode="async" is being saved."""
    improved: bool
    """The monitored value is a new best."""
    stop: bool
    """Training should end (`epochs()` ends by itself)."""
    reason: str
    """In words: why it was saved or not, and what the monitors made of the values."""
    value: float | None
    """The monitored value, as it was logged; None without a monitor."""
    best: float | None
    """The best so far, this one included."""
    gap: float | None
    """How much worse validation is than training; None where only one of them was logged."""
    overfitting: bool
    """Validation worsened while training improved, over the monitor's window."""
    verdicts: tuple[Verdict, ...]
    """What each monitor made of the values, the primary one first."""


def decision(verdicts: tuple[Verdict, ...], save_reasons: tuple[str, ...]) -> Decision:
    """Put the verdicts and the reasons to save together."""
    first = verdicts[0] if verdicts else None
    saved = f"saved ({', '.join(save_reasons)})" if save_reasons else "not saved"
    return Decision(
        saved=bool(save_reasons),
        improved=first is not None and first.improved,
        stop=any(verdict.stop for verdict in verdicts),
        reason="; ".join([saved, *(verdict.reason for verdict in verdicts)]),
        value=None if first is None else first.value,
        best=None if first is None else first.best,
        gap=None if first is None else first.gap,
        overfitting=first is not None and first.overfitting,
        verdicts=verdicts,
    )
