"""Peer trials: one library's saves, killed and damaged as ours are, and judged by what that library itself says.

    python -m faults.peer_trials SUBJECT FOLDER SEED KILLS CALLS DAMAGES

Prints a row for each kind of fault. A subject is a module of `subjects/`: `NAME`, `PROMISE`, `VERSION`;
`train(folder, voice, warm, window)` resumes as the library's documentation tells, calls `voice.ready()` after `warm`
epochs, and says "saved 3" when the library says that epoch 3 is complete; `newest(folder)` loads the newest checkpoint
in the documented way, and returns its epoch; `load(folder, epoch)` loads one by its name.
"""

from __future__ import annotations

import importlib
import random
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from faults import hosts, kills
from faults.aftermath import epochs_said
from faults.children import Mute, ask, import_for
from faults.tally import Tally

_LOST = "said to be complete, and not to be loaded"


def main(name: str, folder: str, seed: str, *counts: str) -> None:
    """Try one subject."""
    subject = importlib.import_module(f"faults.subjects.{name}")
    chance, place = random.Random(int(seed)), Path(folder)
    _use_one_thread()
    _empty(place / "first")
    import_for(lambda: (subject.train(place / "first", Mute(), warm=0, window=1), subject.newest(place / "first")))
    _use_one_thread()
    for trial, count in zip((at_random_moments, at_calls, damaged), map(int, counts), strict=True):
        if count:
            hosts.say(trial(subject, place, chance, count))


def at_random_moments(subject: ModuleType, folder: Path, chance: random.Random, times: int) -> Tally:
    """Kill a training that saves and saves; ten times in the same folder, then afresh."""
    tally = _tally(subject, "killed at a random moment")
    place, earlier, longest = folder / "random", list[str](), _seconds_of(subject, folder)
    for number in range(times):
        if number % 10 == 0:
            earlier = []
            _empty(place)
        end = kills.after_seconds(_job(subject, place, warm=0, window=1 << 20), chance.uniform(0.0, longest))
        earlier += end.said
        tally.tried += end.killed
        kills.tell(end, tally, f"kill {number}")
        if judge(subject, place, earlier, tally, f"kill {number}"):
            earlier = []  # or each later one would tell of it again
            _empty(place)
    return tally


def at_calls(subject: ModuleType, folder: Path, chance: random.Random, most: int) -> Tally:
    """Kill before, halfway through and after the calls of one save, and of what it deletes."""
    tally = _tally(subject, "killed at a system call")
    base, place = folder / "base", folder / "trial"
    _empty(base)
    earlier = _whole(subject, base, 2)

    def trial(number: int, moment: kills.Moment) -> kills.End:
        _empty(place, base)
        end = kills.at_call(_job(subject, place, warm=1, window=1), str(place), number, moment)
        where = f"{moment} call {number} ({end.calls[-1]})" if number else "not killed"
        kills.tell(end, tally, where)
        judge(subject, place, earlier + end.said, tally, where)
        return end

    calls = trial(0, "before").calls
    for number, moment in kills.moments(calls, most=most, seed=chance.randrange(1 << 30)):
        tally.tried += trial(number, moment).killed
    tally.remark += f"; {len(calls)} calls that change something"
    return tally


def damaged(subject: ModuleType, folder: Path, chance: random.Random, times: int) -> Tally:
    """Flip a bit of a file of the newest checkpoint, or cut one short, after training has ended well."""
    tally = _tally(subject, "a bit flipped, or a file cut short")
    base, place = folder / "base", folder / "damaged"
    _empty(base)
    _whole(subject, base, 2)
    before = _stamps(base)
    said = epochs_said("saved", _whole(subject, base, 1))
    files = sorted(path for path, stamp in _stamps(base).items() if before.get(path) != stamp)
    for number in range(times):
        _empty(place, base)
        what = _damage([place / path for path in files], chance, cut=number % 4 == 3)
        tally.tried += 1
        found, error = _asked(lambda: subject.newest(place))
        if found == _OTHER:
            tally.found("unnoticed", f"{what}: loaded with other values")
        elif error.startswith("hung"):
            tally.found("hung", what)
        elif not error and found != max(said):
            tally.found("unnoticed", f"{what}: epoch {found} was loaded, without a word")
    return tally


