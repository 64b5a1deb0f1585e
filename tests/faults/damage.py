"""Damage: bits flipped, bytes changed, files cut short, grown, swapped, removed; is it noticed, and by whom?

Noticed means: `verify` names the file, and whoever loads gets an error that names what is damaged, or the very values.
Where only a hint or a row of the journal is damaged, everything must load as if nothing had happened.
"""

from __future__ import annotations

import contextlib
import io
import itertools
import random
import shutil
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from faults.specimen import FolderPlace, MemoryPlace, Specimen, plainly
from faults.tally import Tally

from keepbest.cli import main
from keepbest.errors import KeepbestError
from keepbest.storage.checkpoint import Checkpoint
from keepbest.storage.layout import JOURNAL, commit_sequence, index_sequence
from keepbest.storage.listing import Listing, read_listing
from keepbest.storage.run import Run
from keepbest.storage.verify import Report, verify

Found = tuple[str, str]
"""A harm, and what it was."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Damage:
    """What is done to the files of a run."""

    what: str
    files: dict[str, bytes | None]
    """Key → what stands there now; None: nothing."""
    hurt: frozenset[str]
    """Checkpoints that are not whole any more."""
    folder: str | None = None
    """A key where a folder stands now."""
    grown: bool = False
    """A tensor file has more bytes than it had, which loading does not need to look at: only `verify` tells."""
    absent: frozenset[str] = frozenset()
    """Checkpoints that do not exist any more, as their manifest does not."""


def measure(folder: Path, *, sample: bool, seed: int) -> Iterator[Tally]:
    """Damage a run in memory byte by byte, and one on a disk where what a file system does counts."""
    draw = random.Random(seed)
    memory = Specimen(MemoryPlace())
    local = Specimen(FolderPlace(folder / "run"))
    kinds = {
        "every byte of the headers of tensor files": [
            (key, range(_data_start(data))) for key, data in memory.files.items() if key.endswith(".safetensors")
        ],
        "every byte of the manifests": _whole(memory, lambda key: commit_sequence(key) is not None),
        "every byte of the state files": _whole(memory, lambda key: key.endswith("/state.json")),
        "every byte of the index and of best.json": _whole(
            memory, lambda key: index_sequence(key) is not None or key == "best.json"
        ),
        "every byte of the journal": _whole(memory, lambda key: key == "metrics.jsonl"),
    }
    for scenario, places in kinds.items():
        damages = [damage for key, where in places for damage in _bytes_changed(memory, key, where, draw)]
        yield _tried(f"{scenario}, changed", memory, _some(damages, 60 if sample else None, draw))
    yield _tried("single bits of the tensors' values", memory, _bits_flipped(memory, 150 if sample else 10_000, draw))
    yield _tried("files cut short or grown", memory, _some(_resized(memory), 60 if sample else None, draw))
    yield _tried("files cut short or grown, on a disk", local, _some(_resized(local), 30 if sample else None, draw))
    rearranged = _some(_rearranged(memory), 60 if sample else None, draw)
    yield _tried("files swapped, copied over, emptied, removed", memory, rearranged)
    rearranged = _some([*_rearranged(local), *_folders(local)], 60 if sample else None, draw)
    yield _tried("files swapped, emptied, removed, a folder instead, on a disk", local, rearranged)
    anywhere = [(key, range(len(data))) for key, data in local.files.items()]
    changed = [damage for key, where in anywhere for damage in _bytes_changed(local, key, where, draw)]
    yield _tried("any byte of any file, on a disk", local, _some(changed, 60 if sample else 3_000, draw))
    yield _told_by_command(local, [*_some(changed, 15 if sample else 300, draw), *_some(rearranged, 15, draw)])


# ── what is done ──────────────────────────────────────────────────────────────────────────────────────────────────


def _whole(specimen, wanted):
    return [(key, range(len(data))) for key, data in specimen.files.items() if wanted(key)]


def _some(damages: Sequence[Damage], many: int | None, draw: random.Random) -> Sequence[Damage]:
    return damages if many is None or many >= len(damages) else draw.sample(damages, many)


def _data_start(data: bytes) -> int:
    return 8 + int.from_bytes(data[:8], "little")


def _changed(specimen, key, data, what, *, grown=False) -> Damage:
    hurt = frozenset(specimen.hurt_by(key))
    return Damage(what=f"{key}: {what}", files={key: bytes(data)}, hurt=hurt, grown=grown)


def _bytes_changed(specimen, key: str, where: range, draw: random.Random) -> Iterator[Damage]:
    """Yield for each byte one flipped bit, and another value that looks as if it belonged there."""
    data = specimen.files[key]
    for at in where:
        for value in {data[at] ^ 1 << draw.randrange(8), draw.choice(b'0123456789abcdef"{}[]:, \x00\xff')} - {data[at]}:
            yield _changed(specimen, key, data[:at] + bytes([value]) + data[at + 1 :], f"byte {at} is {value}")


def _bits_flipped(specimen, many: int, draw: random.Random) -> Iterator[Damage]:
    keys = [key for key in specimen.files if key.endswith(".safetensors")]
    bits = [
        (key, bit) for key in keys for bit in range(8 * _data_start(specimen.files[key]), 8 * len(specimen.files[key]))
    ]
    for key, bit in draw.sample(bits, min(many, len(bits))) if many < len(bits) else bits:
        data = bytearray(specimen.files[key])
        data[bit // 8] ^= 1 << bit % 8
        yield _changed(specimen, key, data, f"bit {bit} is flipped")


def _resized(specimen) -> list[Damage]:
    damages = []
    for key, data in specimen.files.items():
        ends = {0, 1, 8, len(data) // 2, len(data) - 1}
        if key.endswith(".safetensors"):
            start = _data_start(data)
            ends |= {start - 1, start, start + 1, *_boundaries(specimen, key)}
        damages += [_changed(specimen, key, data[:end], f"ends at {end}") for end in sorted(ends) if end < len(data)]
        for more in (b"\0", b"\n", b"}\n", bytes(64), data):
            grown = key.endswith(".safetensors")
            damages.append(_changed(specimen, key, data + more, f"has {len(more)} bytes more", grown=grown))
    return damages


def _boundaries(specimen, key) -> Iterator[int]:
    _, name, file = key.split("/")
    info = next(found for found in specimen.writer.checkpoints if found.name == name)
    artifact = Checkpoint(specimen.backend, info).manifest().artifacts[file]
    for record in artifact.tensors.values():
        yield from (artifact.data_start + place for place in record.offsets)


def _rearranged(specimen) -> list[Damage]:
    """Return every exchange of two files of one kind, every copy of one over the other, every loss of one."""
    damages = []
    for key, data in specimen.files.items():
        gone = frozenset(specimen.hurt_by(key)) if commit_sequence(key) is not None else frozenset()
        hurt = frozenset() if gone else frozenset(_losers(specimen, key))
        damages.append(Damage(what=f"{key}: removed", files={key: None}, hurt=hurt, absent=gone))
        damages.append(_changed(specimen, key, b"", "is empty"))
        damages.append(_changed(specimen, key, bytes(len(data)), "is all zeros"))
    for one, other in itertools.combinations(specimen.files, 2):
        ours, theirs = specimen.files[one], specimen.files[other]
        if ours == theirs:
            continue
        hurt = frozenset(specimen.hurt_by(one) | specimen.hurt_by(other))
        damages.append(Damage(what=f"{one} and {other}: swapped", files={one: theirs, other: ours}, hurt=hurt))
        damages.append(_changed(specimen, one, theirs, f"is a copy of {other}"))
        damages.append(_changed(specimen, other, ours, f"is a copy of {one}"))
    return damages


def _losers(specimen, key):
    """A file that is removed is lost to one checkpoint only, even if its bytes are shared."""
    return {name for name in specimen.hurt_by(key) if key.startswith(f"checkpoints/{name}/")}


def _folders(specimen) -> Iterator[Damage]:
    for key in specimen.files:
        gone = frozenset(specimen.hurt_by(key)) if commit_sequence(key) is not None else frozenset()
        hurt = frozenset() if gone else frozenset(_losers(specimen, key))
        yield Damage(what=f"{key}: a folder", files={key: None}, hurt=hurt, absent=gone, folder=key)


# ── what came of it ───────────────────────────────────────────────────────────────────────────────────────────────


def _tried(scenario: str, specimen, damages) -> Tally:
    tally = Tally(family="damage", scenario=scenario)
    for number, damage in enumerate(damages):
        tally.tried += 1
        with _done(specimen, damage):
            for harm, what in _harm(specimen, damage, number):
                tally.found(harm, f"{damage.what}: {what}")
    return tally


@contextlib.contextmanager
def _done(specimen, damage: Damage) -> Iterator[None]:
    for key, data in damage.files.items():
        if data is None:
            specimen.place.delete(key)
        else:
            specimen.place.write(key, data)
    if damage.folder is not None:
        (specimen.place.folder / damage.folder).mkdir()
    try:
        yield
    finally:
        if damage.folder is not None:
            shutil.rmtree(specimen.place.folder / damage.folder)
        specimen.put_back(*damage.files)


def _harm(specimen, damage: Damage, number: int) -> Iterator[Found]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            listing = read_listing(specimen.backend)
            report = verify(specimen.backend, listing)
            Run(specimen.backend).history()
        except Exception as error:  # noqa: BLE001 - whatever it is, it is what is looked for
            yield "unnoticed", f"looking at the run raised {error!r}"
            return
        yield from _reported(specimen, damage, report)
        yield from _listed(specimen, damage, listing)
        known = {info.name: info for info in listing.checkpoints}
        spared = [name for name in specimen.names if name in known and name not in damage.hurt | damage.absent]
        for name in sorted(damage.hurt & known.keys()):
            yield from _loaded(specimen, damage, known[name], hurt=True)
        if spared:
            yield from _loaded(specimen, damage, known[spared[number % len(spared)]], hurt=False)


def _reported(specimen, damage: Damage, report: Report) -> Iterator[Found]:
    for name in specimen.names:
        if name in damage.hurt and name in report.whole:
            yield "unnoticed", f"verify says that {name} is whole"
        if name not in damage.hurt | damage.absent and name not in report.whole:
            yield "lost", f"verify says that {name} is not whole, and it is: {report}"
    said = str(report)
    for key in damage.files:
        if (
            damage.hurt
            and specimen.hurt_by(key) & damage.hurt
            and key not in said
            and not _linked_in(specimen, key, said)
        ):
            yield "unnoticed", f"verify does not name {key}: {said}"


def _linked_in(specimen, key: str, said: str) -> bool:
    return any(other in said for other in specimen.owners if specimen.owners[other] == specimen.owners.get(key))


def _listed(specimen, damage: Damage, listing: Listing) -> Iterator[Found]:
    listed = {info.name for info in listing.checkpoints}
    if missing := set(specimen.names) - listed - damage.hurt - damage.absent:
        yield "lost", f"{', '.join(missing)} is not listed any more"
    if extra := listed - set(specimen.names):
        yield "torn", f"{', '.join(extra)} is listed, and never was"


def _loaded(specimen, damage: Damage, info, *, hurt: bool) -> Iterator[Found]:
    """Load every object; each gives its very values or an error that names what is damaged, and one at least does."""
    errors = []
    for name, expected in specimen.wrote[info.name].items():
        try:
            loaded = plainly(Checkpoint(specimen.backend, info).load(name))
        except KeepbestError as error:
            errors.append(str(error))
            named = any(key in str(error) for key in damage.files) or info.name in str(error)
            if not named:
                yield "unnoticed", f"the error names nothing: {error}"
        except Exception as error:  # noqa: BLE001 - as above
            yield "unnoticed", f"loading {name} raised {error!r}"
        else:
            if loaded != expected:
                yield "unnoticed", f"{info.name}: other values of {name} were loaded"
    if hurt and not errors and not damage.grown:
        yield "unnoticed", f"{info.name}: everything was loaded as if nothing had happened"
    if not hurt and errors:
        yield "lost", f"{info.name} is not damaged, and cannot be loaded: {errors[0]}"


def _told_by_command(specimen, damages: Sequence[Damage]) -> Tally:
    """`keepbest verify` ends with 1 if a checkpoint is damaged, else with 0.

    The journal may be damaged so that nobody can tell; and the best may be gone, that the pointer shows.
    """
    tally = Tally(family="damage", scenario="the exit code of `keepbest verify`")
    for damage in damages:
        tally.tried += 1
        with _done(specimen, damage), contextlib.redirect_stdout(io.StringIO()) as said:
            code = main(["verify", specimen.place.url])
        beside = JOURNAL in damage.files or bool(damage.absent)
        if code not in ({1} if damage.hurt else {0, 1} if beside else {0}):
            tally.found("unnoticed", f"{damage.what}: the exit code is {code}, and it said {said.getvalue()}")
    return tally
