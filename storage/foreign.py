"""Foreign: what keeps a stranger's checkpoint from harming whoever reads it, and how files are handed out to others."""

from __future__ import annotations

import contextlib
import math
import os
import shutil
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path

from msgspec import Struct

from ..errors import ForeignFileError, KeepbestError, ObjectExistsError
from .layout import TEMPORARY_PREFIX
from .local import LocalBackend
from .local_files import translate
from .manifest import check_shape
from .printable import printable

FREE_BYTES = 64 << 20
"""What a file may say that it holds, however small it is itself."""

_LONGEST_NAME = 4096


class Placed(Struct, frozen=True, kw_only=True):
    """A file that was put in its place."""

    path: str
    """Absolute."""
    nbytes: int


def check_name(location: str, name: str) -> str:
    """Return the name of a tensor, if it could be no other file's path and no terminal's command.

    Raises:
        ForeignFileError: it could.
    """
    if len(name) > _LONGEST_NAME or not name.isprintable() or {"..", "."} & set(name.split("/")) or name[:1] == "/":
        raise ForeignFileError(
            location,
            f"a tensor in it is called '{printable(name)[:200]}', and names with control characters, with .. or of "
            f"more than {_LONGEST_NAME} letters are refused. Whoever made the file can give it another.",
        )
    return name


def checked_shape(location: str, name: str, shape: Sequence[int]) -> tuple[int, ...]:
    """Return a shape that a tensor can have.

    Raises:
        ForeignFileError: none can.
    """
    problem = "a length is no whole number"
    if all(type(length) is int and length >= 0 for length in shape):
        try:
            check_shape(shape)
        except ValueError as error:
            problem = str(error)
        else:
            return tuple(shape)
    raise ForeignFileError(location, f"the shape of '{printable(name)[:200]}' is impossible: {problem}.")


def check_size(location: str, what: str, declared: int, stored: int, *, times: int = 1) -> None:
    """Let a small file not ask for all the memory or disk there is.

    Args:
        location: the file.
        what: the part of it.
        declared: bytes it would take.
        stored: bytes of it in the file.
        times: by how much a compressed part may honestly grow.

    Raises:
        ForeignFileError: it asks for more than `FREE_BYTES`, and has not stored as much.
    """
    if declared > max(FREE_BYTES, stored * times):
        raise ForeignFileError(
            location,
            f"{what} would take {declared:,} bytes, and {stored:,} are stored: it is damaged, or made to fill up "
            "whoever reads it.",
        )


def nbytes(shape: Sequence[int], itemsize: int) -> int:
    """Return the bytes of a tensor."""
    return math.prod(shape) * itemsize


def place(folder: Path, write: Callable[[Path], None], *, overwrite: bool) -> tuple[Placed, ...]:
    """Put files into a folder, each whole or not at all, and none before all are written.

    The order of effects (a crash between any two leaves whole files, and perhaps a `.tmp-…` folder):

    1. `write` writes the files into a temporary folder on the same file system;
    2. if one of their names is taken, and `overwrite` is False, it ends here;
    3. each is made durable and moved to its place, in the order of their names: an index before what it names would
       be wrong, so it is moved last.

    Raises:
        ObjectExistsError: a name is taken.
        StorageError: the folder cannot be written.
    """
    new = [each for each in (folder, *folder.parents) if not each.exists()]
    local = LocalBackend(folder)
    scratch = Path(local.scratch())
    try:
        _write(write, scratch, str(folder))
        made = sorted(scratch.iterdir(), key=lambda file: (file.suffix == ".json", file.name))
        for file in made:
            if not overwrite and os.path.lexists(folder / file.name):
                raise ObjectExistsError(str(folder / file.name))
        placed = tuple(Placed(path=str((folder / file.name).absolute()), nbytes=file.stat().st_size) for file in made)
        for file in made:
            _move(local, file, folder / file.name, overwrite=overwrite)
        local.settle()
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
        with contextlib.suppress(OSError):  # ends at the first that is not empty
            for each in new:
                each.rmdir()
    return placed


def _write(write: Callable[[Path], None], scratch: Path, folder: str) -> None:
    try:
        write(scratch)
    except KeepbestError:
        raise
    except OSError as error:  # as the libraries of others raise it
        raise translate(error, folder, "write") from error


def _move(local: LocalBackend, file: Path, target: Path, *, overwrite: bool) -> None:
    if not overwrite:
        local.put_file(target.name, str(file))
        return
    key = TEMPORARY_PREFIX + uuid.uuid4().hex
    local.put_file(key, str(file))
    try:
        local.publish(key, str(target))
    finally:
        local.delete([key])
