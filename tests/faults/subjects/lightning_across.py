"""Lightning's ModelCheckpoint, where the checkpoints lie on another file system than the system's temporary files."""

from __future__ import annotations

from faults.subjects import lightning

NAME = "Lightning ModelCheckpoint, /tmp on another disk"
PROMISE, VERSION = lightning.PROMISE, lightning.VERSION
train, newest, load = lightning.fit, lightning.newest, lightning.load
