"""Comparison: two checkpoints side by side, and which of their tensors differ; shown, or given to programs.

How tensors are paired and measured is `storage.compare`'s.
"""

from __future__ import annotations

import fnmatch
import math
from collections.abc import Callable, Mapping, Sequence
from typing import TypedDict

from msgspec import Struct

from ..storage import compare, progress
from ..storage.compare import Kind, Stored, TensorDifference
from ..storage.jsonfloat import float_to_json
from ..storage.manifest import CheckpointInfo, Manifest
from ..storage.run import Run
from . import machine, screen, words


class SpecJson(TypedDict):
    """What a tensor is, without its values."""

    dtype: str
    """The safetensors name, or "C128"."""
    shape: list[int]
    digest: str


class TensorJson(TypedDict):
    """A tensor that differs."""

    object: str
    tensor: str
    tied: list[str]
    """Names in the object of those that are stored with it as one."""
    kind: Kind
    """"values"; "dtype" or "shape"; "added" or "removed"; "ties": the values are the same, but in one of the two
    checkpoints it shares them with another tensor."""
    before: SpecJson | None
    after: SpecJson | None
    relative: float | str | None
    """‖after - before‖ / ‖before‖, Euclidean; null: `kind` is another one, or its dtype cannot be read."""
    largest: float | str | None
    """The largest difference of one element, its absolute value."""
    changed: float | None
    """Share of the elements that changed, from 0 to 1."""
    nonfinite: int | None
    """Elements that changed and were not finite in one of the two; `relative` and `largest` leave them out."""


class DiffJson(TypedDict):
    """What `keepbest diff --json` prints, as keepbest.diff/1."""

    run: str
    other: str | None
    """The run of `after`, if that is another one."""
    before: machine.CheckpointJson
    after: machine.CheckpointJson
    equal: bool
    """No tensor that was looked at differs."""
    same: int
    """Tensors that are the same in both; tied ones count once."""
    objects_removed: list[str]
    """Objects that only `before` holds."""
    objects_added: list[str]
    tensors: list[TensorJson]
    """All that differ: what is there only once or of another kind first, then by relative change."""


class Side(Struct, frozen=True, kw_only=True):
    """One of the two checkpoints, as far as it is looked at."""

    run: Run
    info: CheckpointInfo
    manifest: Manifest
    tensors: Mapping[compare.Key, Stored]
    objects: Sequence[str]


class Comparison(Struct, frozen=True, kw_only=True):
    """How two checkpoints differ."""

    old: Side
    new: Side
    differing: Sequence[TensorDifference]
    """What is there only once or of another kind first, then by relative change."""
    same: int
    """Tensors that are the same in both."""
    removed: Sequence[str]
    """Objects that only `old` holds."""
    added: Sequence[str]

    @property
    def equal(self) -> bool:
        """Nothing that was looked at differs."""
        return not (self.differing or self.removed or self.added)


def side(run: Run, which: str, only: Sequence[str]) -> Side:
    """Read the manifest and the state file of a checkpoint.

    Args:
        run: that holds it.
        which: "best", "latest", its name or the unique beginning of it, or its sequence number.
        only: patterns of tensors' names, with or without their object; empty: all are looked at.
    """
    checkpoint = run.get(which)
    manifest, objects = checkpoint.manifest(), checkpoint.state().objects
    held = compare.tensors_of(manifest, objects)
    chosen = {
        key: stored
        for key, stored in held.items()
        if not only or any(fnmatch.fnmatchcase(name, glob) for name in (key[1], ".".join(key)) for glob in only)
    }
    return Side(
        run=run,
        info=checkpoint.info,
        manifest=manifest,
        tensors=chosen,
        objects=[name for name in objects if not only or any(key[0] == name for key in chosen)],
    )


