"""Stranger: somebody who makes a run by hand, knows the format and every digest, and means harm."""

from __future__ import annotations

import copy
import dataclasses
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from faults.specimen import MODEL, MemoryPlace, Specimen

from keepbest.storage.digest import digest
from keepbest.storage.manifest import seal, unseal

SECRET = "the-secret-of-somebody-else"
"""Stands in files outside the run; nobody may read it."""
FORGED = "FORGED"
"""No line of what the command prints may begin so."""
_RAW = {"@huge@": "9" * 100_000, "@1e999@": "1e999", "@deep@": "[" * 100_000 + "]" * 100_000, "@minus@": "-0"}
"""JSON that no encoder of ours would write, by what stands for it in a tree."""

VALUES: tuple[Any, ...] = (
    None, True, 0, -1, 2**31, 2**63 - 1, 2**63, -(2**63) - 1, 10**400, 10**4299, 0.5, -1e300,
    float("nan"), float("inf"), "@huge@", "@1e999@", "@deep@",
    "", ".", "..", "../../../victim/secret", "/etc/passwd", "a\\b", "nul\0", "s3://bucket/key", "memory://run",
    "file:///etc/passwd", "simplecache::zip://x::http://127.0.0.1:9/y", "nan", "-inf", "1e999", "9" * 5000,
    "\x1b]0;owned\x07\x1b[2J", "\u202etxt.exe\u202c", f"x\n{FORGED} y", f"x\r{FORGED}\x85\u2028z", "\ud800",
    "n" * 70_000, [], {}, [[]], [None], {"": {}}, {"$torch": "embed.weight"}, {"$os": "system"}, {"$set": [[]]},
    {"$deque": [[], -1]}, {"$dict": [[]]}, {"$float": {}}, {"$bytes": "*"}, {"$tuple": 3}, {"$complex": [1]},
    {"$numpy": {"dtype": "F32", "shape": [2**40], "data": ""}}, {"$counter": [[1, []]]}, {"$ordered": None},
)  # fmt: skip
"""What is put in the place of a value: other types, numbers at the limits, ways out of the run, signs for terminals."""


def dumps(tree: Any) -> bytes:
    """Return JSON; in it stands what is in `_RAW` as it is."""
    text = json.dumps(tree)
    for name, raw in _RAW.items():
        text = text.replace(f'"{name}"', raw)
    return text.encode()


def nodes(tree: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the way to each node of a tree, its root first."""
    yield path
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, item in items:
        yield from nodes(item, (*path, key))


def replaced(tree: Any, path: tuple[Any, ...], value: Any) -> Any:
    """Return a tree with another node at `path`; all else is shared with the one that was given."""
    if not path:
        return value
    made = copy.copy(tree)
    made[path[0]] = replaced(tree[path[0]], path[1:], value)
    return made


def renamed(tree: Any, path: tuple[Any, ...], key: str) -> Any:
    """Return a tree in which the last key of `path` is another one; all else is shared, as in `replaced`."""
    made = copy.copy(tree)
    if len(path) == 1:
        made[key] = made.pop(path[0])
    else:
        made[path[0]] = renamed(tree[path[0]], path[1:], key)
    return made


@dataclass
class Forgery:
    """One checkpoint of a run, every part of which can be altered before it is sealed."""

    manifest: Any
    state: Any
    model: bytes
    journal: bytes
    index: Any
    name: str
    """The folder in which its files really lie."""
    honest: bool = True
    """The manifest is given the true sizes and digests of the files."""
    more: dict[str, bytes] = field(default_factory=dict)
    """Further files."""

    def but(self, **changes: Any) -> Forgery:
        """Return a copy with other parts; those that stay are shared."""
        return dataclasses.replace(self, **changes)

    def files(self) -> dict[str, bytes]:
        """Return the run's files, sealed."""
        state = self.state if isinstance(self.state, bytes) else dumps(self.state)
        files = {f"checkpoints/{self.name}/state.json": state, f"checkpoints/{self.name}/{MODEL}": self.model}
        manifest = copy.deepcopy(self.manifest)
        if self.honest:
            for file, data in (("state.json", state), (MODEL, self.model)):
                manifest["artifacts"][file] |= {"size": len(data), "digest": digest(data)}
        body = manifest if isinstance(manifest, bytes) else dumps(manifest)
        files["commits/00000001.json"] = seal(body)
        files["metrics.jsonl"] = self.journal
        if self.index is not None:
            index = self.index
            if isinstance(index, list) and self.honest and index and isinstance(index[0], dict):
                index = copy.deepcopy(index)
                index[0]["manifest_bytes"] = len(files["commits/00000001.json"])
            files["commits/index-00000001.json"] = seal(index if isinstance(index, bytes) else dumps(index))
        return files | self.more

    def write(self, folder: Path) -> None:
        """Write the run to a folder."""
        for key, data in self.files().items():
            path = folder / key
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)

    def journal_tree(self) -> Any:
        """Return the journal's only line."""
        return json.loads(self.journal)

    def with_journal_tree(self, line: Any) -> Forgery:
        """Return a copy with another line between two good ones."""
        return self.but(journal=self.journal + dumps(line) + b"\n" + self.journal)

    def with_model(self, header: Any, data: bytes, *, length: int | None = None, **artifact: Any) -> Forgery:
        """Return a copy with another tensor file, whose digests are all right.

        Args:
            header: the JSON, or its bytes.
            data: what follows it.
            length: of the header, as the file says it; None: the true one.
            artifact: what the manifest says of it, where that is not what it should.
        """
        text = header if isinstance(header, bytes) else dumps(header)
        before = (len(text) if length is None else length).to_bytes(8, "little") + text
        made = self.but(model=before + data, manifest=copy.deepcopy(self.manifest))
        held = made.manifest["artifacts"][MODEL]
        held |= {"header_digest": digest(before), "data_start": len(before)}
        if isinstance(header, dict):
            held["tensors"] = {
                name: {
                    "dtype": entry.get("dtype"),
                    "shape": entry.get("shape"),
                    "offsets": entry.get("data_offsets"),
                    "digest": digest(_slice(data, entry.get("data_offsets"))),
                }
                for name, entry in header.items()
                if name != "__metadata__" and isinstance(entry, dict)
            }
        held |= artifact
        return made


def _slice(data: bytes, offsets: Any) -> bytes:
    try:
        return data[offsets[0] : offsets[1]]
    except (TypeError, LookupError):
        return b""


def honest_run() -> Forgery:
    """Return the first checkpoint of a specimen, to be altered."""
    specimen = Specimen(MemoryPlace())
    name = specimen.names[0]
    files = specimen.files
    manifest = json.loads(unseal(files["commits/00000001.json"], ""))
    index = json.loads(unseal(files["commits/index-00000003.json"], ""))[:1]
    keys = {key.rpartition("/")[2]: key for key in files if f"/{name}/" in key}
    state = json.loads(files[keys["state.json"]])
    for entry in state["objects"].values():  # one tensor file is enough
        if entry["file"] not in (None, MODEL):
            entry |= {"file": None, "state": {"step": 1}}
    manifest["artifacts"].pop("optimizer.safetensors")
    journal = files["metrics.jsonl"].splitlines(keepends=True)[0]
    return Forgery(manifest=manifest, state=state, model=files[keys[MODEL]], journal=journal, index=index, name=name)
