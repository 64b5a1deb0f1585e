"""Pointer: what `best` shows to people and scripts, a link or `best.json`, and whether that is the best.

It is a hint: nothing of keepbest's goes by it. A save sets it at its end, after its commit, so it may be late.
"""

from __future__ import annotations

import contextlib

import msgspec
from msgspec import Struct

from ..errors import DamagedError, ObjectNotFoundError
from .backend import Backend, Link
from .layout import BEST_HINT, BEST_LINK, STATE_FILE, commit_key, data_prefix
from .listing import read_listing
from .manifest import CheckpointInfo, unseal
from .ranking import best_of
from .trust import Trusted


class Astray(Struct, frozen=True, kw_only=True):
    """A pointer that does not show the best."""

    key: str
    message: str
    """What, where, and what to do."""


class _Hint(Struct, frozen=True):
    name: str


def astray(backend: Backend, trusted: Trusted | None = None) -> list[Astray]:
    """Return what is wrong with the pointers of a run; each is as it should be, or absent, in a run that is whole.

    A pointer that was set before the best was committed is late, and no problem: a save is under way, or a crash ended
    it, and the next one sets it. So this may be asked while training goes on; of several trainings on one run, all but
    one of which are refused, a slow one may set it last, and the next save sets it right. Not judged are runs without
    a best, and those with manifests that cannot be read. A folder in the pointer's place, as copying makes one of a
    link, is compared by the sizes of the files that it shares with the best, and by the state file; other files are
    others'.

    With `trusted` the best is that of what is signed, and nothing is judged where something is not.

    Cost: a listing of the commits, as `read_listing` says, and of two folders; four small reads.

    Raises:
        StorageError: it cannot be read.
    """
    link = backend.read_link(BEST_LINK)  # before the listing: what is committed in between makes it late, not wrong
    hint, hinted = _read_hint(backend)
    listing = read_listing(backend, trusted)
    best = best_of(listing.checkpoints, None)
    if best is None or listing.damaged:
        return []
    found = [_astray_hint(backend, hint, best, readable=hinted)]
    found.append(_astray_folder(backend, best) if link is None else _astray_link(backend, link, best))
    return [each for each in found if each is not None]


def _read_hint(backend: Backend) -> tuple[Link | None, bool]:
    """Return what the hint names and when it was set, None without one; and whether it can be read."""
    try:
        modified = backend.head(BEST_HINT).modified  # before: set anew in between, it seems older, not newer
        text = backend.read(BEST_HINT)
    except ObjectNotFoundError:
        return None, True
    try:
        name = msgspec.json.decode(unseal(text, BEST_HINT), type=_Hint).name
    except (DamagedError, msgspec.DecodeError, RecursionError):
        return Link(source="", modified=modified), False
    return Link(source=data_prefix(name).rstrip("/"), modified=modified), True


def _astray_hint(backend: Backend, hint: Link | None, best: CheckpointInfo, *, readable: bool) -> Astray | None:
    mend = "To mend it: delete it; the next training that saves here writes it anew."
    if hint is None:
        return None
    if not readable:
        return Astray(key=BEST_HINT, message=f"{backend.url}/{BEST_HINT} cannot be read, and {_is_best(best)}. {mend}")
    if not _misleads(backend, hint, best):
        return None
    return Astray(key=BEST_HINT, message=f"{_leads(backend, BEST_HINT, hint)}, but {_is_best(best)}. {mend}")


def _astray_link(backend: Backend, link: Link, best: CheckpointInfo) -> Astray | None:
    if not _misleads(backend, link, best):
        return None
    mend = f"To mend it: ln -sfn {data_prefix(best.name).rstrip('/')} {backend.url}/{BEST_LINK}"
    return Astray(key=BEST_LINK, message=f"{_leads(backend, BEST_LINK, link)}, but {_is_best(best)}. {mend}")


def _astray_folder(backend: Backend, best: CheckpointInfo) -> Astray | None:
    inside, held = f"{BEST_LINK}/", data_prefix(best.name)
    copies = {entry.key.removeprefix(inside): entry.size for entry in backend.list(inside)}
    files = {entry.key.removeprefix(held): entry.size for entry in backend.list(held)} if copies else {}
    other = sorted(file for file in copies.keys() & files.keys() if copies[file] != files[file])
    if not other and STATE_FILE in copies.keys() & files.keys():
        with contextlib.suppress(ObjectNotFoundError):  # retired since it was listed
            other = [STATE_FILE] * (backend.read(inside + STATE_FILE) != backend.read(held + STATE_FILE))
    if not other:
        return None
    return Astray(
        key=BEST_LINK,
        message=f"{backend.url}/{BEST_LINK} holds copies of other files than the best, {best.name}, has (such as "
        f"{other[0]}): it was copied, and no save brings it up to date. To mend it: delete that folder; the next "
        "training that saves here points at the best.",
    )


def _misleads(backend: Backend, pointer: Link, best: CheckpointInfo) -> bool:
    """Say whether a pointer shows something else, and not only since the best was committed."""
    if pointer.source == data_prefix(best.name).rstrip("/"):
        return False
    with contextlib.suppress(ObjectNotFoundError):  # retired, so there is another best by now
        return backend.head(commit_key(best.sequence)).modified < pointer.modified
    return False


def _leads(backend: Backend, key: str, pointer: Link) -> str:
    return f"{backend.url}/{key} leads to {pointer.source}"


def _is_best(best: CheckpointInfo) -> str:
    return f"the best is {best.name}"
