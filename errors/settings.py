"""Settings: they are wrong, or calls come in an order that cannot be right."""

from __future__ import annotations

from collections.abc import Sequence

from .base import KeepbestError, did_you_mean


class ConfigError(KeepbestError, ValueError):
    """A setting is wrong.

    When: when an object is made, or a call is given its arguments, before any training.

    Do: Change the setting that the text names; it says which values there are.
    """


class UnknownModeError(ConfigError):
    """`mode` is none of "auto", "min" and "max".

    When: when a monitor, a policy or a callback is made.

    Do: Say mode='min' where lower is better, mode='max' where higher is better.
    """

    def __init__(self, mode: object) -> None:
        self.mode = mode
        super().__init__(
            f"unknown mode {mode!r}.{_not_this_mode(mode)} Use mode='min' if lower is better, mode='max' if higher is "
            "better, or "
            f"mode='auto' for the metric names keepbest knows.{did_you_mean(str(mode).lower(), ('auto', 'min', 'max'))}"
        )


def _not_this_mode(mode: object) -> str:
    return " (mode='sync' and 'async' are the Checkpointer's.)" if mode in {"sync", "async"} else ""


class AmbiguousModeError(ConfigError):
    """`mode="auto"`, and nothing says whether the metric should fall or rise.

    When: when a monitor is made, or when `fit` begins; keepbest never guesses a direction.

    Do: Say mode='min' or mode='max', or correct the name of the metric.
    """

    def __init__(self, metric: str, known: Sequence[str] = ()) -> None:
        self.metric = metric
        stage, word = _stage_and_word(metric)
        hint = did_you_mean(metric, [stage + name for name in known]) if word else ""
        super().__init__(
            f"mode='auto' cannot tell whether '{metric}' should fall or rise: the name is not in the table of known "
            f"metrics.{hint} Say mode='min' (lower is better) or mode='max' (higher is better)."
        )


def _stage_and_word(metric: str) -> tuple[str, str]:
    """Split "val_los" into "val_" and "los", so that "val_loss" can be suggested."""
    for stage in ("val", "valid", "validation", "train", "test", "eval"):
        for separator in "_/":
            if metric.lower().startswith(stage + separator):
                return metric[: len(stage) + 1], metric[len(stage) + 1 :]
    return "", metric


class KeyFileError(ConfigError):
    """A file is no key to sign or to verify with. What is in it is never shown.

    When: when a key is read: for `sign=`, for `Trusted`, for `--key`.

    Do: Give the PEM file of an Ed25519 key: the private one to sign, the public one to verify.
    """

    def __init__(self, location: str, problem: str) -> None:
        self.location, self.problem = location, problem
        super().__init__(
            f"{location} {problem}. Make a pair of keys by `openssl genpkey -algorithm ed25519 -out signing.pem` and "
            "`openssl pkey -in signing.pem -pubout -out signing.pub.pem`: sign with the first, verify with the second."
        )


class PolicyError(ConfigError):
    """A policy that contradicts itself, can never save, or has a field that does not exist.

    When: when the policy is made or read from a file.

    Do: Correct the field that the text names.
    """


class UsageError(KeepbestError, RuntimeError):
    """Calls came in an order that cannot be right.

    When: at the call that does not fit what came before it.

    Do: Change the order of the calls; the text says which order is right.
    """


class ClosedError(UsageError):
    """The Checkpointer was used after `close()`.

    When: at any call of a Checkpointer that is closed, also by the end of its `with` block.

    Do: Make the call before the end of the `with` block, or open a new Checkpointer.
    """

    def __init__(self, call: str, url: str) -> None:
        self.call, self.url = call, url
        super().__init__(f"{call}() was called on a Checkpointer that is closed ({url}). Open a new one to go on.")
