"""Trains in forked children that die by SIGKILL at a chosen moment, then trains on to the end.

    python kill.py URL MODE FIRST STEP LAST

For each moment n of range(FIRST, LAST, STEP): a fresh run, a child killed at moment n, a second child that runs to the
end. MODE says what a moment is: "call", a file-system call inside the run's folder; "step", a training step; "told",
whatever the caller chooses, who is told the child's number ("child 7 4711") and says "go" when that may begin. Prints a
line for each: n, whether the first child was killed, whether the run is whole then, and the fingerprint of the final
state. Moment -1 is never reached: an uninterrupted run.
"""

from __future__ import annotations

import importlib
import os
import signal
import sys
import traceback

import trainer

from keepbest import open_run

CLIENTS = {"s3": "s3fs", "gs": "gcsfs"}


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


def say(*words):
    """Print a line at once."""
    sys.stdout.write(" ".join(map(str, words)) + "\n")
    sys.stdout.flush()


def wait_until_told(n):
    """Leave the kill to the caller."""
    say("child", n, os.getpid())
    sys.stdin.readline()


def in_child(job):
    """Run `job` in a forked child; return how it ended."""
    child = os.fork()
    if child == 0:
        try:
            job()
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            raise
        finally:
            sys.stderr.flush()
            os._exit(1)
    return os.waitpid(child, 0)[1]


def main():
    place, mode = sys.argv[1:3]
    first, step, last = map(int, sys.argv[3:])
    data = trainer.images()
    # What is imported late is imported once, before the forks; one thread, so forking loses nothing.
    importlib.import_module(CLIENTS.get(place.partition("://")[0], "os"))
    trainer.torch.set_num_threads(1)
    model, optimizer, _ = trainer.build()
    trainer.train_epoch(model, optimizer, trainer.loaders(*data)[0])
    for n in [-1, *range(first, last, step)]:
        url = f"{place}/{mode}-{n}"

        def interrupted(n=n, url=url):
            {"step": kill_at_step, "call": lambda n: kill_at_call(n, url), "told": wait_until_told}[mode](n)
            trainer.train(url, data)

        killed = os.WIFSIGNALED(in_child(interrupted)) if n > 0 else False

        def to_the_end(n=n, url=url, killed=killed):
            trained = trainer.train(url, data)
            say(n, int(killed), int(open_run(url).verify().ok), trainer.fingerprint(*trained[:2]))

        if in_child(to_the_end) != 0:
            say(n, int(killed), 0, "failed")


if __name__ == "__main__":
    main()
