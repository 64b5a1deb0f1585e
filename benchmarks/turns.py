"""Cases take turns, A B C A B C …, each in a process of its own that lives from its warm-up to its last turn."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from multiprocessing.connection import Connection
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from claim import Claim

Results = dict[str, dict[str, list[float]]]
"""All samples of each case, by the name of what was measured."""

TIMEOUT = 300.0
"""Seconds that a warm-up or a turn may take."""

CLAIMED = 2 << 30
"""Bytes of memory that the machine has at hand when a turn begins."""


class Turns:
    """The processes of some cases, started together; none runs while it is another's turn."""

    def __init__(self, made: Mapping[str, tuple[Callable[..., Any], tuple[Any, ...]]], folder: Path) -> None:
        self.results: Results = {name: {} for name in made}
        self.failed: dict[str, str] = {}
        """What ended a case, by its name."""
        self._made = made
        self._folder = folder
        self._workers: dict[str, tuple[Any, Connection]] = {}

    def __enter__(self) -> Self:
        spawn = multiprocessing.get_context("spawn")
        for number, (name, (make, arguments)) in enumerate(self._made.items()):
            folder = self._folder / f"case-{number}"
            folder.mkdir(parents=True)
            here, there = spawn.Pipe()
            process = spawn.Process(target=_serve, args=(there, make, (*arguments, folder)))
            process.start()
            there.close()
            self._workers[name] = (process, here)
        for name in self._made:
            show(f"warming up: {name}")
            self._hear(name)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback_: TracebackType | None
    ) -> None:
        for process, pipe in self._workers.values():
            with contextlib.suppress(OSError):
                pipe.send(None)
            process.join(0 if kind else 10)
            process.kill()
            process.join()
        show("")

    def take(self, what: str, *, times: int, only: Iterable[str]) -> None:
        """Call a method of some cases in turn, so many times, and keep their samples; one that fails is left out."""
        memory = Claim(CLAIMED)
        for number in range(times):
            for name in only:
                if name not in self.failed:
                    show(f"{what}, turn {number + 1} of {times}: {name}")
                    with memory.lent():
                        self._workers[name][1].send(what)
                        found = self._hear(name) or {}
                    collect(self.results[name], found)

    def _hear(self, name: str) -> Any:
        process, pipe = self._workers[name]
        try:
            if not pipe.poll(TIMEOUT):
                raise TimeoutError(f"took longer than {TIMEOUT:.0f} s")
            found, error = pipe.recv()
        except (EOFError, OSError) as failure:
            found, error = None, str(failure) or "the process died"
            process.kill()
        if error is not None:
            self.failed[name] = error
            self.results.pop(name, None)
        return found


def collect(samples: dict[str, list[float]], found: Mapping[str, list[float]]) -> None:
    """Add what was found to the samples, by the name of what was measured."""
    for measure, some in found.items():
        samples.setdefault(measure, []).extend(some)


def show(text: str) -> None:
    """Say in a terminal what is being measured; the next line overwrites it."""
    if sys.stderr.isatty():
        print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)


def _serve(pipe: Connection, make: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    folder: Path = arguments[-1]
    with (folder.parent / f"{folder.name}.log").open("wb") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    try:
        case = make(*arguments)
        pipe.send((None, None))
        for what in _requests(pipe):
            pipe.send((getattr(case, what)(), None))
    except BaseException as error:  # noqa: BLE001 - the parent shows it in place of figures
        traceback.print_exc()
        pipe.send((None, f"{type(error).__name__}: {error}"))
    os._exit(0)  # threads of a framework that wait for each other at exit are not what is measured


def _requests(pipe: Connection) -> Iterator[str]:
    with contextlib.suppress(EOFError):
        while (what := pipe.recv()) is not None:
            yield what
