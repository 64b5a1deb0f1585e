"""Reflinks: whether a file system lets two files share blocks (XFS, btrfs), found out by trying it once."""

from __future__ import annotations

import contextlib
import os
import uuid

from .layout import TEMPORARY_PREFIX
from .spare_files import file_system

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

_FICLONE = 0x40049409
_MAYBE = frozenset(("bcachefs", "btrfs", "xfs", "zfs"))
_BLOCK = 4096


def shares_blocks(folder: str) -> bool:
    """Say whether files in `folder` can share blocks. Elsewhere `copy_file_range` copies, and is no gain."""
    if file_system(folder) not in _MAYBE:
        return False
    paths = [os.path.join(folder, TEMPORARY_PREFIX + uuid.uuid4().hex) for _ in range(2)]
    try:
        with open(paths[0], "xb") as source, open(paths[1], "xb") as target:
            source.write(b"\0" * _BLOCK)
            source.flush()
            fcntl.ioctl(target.fileno(), _FICLONE, source.fileno())
    except (OSError, AttributeError):
        return False
    finally:
        for path in paths:
            with contextlib.suppress(OSError):
                os.unlink(path)
    return True
