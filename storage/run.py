"""Run: a folder or prefix that holds checkpoints; what is in it and which is best. Writing is `run_writer`'s."""

from __future__ import annotations

import contextlib
import difflib
import itertools
import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..errors import AmbiguousNameError, CheckpointNotFoundError, KeepbestError, NotARunError, UntrustedError
from . import gc, verify
from .backend import Backend, open_backend
from .checkpoint import Checkpoint
from .layout import (
    CHECKPOINTS,
    COMMITS,
    checkpoint_of,
    checkpoint_place,
    commit_sequence,
    data_key,
    run_around,
    run_of,
)
from .listing import Listing, read_listing
from .manifest import CheckpointInfo, info
from .ranking import best_of, newest_complete
from .trust import Trust, Trusted, as_trusted

if TYPE_CHECKING:
    from .history import History, Row
    from .journal import Mark
    from .notes import Note

_SHOWN = 10
"""Checkpoints that a notebook shows, besides the best."""
_FIRST = 16
"""Objects among which one of the run's own is looked for first; a run of 10,000 checkpoints is not listed twice."""
_LOOKED_THROUGH = 1000
"""Objects of a place that is no run, among which those of runs below it are looked for."""
_DIGITS = 18
"""Of a sequence number, at most."""
_LISTED_AT_ONCE = ("", "s3", "s3a", "gs", "gcs", "memory")
"""Schemes of places that need no request for each of their folders."""


def open_run(
    url: str | os.PathLike[str],
    *,
    storage_options: Mapping[str, Any] | None = None,
    trusted: Trust | None = None,
) -> Run:
    """Open a run for reading, with no training code around and no framework imported.

    Args:
        url: what the Checkpointer was given.
        storage_options: what fsspec takes for the scheme (credentials, endpoint); never logged.
        trusted: a public key: the path of a PEM file, its content, or a `Trusted`. Whatever is not signed by it, or
            not as it stands there, is refused with an `UntrustedError`. The history is not signed. None: no signature
            is looked for.

    Raises:
        NotARunError: nothing there is a run.
        KeyFileError: `trusted` is no public Ed25519 key.
        ConfigError: no backend serves the scheme.

    Example:
        >>> run = keepbest.open_run("runs/digits")
        >>> run.best.metrics["val_loss"], run.latest.epoch, run.history()["val_loss"]
    """
    demanded = as_trusted(trusted)
    run = Run(open_backend(url, storage_options), demanded)
    if not run.exists():
        raise NotARunError(run.url, "holds no run", _runs_near(run.backend, storage_options))
    return run


def _runs_near(backend: Backend, storage_options: Mapping[str, Any] | None) -> list[str]:
    """Return the URLs of runs below a place, of the run that it is in, or of those beside it that are called nearly so.

    As far as some keys tell; beside it only in a file system. Raises nothing.
    """
    scheme, _, rest = backend.url.rpartition("://")
    if scheme not in _LISTED_AT_ONCE:
        return []
    with contextlib.suppress(KeepbestError):
        below = {run_of(entry.key) for entry in backend.list("", limit=_LOOKED_THROUGH)} - {None, ""}
        if below:
            return [f"{backend.url}/{folder}" for folder in sorted(filter(None, below))]
        around = run_around(rest)
        if around:
            url = backend.url.removesuffix(rest) + around
            if Run(open_backend(url, storage_options)).exists():
                return [url]
        if not scheme:
            return [url for url in _called_nearly(rest) if Run(open_backend(url)).exists()]
    return []


def _called_nearly(path: str) -> list[str]:
    """Return the folders beside `path` whose names are nearly its own."""
    around, name = os.path.split(path)
    try:
        with os.scandir(around) as beside:
            folders = (entry.name for entry in beside if entry.is_dir() and entry.name != name)
            names = [*itertools.islice(folders, _LOOKED_THROUGH)]
    except OSError:
        return []
    return [f"{around.rstrip('/')}/{found}" for found in difflib.get_close_matches(name, names, n=2)]


