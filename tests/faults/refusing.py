"""Refusing: a traced process in which one system call fails, with an error that a bad day would give.

What a kernel drops after a failed fsync is dropped: the bytes that were not durable become zeros, so that whoever asks
once more and believes the answer is found out.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from dataclasses import dataclass
from pathlib import Path

from faults import ptrace, syscalls
from faults.ptrace import Moment, Outcome, Tracer
from faults.syscalls import Call

_DISK_FULL = ("ENOSPC", "EDQUOT")
CALLS = (
    (Call("openat", paths=(1,)), ("EMFILE", "EIO", "ENOMEM", *_DISK_FULL, "EROFS")),
    (Call("write", fd=0), (*_DISK_FULL, "EIO")),
    (Call("pwrite64", fd=0), (*_DISK_FULL, "EIO")),
    (Call("fallocate", fd=0), (*_DISK_FULL, "EIO")),
    (Call("ftruncate", fd=0), ("EIO",)),
    (Call("fsync", fd=0), ("EIO", *_DISK_FULL)),
    (Call("copy_file_range", fd=2), ("EIO",)),
    (Call("close", fd=0), ("EIO", *_DISK_FULL)),
    (Call("fcntl", fd=0), ("EMFILE",)),
    (Call("read", fd=0), ("EIO",)),
    (Call("getdents64", fd=0), ("EIO",)),
    (Call("newfstatat", paths=(1,)), ("EIO",)),
    (Call("fstat", fd=0), ("EIO",)),
    (Call("mkdir", paths=(0,)), (*_DISK_FULL, "EROFS")),
    (Call("mkdirat", paths=(1,)), (*_DISK_FULL, "EROFS")),
    (Call("rmdir", paths=(0,)), ("EIO", "EROFS")),
    (Call("unlink", paths=(0,)), ("EIO", "EROFS")),
    (Call("unlinkat", paths=(1,)), ("EIO", "EROFS")),
    (Call("rename", paths=(0, 1)), ("ENOSPC", "EIO", "EROFS")),
    (Call("renameat", paths=(1, 3)), ("ENOSPC", "EIO", "EROFS")),
    (Call("link", paths=(0, 1)), ("ENOSPC", "EIO", "EROFS")),
    (Call("linkat", paths=(1, 3)), ("ENOSPC", "EIO", "EROFS")),
    (Call("symlink", paths=(1,)), ("ENOSPC", "EIO", "EROFS")),
    (Call("symlinkat", paths=(2,)), ("ENOSPC", "EIO", "EROFS")),
    (Call("mmap"), ("ENOMEM",)),
    (Call("clone"), ("EAGAIN",)),
    (Call("clone3"), ("EAGAIN",)),
)
"""What may be refused, and how."""
ERRORS = {call.name: errors for call, errors in CALLS}

_NUMBERS = {
    "x86_64": (257, 1, 18, 285, 77, 74, 326, 3, 72, 0, 217, 262, 5, 83, 258, 84, 87, 263, 82, 264, 86, 265, 88, 266, 9,
               56, 435),
    "aarch64": (56, 64, 68, 47, 46, 82, 285, 57, 25, 63, 61, 79, 80, -1, 34, -1, -1, 35, -1, 38, -1, 37, -1, 36, 222,
                220, 435),
}  # fmt: skip
"""In the order of `CALLS`; -1: there is none."""
_BY_NUMBER = {
    number: call for number, (call, _) in zip(_NUMBERS.get(syscalls.MACHINE, ()), CALLS, strict=False) if number >= 0
}

END = "here the faults end"
"""Whoever looks for a file of this name in the folder is not refused anything any more."""
_LEAST_MEMORY = 64 << 10
"""Bytes from which memory is asked for by whoever needs it, and not by the allocator for small things."""
_RESULT = {"x86_64": 10, "aarch64": 0}
_NUMBER = {"x86_64": 15}
"""Where in the registers the result and the call's number are, in words."""
_NT_SYSTEM_CALL = 0x404
_THREADS = ("clone", "clone3")


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """One call of one name that fails."""

    call: str
    number: int
    """Of the calls of that name that concern the run, from 1."""
    error: str

    def __str__(self) -> str:
        return f"{self.error} at {self.call} {self.number}"


