"""System calls that change files: their numbers, and where in their arguments the file is named."""

from __future__ import annotations

import platform
from dataclasses import dataclass

O_CREAT, O_TRUNC = 0o100, 0o1000


@dataclass(frozen=True, slots=True)
class Call:
    """What one system call looks like."""

    name: str
    fd: int | None = None
    """Which argument is the descriptor of the file that changes."""
    paths: tuple[int, ...] = ()
    """Which arguments are paths of names that come or go."""
    flags: int | None = None
    """Which argument holds the flags of an open: only one that may create or empty a file changes anything."""
    length: int | None = None
    """Which argument says how many bytes are written."""


_CALLS = (
    Call("write", fd=0, length=2),
    Call("pwrite64", fd=0, length=2),
    Call("writev", fd=0),
    Call("pwritev", fd=0),
    Call("pwritev2", fd=0),
    Call("sendfile", fd=0),
    Call("copy_file_range", fd=2),
    Call("fsync", fd=0),
    Call("fdatasync", fd=0),
    Call("sync_file_range", fd=0),
    Call("fallocate", fd=0),
    Call("ftruncate", fd=0),
    Call("fchmod", fd=0),
    Call("open", paths=(0,), flags=1),
    Call("openat", paths=(1,), flags=2),
    Call("creat", paths=(0,)),
    Call("truncate", paths=(0,)),
    Call("mkdir", paths=(0,)),
    Call("mkdirat", paths=(1,)),
    Call("rmdir", paths=(0,)),
    Call("unlink", paths=(0,)),
    Call("unlinkat", paths=(1,)),
    Call("rename", paths=(0, 1)),
    Call("renameat", paths=(1, 3)),
    Call("renameat2", paths=(1, 3)),
    Call("link", paths=(0, 1)),
    Call("linkat", paths=(1, 3)),
    Call("symlink", paths=(1,)),
    Call("symlinkat", paths=(2,)),
)

_NUMBERS = {
    "x86_64": {
        "write": 1,
        "open": 2,
        "pwrite64": 18,
        "writev": 20,
        "sendfile": 40,
        "fsync": 74,
        "fdatasync": 75,
        "truncate": 76,
        "ftruncate": 77,
        "rename": 82,
        "mkdir": 83,
        "rmdir": 84,
        "creat": 85,
        "link": 86,
        "unlink": 87,
        "symlink": 88,
        "fchmod": 91,
        "openat": 257,
        "mkdirat": 258,
        "unlinkat": 263,
        "renameat": 264,
        "linkat": 265,
        "symlinkat": 266,
        "sync_file_range": 277,
        "fallocate": 285,
        "pwritev": 296,
        "renameat2": 316,
        "copy_file_range": 326,
        "pwritev2": 328,
    },
    "aarch64": {
        "mkdirat": 34,
        "unlinkat": 35,
        "symlinkat": 36,
        "linkat": 37,
        "renameat": 38,
        "truncate": 45,
        "ftruncate": 46,
        "fallocate": 47,
        "fchmod": 52,
        "openat": 56,
        "write": 64,
        "writev": 66,
        "pwrite64": 68,
        "pwritev": 70,
        "sendfile": 71,
        "fsync": 82,
        "fdatasync": 83,
        "sync_file_range": 84,
        "renameat2": 276,
        "copy_file_range": 285,
        "pwritev2": 287,
    },
}

MACHINE = platform.machine()
BY_NUMBER = {_NUMBERS[MACHINE][call.name]: call for call in _CALLS if call.name in _NUMBERS.get(MACHINE, ())}
"""Empty on a machine whose numbers are not known: nothing is killed at its calls then."""
