"""TensorBoard: rows as scalars, through TensorBoard's own record writer; neither PyTorch nor TensorFlow is imported."""

from __future__ import annotations

import itertools
import os
import socket
import time
from pathlib import Path
from typing import Any

from ...errors import ConfigError
from ...storage.history import Row
from ...storage.notes import Began, Decided, Note, WentBack
from .entries import axis, missing, place_of, values_of

_FLUSH = 5.0
"""Seconds after which what was written is shown at the latest, if more is written."""
_numbers = itertools.count()


class TensorBoard:
    """Writes each row to an event file.

    Scalars: a metric of an epoch under its own name, one of a single step as `step/loss`, both at the training step (at
    the epoch, from 0, where the loop counts no steps). The best so far is `best/val_loss`, drawn where it improved.
    The text `checkpoints` says which were saved, and why.

    A run that resumes writes a further file to the same folder, which tells TensorBoard to forget what was drawn after
    the checkpoint it continues; a run that begins anew has it forget everything in the folder. The files stay.

    Cost: some 0.1 ms a row. A row of an epoch is flushed at once, one of a
    step after 5 s.

    Args:
        logdir: a folder on a disk, one for each run; made when the first row is logged.

    Raises:
        ConfigError: the package `tensorboard` is not installed, or the folder is a URL or a file.

    Example:
        >>> Checkpointer("runs/7", policy, model=model, hooks=[TensorBoard("logs/7")])
    """

    def __init__(self, logdir: str | os.PathLike[str]) -> None:
        if "://" in os.fspath(logdir) or Path(logdir).is_file():
            raise ConfigError(f"TensorBoard({os.fspath(logdir)!r}): this is a folder on a disk, not a URL or a file.")
        self._proto = _Protocol()
        self._logdir = Path(logdir)
        self._writer: Any = None
        self._flushed = time.monotonic()

    def __call__(self, entry: Row | Note, /) -> None:
        """Take one entry.

        Raises:
            OSError: the file cannot be written.
        """
        if isinstance(entry, Row):
            values = [self._proto.scalar(name, value) for name, value in values_of(entry).items()]
            self._write(entry, values)
        elif isinstance(entry, Decided):
            self._decided(entry)
        elif isinstance(entry, Began):
            self._forget_from(entry, 0 if entry.checkpoint is None else _after(entry.checkpoint))
        elif isinstance(entry, WentBack):
            self._forget_from(entry, _after(entry.checkpoint))
        if getattr(entry, "kind", "") != "step" or time.monotonic() - self._flushed > _FLUSH:
            self._flush()

    def close(self) -> None:
        """Close the file."""
        writer, self._writer = self._writer, None
        if writer is not None:
            writer.close()

    def _decided(self, note: Decided) -> None:
        values = [
            self._proto.scalar(f"best/{check.monitor}", check.best)
            for check in note.checks
            if check.improved and check.best is not None
        ]
        if note.checkpoint is not None:
            values.append(self._proto.text("checkpoints", f"`{note.checkpoint}`: {', '.join(note.reasons)}"))
        self._write(note, values)

    def _forget_from(self, note: Began | WentBack, step: int | None) -> None:
        """Have TensorBoard forget what was drawn from `step` on."""
        if step is not None:
            self._add(self._proto.start(note.time, step))

    def _write(self, entry: Row | Note, values: list[Any]) -> None:
        if values:
            self._add(self._proto.summary(entry.time, axis(entry.epoch, entry.step), values))

    def _add(self, event: Any) -> None:
        if self._writer is None:
            self._writer = self._open()
        self._writer.write(event.SerializeToString())

    def _open(self) -> Any:
        """Open a file. TensorBoard reads those of a folder in the order of their names."""
        now = time.time()
        self._logdir.mkdir(parents=True, exist_ok=True)
        ours = f"{socket.gethostname()}.{os.getpid()}.{next(_numbers)}"
        path = self._logdir / f"events.out.tfevents.{int(now):010d}.{int(now % 1 * 1e6):06d}.{ours}"
        writer = self._proto.writer(path.open("xb"))
        writer.write(self._proto.header(now).SerializeToString())
        return writer

    def _flush(self) -> None:
        if self._writer is not None:
            self._writer.flush()
            self._flushed = time.monotonic()


def _after(checkpoint: str) -> int | None:
    place = place_of(checkpoint)
    return None if place is None else place.axis + 1


class _Protocol:
    """What TensorBoard reads. Its own `EventFileWriter` is not used: it imports TensorFlow where that is installed."""

    def __init__(self) -> None:
        try:
            from tensorboard.compat.proto.event_pb2 import Event, SessionLog  # noqa: PLC0415 - only if asked for
            from tensorboard.compat.proto.summary_pb2 import Summary  # noqa: PLC0415
            from tensorboard.compat.proto.tensor_pb2 import TensorProto  # noqa: PLC0415
            from tensorboard.compat.proto.tensor_shape_pb2 import TensorShapeProto  # noqa: PLC0415
            from tensorboard.compat.proto.types_pb2 import DT_STRING  # noqa: PLC0415
            from tensorboard.plugins.text.metadata import create_summary_metadata  # noqa: PLC0415
            from tensorboard.summary.writer.record_writer import RecordWriter  # noqa: PLC0415
        except ImportError as error:
            raise missing("TensorBoard", "tensorboard", "tensorboard", error) from error
        self._event, self._session, self._value, self._summary = Event, SessionLog, Summary.Value, Summary
        self._tensor, self._string = TensorProto, DT_STRING
        self._shape = TensorShapeProto(dim=[TensorShapeProto.Dim(size=1)])
        self._text = create_summary_metadata(display_name="", description="")
        self.writer = RecordWriter

    def header(self, now: float) -> Any:
        """Return what a file begins with."""
        return self._event(wall_time=now, file_version="brain.Event:2")

    def start(self, now: float, step: int) -> Any:
        """Return the event after which whatever was drawn from `step` on is forgotten."""
        return self._event(wall_time=now, step=step, session_log=self._session(status=self._session.START))

    def summary(self, now: float, step: int, values: list[Any]) -> Any:
        """Return values at one step."""
        return self._event(wall_time=now, step=step, summary=self._summary(value=values))

    def scalar(self, tag: str, value: float) -> Any:
        """Return a number under its tag."""
        return self._value(tag=tag, simple_value=value)

    def text(self, tag: str, text: str) -> Any:
        """Return a text, which TensorBoard shows as Markdown, under its tag."""
        tensor = self._tensor(dtype=self._string, string_val=[text.encode()], tensor_shape=self._shape)
        return self._value(tag=tag, tensor=tensor, metadata=self._text)
