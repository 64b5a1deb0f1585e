"""At exit: what has to be done when a program ends, while thread pools still take work."""

from __future__ import annotations

import atexit
import threading
from collections.abc import Callable


def at_exit(call: Callable[[], None]) -> None:
    """Have `call` called when the interpreter ends: before it joins its threads, and before thread pools stop.

    What `atexit` calls comes too late: an upload that is under way by then finds that no pool takes its parts any more.
    """
    # concurrent.futures stops its pools by this very function; who registers later is called earlier.
    register = getattr(threading, "_register_atexit", atexit.register)
    register(call)