def compared(old: Side, new: Side) -> Comparison:
    """Compare two checkpoints.

    Objects that only one of the two holds are named as a whole; of the others, each tensor is looked at. Cost: tensors
    with equal digests are not read; of the others both are, a piece at a time.
    """
    both = set(old.objects) & set(new.objects)
    pairs = compare.pair(*({key: held for key, held in side.tensors.items() if key[0] in both} for side in (old, new)))
    measured = []
    with progress.waiting(), progress.task("diff", f"{old.info.name} and {new.info.name}", _nbytes(old, new, pairs)):
        for pair in pairs:
            if pair.kind == "values" and pair.before is not None and pair.after is not None:
                pieces = (
                    compare.pieces(side.run.backend, side.manifest, stored)
                    for side, stored in ((old, pair.before), (new, pair.after))
                )
                measured.append(compare.measure(pair, *pieces))
    unread = [pair for pair in pairs if pair.kind != "values"]
    return Comparison(
        old=old,
        new=new,
        differing=compare.ranked([*unread, *measured]),
        same=sum(pair.kind == "same" for pair in pairs),
        removed=[name for name in old.objects if name not in both],
        added=[name for name in new.objects if name not in both],
    )


def _nbytes(old: Side, new: Side, pairs: Sequence[TensorDifference]) -> int:
    """Return how much will be read."""
    total = 0
    for pair in pairs:
        for side, stored in ((old, pair.before), (new, pair.after)):
            if pair.kind == "values" and stored is not None and stored.place is not None:
                file, name = stored.place
                begin, end = (side.manifest.artifacts[file].tensors or {})[name].offsets
                total += end - begin
    return total


def to_json(found: Comparison) -> DiffJson:
    """Return what `--json` prints."""
    old, new = found.old, found.new
    return DiffJson(
        run=old.run.url,
        other=new.run.url if new.run is not old.run else None,
        before=machine.checkpoint(old.info),
        after=machine.checkpoint(new.info),
        equal=found.equal,
        same=found.same,
        objects_removed=list(found.removed),
        objects_added=list(found.added),
        tensors=[_tensor_to_json(difference) for difference in found.differing],
    )


def _tensor_to_json(difference: TensorDifference) -> TensorJson:
    figures = difference.figures
    return TensorJson(
        object=difference.object,
        tensor=difference.names[0],
        tied=list(difference.names[1:]),
        kind=difference.kind,
        before=_spec_to_json(difference.before),
        after=_spec_to_json(difference.after),
        relative=None if figures is None else float_to_json(figures.relative),
        largest=None if figures is None else float_to_json(figures.largest),
        changed=None if figures is None else figures.changed,
        nonfinite=None if figures is None else figures.nonfinite,
    )


def _spec_to_json(stored: Stored | None) -> SpecJson | None:
    return None if stored is None else SpecJson(dtype=stored.dtype, shape=list(stored.shape), digest=stored.digest)


# ── for people ────────────────────────────────────────────────────────────────────────────────────────────────────


def show(found: Comparison, *, most: int | None) -> None:
    """Print what differs as tables; of the tensors the `most` that changed most, or, if that is None, all."""
    old, new = found.old, found.new
    screen.line(f"before  {old.info.name}", "bold")
    screen.line(f"after   {new.info.name}" + (f" of {new.run.url}" if new.run is not old.run else ""), "bold")
    screen.table(
        [
            screen.Column(title=""),
            *(screen.Column(title=title, number=True) for title in ("before", "after", "change")),
        ],
        _facts(old.info, new.info),
    )
    for names, where in ((found.removed, "before"), (found.added, "after")):
        if names:
            screen.line(f"Only {where} holds: {', '.join(names)}.")
    screen.line(_summary(found))
    shown = found.differing[:most]
    if not shown:
        return
    screen.table(_COLUMNS, map(_row, shown))
    if len(shown) < len(found.differing):
        screen.line(
            f"Shown are the {len(shown)} that changed most; "
            f"{words.count(len(found.differing) - len(shown), 'more line')} with --tensors.",
            "dim",
        )
    if any(difference.figures is not None for difference in shown):
        screen.line(
            "change: the length (root of the sum of squares) of the difference, against that of before. largest: the "
            "largest difference of one element. elements: how many of them changed.",
            "dim",
        )
    for why in dict.fromkeys(found.unmeasured for found in shown if found.unmeasured):
        screen.line(f"Not measured: {why}", "yellow")


