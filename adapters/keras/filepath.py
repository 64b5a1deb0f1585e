"""Filepath: the template of a ModelCheckpoint's files, the formats it may ask for, and where its hidden run lies."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from string import Formatter
from typing import Any

from msgspec import Struct

from ...errors import ConfigError, PlaceholderError
from ...storage.digest import digest
from ...storage.remote_errors import without_password

HIDDEN = ".keepbest"
"""The folder beside the files in which their runs lie."""
FAST = ".safetensors"
"""The suffix of the weights alone, written by keepbest."""
_FIRST = {
    **dict.fromkeys(("s3", "s3a", "gs", "gcs"), "bucket"),
    **dict.fromkeys(("abfs", "abfss", "az"), "container"),
    **dict.fromkeys(("sftp", "ssh", "ftp", "smb"), "server"),
}
"""What a URL begins with, and no file can take the place of."""

_WIDE = re.compile(r"\{[^{}]*:[^{}]*?([1-9][0-9]{3,})")
"""A placeholder whose width or precision has four digits."""


class Filepath(Struct, frozen=True):
    """A path or URL with placeholders: `{epoch}` and `{batch}`, counted from 1, and any logged metric."""

    template: str

    def at(self, epoch: int, batch: int | None, logs: Mapping[str, Any]) -> str:
        """Return the path of the file to be saved now.

        Args:
            epoch: from 0.
            batch: from 0; None at the end of an epoch.
            logs: the metrics.

        Raises:
            PlaceholderError: a placeholder's metric was not logged.
        """
        names = {**logs, "epoch": epoch + 1}
        if batch is not None:
            names.setdefault("batch", batch + 1)
        try:
            return self.template.format(**names)
        except KeyError as error:
            raise PlaceholderError(without_password(self.template), str(error.args[0]), names) from error
        except (ValueError, LookupError, AttributeError, TypeError, MemoryError) as error:
            shown = without_password(self.template)
            raise ConfigError(f'Failed to format this callback filepath: "{shown}". Reason: {error}') from error

    @property
    def folder(self) -> str:
        """What comes before the file's name, up to the first placeholder; empty, or with a "/" at its end."""
        start = self.template.find("://") + 3 if "://" in self.template else 0
        static = self.template.partition("{")[0]
        return static[: max(static.rfind("/") + 1, start)]

    def relative(self, path: str) -> str:
        """Return what of `path` comes after the folder, so that a folder that was moved is still understood."""
        return path.removeprefix(self.folder)

    def could_be(self, relative: str) -> bool:
        """Say whether a path relative to the folder is one that the template may have given.

        What a hidden run says of it may be a stranger's word, and a file is placed there.
        """
        try:
            parts = [
                (re.escape(text), name is not None)
                for text, name, _, _ in Formatter().parse(self.relative(self.template))
            ]
        except ValueError:
            return False
        pattern = "".join(text + ("[^/]+?" if placeholder else "") for text, placeholder in parts)
        return re.fullmatch(pattern, relative, re.DOTALL) is not None and ".." not in relative.split("/")

    @property
    def hidden_run(self) -> str:
        """The URL of the run in which the files are committed: each template has its own."""
        name = self.relative(self.template)
        words = re.sub(r"[^A-Za-z0-9]+", "-", name).strip("-")[:48]
        return f"{self.folder}{HIDDEN}/{words}-{digest(name.encode(errors='surrogatepass')).rpartition(':')[2][:8]}"

    @property
    def is_fast(self) -> bool:
        """Keepbest writes it, not Keras."""
        return self.template.endswith(FAST)


def parse(filepath: str | os.PathLike[str], *, save_weights_only: bool) -> Filepath:
    """Return the filepath, checked for a suffix that says what Keras, or keepbest, shall write.

    Raises:
        ConfigError: it has none, with the words of Keras' own ModelCheckpoint; or the file's name stands where the
            URL's bucket should; or a placeholder is wider than a file's name can be.
    """
    template = os.fspath(filepath)
    _check_suffix(template, without_password(template), save_weights_only=save_weights_only)
    _check_width(template)
    found = Filepath(template)
    _check_begin(found)
    return found


def _check_suffix(template: str, shown: str, *, save_weights_only: bool) -> None:
    if template.endswith(FAST):
        return
    if save_weights_only and not template.endswith(".weights.h5"):
        raise ConfigError(
            "When using `save_weights_only=True` in `ModelCheckpoint`, the filepath provided must end in `.weights.h5` "
            f"(Keras weights format). Received: filepath={shown} (`.safetensors` is another that keepbest writes.)"
        )
    if not save_weights_only and not template.endswith((".keras", ".h5")):
        raise ConfigError(
            f"The filepath provided must end in `.keras` (Keras model format). Received: filepath={shown} "
            "(`.h5`, and for the weights alone `.safetensors`, will do too.)"
        )


def _check_width(template: str) -> None:
    wide = _WIDE.search(template)
    if wide is not None:
        shown = without_password(template)
        raise ConfigError(
            f'the filepath "{shown}" asks for {wide[1]} places in a placeholder, more than the 255 that the name of a '
            "file has. Write fewer."
        )


def _check_begin(found: Filepath) -> None:
    scheme, _, rest = found.template.partition("://")
    what = _FIRST.get(scheme)
    if what is not None and found.folder == f"{scheme}://":
        name = rest.rpartition("/")[2]
        raise ConfigError(
            f"{without_password(found.template)} names no {what}: the name of the file, or a placeholder, stands in "
            f"its place. Write {scheme}://{what.upper()}/{name}."
        )
