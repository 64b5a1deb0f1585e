"""Tree: a small file system in which all that was traced is done again, workload by workload."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from .operations import Mark, Names, Operation, Recording, Resize, Sync, UnknownCallError, Write

_Found = tuple[str, tuple[str, bytes]]


class Tree:
    """Inodes, their content, and their names below one folder, whose folders are those of the workloads."""

    def __init__(self, watched: Path) -> None:
        self.recordings: dict[str, Recording] = {}
        self.root = str(watched)
        self.line = 0
        """Of the trace: when an operation ended."""
        self.names: dict[int, dict[str, int]] = defaultdict(dict)
        """Folder → name → inode; the root is 0."""
        self.content: dict[int, bytearray] = {}
        self._kinds: dict[int, str] = {0: "folder"}
        self._owner: dict[int, str] = {}
        """Inode → workload."""
        for folder in sorted(watched.iterdir()):
            inode = self._new("folder", folder.name)
            self.names[0][folder.name] = inode
            self.recordings[folder.name] = Recording(folder=inode, kinds=self._kinds)

    def make(self, kind: str, folder: int, name: str) -> int:
        """Make an inode and give it its first name; return it."""
        inode = self._new(kind, self._owner[folder])
        self.rename(folder, (name, inode))
        return inode

    def rename(self, folder: int, *changes: tuple[str, int | None]) -> None:
        """Change entries of a folder, all at once."""
        for name, inode in changes:
            if inode is None:
                del self.names[folder][name]
            else:
                self.names[folder][name] = inode
        self._note(folder, Names(ended=self.line, folder=folder, changes=changes))

    def write(self, inode: int, offset: int, data: bytes) -> None:
        """Write to a file."""
        content = self.content[inode]
        content.extend(bytes(max(0, offset + len(data) - len(content))))
        content[offset : offset + len(data)] = data
        self._note(inode, Write(ended=self.line, inode=inode, offset=offset, data=data))

    def resize(self, inode: int, size: int) -> None:
        """Cut a file short, or make it longer."""
        content = self.content[inode]
        del content[size:]
        content.extend(bytes(size - len(content)))
        self._note(inode, Resize(ended=self.line, inode=inode, size=size))

    def sync(self, inode: int, began: int) -> None:
        """Make a file or a folder durable."""
        self._note(inode, Sync(began=began, ended=self.line, inode=inode))

    def mark(self, said: dict[str, object]) -> None:
        """Note what a workload says."""
        self.recordings[str(said["of"])].operations.append(Mark(ended=self.line, said=said))

    def compare_with_disk(self) -> None:
        """Check that what was seen is all there was.

        Raises:
            UnknownCallError: it is not.
        """
        here = dict(self._walk(0, ""))
        for path, found in _on_disk(Path(self.root)):
            if here.pop(path, None) != found:
                raise UnknownCallError(f"on the disk {path} is not what was recorded: a call was not seen")
        if here:
            raise UnknownCallError(f"recorded, and not on the disk: {sorted(here)[:5]}")

    def _new(self, kind: str, owner: str) -> int:
        inode = len(self._kinds)
        self._kinds[inode] = kind
        self._owner[inode] = owner
        if kind == "file":
            self.content[inode] = bytearray()
        return inode

    def _note(self, inode: int, operation: Operation) -> None:
        if inode in self._owner:
            self.recordings[self._owner[inode]].operations.append(operation)

    def _walk(self, folder: int, prefix: str) -> Iterator[_Found]:
        for name, inode in self.names[folder].items():
            yield prefix + name, (self._kinds[inode], bytes(self.content.get(inode, b"")))
            if self._kinds[inode] == "folder":
                yield from self._walk(inode, f"{prefix}{name}/")


def _on_disk(root: Path) -> Iterator[_Found]:
    for path in root.rglob("*"):
        name = str(path.relative_to(root))
        if path.is_symlink():
            yield name, (f"-> {path.readlink()}", b"")
        elif path.is_dir():
            yield name, ("folder", b"")
        else:
            yield name, ("file", path.read_bytes())
