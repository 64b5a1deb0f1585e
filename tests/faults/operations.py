"""Operations: what a recording consists of."""

from __future__ import annotations

from dataclasses import dataclass, field


class UnknownCallError(Exception):
    """A call that might change a file and that nobody has taught us; the suite would not see what it does."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Names:
    """Entries of one folder that change together: a name, and the inode it is given (None: it goes)."""

    ended: int
    folder: int
    changes: tuple[tuple[str, int | None], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Write:
    """Bytes written to a file."""

    ended: int
    inode: int
    offset: int
    data: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Resize:
    """A file cut short, or made longer by zeros."""

    ended: int
    inode: int
    size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Sync:
    """An fsync: durable is what ended before it began."""

    began: int
    ended: int
    inode: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """What the program says of itself."""

    ended: int
    said: dict[str, object]


Operation = Names | Write | Resize | Sync | Mark


@dataclass(slots=True)
class Recording:
    """What one workload did in its folder, which was empty."""

    folder: int
    """Its inode."""
    kinds: dict[int, str]
    """Inode → "file", "folder", or "-> " and where a link leads. Shared by all workloads."""
    operations: list[Operation] = field(default_factory=list)
