"""Recording and replay: every call is seen or refused, and the states are those that a file system may leave."""

from __future__ import annotations

import textwrap

import pytest
from faults import recording, replay
from faults.operations import Mark, Names, Recording, Sync, UnknownCallError, Write
from faults.trace import Trace

needs_strace = pytest.mark.skipif(not recording.available(), reason="strace is not installed, or may not trace")

EVERYTHING = """
    os.makedirs(f"{here}/a/b")
    fd = os.open(f"{here}/a/b/one", os.O_CREAT | os.O_EXCL | os.O_WRONLY)
    os.posix_fallocate(fd, 0, 5000)
    twin = os.dup(fd)
    writer = threading.Thread(target=os.pwrite, args=(twin, b"x" * 3000, 10))
    writer.start()
    writer.join()
    os.fsync(twin)
    os.close(twin)
    os.write(fd, b"first")
    os.writev(fd, [b"second", b"third"])
    os.ftruncate(fd, 4000)
    os.close(fd)
    os.link(f"{here}/a/b/one", f"{here}/a/two")
    os.rename(f"{here}/a/b/one", f"{here}/three")
    os.symlink("a", f"{here}/link")
    os.replace(f"{here}/link", f"{here}/best")
    for _ in range(2):
        with open(f"{here}/rows", "ab") as rows:
            rows.write(b"row")
    source, target = os.open(f"{here}/three", os.O_RDONLY), os.open(f"{here}/copy", os.O_CREAT | os.O_RDWR)
    os.copy_file_range(source, target, 100, 5, 7)
    with mmap.mmap(source, 0, access=mmap.ACCESS_COPY) as view:
        view[0] = 1
    os.mkdir(f"{here}/gone")
    os.rmdir(f"{here}/gone")
    os.unlink(f"{here}/a/two")
"""


def program(folder, body):
    """Write a program that `recording.record` can run."""
    folder.mkdir()
    text = "import mmap, os, threading\ndef main(args):\n    here = f'{args[0]}/{args[1]}'\n"
    (folder / "program.py").write_text(text + textwrap.indent(textwrap.dedent(body), "    "))
    return recording.record(folder, "program", ["work"])["work"]


@needs_strace
def test_all_calls_that_change_files_are_seen(tmp_path):
    """What was recorded is, done again, what is on the disk in the end: that is compared each time."""
    found = program(tmp_path / "all", EVERYTHING)
    assert len([op for op in found.operations if isinstance(op, Write)]) == 6
    assert sum(isinstance(op, Sync) for op in found.operations) == 1


@needs_strace
@pytest.mark.parametrize(
    "body",
    [
        "os.chmod(here, 0o700)",
        "fd = os.open(f'{here}/x', os.O_CREAT | os.O_RDWR)\nos.write(fd, b'x' * 5000)\nmmap.mmap(fd, 0)[0] = 1",
        "fd = os.open(f'{here}/x', os.O_CREAT | os.O_RDWR | os.O_SYNC)",
        "os.setxattr(here, 'user.x', b'x')",
        "os.sync()",
        "os.chdir(here)\nopen('x', 'wb').close()",
        "if os.fork() == 0: open(f'{here}/x', 'wb').close(); os._exit(0)\nos.wait()",
    ],
    ids=["chmod", "mmap", "O_SYNC", "setxattr", "sync", "relative", "fork"],
)
def test_a_call_that_nobody_understands_is_an_error(tmp_path, body):
    """The suite does not look away from what it cannot do again."""
    with pytest.raises(UnknownCallError):
        program(tmp_path / "unknown", body)


def contents(operations, kinds, path):
    """Return what `path` may hold after all operations: None where it is not there."""
    operations = [*operations, Mark(ended=99, said={"of": "x"})]
    found = set()
    for state in replay.states(Recording(folder=1, kinds=kinds, operations=operations), seed=0):
        if state.at == len(operations):
            inode = state.entries.get(path)
            found.add(None if inode is None else bytes(state.contents[inode]))
    return found


KINDS = {1: "folder", 2: "file", 3: "file"}
OLD = [
    Names(ended=1, folder=1, changes=(("f", 2),)),
    Write(ended=2, inode=2, offset=0, data=b"o" * 2048),
    Sync(began=3, ended=3, inode=2),
    Sync(began=4, ended=4, inode=1),
    Mark(ended=5, said={"of": "x"}),
]


def test_what_is_synced_stays():
    """After an fsync of file and folder there is one state."""
    assert contents(OLD, KINDS, (1, "f")) == {b"o" * 2048}


def test_what_is_written_over_may_be_there_by_sectors():
    """Without an fsync: the old bytes, the new ones, one half or the other, every other sector."""
    found = contents([*OLD, Write(ended=6, inode=2, offset=0, data=b"n" * 2048)], KINDS, (1, "f"))
    mixed = {
        b"".join((b"n" if sector in new else b"o") * 512 for sector in range(4)) for new in ((0, 1), (2, 3), (0, 2))
    }
    assert found == {b"o" * 2048, b"n" * 2048, *mixed}


def test_a_new_file_may_have_its_name_and_nothing_in_it():
    """Without an fsync: no name; or nothing under it, zeros, rubbish, or a part."""
    new = [Names(ended=6, folder=1, changes=(("g", 3),)), Write(ended=7, inode=3, offset=0, data=b"n" * 1024)]
    found = contents([*OLD, *new], KINDS, (1, "g"))
    assert {None, b"", b"n" * 1024, b"\0" * 1024, b"n" * 512 + b"\0" * 512} <= found
    assert len(found) == 7


def test_a_rename_happens_or_does_not():
    """The name has the old content or the new, and never none; that of the new file may be gone."""
    renamed = [
        Names(ended=6, folder=1, changes=(("t", 3),)),
        Write(ended=7, inode=3, offset=0, data=b"n"),
        Sync(began=8, ended=8, inode=3),
        Names(ended=9, folder=1, changes=(("t", None), ("f", 3))),
    ]
    assert contents([*OLD, *renamed], KINDS, (1, "f")) == {b"o" * 2048, b"n"}
    assert contents([*OLD, *renamed], KINDS, (1, "t")) == {None, b"n"}


def test_what_was_written_during_an_fsync_is_not_covered():
    """An fsync that began before a write ended promises nothing of it."""
    late = [Write(ended=7, inode=2, offset=0, data=b"n" * 2048), Sync(began=6, ended=8, inode=2)]
    assert b"o" * 2048 in contents([*OLD, *late], KINDS, (1, "f"))


def test_a_descriptor_is_free_before_close_returns(tmp_path):
    """Another thread may get it in between: it is that thread's then, whatever line tells of it last."""
    folder = tmp_path / "watched" / "work"
    folder.mkdir(parents=True)
    one, two = (str(folder / name).encode().hex(":").replace(":", "\\x") for name in ("one", "two"))
    trace = Trace(folder.parent, tmp_path / "marks")
    for line in (
        "1 clone3({flags=CLONE_VM|CLONE_FILES}, 88) = 2",
        f'1 openat(AT_FDCWD, "\\x{one}", O_WRONLY|O_CREAT, 0666) = 5<\\x{one}>',
        f"1 close(5<\\x{one}> <unfinished ...>",
        f'2 openat(AT_FDCWD, "\\x{two}", O_WRONLY|O_CREAT, 0666) = 5<\\x{two}>',
        "1 <... close resumed>) = 0",
        f'2 write(5<\\x{two}>, "\\x6e", 1) = 1',
    ):
        trace.take(line)
    (folder / "one").touch()
    (folder / "two").write_bytes(b"n")
    trace.end()
