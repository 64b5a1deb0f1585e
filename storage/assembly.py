"""Assembly: how a store makes one object of many components, so many at once, and how that is gone on with.

A store may take long for it, and the reply may be lost. So before a step is taken once more, it is asked whether the
step was taken: doing it twice at once would take twice as long.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

AT_ONCE = 32
"""Objects of which one request makes another."""


class Assembly:
    """The steps of one upload, each taken until it is known to have been.

    Args:
        compose: makes an object, the second argument, of others; whatever it raises may come after it has.
        is_made: says whether an object is there that this upload, the second argument, has made.
    """

    def __init__(self, compose: Callable[[Sequence[str], str], None], is_made: Callable[[str, str], bool]) -> None:
        self._compose = compose
        self._is_made = is_made
        self._tried: set[str] = set()
        self._made: set[str] = set()

    def make(self, parts: Sequence[str], key: str, upload: str) -> None:
        """Make one object of all parts, in their order; called again, go on with what is not made yet."""
        level, names = 0, list(parts)
        while len(names) > AT_ONCE:
            groups = [names[begin : begin + AT_ONCE] for begin in range(0, len(names), AT_ONCE)]
            names = [f"{upload}level-{level}-{number:06d}" for number in range(len(groups))]
            for group, name in zip(groups, names, strict=True):
                self._step(group, name, upload)
            level += 1
        self._step(names, key, upload)

    def _step(self, sources: Sequence[str], target: str, upload: str) -> None:
        if target in self._made:
            return
        if target not in self._tried or not self._is_made(target, upload):
            self._tried.add(target)
            self._compose(sources, target)
        self._made.add(target)
