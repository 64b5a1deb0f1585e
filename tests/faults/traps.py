"""Traps: links, pipes, devices and holes inside of a run, which lead out of it, never answer, or never end."""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

from faults.specimen import MODEL
from faults.stranger import Forgery
from faults.tour import Grounds

Trap = Callable[[Grounds], None]
_TEMPORARY = ".tmp-" + "0123456789abcdef" * 2


def traps(base: Forgery) -> Iterator[tuple[str, Trap]]:
    """Yield what makes a run with one trap in it."""
    data = f"checkpoints/{base.name}"
    files = [
        "metrics.jsonl", "commits/00000001.json", "commits/index-00000001.json", f"{data}/state.json",
        f"{data}/{MODEL}",
        "best.json", f"{data}/{_TEMPORARY}", _TEMPORARY, "commits/00000002.json", "best",
    ]  # fmt: skip
    for key in files:
        for what, put in _FILES.items():
            yield f"{key}: {what}", _trapped(base, key, put)
    folders = [
        "commits",
        "checkpoints",
        data,
        "checkpoints/epoch-009_abcdef",
        _TEMPORARY,
        "best",
        "metrics",
        f"{data}/more",
    ]
    for key in folders:
        for what, put in _FOLDERS.items():
            yield f"{key}: {what}", _trapped(base, key, put)


def _trapped(base: Forgery, key: str, put: Callable[[Grounds, Path], None]) -> Trap:
    def make(grounds: Grounds) -> None:
        base.write(grounds.run)
        path = grounds.run / key
        path.parent.mkdir(parents=True, exist_ok=True)
        put(grounds, path)

    return make


def _out_of_the_way(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _link_to_secret(grounds: Grounds, path: Path) -> None:
    _out_of_the_way(path)
    path.symlink_to(grounds.victim / "secret")


def _link_to_the_same(grounds: Grounds, path: Path) -> None:
    """The file itself lies outside: all digests are right."""
    content = path.read_bytes() if path.is_file() else b"something"
    (grounds.victim / "theirs").write_bytes(content)
    _out_of_the_way(path)
    path.symlink_to(grounds.victim / "theirs")


def _hard_link(grounds: Grounds, path: Path) -> None:
    content = path.read_bytes() if path.is_file() else b"something"
    (grounds.victim / "theirs").write_bytes(content)
    _out_of_the_way(path)
    path.hardlink_to(grounds.victim / "theirs")


def _to(target: str) -> Callable[[Grounds, Path], None]:
    def put(_: Grounds, path: Path) -> None:
        _out_of_the_way(path)
        path.symlink_to(target)

    return put


def _pipe(_: Grounds, path: Path) -> None:
    _out_of_the_way(path)
    os.mkfifo(path)


def _socket(_: Grounds, path: Path) -> None:
    _out_of_the_way(path)
    here = os.open(path.parent, os.O_RDONLY)
    try:
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(f"/proc/self/fd/{here}/{path.name}")
    finally:
        os.close(here)


def _folder(_: Grounds, path: Path) -> None:
    _out_of_the_way(path)
    path.mkdir()


def _hole(_: Grounds, path: Path) -> None:
    with path.open("ab" if path.is_file() else "wb") as file:
        file.truncate(1 << 40)


def _their_folder(grounds: Grounds, path: Path) -> None:
    """A folder of somebody else, in which the right files stand beside their own."""
    theirs = grounds.victim / "folder"
    if path.is_dir():
        shutil.copytree(path, theirs)
    else:
        theirs.mkdir()
    (theirs / "precious").write_text("kept")
    _out_of_the_way(path)
    path.symlink_to(theirs)


_FILES = {
    "a link to a secret": _link_to_secret,
    "a link to the same outside": _link_to_the_same,
    "a hard link to the same outside": _hard_link,
    "a link to /etc/passwd": _to("/etc/passwd"),
    "a link to /dev/zero": _to("/dev/zero"),
    "a link to /proc/self/mem": _to("/proc/self/mem"),
    "a link to itself": _to("."),
    "a link to nothing": _to("nowhere"),
    "a pipe": _pipe,
    "a socket": _socket,
    "a folder": _folder,
    "a hole of 1 TiB": _hole,
}  # fmt: skip
_FOLDERS = {
    "a link to a folder outside": _their_folder,
    "a link to /": _to("/etc"),
    "a link to the folder above": _to(".."),
    "a link to itself": _to("."),
    "a pipe": _pipe,
}
