"""Progress board: the tasks under way, who waits and who watches; so, what is told and shown, and when."""

from __future__ import annotations

import contextlib
import logging
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextvars import ContextVar
from types import TracebackType
from typing import Protocol, Self

from .progress_task import CURRENT, NOTHING, Action, Progress, Task, Unit

_log = logging.getLogger(__name__)

DELAY = 1.0
"""Seconds that somebody waits before bars appear."""

_INTERVAL = 0.1
"""Seconds between two looks at the tasks."""


class Display(Protocol):
    """Something that draws bars. Used by one thread."""

    def draw(self, shown: Sequence[Progress]) -> None:
        """Show exactly these."""

    def close(self) -> None:
        """Show nothing, and leave the terminal as it was."""


OpenDisplay = Callable[[], Display]

BEHIND: ContextVar[bool] = ContextVar("keepbest_behind", default=False)
"""Nobody waits for what this thread does."""


class Board:
    """Knows it all. Safe to use from several threads; one serves the process.

    Args:
        clock: seconds, monotonic.
        find_terminal: returns what opens the bars; None if nobody would see them now.
    """

    def __init__(self, clock: Callable[[], float], find_terminal: Callable[[], OpenDisplay | None]) -> None:
        self._clock = clock
        self._find_terminal = find_terminal
        self._subscriptions: list[Subscription] = []
        self.start_afresh()

    def start_afresh(self) -> None:
        """Forget all but the callbacks. In a forked child the threads are gone, and locks that they held would stay."""
        self._lock = threading.Lock()
        self._telling = threading.RLock()
        """One call of a callback at a time; a callback may itself load something."""
        self._tasks: dict[int, Task] = {}
        self._waits: set[object] = set()
        self._waited_since = 0.0
        self._teller: _Ticker | None = None
        self._drawer: _Ticker | None = None

    # ── tasks ─────────────────────────────────────────────────────────────────────────────────────────────────────

    @contextlib.contextmanager
    def task(self, action: Action, subject: str, total: int | None = None, unit: Unit = "bytes") -> Iterator[Task]:
        """See `progress.task`."""
        begun = Task(action, subject, total, unit, self._clock())
        token = CURRENT.set(begun if unit == "bytes" else NOTHING)
        try:
            self._begin(begun)
            yield begun
            begun.complete()
        finally:
            CURRENT.reset(token)
            self._end(begun)

    def _begin(self, task: Task) -> None:
        with self._lock:
            self._tasks[task.id] = task
            self._see_to_telling()

    def _end(self, task: Task) -> None:
        with self._lock:
            self._tasks.pop(task.id, None)
            self._see_to_telling()
        self._tell(task, finished=True)

    # ── callbacks ─────────────────────────────────────────────────────────────────────────────────────────────────

    def subscribe(self, callback: Callable[[Progress], object], place: tuple[str, int]) -> Subscription:
        """See `progress.on_progress`; `place` is the file and line that a warning names."""
        made = Subscription(self, callback, place)
        with self._lock:
            self._subscriptions.append(made)
            self._see_to_telling()
        return made

    def unsubscribe(self, subscription: Subscription) -> None:
        """Tell it no more."""
        with self._lock:
            if subscription in self._subscriptions:
                self._subscriptions.remove(subscription)
            self._see_to_telling()

    def tell(self) -> None:
        """Tell every callback of every task. Called ten times a second while there are both."""
        with self._lock:
            tasks = list(self._tasks.values())
        for task in tasks:
            self._tell(task, finished=False)

    def _tell(self, task: Task, *, finished: bool) -> None:
        if not self._subscriptions:
            return
        with self._telling:
            with self._lock:
                if not finished and task.id not in self._tasks:
                    return  # it was told of for the last time
                watching = list(self._subscriptions)
            made = task.progress(self._clock(), finished=finished)
            for subscription in watching:
                subscription.tell(made)

    def _see_to_telling(self) -> None:
        """Have a thread while there is something to tell and somebody to be told. Called under the lock."""
        needed = bool(self._subscriptions and self._tasks)
        if needed and self._teller is None:
            self._teller = _Ticker(self.tell)
        elif not needed and self._teller is not None:
            self._teller.stop()
            self._teller = None

    # ── bars ──────────────────────────────────────────────────────────────────────────────────────────────────────

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """See `progress.waiting`."""
        if BEHIND.get():
            yield
            return
        wait = object()
        try:
            self._begin_wait(wait)
            yield
        finally:
            self._end_wait(wait)

    def _begin_wait(self, wait: object) -> None:
        with self._lock:
            if not self._waits:
                self._waited_since = self._clock()
            self._waits.add(wait)
            if self._drawer is None and not self._subscriptions and (found := self._find_terminal()) is not None:
                drawing = Drawing(self.shown, found)
                self._drawer = _Ticker(drawing.draw, drawing.close)

    def _end_wait(self, wait: object) -> None:
        with self._lock:
            self._waits.discard(wait)
            if self._waits:
                return
            drawer, self._drawer = self._drawer, None
        if drawer is not None:
            drawer.stop()
            drawer.join()  # what is printed next shall not meet a bar

    def shown(self) -> list[Progress]:
        """Return what bars should show now."""
        now = self._clock()
        with self._lock:
            if self._subscriptions or not self._waits or now - self._waited_since < DELAY:
                return []
            tasks = list(self._tasks.values())
        return [task.progress(now) for task in tasks]


