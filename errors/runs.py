"""Runs: a run, or a checkpoint in it, is not what the call needs."""

from __future__ import annotations

from collections.abc import Sequence

from .base import KeepbestError, did_you_mean, listed


class RunError(KeepbestError):
    """The run is not what the call needs.

    When: when a run is opened, read or written to.

    Do: See the error below it that was raised.
    """


class RunExistsError(RunError, FileExistsError):
    """The run holds checkpoints already, and was neither resumed nor restored.

    When: at the first `log()` or `save()`. Nothing was written.

    Do: Loop over `ckpt.epochs(n)` or call `ckpt.resume()` to continue; or give another URL.
    """

    def __init__(self, url: str, latest: str) -> None:
        self.url, self.latest = url, latest
        super().__init__(
            f"{url} already holds checkpoints (the latest is {latest}), and this Checkpointer did not resume them, so "
            "nothing was written. Loop over ckpt.epochs(n) or call ckpt.resume() to continue, call "
            "ckpt.restore('best') to branch off the best, or give another URL for a fresh run."
        )


class NotARunError(RunError, NotADirectoryError):
    """The URL names a file, or a place that holds no run.

    When: when a run is opened.

    Do: Give the folder or prefix that a Checkpointer writes to.
    """

    def __init__(self, url: str, problem: str, near: Sequence[str] = ()) -> None:
        self.url, self.problem, self.near = url, problem, tuple(near)
        meant = f" Did you mean {' or '.join(near[:3])}?" if near else ""
        super().__init__(f"{url} {problem}. Give the folder or prefix that a Checkpointer writes to.{meant}")


class CheckpointNotFoundError(RunError, LookupError):
    """No committed checkpoint answers to that name, or a checkpoint holds nothing that does.

    When: when a checkpoint is asked for by name, number, "best" or "latest"; or an object, file or tensor of one.

    Do: Take one of those that the text names; `keepbest ls` lists all.
    """

    def __init__(
        self, wanted: object, url: str, known: Sequence[str] = (), *, gone: bool = False, kind: str = "checkpoint"
    ) -> None:
        """`gone`: what is wanted is a name as checkpoints have it, so it is not misspelt. `kind`: what it would be."""
        self.wanted, self.url, self.known, self.gone, self.kind = wanted, url, tuple(known), gone, kind
        held = f"It holds {listed(known[-8:])}." if known else "It holds none."
        if kind == "monitor":
            held = f"Its checkpoints are ranked by {listed(known)}."
        if kind != "checkpoint":
            meant = did_you_mean(str(wanted), known)
        elif known and wanted == "best":
            meant = " None of them is ranked by a metric; 'latest' is the newest."
        elif gone:
            meant = " It may have been retired: the policy's keep_… settings say what stays."
        elif wanted in ("best", "latest"):
            meant = ""
        else:
            meant = did_you_mean(str(wanted), (*known, "best", "latest"))
        super().__init__(f"no {kind} '{wanted}' in {url}. {held}{meant}")


class AmbiguousNameError(CheckpointNotFoundError):
    """The beginning of a checkpoint's name that was given fits several.

    When: when a checkpoint is asked for by name.

    Do: Give more of the name, or the sequence number.
    """

    def __init__(self, wanted: str, url: str, matching: Sequence[str]) -> None:
        super().__init__(wanted, url, matching)
        text = (
            f"'{wanted}' is the beginning of {len(matching)} checkpoints in {url}, among them "
            f"{listed(matching[-8:])}. Give more of the name, or the sequence number."
        )
        self.args = (text,)


class ConcurrentWriterError(RunError):
    """Another training committed to this run since this one opened it.

    When: at a save, or at the call after a save in the background. Nothing of the other's was touched.

    Do: Stop one of the two trainings, then resume; or give each its own URL.
    """

    sequence: int | None

    def __init__(self, url: str, sequence: int, other: str) -> None:
        self.url, self.sequence, self.other = url, sequence, other
        super().__init__(
            f"another writer ({other}) committed number {sequence} to {url} while this training was running, so this "
            "checkpoint was not committed and nothing of the other was touched. Two trainings must not write to one "
            "run: stop one of them, then resume, or give each its own URL."
        )


class DivergedError(ConcurrentWriterError):
    """A run and its mirror hold checkpoints that do not continue one another. Nothing was written to either.

    When: when a Checkpointer with `mirror=` begins.

    Do: Give another mirror to go on with the run, or another URL to go on with what the mirror holds.
    """

    def __init__(self, url: str, mirror: str, *, sequence: int | None, ours: str, theirs: str) -> None:
        self.url, self.mirror, self.sequence, self.ours, self.other = url, mirror, sequence, ours, theirs
        difference = (
            f"have nothing in common: the newest checkpoint here is {ours}, there it is {theirs}"
            if sequence is None
            else f"went different ways: number {sequence} is {ours} here, and {theirs} there"
        )
        super(ConcurrentWriterError, self).__init__(
            f"{url} and its mirror {mirror} {difference}. Nothing was written to either. To go on with this one, give "
            "another mirror; to go on with the mirror's, give another URL, which it will be brought back to."
        )
