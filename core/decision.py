"""Decision: what `log` answers."""

from __future__ import annotations

from msgspec import Struct

from .verdict import Verdict


class Decision(Struct, frozen=True, kw_only=True):
    """What was decided at the end of an epoch, and why. What speaks of one monitor speaks of the primary one."""

    verdicts: tuple[Verdict, ...]
    """What each monitor made of the values, the primary one first."""
    save_reasons: tuple[str, ...]
    """Why a checkpoint was saved: "improvement", "epoch", …; empty if none was."""

    @property
    def saved(self) -> bool:
        """A checkpoint was saved, or with mode="async" is being saved."""
        return bool(self.save_reasons)

    @property
    def improved(self) -> bool:
        """The monitored value is a new best."""
        return bool(self.verdicts) and self.verdicts[0].improved

    @property
    def stop(self) -> bool:
        """A monitor says that training should end (`epochs()` ends by itself)."""
        return any(verdict.stop for verdict in self.verdicts)

    @property
    def value(self) -> float | None:
        """The monitored value, as it was logged; None without a monitor."""
        return self.verdicts[0].value if self.verdicts else None

    @property
    def best(self) -> float | None:
        """The best so far, this one included."""
        return self.verdicts[0].best if self.verdicts else None

    @property
    def gap(self) -> float | None:
        """How much worse validation is than training; None where only one of them was logged."""
        return self.verdicts[0].gap if self.verdicts else None

    @property
    def overfitting(self) -> bool:
        """Validation worsened while training improved, over the monitor's window."""
        return bool(self.verdicts) and self.verdicts[0].overfitting

    @property
    def reason(self) -> str:
        """In words: why it was saved or not, and what the monitors made of the values."""
        saved = f"saved ({', '.join(self.save_reasons)})" if self.save_reasons else "not saved"
        end = ["training ends here"] if self.stop else []
        return "; ".join([saved, *(verdict.reason for verdict in self.verdicts), *end])

    def __str__(self) -> str:
        return self.reason
