"""Recording: every file operation of a program, as strace saw it, in the order in which they ended.

Nothing is passed over: a call that names a watched path or descriptor is one that we know to change nothing, or one
that is understood, or an error. In the end what was recorded is compared with what is on the disk, byte for byte.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from .operations import Recording
from .trace import Trace

TESTS = Path(__file__).resolve().parents[1]

_UNTRACED = (
    "read,pread64,readv,futex,brk,mprotect,munmap,madvise,rt_sigaction,rt_sigprocmask,rt_sigreturn,stat,lstat,"
    "fstat,newfstatat,statx,statfs,fstatfs,access,faccessat,faccessat2,readlink,readlinkat,getdents64,getcwd,getpid,"
    "gettid,clock_nanosleep,clock_gettime,sched_yield,poll,ppoll,epoll_wait,set_robust_list,rseq,getrandom,fadvise64"
)
"""What changes nothing and is frequent."""


def available() -> bool:
    """Say whether strace is here, and may trace."""
    if shutil.which("strace") is None:
        return False
    return subprocess.run(["strace", "-qq", "-o", os.devnull, "true"], capture_output=True, check=False).returncode == 0


def record(folder: Path, module: str, names: list[str]) -> dict[str, Recording]:
    """Run `module.main(folder, names)` under strace; return a recording of what it did in each `folder/<name>`.

    Args:
        folder: a new one.
        module: below `tests`.
        names: of workloads; the program marks what it says with the name.
    """
    watched, trace = folder / "watched", folder / "trace"
    watched.mkdir(parents=True)
    for name in names:
        (watched / name).mkdir()
    program = f"import sys; sys.path.insert(0, {str(TESTS)!r}); from {module} import main; main(sys.argv[1:])"
    command = ["strace", "-f", "-y", "-xx", "-a1", "-s", str(1 << 26), "--seccomp-bpf", "-qq", "-o", str(trace)]
    command += ["-e", f"trace=!{_UNTRACED}", "-e", "signal=none", sys.executable, "-c", program, str(watched), *names]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300, cwd=folder)
    if ended.returncode != 0:
        raise RuntimeError(f"the workloads ended with {ended.returncode}: {ended.stderr[-2000:]}")
    taken = Trace(watched, mark_file(watched))
    with trace.open() as lines:
        for line in lines:
            taken.take(line)
    taken.end()
    trace.unlink()
    return taken.recordings


def mark_file(folder: Path) -> Path:
    """Return the file that a program writes its marks to."""
    return folder.parent / "marks"