def judge(subject: ModuleType, place: Path, said: list[str], tally: Tally, where: str) -> bool:
    """Load as the library tells, train on, and note what went wrong; return whether anything did."""
    before = sum(tally.harm.values())
    saved = max(epochs_said("saved", said), default=None)
    found, error = _asked(lambda: subject.newest(place))
    if error:
        tally.found("torn", f"{where}: {error}")
        if saved is not None and _asked(lambda: subject.load(place, saved))[1]:
            tally.found("lost", f"{where}: epoch {saved} was {_LOST}: {error}")
    elif found == _OTHER:
        tally.found("unnoticed", f"{where}: loaded with other values")
    elif saved is not None and (found is None or found < saved):
        tally.found("lost", f"{where}: epoch {saved} was {_LOST}; {found} is the newest")
    end = kills.to_the_end(_job(subject, place, warm=0, window=1))
    said += end.said
    kills.tell(end, tally, f"{where}: training does not go on")
    return sum(tally.harm.values()) > before


_OTHER = "other"


def _asked(job: Callable[[], int | None]) -> tuple[Any, str]:
    """Return the epoch that was loaded, None or `_OTHER`; and the error, or nothing."""

    def asking() -> list[Any]:
        try:
            return [job(), ""]
        except ValueError as error:
            if "no epoch's values" in str(error):
                return [_OTHER, ""]
            return [None, f"{type(error).__name__}: {error}"]
        except Exception as error:  # noqa: BLE001 - whatever the library raises: it has noticed
            return [None, f"{type(error).__name__}: {error}"]

    try:
        found, error = ask(asking)
    except TimeoutError:
        return None, "hung"
    except RuntimeError as error:
        return None, f"died: {error}"
    return found, error[:300]


def _stamps(folder: Path) -> dict[Path, tuple[int, int]]:
    """Return the files below a folder that are not empty, and what changes when one is written."""
    files = {path: path.stat() for path in folder.rglob("*") if path.is_file() and not path.is_symlink()}
    return {path.relative_to(folder): (at.st_ino, at.st_mtime_ns) for path, at in files.items() if at.st_size}


def _damage(files: list[Path], chance: random.Random, *, cut: bool) -> str:
    """Damage a file, the larger the likelier; return what was done."""
    path = chance.choices(files, [path.stat().st_size for path in files])[0]
    data = bytearray(path.read_bytes())
    where = chance.randrange(len(data))
    if cut:
        del data[where:]
    else:
        data[where] ^= 1 << chance.randrange(8)
    path.write_bytes(data)
    return f"{path.name} {'cut' if cut else 'flipped'} at {where}"


def _seconds_of(subject: ModuleType, folder: Path) -> float:
    """Return the longest wait before a kill: as long as three epochs take, after the start."""
    place = folder / "timing"
    _empty(place)
    begin = time.monotonic()
    _whole(subject, place, 1)
    one = time.monotonic()
    _whole(subject, place, 5)
    four = (time.monotonic() - one) - (one - begin)
    return one - begin + max(0.0, four)


def _whole(subject: ModuleType, place: Path, epochs: int) -> list[str]:
    end = kills.to_the_end(_job(subject, place, warm=0, window=epochs))
    if end.failed or end.hung:
        raise RuntimeError("\n".join(end.said))
    return end.said


def _job(subject: ModuleType, place: Path, *, warm: int, window: int) -> kills.Job:
    return lambda voice: subject.train(place, voice, warm=warm, window=window)


def _tally(subject: ModuleType, scenario: str) -> Tally:
    return Tally(family="peers", subject=f"{subject.NAME} {subject.VERSION}", scenario=scenario, remark=subject.PROMISE)


def _empty(place: Path, base: Path | None = None) -> None:
    shutil.rmtree(place, ignore_errors=True)
    if base is None:
        place.mkdir()
    else:
        shutil.copytree(base, place, symlinks=True)


def _use_one_thread() -> None:
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)  # what is forked has no other


if __name__ == "__main__":
    main(*sys.argv[1:])
