"""Trace: the lines that strace writes, and what each call does to the tree."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path

from .operations import UnknownCallError
from .tree import Tree

_HARMLESS = frozenset(("execve", "flock", "sync_file_range", "chdir", "uname", "getxattr", "lgetxattr", "fgetxattr"))
_REFUSED = frozenset(("io_uring_setup", "io_setup", "io_submit", "sync", "syncfs", "mount", "fork"))
"""Would change something, or make it durable, without a word about which file."""
_FICLONE = "FICLONE"
_DESCRIPTOR = re.compile(r"(\d+)<")
_VECTOR = re.compile(r'iov_base="([^"]*)"(\.\.\.)?')


class Trace:
    """Takes a trace line by line, and does all of it again in `tree`."""

    def __init__(self, watched: Path, marks: Path) -> None:
        """Take the folder that is watched, and the file that marks are written to."""
        self._tree = Tree(watched)
        self.recordings = self._tree.recordings
        self._marks = str(marks)
        self._needles = (_hex(str(watched)), _hex(self._marks))
        self._open: dict[int, _Open | None] = {}
        """Descriptor → what is open; None for the marks."""
        self._pending: dict[str, tuple[int, str]] = {}
        """Process → a call that has begun: in which line, and how."""
        self._began = 0
        self._threads: set[str] = set()
        self._seen: set[str] = set()

    # ── lines ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def take(self, line: str) -> None:
        """Take the next line of the trace."""
        self._tree.line += 1
        pid, _, rest = line.rstrip("\n").partition(" ")
        rest = rest.lstrip()
        self._threads = self._threads or {pid}
        if rest.startswith(("+++", "---")):
            return
        began = self._tree.line
        if rest.startswith("<... close resumed>"):
            return
        if rest.startswith("<... "):
            began, start = self._pending.pop(pid)
            rest = start + rest.partition(" resumed>")[2]
        if rest.endswith("<unfinished ...>"):
            start = rest.removesuffix("<unfinished ...>")
            if not start.startswith("close("):
                self._pending[pid] = began, start
                return
            rest = f"{start}) = 0"  # the descriptor is free: another thread may get it before this call returns
        call, _, tail = rest.partition("(")
        end = tail.rfind(" = ")
        args, result = tail[:end].rstrip().removesuffix(")"), tail[end + 3 :]
        if call in {"clone", "clone3"} and "CLONE_FILES" in args:
            self._threads.add(result.split()[0])
        if call in _REFUSED:
            raise UnknownCallError(f"{call}({args[:200]})")
        if not any(needle in args or needle in result for needle in self._needles):
            return
        self._seen.add(pid)
        if not result.startswith(("-1 ", "?")):
            self._began = began
            self._do(call, args, result)

    def end(self) -> None:
        """Check that nothing was missed.

        Raises:
            UnknownCallError: something was.
        """
        if self._seen - self._threads:
            raise UnknownCallError(f"files were used by another process: {self._seen - self._threads}")
        self._tree.compare_with_disk()

    def _do(self, call: str, args: str, result: str) -> None:
        if call in _HARMLESS:
            return
        handler = getattr(self, f"_on_{call}", None)
        if handler is None:
            raise UnknownCallError(f"{call}({args[:300]}) = {result[:80]}")
        handler(args.split(", "), result)

    # ── calls ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def _on_openat(self, args: list[str], result: str) -> None:
        self._opened(args[0], args[1], args[2], result)

    def _on_open(self, args: list[str], result: str) -> None:
        self._opened(None, args[0], args[1], result)

    def _on_creat(self, args: list[str], result: str) -> None:
        self._opened(None, args[0], "O_CREAT|O_TRUNC", result)

    def _opened(self, at: str | None, path: str, flags: str, result: str) -> None:
        descriptor = int(result.partition("<")[0])
        self._open.pop(descriptor, None)
        if _unhex(path).decode() == self._marks:
            self._open[descriptor] = None
            return
        if any(flag in flags for flag in ("O_TMPFILE", "O_SYNC", "O_DSYNC")):
            raise UnknownCallError(f"open with {flags}")
        folder, name = self._place(at, path)
        inode = folder if name == "" else self._tree.names[folder].get(name)
        if inode is None:
            if "O_CREAT" not in flags:
                raise UnknownCallError(f"opened what nobody made: {_unhex(path).decode()}")
            inode = self._tree.make("file", folder, name)
        elif "O_TRUNC" in flags and self._tree.content[inode]:
            self._tree.resize(inode, 0)
        self._open[descriptor] = _Open(inode, append="O_APPEND" in flags)

    def _on_close(self, args: list[str], result: str) -> None:
        self._open.pop(self._descriptor(args[0]), None)

    def _on_dup(self, args: list[str], result: str) -> None:
        self._open[int(result.partition("<")[0])] = self._open[self._descriptor(args[0])]

    _on_dup2 = _on_dup3 = _on_dup

    def _on_fcntl(self, args: list[str], result: str) -> None:
        if args[1].startswith("F_DUPFD"):
            self._on_dup(args, result)
        elif args[1] == "F_SETFL":
            found = self._description(args[0])
            if found is not None and ("O_APPEND" in args[2]) != found.append:
                raise UnknownCallError("F_SETFL changed O_APPEND")

    def _on_ioctl(self, args: list[str], result: str) -> None:
        if args[1] == _FICLONE:
            target, source = self._description(args[0]), self._description(args[2])
            assert target is not None
            assert source is not None
            self._tree.resize(target.inode, 0)
            self._tree.write(target.inode, 0, bytes(self._tree.content[source.inode]))
        elif args[1] not in {"TCGETS", "FIOCLEX"}:
            raise UnknownCallError(f"ioctl {args[1]}")

    def _on_mmap(self, args: list[str], result: str) -> None:
        if "MAP_SHARED" in args[3] and "PROT_WRITE" in args[2]:
            raise UnknownCallError("mmap for writing")

    def _on_lseek(self, args: list[str], result: str) -> None:
        found = self._description(args[0])
        if found is not None:
            found.position = int(result)

    def _on_write(self, args: list[str], result: str) -> None:
        found, data = self._description(args[0]), _unhex(args[1])[: int(result)]
        if found is None:
            self._tree.mark(json.loads(data))
            return
        offset = len(self._tree.content[found.inode]) if found.append else found.position
        self._tree.write(found.inode, offset, data)
        found.position = offset + len(data)

    def _on_writev(self, args: list[str], result: str) -> None:
        text = ", ".join(args[1:])
        pieces = _VECTOR.findall(text)
        if any(cut for _, cut in pieces):
            raise UnknownCallError("a string that strace cut short")
        data = b"".join(bytes.fromhex(piece.replace("\\x", "")) for piece, _ in pieces)
        self._on_write([args[0], '"' + "".join(f"\\x{byte:02x}" for byte in data) + '"'], result)

    def _on_pwrite64(self, args: list[str], result: str) -> None:
        found, data = self._description(args[0]), _unhex(args[1])[: int(result)]
        assert found is not None
        self._tree.write(found.inode, len(self._tree.content[found.inode]) if found.append else int(args[3]), data)

    def _on_copy_file_range(self, args: list[str], result: str) -> None:
        count, source, target = int(result), self._description(args[0]), self._description(args[2])
        assert source is not None
        assert target is not None
        if "NULL" in (args[1], args[3]):
            raise UnknownCallError("copy_file_range from where the descriptor stands")
        begin, offset = (int(arg.partition(" => ")[0].strip("[]")) for arg in (args[1], args[3]))
        self._tree.write(target.inode, offset, bytes(self._tree.content[source.inode][begin : begin + count]))

    def _on_ftruncate(self, args: list[str], result: str) -> None:
        found = self._description(args[0])
        assert found is not None
        self._tree.resize(found.inode, int(args[1]))

    def _on_truncate(self, args: list[str], result: str) -> None:
        self._tree.resize(self._existing(None, args[0]), int(args[1]))

    def _on_fallocate(self, args: list[str], result: str) -> None:
        found = self._description(args[0])
        assert found is not None
        if args[1] != "0":
            raise UnknownCallError(f"fallocate {args[1]}")
        end = int(args[2]) + int(args[3])
        if end > len(self._tree.content[found.inode]):
            self._tree.resize(found.inode, end)

    def _on_fsync(self, args: list[str], result: str) -> None:
        found = self._description(args[0])
        assert found is not None
        self._tree.sync(found.inode, self._began)

    _on_fdatasync = _on_fsync
    """It stores the size as well, if that is needed to read the data; there is nothing else here to be stored."""

    def _on_mkdir(self, args: list[str], result: str) -> None:
        self._tree.make("folder", *self._place(None, args[0]))

    def _on_mkdirat(self, args: list[str], result: str) -> None:
        self._tree.make("folder", *self._place(args[0], args[1]))

    def _on_rename(self, args: list[str], result: str) -> None:
        self._move(self._place(None, args[0]), self._place(None, args[1]))

    def _on_renameat(self, args: list[str], result: str) -> None:
        self._move(self._place(args[0], args[1]), self._place(args[2], args[3]))

    def _on_renameat2(self, args: list[str], result: str) -> None:
        if "EXCHANGE" in args[4]:
            raise UnknownCallError("an exchange of names")
        self._on_renameat(args, result)

    def _move(self, old: tuple[int, str], new: tuple[int, str]) -> None:
        inode = self._tree.names[old[0]][old[1]]
        if self._tree.names[new[0]].get(new[1]) == inode:  # two names of one file: nothing happens
            return
        if old[0] == new[0]:
            self._tree.rename(old[0], (old[1], None), (new[1], inode))
        else:  # nobody promises that both are there together after a crash
            self._tree.rename(new[0], (new[1], inode))
            self._tree.rename(old[0], (old[1], None))

    def _on_link(self, args: list[str], result: str) -> None:
        self._link(self._place(None, args[1]), self._existing(None, args[0]))

    def _on_linkat(self, args: list[str], result: str) -> None:
        self._link(self._place(args[2], args[3]), self._existing(args[0], args[1]))

    def _on_symlink(self, args: list[str], result: str) -> None:
        self._make_link(args[0], None, args[1])

    def _on_symlinkat(self, args: list[str], result: str) -> None:
        self._make_link(args[0], args[1], args[2])

    def _make_link(self, target: str, at: str | None, path: str) -> None:
        self._tree.make("-> " + _unhex(target).decode(), *self._place(at, path))

    def _on_unlink(self, args: list[str], result: str) -> None:
        self._link(self._place(None, args[0]), None)

    _on_rmdir = _on_unlink

    def _on_unlinkat(self, args: list[str], result: str) -> None:
        self._link(self._place(args[0], args[1]), None)

    def _link(self, place: tuple[int, str], inode: int | None) -> None:
        self._tree.rename(place[0], (place[1], inode))

    # ── names and descriptors ─────────────────────────────────────────────────────────────────────────────────────

    def _descriptor(self, arg: str) -> int:
        match = _DESCRIPTOR.match(arg)
        if match is None:
            raise UnknownCallError(f"no descriptor: {arg[:80]}")
        return int(match[1])

    def _description(self, arg: str) -> _Open | None:
        return self._open[self._descriptor(arg)]

    def _place(self, at: str | None, path: str) -> tuple[int, str]:
        """Return the folder and the name in it; an empty one for the watched folder itself, or one above it."""
        text = _unhex(path).decode()
        if text.startswith("/"):
            if not text.startswith(f"{self._tree.root}/"):
                return 0, ""
            parts, folder = text[len(self._tree.root) + 1 :].rstrip("/").split("/"), 0
        else:
            if at is None or at.startswith("AT_FDCWD"):
                raise UnknownCallError(f"a path that is relative to the working folder: {text}")
            found = self._description(at)
            assert found is not None
            parts, folder = text.split("/"), found.inode
        for part in parts[:-1]:
            folder = self._tree.names[folder][part]
        return folder, parts[-1]

    def _existing(self, at: str | None, path: str) -> int:
        folder, name = self._place(at, path)
        return self._tree.names[folder][name]


@dataclass(slots=True)
class _Open:
    """An open file description, which duplicates share."""

    inode: int
    append: bool = False
    position: int = 0


def _hex(text: str) -> str:
    return "".join(f"\\x{byte:02x}" for byte in text.encode())


def _unhex(text: str) -> bytes:
    quoted = text.strip()
    if not (quoted.startswith('"') and quoted.endswith('"')):
        raise UnknownCallError(f"a string that strace cut short, or none: {text[:80]}")
    return bytes.fromhex(quoted[1:-1].replace("\\x", ""))