class Subscription:
    """A callback that is told of progress, until `close` is called or the `with` block ends."""

    def __init__(self, board: Board, callback: Callable[[Progress], object], place: tuple[str, int]) -> None:
        self._board = board
        self._callback = callback
        self._place = place

    def close(self) -> None:
        """Tell it no more. Twice is once."""
        self._board.unsubscribe(self)

    def tell(self, progress: Progress) -> None:
        """Call it. One that raises is warned about and dropped: whoever watches must not break a save."""
        try:
            self._callback(progress)
        except Exception as error:  # noqa: BLE001 - the user's own code may raise anything; the warning names it
            self.close()
            message = (
                f"the callback given to on_progress raised {type(error).__name__}: {error}. It is not called any more; "
                f"what it was told of ({progress.action} {progress.subject!r}) goes on."
            )
            try:
                warnings.warn_explicit(message, UserWarning, *self._place)
            except UserWarning:  # where warnings are errors
                _log.warning("progress.callback_dropped %s", message)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


class Drawing:
    """The bars of one wait, from the first that is needed on.

    One thread of its own draws them all, so Ctrl-C, which meets the main thread, never leaves one half drawn.
    """

    def __init__(self, look: Callable[[], list[Progress]], open_display: OpenDisplay) -> None:
        self._look = look
        self._open: OpenDisplay | None = open_display
        self._display: Display | None = None

    def draw(self) -> None:
        """Show what there is to show now."""
        shown = self._look()
        if self._display is None and (self._open is None or not shown):
            return
        with self._or_never_again():
            if self._display is None and self._open is not None:
                self._display = self._open()
            if self._display is not None:
                self._display.draw(shown)

    def close(self) -> None:
        """Show nothing any more."""
        with self._or_never_again():
            if self._display is not None:
                self._display.close()
        self._display = self._open = None

    @contextlib.contextmanager
    def _or_never_again(self) -> Iterator[None]:
        """A terminal that went away, or rich not being installed, costs the bars and nothing else."""
        try:
            yield
        except Exception as error:  # noqa: BLE001 - see above; what is being done goes on unseen
            _log.debug("progress.no_bars error=%r", error)
            self._display = self._open = None


class _Ticker:
    """Calls `tick` ten times a second in a daemon thread, until it is stopped; then `at_end`, if it has one."""

    def __init__(self, tick: Callable[[], None], at_end: Callable[[], None] | None = None) -> None:
        self._tick = tick
        self._at_end = at_end
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="keepbest-progress", daemon=True)
        with contextlib.suppress(RuntimeError):  # no thread can be started any more when the interpreter ends
            self._thread.start()

    def stop(self) -> None:
        self._over.set()

    def join(self) -> None:
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        while not self._over.wait(_INTERVAL):
            self._tick()
        if self._at_end is not None:
            self._at_end()
