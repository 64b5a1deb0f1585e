"""Policies: files that pass for a policy, in each language that a policy can be written in."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from faults.confined import Found
from faults.stranger import VALUES, dumps, nodes, replaced

from keepbest import CheckpointPolicy
from keepbest.errors import KeepbestError

TREES = (
    {"monitor": "val_loss", "mode": "min", "keep_best": 3, "keep_last": 1, "patience": 5, "every_n_epochs": 2},
    {
        "monitor": [{"key": "val_f1", "mode": "max", "min_delta": "1%", "smoothing": "ema:0.9", "where": ["loss < 1"]}],
        "when": {"kind": "any_of", "rules": [{"kind": "every_n_epochs", "n": 1}, {"kind": "at_end"}]},
        "keep": {"kind": "any_of", "rules": [{"kind": "last", "n": 1}]},
    },
    {"monitor": None, "every_n_steps": 10, "keep_every_n_epochs": 5, "keep_max_bytes": 10**9, "on_busy": "skip"},
)
_LAUGHS = "a0: &a0 [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"a{n}: &a{n} [{','.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 30)
)
"""Nine to the thirtieth, if anybody unfolds it."""


def _cases() -> Iterator[tuple[str, str, bytes]]:
    for number, tree in enumerate(TREES):
        for path in nodes(tree):
            for place, value in enumerate(VALUES):
                yield f"policy {number} {path}, value {place}", ".json", dumps(replaced(tree, path, value))
    for what, text in {
        "a billion laughs": _LAUGHS + "monitor: *a29\n",
        "a billion laughs as a rule": _LAUGHS + "when: {kind: any_of, rules: *a29}\n",
        "a billion laughs as a value": _LAUGHS + "keep_best: *a29\n",
        "a billion laughs alone": _LAUGHS,
        "a list of itself": "monitor: &m [*m]\n",
        "a rule of itself": "when: &w {kind: any_of, rules: [*w]}\n",
        "a field of itself": "keep_best: &k {a: *k}\n",
        "an object of Python": "monitor: !!python/object/apply:os.system [touch pwned]\n",
        "a module of Python": "monitor: !!python/module:antigravity\n",
        "a name of Python": "!!python/name:os.system : 1\n",
        "a merge": "<<: [1]\n",
        "a merge of itself": "a: &a {<<: *a}\n",
        "a date that is none": "monitor: 2026-13-45\n",
        "a time that is none": "monitor: 2026-01-01T99:99:99Z\n",
        "bytes that are none": "monitor: !!binary '***'\n",
        "a number of many digits": "keep_best: " + "9" * 100_000 + "\n",
        "a number of base 60": "keep_best: 1" + ":59" * 10_000 + "\n",
        "nesting": "monitor: " + "[" * 100_000 + "]" * 100_000 + "\n",
        "nesting of dicts": "{a: " * 5_000 + "}" * 5_000 + "\n",
        "nesting of blocks": "".join(" " * n + "a:\n" for n in range(2_000)),
        "two documents": "monitor: a\n---\nmonitor: b\n",
        "a key that is a list": "? [a, b]\n: 1\n",
        "a key that is a dict": "? {a: b}\n: 1\n",
        "a key twice": "monitor: a\nmonitor: b\n",
        "a NUL": "monitor: a\0b\n",
        "a tab": "\tmonitor: a\n",
        "nothing": "",
        "an unknown alias": "monitor: *nobody\n",
        "a set": "monitor: !!set {a, b}\n",
        "not a number": "min_delta: .nan\nmonitor: loss\n",
        "infinity": "every_n_seconds: .inf\n",
    }.items():
        yield what, ".yaml", text.encode()
    for what, text in {
        "nesting": "monitor = " + "[" * 100_000 + "]" * 100_000,
        "nesting of tables": "[" + ".".join(["a"] * 5_000) + "]",
        "nested inline tables": "a = " + "{a = " * 2_000 + "1" + "}" * 2_000,
        "a number of many digits": "keep_best = " + "9" * 100_000,
        "a date that is none": "monitor = 2026-13-45",
        "a time": "monitor = 12:30:00",
        "infinity": "every_n_seconds = inf",
        "a table twice": "[a]\n[a]",
        "a dotted key": "monitor.key = 'loss'",
        "an empty key": "'' = 1",
    }.items():
        yield what, ".toml", text.encode()
    for what, data in {
        "no UTF-8": b"\xff\xfe{}",
        "a byte order mark": b"\xef\xbb\xbf{}",
        "nesting": b"[" * 100_000,
        "nesting of dicts": b'{"a":' * 100_000,
        "a number of many digits": b'{"keep_best":' + b"9" * 100_000 + b"}",
        "a key twice": b'{"monitor":"a","monitor":"b"}',
        "a key that is no word": b'{"":1,"a b":2}',
        "self": b'{"self":1,"monitor":"loss"}',
        "data": b'{"data":1,"monitor":"loss"}',
        "a class": b'{"__class__":1}',
        "a list": b"[]",
        "nothing": b"",
        "NaN": b'{"monitor":"loss","min_delta":NaN}',
    }.items():
        for suffix in (".json", ".yaml", ".toml"):
            yield what, suffix, data


CASES = tuple(_cases())


def attempt(folder: Path, case: tuple[str, str, bytes]) -> list[Found]:
    """Read the file; what is read must be told and written as any policy is."""
    path = folder / f"policy{case[1]}"
    path.write_bytes(case[2])
    return judged(lambda: CheckpointPolicy.from_file(path), f"{case[1]} file")


def judged(make, what: str) -> list[Found]:
    """Make a policy; an error is one of keepbest's and short, and a policy that was made comes back from its JSON."""
    try:
        policy = make()
        told, again = str(policy), CheckpointPolicy.from_json(policy.to_json())
    except KeepbestError as error:
        return [("broken", f"{what}: an error of {len(str(error)):,} characters")] if len(str(error)) > 10**6 else []
    except Exception as error:  # noqa: BLE001 - whatever it is, it is what is looked for
        return [("broken", f"{what}: {type(error).__name__}: {str(error)[:300]}")]
    same = json.loads(again.to_json()) == json.loads(policy.to_json())
    return [] if same and told else [("unnoticed", f"{what}: other than it was after it was written: {policy!r:.200}")]
