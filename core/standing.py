"""Standing: all that a monitor's judging goes on from, as a value of bounded size, to and from plain JSON."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Self

from msgspec import Struct
from msgspec.structs import asdict

from ..errors import ConfigError
from ..storage.history import Row
from ..storage.jsonfloat import floats_to_json


class Standing(Struct, frozen=True, kw_only=True):
    """Where a monitor stands after a check. All its floats are finite."""

    monitor: str
    """The metric's name."""
    mode: str
    smoothing: str | None
    """As it is written in files: "ema:0.9"."""
    where: tuple[str, ...] | None
    """The constraints; None: an older version did not say."""
    best: float | None
    best_epoch: int | None
    """From 0."""
    best_step: int | None
    wait: int
    """Checks without improvement since the best."""
    nonfinite: int
    """Values in a row that were not finite."""
    smoothing_state: tuple[float, ...]
    overfit_pairs: tuple[tuple[float, float], ...]
    """Validation and training value of the last checks, the oldest first."""

    def to_json(self) -> dict[str, Any]:
        """Return it as plain JSON: dicts, lists, strings, numbers, None."""
        return asdict(self) | {
            "where": None if self.where is None else list(self.where),
            "smoothing_state": list(self.smoothing_state),
            "overfit_pairs": [list(pair) for pair in self.overfit_pairs],
        }

    @classmethod
    def from_json(cls, standing: Mapping[str, Any]) -> Self:
        """Return what `to_json` wrote.

        Raises:
            ConfigError: it is something else.
        """
        try:
            return cls(
                monitor=standing["monitor"],
                mode=standing["mode"],
                smoothing=standing["smoothing"],
                where=_optional(_texts, standing.get("where")),
                best=_optional(float, standing["best"]),
                best_epoch=_optional(int, standing["best_epoch"]),
                best_step=_optional(int, standing["best_step"]),
                wait=int(standing["wait"]),
                nonfinite=int(standing["nonfinite"]),
                smoothing_state=tuple(map(float, standing["smoothing_state"])),
                overfit_pairs=tuple((float(one), float(other)) for one, other in standing["overfit_pairs"]),
            )
        except (ArithmeticError, LookupError, TypeError, ValueError) as error:
            raise ConfigError(
                f"this is not the standing of a monitor ({error!r}): {standing!r:.200}. Give what standing() returned."
            ) from error

    def check_continues(self, before: Standing) -> None:
        """Check that judging may go on from `before`, whose best must be comparable with values to come.

        Raises:
            ConfigError: it is of another metric, direction or smoothing, or under other constraints.
        """
        for name in ("monitor", "mode", "smoothing", "where"):
            then, now = getattr(before, name), getattr(self, name)
            if then != now and not (name == "where" and then is None):
                raise ConfigError(
                    f"cannot continue monitoring '{self.monitor}': it was judged with {name}={then!r} before, and now "
                    f"with {name}={now!r}, so its best cannot be compared. Keep the setting, or start a new run."
                )


def rows_to_json(rows: Iterable[Row]) -> list[list[Any]]:
    """Return the rows of a history as plain JSON; NaN and infinity are the strings "nan", "inf" and "-inf"."""
    return [[row.kind, row.epoch, row.step, row.time, floats_to_json(row.metrics)] for row in rows]


def rows_from_json(rows: Iterable[Any]) -> list[Row]:
    """Return what `rows_to_json` wrote.

    Raises:
        ConfigError: it is something else.
    """
    try:
        return [
            Row(kind=kind, epoch=epoch, step=step, time=time, metrics={k: float(v) for k, v in metrics.items()})
            for kind, epoch, step, time, metrics in rows
        ]
    except (AttributeError, TypeError, ValueError) as error:
        raise ConfigError(
            f"this is not the history of a monitor ({error!r}). Give what state_dict() of the monitor returned."
        ) from error


def _texts(value: Any) -> tuple[str, ...]:
    return tuple(str(text) for text in value)


def _optional(kind: Any, value: Any) -> Any:
    return None if value is None else kind(value)
