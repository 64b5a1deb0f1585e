"""Replay: the states of a folder that a POSIX file system may leave after the power went.

What fsync covers is there. Of what it does not cover, entries of folders are there or not, each by itself, and data is
there, or half of it by sectors, or its space with zeros or with rubbish in it (Pillai et al., "All File Systems Are Not
Created Equal", OSDI 2014). This is less than any one file system promises: ext4 and XFS keep the order of entries.

What is relied on: an fsync of a file covers its content and size, one of a folder the entries in it; a `rename` within
a folder, a `link` and an `unlink` happen or do not; a sector of 512 bytes is written or not.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import xxhash

from .operations import Mark, Names, Operation, Recording, Resize, Sync, Write

SECTOR = 512
DATA = ("none", "all", "zeros", "rubbish", "front", "back", "checkered", "last", "first")
"""What may be there of the data that no fsync covers; see `_variant`."""

_Entries = dict[tuple[int, str], int]


@dataclass(slots=True)
class State:
    """A folder after the power went."""

    at: int
    """After how many operations of the recording."""
    before: Mapping[str, object]
    """What the program had said last."""
    after: Mapping[str, object]
    """What it would have said next."""
    how: str
    """Which of what was pending is there."""
    entries: _Entries
    contents: Mapping[int, bytes]
    recording: Recording
    key: bytes = b""
    """Of the content: equal for equal states."""

    def make(self, target: Path) -> None:
        """Build it in `target`, which is made."""
        made: dict[int, Path] = {}
        children: dict[int, list[tuple[str, int]]] = {}
        for (folder, name), inode in self.entries.items():
            children.setdefault(folder, []).append((name, inode))
        target.mkdir()
        todo = [(self.recording.folder, target)]
        while todo:
            folder, path = todo.pop()
            for name, inode in children.get(folder, ()):
                kind, place = self.recording.kinds[inode], path / name
                if kind == "folder":
                    place.mkdir()
                    todo.append((inode, place))
                elif kind != "file":
                    place.symlink_to(kind.removeprefix("-> "))
                elif inode in made:
                    place.hardlink_to(made[inode])
                else:
                    place.write_bytes(self.contents.get(inode, b""))
                    made[inode] = place


def states(recording: Recording, *, seed: int, most: int | None = None) -> list[State]:
    """Return different states, those at the extremes first among those of each moment.

    Args:
        recording: of one workload.
        seed: of what is chosen by chance.
        most: how many at most, spread over all moments; the extremes come first, each moment's.
    """
    dice = random.Random(seed)
    found: dict[tuple[bytes, int], State] = {}
    marks = [op for op in recording.operations if isinstance(op, Mark)]
    ranked: list[tuple[int, float, State]] = []
    for moment in _moments(recording):
        for rank, state in moment.states(dice):
            said = sum(mark.ended <= moment.ended for mark in marks)
            if (state.key, said) not in found:
                found[state.key, said] = state
                ranked.append((rank, dice.random(), state))
    ranked.sort(key=lambda entry: entry[:2])
    chosen = [state for _, _, state in ranked[:most]]
    return sorted(chosen, key=lambda state: state.at)


@dataclass(slots=True)
class _File:
    """What is durable of a file, and what is not."""

    durable: bytes = b""
    pending: list[Write | Resize] = field(default_factory=list)
    known: dict[str, bytes] = field(default_factory=dict)
    """Variant → content."""

    def sync(self, began: int) -> None:
        covered = [op for op in self.pending if op.ended < began]
        self.durable = bytes(_applied(self.durable, covered))
        self.pending = self.pending[len(covered) :]
        self.known = {}

    def content(self, variant: str) -> bytes:
        if not self.pending:
            return self.durable
        if variant not in self.known:
            self.known[variant] = _variant(self.durable, self.pending, variant)
        return self.known[variant]


def _moments(recording: Recording) -> Iterator[_Moment]:
    """Yield the moment after each operation, and the one before the first."""
    entries: _Entries = {}
    names: list[Names] = []
    files: dict[int, _File] = {}
    said: list[Mark] = [op for op in recording.operations if isinstance(op, Mark)]
    before: Mapping[str, object] = {}
    begun = not any("settled" in mark.said for mark in said)
    for at, op in enumerate([None, *recording.operations]):
        match op:
            case Names():
                names.append(op)
            case Write() | Resize():
                files.setdefault(op.inode, _File()).pending.append(op)
                files[op.inode].known = {}
            case Sync():
                if op.inode in files:
                    files[op.inode].sync(op.began)
                covered = [one for one in names if one.folder == op.inode and one.ended < op.began]
                _enter(entries, covered)
                names = [one for one in names if one not in covered]
            case Mark():
                said, before = said[1:], op.said
                if "settled" in op.said:  # what is there by now has long been durable
                    begun = True
                    _enter(entries, names)
                    names = []
                    for file in files.values():
                        file.sync(op.ended)
        if begun:
            yield _Moment(
                recording=recording,
                at=at,
                ended=0 if op is None else op.ended,
                before=before,
                after=said[0].said if said else before,
                entries=dict(entries),
                names=list(names),
                files=files,
            )


def _enter(entries: _Entries, changes: Sequence[Names]) -> None:
    for change in changes:
        for name, inode in change.changes:
            if inode is None:
                entries.pop((change.folder, name), None)
            else:
                entries[change.folder, name] = inode


@dataclass(slots=True)
class _Moment:
    recording: Recording
    at: int
    ended: int
    before: Mapping[str, object]
    after: Mapping[str, object]
    entries: _Entries
    names: list[Names]
    files: dict[int, _File]

    def states(self, dice: random.Random) -> Iterator[tuple[int, State]]:
        """Yield ranks and states, the telling ones with rank 0."""
        every = frozenset(range(len(self.names)))
        none: frozenset[int] = frozenset()
        for kept, variants in ((every, DATA), (none, ("none", "all"))):
            for variant in variants:
                rank = 0 if variant in {"none", "all"} else 1 if variant in {"zeros", "front"} else 2
                yield rank, self._state(kept, variant)
        for number in every:
            for variant in ("none", "all", "front"):
                yield 2, self._state(frozenset(range(number)), variant)
                yield 2, self._state(every - {number}, variant)
                yield 3, self._state(frozenset({number}), variant)
        for _ in range(2 + 2 * len(every)):
            some = frozenset(number for number in every if dice.random() < 0.5)
            open_files = sorted(inode for inode, file in self.files.items() if file.pending)
            yield 3, self._state(some, {inode: dice.choice(DATA) for inode in open_files})

    def _state(self, kept: frozenset[int], variant: str | Mapping[int, str]) -> State:
        entries = dict(self.entries)
        _enter(entries, [self.names[number] for number in sorted(kept)])
        reached = {inode for inode in entries.values() if inode in self.files}
        contents = {
            inode: self.files[inode].content(variant if isinstance(variant, str) else variant.get(inode, "all"))
            for inode in reached
        }
        missing = [number for number in range(len(self.names)) if number not in kept]
        state = State(
            at=self.at,
            before=self.before,
            after=self.after,
            how=f"names without {missing} of {len(self.names)}, data {variant}",
            entries=entries,
            contents=contents,
            recording=self.recording,
        )
        state.key = _key(state)
        return state


_digests: dict[int, tuple[bytes, bytes]] = {}


def _digest(content: bytes) -> bytes:
    """Return its digest; the same object is hashed once."""
    known = _digests.get(id(content))
    if known is None or known[0] is not content:
        if len(_digests) > 64:
            _digests.clear()
        _digests[id(content)] = known = content, xxhash.xxh3_128_digest(content)
    return known[1]


def _key(state: State) -> bytes:
    """Return a digest of what can be reached, hard links and all."""
    hasher = xxhash.xxh3_128()
    for (folder, name), inode in sorted(state.entries.items()):
        hasher.update(f"{folder}/{name}={inode}\n".encode())
        if inode in state.contents:
            hasher.update(_digest(state.contents[inode]))
    return hasher.digest()


def _variant(durable: bytes, pending: Sequence[Write | Resize], variant: str) -> bytes:
    """Return a content that a file may have.

    none, all   nothing, everything that is pending
    zeros       the new size, but none of the data: old bytes, and zeros behind them
    rubbish     the same with something else than zeros
    front       everything but the second half of the last write, by sectors
    back        everything but the first half of it
    checkered   every other sector
    last        the last write, and none before it
    first       the first operation
    """
    whole = bytes(_applied(durable, pending))
    writes = [op for op in pending if isinstance(op, Write)]
    old = _resized(durable, len(whole), b"\0")
    if variant == "none":
        return durable
    if variant in {"zeros", "rubbish"} or not writes:
        return old if variant != "rubbish" else _resized(durable, len(whole), b"\xa5{\n")
    last = writes[-1]
    middle = (last.offset + len(last.data) // 2) // SECTOR
    made = {
        "all": lambda: whole,
        "first": lambda: bytes(_applied(durable, pending[:1])),
        "last": lambda: bytes(_applied(old, [last]))[: len(whole)],
        "checkered": lambda: _mixed(old, whole, lambda sector: sector % 2 == 0),
        "front": lambda: _mixed(without_last(), whole, lambda sector: sector < middle),
        "back": lambda: _mixed(without_last(), whole, lambda sector: sector >= middle),
    }

    def without_last() -> bytes:
        return _resized(bytes(_applied(durable, [op for op in pending if op is not last])), len(whole), b"\0")

    return made[variant]()


def _resized(content: bytes, size: int, fill: bytes) -> bytes:
    missing = max(0, size - len(content))
    return content[:size] + (fill * (missing // len(fill) + 1))[:missing]


def _mixed(old: bytes, new: bytes, takes_new) -> bytes:
    mixed = bytearray(old)
    for begin in range(0, len(new), SECTOR):
        if takes_new(begin // SECTOR):
            mixed[begin : begin + SECTOR] = new[begin : begin + SECTOR]
    return bytes(mixed)


def _applied(content: bytes, operations: Sequence[Operation]) -> bytearray:
    done = bytearray(content)
    for op in operations:
        if isinstance(op, Write):
            done.extend(bytes(max(0, op.offset + len(op.data) - len(done))))
            done[op.offset : op.offset + len(op.data)] = op.data
        elif isinstance(op, Resize):
            del done[op.size :]
            done.extend(bytes(op.size - len(done)))
    return done
