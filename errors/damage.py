"""Damage: what is stored is not what was written, or not what was signed."""

from __future__ import annotations

from .base import KeepbestError


class DamagedError(KeepbestError, ValueError):
    """What is stored is not what was written.

    When: when it is read: nothing damaged is ever returned as if it were whole.

    Do: Take another checkpoint; `keepbest verify` lists which are whole. A training goes back to one by
    `ckpt.restore(…)` with its number, or `"best"` if that is whole, before its loop over `ckpt.epochs(n)`.
    """


class DamagedManifestError(DamagedError):
    """A manifest is cut short, altered or not a manifest.

    When: when the checkpoint is opened.

    Do: Take another checkpoint of the run, which is not affected.
    """

    def __init__(self, location: str, problem: str) -> None:
        self.location, self.problem = location, problem
        self.fact = f"the manifest {location} is damaged: {problem}. Other checkpoints of the run are not affected."
        super().__init__(
            f"the manifest {location} is damaged: {problem}. Other checkpoints of the run are not affected. `keepbest "
            "verify` lists which are whole; a training goes on from one of those by ckpt.restore(number), or "
            "ckpt.restore('best'), called before ckpt.epochs(n), or in place of ckpt.resume()."
        )


class DamagedFileError(DamagedError):
    """A data file is missing, too short or altered.

    When: at `load()`, `restore()` and `resume()`. Nothing was restored.

    Do: Load another checkpoint of the run; look after the disk.
    """

    def __init__(self, location: str, problem: str, *, tensor: str | None = None) -> None:
        self.location, self.problem, self.tensor = location, problem, tensor
        what = f"the tensor '{tensor}' in {location}" if tensor is not None else location
        self.fact = f"{what} is damaged: {problem}."
        super().__init__(
            f"{what} is damaged: {problem}. Nothing was restored. `keepbest verify` lists which checkpoints of the run "
            "are whole; a training goes on from one of those by ckpt.restore(number), or ckpt.restore('best') if that "
            "is whole, called before ckpt.epochs(n), or in place of ckpt.resume(): both begin with the latest."
        )


class UnsupportedFormatError(DamagedError):
    """The manifest was written in a format that this version does not know.

    When: when the checkpoint is opened.

    Do: Install a newer keepbest.
    """

    def __init__(self, location: str, found: object, supported: int) -> None:
        self.location, self.found, self.supported = location, found, supported
        super().__init__(
            f"{location} has format version {found}; this keepbest reads version {supported}. "
            "Install a newer keepbest to read it."
        )


class UntrustedError(DamagedError):
    """What is stored is not what the holder of the trusted key signed. Nothing of it was used.

    When: when a checkpoint is read with `trusted=`, or verified with `--key`.

    Do: Take a checkpoint that is signed; sign this one only if you know where it comes from.
    """

    def __init__(self, location: str, problem: str, *, key: str | None = None, tensor: str | None = None) -> None:
        self.location, self.problem, self.key, self.tensor = location, problem, key, tensor
        what = f"the tensor '{tensor}' in {location}" if tensor is not None else location
        by = "" if key is None else f" ({key})"
        super().__init__(
            f"{what} is not trusted{by}: {problem}. Nothing was restored. Take a checkpoint that the holder of the key "
            "signed, which `keepbest verify --key` finds; or, if you know where this one comes from, sign it."
        )