class Refuser(Tracer):
    """Follows a child and all its threads, and lets one call fail.

    `close` is carried out all the same: the descriptor is gone, and what it says is about the bytes.

    Args:
        child: a process that leads a process group of its own.
        folder: calls that concern what is below it are counted; and those for memory and threads.
        refusal: None to count.
    """

    def __init__(self, child: int, folder: str, refusal: Refusal | None) -> None:
        super().__init__(child, folder)
        self._refusal = refusal
        self.counts: dict[str, int] = {}
        self.refused: str | None = None
        """What the call that failed was about."""
        self._failing: dict[int, int] = {}
        """Thread → the error with which the call that it is in is to return."""
        self._over = False
        self._syncing: dict[int, Path] = {}
        self._durable = {path: path.stat().st_size for path in Path(folder).rglob("*") if path.is_file()}

    def _at_call(self, thread: int, outcome: Outcome, number: int, moment: Moment) -> None:
        try:
            size = ptrace._ptrace(ptrace._SYSCALL_INFO, thread, len(self._info), ctypes.addressof(self._info))
        except ProcessLookupError:
            return
        operation = self._info.raw[0] if size > 0 else 0
        if operation == ptrace._EXIT:
            self._at_exit(thread)
        elif operation == ptrace._ENTRY:
            self._at_entry(thread, *struct.unpack_from("=7Q", self._info.raw, 24))

    def _at_entry(self, thread: int, nr: int, *arguments: int) -> None:
        call = _BY_NUMBER.get(nr)
        if self._over or call is None or not self._matters(call, list(arguments)):
            return
        if call.paths and END in self._about(call, arguments):
            self._over = True
            return
        self.counts[call.name] = count = self.counts.get(call.name, 0) + 1
        about = self._about(call, arguments)
        if call.name == "fsync":
            self._syncing[thread] = Path(about)
        if self._refusal is None or (call.name, count) != (self._refusal.call, self._refusal.number):
            return
        self.refused = about
        self._failing[thread] = getattr(errno, self._refusal.error)
        if call.name != "close":
            _drop_call(thread)
        if call.name == "fsync":
            self._lose(self._syncing.pop(thread))

    def _at_exit(self, thread: int) -> None:
        if thread in self._syncing:
            path = self._syncing.pop(thread)
            if path.is_file():
                self._durable[path] = path.stat().st_size
        if thread in self._failing:
            _set_register(thread, _RESULT[syscalls.MACHINE], -self._failing.pop(thread))

    def _matters(self, call: Call, arguments: list[int]) -> bool:
        if call.name in _THREADS:
            return True
        if call.name == "mmap":
            return arguments[1] >= _LEAST_MEMORY
        return self._concerns(call, arguments)

    def _about(self, call: Call, arguments: tuple[int, ...]) -> str:
        if call.fd is not None:
            return str(Path(f"/proc/{self._child}/fd/{arguments[call.fd]}").readlink())
        return " ".join(os.fsdecode(self._text(arguments[at])) for at in call.paths)

    def _lose(self, path: Path) -> None:
        """Put zeros where bytes were not durable."""
        if not path.is_file():
            return
        begin = self._durable.get(path, 0)
        with path.open("r+b") as file:
            file.seek(begin)
            file.write(bytes(path.stat().st_size - begin))


def _drop_call(thread: int) -> None:
    """Let the kernel carry out nothing."""
    if syscalls.MACHINE in _NUMBER:
        _set_register(thread, _NUMBER[syscalls.MACHINE], -1)
        return
    number = ctypes.c_int(-1)
    _transfer(ptrace._SET_REGISTERS, thread, _NT_SYSTEM_CALL, number, ctypes.sizeof(number))


def _set_register(thread: int, word: int, value: int) -> None:
    registers = ctypes.create_string_buffer(1024)
    size = _transfer(ptrace._GET_REGISTERS, thread, ptrace._GENERAL, registers, len(registers))
    struct.pack_into("=q", registers, 8 * word, value)
    _transfer(ptrace._SET_REGISTERS, thread, ptrace._GENERAL, registers, size)


def _transfer(request: int, thread: int, kind: int, memory: ctypes._CData, size: int) -> int:
    """Read or write a set of registers; returns its bytes."""
    vector = ctypes.create_string_buffer(struct.pack("=QQ", ctypes.addressof(memory), size))
    ptrace._ptrace(request, thread, kind, ctypes.addressof(vector))
    return int(struct.unpack_from("=QQ", vector)[1])