class Run:
    """A run, as one listing at a time: each property lists anew, so what another process commits is seen.

    Cost of a look: one listing, one read of the index, one read for each of the few commits not yet in it. With
    `trusted`: one listing, two reads for each commit.
    """

    def __init__(self, backend: Backend, trusted: Trusted | None = None) -> None:
        self.backend = backend
        self.url = backend.url
        self.trusted = trusted
        """What is demanded of every checkpoint that is read."""

    def __repr__(self) -> str:
        return f"<Run {self.url}>"

    def _repr_html_(self) -> str:
        """Return what a notebook shows: the newest checkpoints and the best. Cost: a look."""
        from .htmltable import html_table  # noqa: PLC0415 - only notebooks need it

        try:
            held = self.listing().checkpoints
        except KeepbestError as error:
            return html_table(self.url, [], [[str(error)]])
        found = best_of(held, None)
        best = None if found is None else found.sequence
        shown = [each for each in held[:-_SHOWN] if each.sequence == best] + list(held[-_SHOWN:])
        metrics = list(dict.fromkeys(name for each in shown for name in each.metrics))
        caption = f"{self.url}: {len(held):,} checkpoint{'' if len(held) == 1 else 's'}"
        return html_table(
            caption if len(shown) == len(held) else f"{caption}; here are the newest {_SHOWN} and the best",
            ["", "name", "epoch", "step", *metrics],
            [
                [
                    "best" if each.sequence == best else "",
                    each.name,
                    "" if each.epoch is None else str(each.epoch + 1),
                    str(each.step),
                    *(f"{each.metrics[name]:.6g}" if name in each.metrics else "" for name in metrics),
                ]
                for each in shown
            ],
        )

    def exists(self) -> bool:
        """Say whether a run is here, even one with no checkpoint yet; another program's folder is none."""
        return self._holds(COMMITS, commit_sequence) or self._holds(CHECKPOINTS, checkpoint_of) or bool(self.journal())

    def _holds(self, prefix: str, parse: Callable[[str], object]) -> bool:
        """Say whether a key below `prefix` is one that `parse` knows; mostly, one of the first is."""
        first = self.backend.list(prefix, limit=_FIRST)
        if any(parse(entry.key) is not None for entry in first):
            return True
        return len(first) == _FIRST and any(parse(entry.key) is not None for entry in self.backend.list(prefix))

    def listing(self) -> Listing:
        """Return all commits, damaged ones too; with `trusted`, those that are not signed are among the damaged."""
        return read_listing(self.backend, self.trusted)

    def checkpoints(self) -> list[Checkpoint]:
        """Return the checkpoints, oldest first. Damaged manifests are left out, with one warning that names them."""
        return self._readable(self.listing(), stacklevel=3)

    @property
    def latest(self) -> Checkpoint:
        """The newest checkpoint that training can continue from, or the newest at all if none is complete.

        Raises:
            CheckpointNotFoundError: the run holds none.
            DamagedManifestError, UnsupportedFormatError: the newest commit cannot be read; older ones can be had by
            name. UntrustedError: it is not signed by the trusted key.
        """
        held = self.listing()
        newest = newest_complete(held.checkpoints)
        for sequence, error in held.damaged:
            if newest is None or sequence > newest.sequence:
                raise error
        if newest is None:
            raise CheckpointNotFoundError("latest", self.url)
        return self._checkpoint(newest)

    @property
    def best(self) -> Checkpoint:
        """The best checkpoint by the primary monitor.

        Raises:
            CheckpointNotFoundError: the run holds none that was ranked.
            UntrustedError: it holds none that is signed by the trusted key.
        """
        return self._best(None, stacklevel=4)

    def best_by(self, monitor: str | None) -> Checkpoint:
        """Return the best checkpoint by `monitor`, a metric's name (None: the primary one); of equals the earliest.

        Raises:
            CheckpointNotFoundError: no checkpoint was ranked by it.
        """
        return self._best(monitor, stacklevel=4)

    def get(self, which: str | int) -> Checkpoint:
        """Return one checkpoint: "best", "latest", a name or its unique beginning, or a sequence number.

        Raises:
            CheckpointNotFoundError: there is none; AmbiguousNameError: the beginning fits several.
            UntrustedError: it is not signed by the trusted key.
        """
        if which == "best":
            return self._best(None, stacklevel=4)
        if which == "latest":
            return self.latest
        held = self._readable(self.listing(), stacklevel=3) if self.trusted is None else self._all()
        text = str(which)
        exact = [found for found in held if text in (found.name, str(found.sequence))]
        close = exact or [found for found in held if isinstance(which, str) and found.name.startswith(text)]
        if not close:
            gone = checkpoint_place(text) is not None or _was_numbered(text, held)
            raise CheckpointNotFoundError(which, self.url, [found.name for found in held], gone=gone)
        if len(close) > 1:
            raise AmbiguousNameError(text, self.url, [found.name for found in close])
        if self.trusted is not None:
            close[0].info = info(close[0].manifest())
        return close[0]

    def history(self) -> History:
        """Return every row on the way to the one logged last, also those after the last checkpoint."""
        return self.history_at(None)

    def history_at(self, mark: Mark | None) -> History:
        """Return the rows on the way to `mark`."""
        from .journal import read_history  # noqa: PLC0415 - checkpoints can be had without what reads a history

        return read_history(self.backend, mark)

    def journal(self) -> list[Row | Note]:
        """Return every row on the way to where training stands, and the notes between them: what was decided and why.

        That is the row logged last, or the checkpoint that training has gone on from since, before it logs anything.
        A run written before notes were kept has none. Cost: one read of the journal.
        """
        from .journal import read_entries  # noqa: PLC0415 - see above

        return read_entries(self.backend)

    def verify(self) -> verify.Report:
        """Read every checkpoint and compare it with its manifest; returns what is wrong, raises nothing for it.

        So is a pointer that does not show the best, and a journal of which lines are lost; what a crash leaves, or a
        training that goes on, is no problem. With `trusted`, a checkpoint that is not signed, or not as it is, is one.
        Cost: every byte of the checkpoints, and of the journal, is read once.
        """
        report = verify.verify(self.backend, read_listing(self.backend), self.trusted)
        return verify.with_rest(report, self.backend, self.trusted)

    def gc(self, *, grace: float = gc.GRACE, dry_run: bool = False) -> gc.Report:
        """Delete what no commit names and is older than `grace` seconds; with `dry_run`, only say what.

        A save under way is younger than its grace: do not go below the longest time a single file takes to write.
        """
        return gc.collect(self.backend, grace=grace, dry_run=dry_run)

    def publish(self, checkpoint: Checkpoint, file: str, url: str) -> None:
        """Place one file of a checkpoint at an exact path, atomically replacing what is there.

        A hard link where the file system has them: no bytes are copied, and the file stays when the checkpoint is
        retired. With a trusted key the file is checked right before.

        Raises:
            CheckpointNotFoundError: the checkpoint has no such file.
        """
        files = checkpoint.manifest().artifacts
        if file not in files:
            raise CheckpointNotFoundError(file, f"checkpoint {checkpoint.name}", list(files), kind="file")
        if self.trusted is not None:
            checkpoint.check_file(file)
        self.backend.publish(data_key(checkpoint.name, file), url)

    def _best(self, monitor: str | None, *, stacklevel: int) -> Checkpoint:
        listing = self.listing()
        found = best_of(listing.checkpoints, monitor)
        if found is None and self.trusted is not None and listing.damaged:
            raise listing.damaged[-1][1]
        held = self._readable(listing, stacklevel=stacklevel)
        if found is None:
            monitors = dict.fromkeys(score.monitor for each in listing.checkpoints for score in each.scores)
            if monitor is not None and monitors and monitor not in monitors:
                raise CheckpointNotFoundError(monitor, self.url, list(monitors), kind="monitor")
            wanted = "best" if monitor is None else f"best by {monitor}"
            raise CheckpointNotFoundError(wanted, self.url, [unranked.name for unranked in held])
        return self._checkpoint(found)

    def _checkpoint(self, facts: CheckpointInfo) -> Checkpoint:
        return Checkpoint(self.backend, facts, self.trusted)

    def _all(self) -> list[Checkpoint]:
        """Return the checkpoints whether they are signed or not; what they say of themselves is not to be believed."""
        return [self._checkpoint(found) for found in read_listing(self.backend).checkpoints]

    def _readable(self, held: Listing, *, stacklevel: int) -> list[Checkpoint]:
        if held.damaged:
            first = held.damaged[0][1]
            what = "cannot be read and their checkpoints"
            if isinstance(first, UntrustedError):
                what = "are not signed by the trusted key, or cannot be read, and their checkpoints"
            warnings.warn(
                f"{len(held.damaged)} manifest(s) of {self.url} {what} are left out; the first: {first}",
                stacklevel=stacklevel,
            )
        return [self._checkpoint(found) for found in held.checkpoints]


def _was_numbered(text: str, held: Sequence[Checkpoint]) -> bool:
    """Say whether a sequence number was given before, to a checkpoint that is not held any more."""
    return bool(held) and text.isdecimal() and len(text) <= _DIGITS and 0 < int(text) < held[-1].sequence
