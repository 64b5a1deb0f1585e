"""Trains in forked children that kill themselves with SIGKILL at a chosen moment, then trains on to the end.

    python kill.py FOLDER MODE FIRST STEP LAST

For each moment n of range(FIRST, LAST, STEP): a fresh run, a child killed at moment n, a second child that runs to the
end. MODE says what a moment is: "call", a file-system call inside the run's folder; "step", a training step. Prints one
line for each: n, whether the first child was killed, and the fingerprint of the final state. Moment -1 is never
reached: an uninterrupted run.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import trainer


def kill_at_call(n, folder):
    """Arrange for SIGKILL just before the n-th file-system call in `folder`."""
    seen = 0

    def hook(event, args):
        nonlocal seen
        if event.split(".")[0] in ("open", "os") and any(isinstance(arg, str) and folder in arg for arg in args):
            seen += 1
            if seen == n:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)


def kill_at_step(n):
    """Arrange for SIGKILL after the n-th training step, wherever the writer is by then."""
    plain, seen = trainer.train_epoch, 0

    def train_epoch(model, optimizer, loader, after_step):
        def count(loss):
            nonlocal seen
            after_step(loss)
            seen += 1
            if seen == n:
                os.kill(os.getpid(), signal.SIGKILL)

        return plain(model, optimizer, loader, count)

    trainer.train_epoch = train_epoch


def in_child(job):
    """Run `job` in a forked child; return how it ended."""
    child = os.fork()
    if child == 0:
        try:
            job()
            os._exit(0)
        finally:
            os._exit(1)
    return os.waitpid(child, 0)[1]


def main():
    folder, mode = Path(sys.argv[1]), sys.argv[2]
    first, step, last = map(int, sys.argv[3:])
    data = trainer.images()
    # What torch imports at the first step is imported once, before the forks; one thread, so forking loses nothing.
    trainer.torch.set_num_threads(1)
    model, optimizer, _ = trainer.build()
    trainer.train_epoch(model, optimizer, trainer.loaders(*data)[0])
    for n in [-1, *range(first, last, step)]:
        run, out = folder / f"{mode}-{n}", folder / f"{mode}-{n}.txt"

        def interrupted(n=n, run=run):
            kill_at_step(n) if mode == "step" else kill_at_call(n, str(run))
            trainer.train(str(run), data)

        def to_the_end(run=run, out=out):
            trained = trainer.train(str(run), data)
            out.write_text(trainer.fingerprint(*trained[:2]))

        killed = os.WIFSIGNALED(in_child(interrupted)) if n > 0 else False
        ended = in_child(to_the_end)
        sys.stdout.write(f"{n} {int(killed)} {out.read_text() if ended == 0 else 'failed'}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
