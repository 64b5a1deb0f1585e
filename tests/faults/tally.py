"""Tally: how many faults of one kind were tried on one subject, and what they did harm to."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field

HARMS = {
    "lost": "committed, and not there or not loadable afterwards",
    "torn": "listed, and not whole",
    "unnoticed": "damaged, and loaded without an error, or with one that names nothing",
    "hung": "took longer than the deadline",
    "broken": "the run or the training could not go on",
    "orphaned": "bytes that nothing names, after gc",
    "uploads": "stale multipart uploads, after gc",
}
"""What can go wrong, and what that means."""

_SHOWN = 20
"""Findings that are told in words; the rest are counted."""


@dataclass(slots=True, kw_only=True)
class Tally:
    """One row of the report. A fault that does no harm is tried, and that is all."""

    family: str
    """The kind of faults: "kill", "power", "damage" …"""
    scenario: str
    """What was done while they struck."""
    subject: str = "keepbest"
    tried: int = 0
    harm: dict[str, int] = field(default_factory=lambda: dict.fromkeys(HARMS, 0))
    findings: list[str] = field(default_factory=list)
    remark: str = ""
    """What a reader has to know to judge the figures, a peer's own promise for one."""

    def found(self, harm: str, what: str, count: int = 1) -> None:
        """Note harm that a fault did."""
        if count:
            self.harm[harm] += count
            if len(self.findings) < _SHOWN:
                self.findings.append(f"{harm}: {what}")

    @property
    def harmless(self) -> bool:
        """Something was tried, and nothing was found."""
        return self.tried > 0 and not any(self.harm.values())

    def to_json(self) -> dict[str, object]:
        """Return it as plain data."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, object]) -> Tally:
        """Return what `to_json` gave."""
        return cls(**data)  # type: ignore[arg-type]
