"""Preemption: SIGTERM says that the machine goes away; training saves at its next boundary, then ends."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import threading
from types import FrameType
from typing import Any

_log = logging.getLogger(__name__)

EXIT_CODE = 128 + signal.SIGTERM

at_once = threading.Event()
"""A second SIGTERM came: the program ends, and what is not under way already is not waited for."""


class Preemption:
    """Notes a SIGTERM. The handler itself does nothing else: a snapshot in the middle of a step would be torn."""

    def __init__(self) -> None:
        self.requested = False
        """A SIGTERM came and was not acted on yet."""
        self._previous: Any = None
        self._process = os.getpid()
        self._installed = False

    def install(self) -> None:
        """Take SIGTERM over. Only the main thread may; elsewhere whoever owns the main thread says when to save."""
        if self._installed or threading.current_thread() is not threading.main_thread():
            return
        previous = signal.signal(signal.SIGTERM, self._note)
        if previous != self._note:  # which `uninstall` may have left
            self._previous = previous
        self._installed = True

    def uninstall(self) -> None:
        """Give SIGTERM back to the handler that had it; where another one took it over since, that one keeps it.

        In another thread than the main one, ours stays, and from now on only passes the signal on.
        """
        if not self._installed:
            return
        main = threading.current_thread() is threading.main_thread()
        if main and signal.getsignal(signal.SIGTERM) == self._note:
            signal.signal(signal.SIGTERM, signal.SIG_DFL if self._previous is None else self._previous)
        self._installed = False

    def end_training(self) -> None:
        """Hand the signal on to the handler that was there before; if that returns, or there was none, exit.

        Raises:
            SystemExit: code 143 (128 + 15), as shells report a death by SIGTERM. Not if SIGTERM was being ignored.
        """
        self.requested = False
        self.uninstall()
        self._pass_on(signal.SIGTERM, None)

    def _pass_on(self, number: int, frame: FrameType | None) -> None:
        if self._previous is signal.SIG_IGN:
            return
        if callable(self._previous):
            self._previous(number, frame)
        raise SystemExit(EXIT_CODE)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._process:
            # A forked child (a data loader's worker, a pool's) inherits the handler; it trains nothing and has to end.
            signal.signal(signal.SIGTERM, self._previous if callable(self._previous) else signal.SIG_DFL)
            os.kill(os.getpid(), signal.SIGTERM)
            return
        if not self._installed:
            # Whoever took SIGTERM over from us hands it on, and our training has ended.
            self._pass_on(number, frame)
            return
        if self.requested:
            # The second one means now: no boundary came, or the save takes too long.
            self.uninstall()
            at_once.set()
            self._pass_on(number, frame)
            raise SystemExit(EXIT_CODE)
        self.requested = True
        with contextlib.suppress(Exception):  # the signal may have come in the middle of a write to where the log goes
            _log.warning("SIGTERM received: saving at the next log() or log_step(), then exiting with %d", EXIT_CODE)
