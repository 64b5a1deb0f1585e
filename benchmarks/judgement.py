"""Which promises of the project hold in this run; each is one line, with the figure that decides it."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping
from functools import partial

import steps
from cases import (
    DCP_ASYNC,
    DCP_OVERLAPPED,
    DCP_SHARED,
    KEEPBEST,
    KERAS_BEST,
    RAW_FRESH,
    RAW_RECYCLED,
    TORCH,
)
from local import FROZEN, GIBIBYTE, KERAS_PART, LARGE, MANY, WHOLE, Found
from measure import human, verdict

Parts = Mapping[str, Found]
"""By title."""


def judge(parts: Parts) -> bool:
    """Print a verdict for each promise that this run can decide."""
    lines = [
        *_blocked(parts[LARGE]),
        *_overhead(parts[LARGE]),
        *_whole_save(parts.get(GIBIBYTE, parts[LARGE])),
        *_frozen(parts),
        *_memory(parts),
        *_keras(parts),
    ]
    answers = [verdict(promise, held=held, figure=figure) for promise, held, figure in lines]
    return all(answers)


Line = tuple[str, bool, str]


def _blocked(part: Found) -> Iterator[Line]:
    mine, step = _median(part, KEEPBEST, "blocked"), _median(part, KEEPBEST, "step")
    default = _median(part, DCP_ASYNC, "blocked")
    shared, thread = (_median(part, name, "blocked") for name in (DCP_SHARED, DCP_OVERLAPPED))
    size = f"{part.nbytes / 1e9:.2f} GB"
    yield (
        f"PyTorch, {size}: a save holds training under 5 ms",
        mine < 5e-3,
        f"{human(mine)}, a step being {human(step)}",
    )
    yield f"… at most 1/20 of {DCP_ASYNC}", mine <= default / 20, f"1/{default / mine:.1f} of {human(default)}"
    yield (
        "… at most 1/5 of its stager in shared memory",
        mine <= shared / 5,
        f"1/{shared / mine:.1f} of {human(shared)}",
    )
    yield (
        "… less than DCP's copies in a thread, which tear what forward changes, and are meant for GPUs",
        mine < thread,
        f"1/{thread / mine:.1f} of {human(thread)}",
    )


def _overhead(part: Found) -> Iterator[Line]:
    for what, compared in (("steps", steps.STEPS), ("blocks of 10", steps.BLOCKS)):
        rise = steps.rise(partial(part.of, KEEPBEST), compared)
        yield (
            f"saving every 10 steps, a step takes at most 3 % longer (median of {what})",
            rise <= 0.03,
            f"{rise:+.1%}",
        )


def _whole_save(part: Found) -> Iterator[Line]:
    seconds, cpu = (_median(part, KEEPBEST, measure) for measure in ("total", "cpu"))
    torch_seconds, torch_cpu = (_median(part, TORCH, measure) for measure in ("total", "cpu"))
    fresh, recycled = (_median(part, name, "total") for name in (RAW_FRESH, RAW_RECYCLED))
    size = f"{part.nbytes / 1e9:.2f} GB"
    yield (
        f"{size}, from the call to durable: at least 3× faster than {TORCH} + fsync",
        torch_seconds / seconds >= 3,
        f"{torch_seconds / seconds:.2f}×, {human(seconds)}",
    )
    yield "… with at most 1/3 of its CPU time", cpu <= torch_cpu / 3, f"1/{torch_cpu / cpu:.1f}, {human(cpu)}"
    yield (
        "… within 1.3× of the raw write of the same bytes to a file that is there",
        seconds <= 1.3 * recycled,
        f"{seconds / recycled:.2f}× {human(recycled)} (to a fresh one: {seconds / fresh:.2f}× {human(fresh)})",
    )


def _frozen(parts: Parts) -> Iterator[Line]:
    frozen, whole = (_median(parts[title], KEEPBEST, "written") for title in (FROZEN, WHOLE))
    share = frozen / whole
    yield (
        "95 % frozen, AdamW: a save writes at most 7 % of what it writes when all of it trains",
        share <= 0.07,
        f"{share:.1%}, {frozen / 1e6:.1f} MB; {frozen / parts[FROZEN].nbytes:.1%} of its own state",
    )


def _memory(parts: Parts) -> Iterator[Line]:
    if MANY in parts:
        above = _median(parts[MANY], KEEPBEST, "peak_200") / parts[MANY].nbytes
        yield (
            "200 saves in a training: memory peaks at most one copy of the state + 10 % higher",
            above <= 1.1,
            f"{above:.2f} × the state",
        )


def _keras(parts: Parts) -> Iterator[Line]:
    if KERAS_PART in parts:
        mine = _median(parts[KERAS_PART], KERAS_BEST, "blocked")
        yield "Keras on TensorFlow, 0.50 GB: a save holds fit under 5 ms", mine < 5e-3, human(mine)
        of = partial(parts[KERAS_PART].of, KERAS_BEST)
        rise, together = steps.rise(of, steps.STEPS), steps.rise(of, steps.BLOCKS)
        yield (
            "… saving every 10 steps, a step takes at most 3 % longer (median of steps)",
            rise <= 0.03,
            f"{rise:+.1%}; all steps together {together:+.1%}",
        )


def _median(part: Found, case: str, measure: str) -> float:
    """Return the median; not a number where the case failed, and then no promise that needs it holds."""
    samples = part.of(case, measure)
    return statistics.median(samples) if samples else float("nan")