def _facts(old: CheckpointInfo, new: CheckpointInfo) -> list[screen.Row]:
    rows = [
        ("epoch", words.epoch(old.epoch), words.epoch(new.epoch), _apart(old.epoch, new.epoch)),
        ("step", str(old.step), str(new.step), _apart(old.step, new.step)),
    ]
    for name in dict.fromkeys((*old.metrics, *new.metrics)):
        values = old.metrics.get(name), new.metrics.get(name)
        before, after = ("" if value is None else words.number(value) for value in values)
        rows.append((name, before, after, _apart(*values)))
    return [screen.Row(cells=[f"  {row[0]}", *row[1:]]) for row in rows if any(row[1:])]


def _apart(old: float | None, new: float | None) -> str:
    if old is None or new is None:
        return ""
    change = new - old
    if isinstance(change, int):
        return f"{change:+,}"
    return f"{change:+.6g}" if math.isfinite(change) else ""


def _summary(found: Comparison) -> str:
    many = {kind: sum(difference.kind == kind for difference in found.differing) for kind in _KINDS}
    said = [f"{many[kind]:,} {what}" for kind, what in _KINDS.items() if many[kind]]
    if not said:
        return f"{words.count(found.same, 'tensor')}, all the same." if found.same else "No tensor is in both."
    return (
        f"{words.count(found.same + len(found.differing), 'tensor')}: {', '.join([*said, f'{found.same:,} the same'])}."
    )


_KINDS: dict[Kind, str] = {
    "values": "changed",
    "shape": "of another shape",
    "dtype": "of another dtype",
    "ties": "tied otherwise",
    "added": "added",
    "removed": "removed",
}

_COLUMNS = [
    screen.Column(title="object", drop=1),
    screen.Column(title="tensor"),
    screen.Column(title="dtype", drop=0),
    screen.Column(title="shape", drop=2),
    screen.Column(title="change", number=True),
    screen.Column(title="largest", number=True, drop=3),
    screen.Column(title="elements", number=True, drop=4),
    screen.Column(title=""),
]


def _row(found: TensorDifference) -> screen.Row:
    figures = found.figures
    tied = f"tied: {', '.join(found.names[1:])}" if len(found.names) > 1 else ""
    return screen.Row(
        cells=[
            found.object,
            found.names[0],
            _both(found, lambda held: held.dtype),
            _both(found, lambda held: str(list(held.shape))),
            "" if figures is None else _percent(figures.relative),
            "" if figures is None else words.number(figures.largest),
            "" if figures is None else _percent(figures.changed),
            ", ".join(filter(None, (_remark(found), tied))),
        ],
        style="" if found.kind == "values" else "yellow",
    )


def _both(found: TensorDifference, fact: Callable[[Stored], str]) -> str:
    facts = [fact(held) for held in (found.before, found.after) if held is not None]
    return " to ".join(dict.fromkeys(facts))


def _percent(share: float) -> str:
    """Return a share of one; what is not quite all, or not quite nothing, does not read as that."""
    percent = 100 * share
    return f"{percent:.3g} %" if not 99.95 <= percent < 100 else "99.9 %"  # noqa: PLR2004


def _remark(found: TensorDifference) -> str:
    if found.kind == "ties":
        return "its values are the same, but shared with another tensor in one of the two only"
    if found.kind != "values":
        return _KINDS[found.kind]
    if found.unmeasured:
        return "changed; not measured"
    figures = found.figures
    if figures is not None and figures.nonfinite:
        return f"{words.count(figures.nonfinite, 'element')} not finite"
    return "" if figures is None or figures.changed else "only signs of zeros or kinds of NaN"
