"""Forgeries: runs whose every digest is right and whose content means harm, each with a name."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Iterator
from typing import Any

from faults.specimen import MODEL
from faults.stranger import FORGED, Forgery, dumps, nodes, renamed, replaced

from keepbest.storage.digest import digest

Named = tuple[str, Forgery]

_F32 = {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}


def tensor_files(base: Forgery) -> Iterator[Named]:  # noqa: C901 - a table
    """Yield tensor files with headers that lie, and manifests that say the same."""
    data = bytes(range(48))
    two = {"a": _F32, "b": _F32 | {"data_offsets": [24, 48]}}

    def but(**changes: Any) -> dict[str, Any]:
        return {"a": _F32, "b": two["b"] | changes}

    yield "two honest tensors", base.with_model(two, data)
    for length in (0, 1, 7, 2**31, 2**32, 2**63 - 1, 2**63, 2**64 - 1):
        yield f"a header of {length} bytes", base.with_model(two, data, length=length)
        yield f"a header of {length} bytes and nothing else", base.with_model(b"", b"", length=length)
    for offsets in (
        [0, 24], [12, 36], [30, 54], [24, 72], [48, 24], [-24, 0], [-24, -1], [24, 2**63], [2**63, 2**64], [2**63,
        2**63 + 24],
        [10**400, 10**400 + 24], [24], [24, 36, 48], [], None, "24", [24.5, 48.5], ["24", "48"], [None, None],
        {"0": 24},
        [24, 24], [True, 48], [float("nan"), 48],
    ):  # fmt: skip
        yield f"offsets {str(offsets)[:60]}", base.with_model(but(data_offsets=offsets), data)
    for shape in (
        [6], [1] * 64 + [6], [1] * 65 + [6], [1] * 1000 + [6], [1] * 100_000 + [6], [2] * 100_000, [-1, -6], [-2, 3],
        [2**63, 2],
        [2**62, 4], [2**32, 2**32], [3, 2**63], [10**400], [10**4299, 10**4299], [0], [0, 2**62], [0, 2**63 - 1], [0,
        2**40, 2**40],
        [0, 10**400], [], None, "6", [6.0], ["6"], [[6]], [None], {"6": 1}, [True, 6],
    ):  # fmt: skip
        yield f"shape {str(shape)[:60]}", base.with_model(but(shape=shape), data)
        if isinstance(shape, list) and 0 in shape:
            empty = {"a": _F32, "b": {"dtype": "F32", "shape": shape, "data_offsets": [24, 24]}}
            yield f"shape {str(shape)[:60]} without data", base.with_model(empty, data[:24])
    for dtype in (
        "F4",
        "F6_E2M3",
        "C64",
        "C128",
        "BOOL",
        "U8",
        "O",
        "object",
        "|O8",
        "",
        "f32",
        None,
        5,
        [],
        {"F32": 1},
        "F" * 10**6,
    ):
        yield f"dtype {str(dtype)[:40]}", base.with_model(but(dtype=dtype), data)
    yield "a hole", base.with_model({"a": _F32, "b": _F32 | {"data_offsets": [32, 56]}}, data + bytes(8))
    yield "a hole before the first", base.with_model({"a": _F32 | {"data_offsets": [8, 32]}}, data[:32])
    yield "bytes behind the last", base.with_model(two, data + bytes(100))
    twice = dumps(two).replace(b'"b"', b'"a"')
    held = {"a": {"dtype": "F32", "shape": [2, 3], "offsets": [24, 48], "digest": digest(data[24:])}}
    yield "a name twice", base.with_model(twice, data, tensors=held)
    for text in (
        b"",
        b"{}",
        b"[]",
        b"null",
        b"1",
        b"{",
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b"9" * 100_000,
    ):
        yield f"a header that is {text[:8]!r}…", base.with_model(text, data, tensors=held)
    for key, value in (
        ("data_start", -1),
        ("data_start", 0),
        ("data_start", 7),
        ("data_start", 2**63),
        ("data_start", 10**400),
    ):
        yield f"{key} is {str(value)[:30]}", base.with_model(two, data, **{key: value})
    for size in (-1, 0, 1, 2**40, 2**63, 10**400):
        made = base.with_model(two, data, size=size).but(honest=False)
        yield f"a size of {str(size)[:30]}", made
    for metadata in ({"a": "b", "b": "a"}, {"x": 1}, [], "x", {"format": None}, {str(i): "x" for i in range(50_000)}):
        yield f"__metadata__ {str(metadata)[:40]}", base.with_model({"__metadata__": metadata, **two}, data)
    yield (
        "five thousand tensors",
        base.with_model({f"t{i}": {"dtype": "U8", "shape": [0], "data_offsets": [0, 0]} for i in range(5_000)}, b""),
    )
    for name, length in (("empty", 0), ("of 7 bytes", 7), ("of 8 bytes", 8)):
        yield f"a file that is {name}", base.but(model=base.model[:length])
    for tag in ("numpy", "torch", "os", ""):
        yield f"a reference of {tag!r}", base.but(state=_refers(base, {f"${tag}": "embed.weight"}))


def inline_tensors(base: Forgery) -> Iterator[Named]:
    """Yield references to tensors, and tensors in the state file, that are none."""
    right = {"dtype": "F32", "shape": [2], "data": "AAAAAAAAAAA="}
    for key, values in {
        "dtype": ("F64", "C128", "O", None, 3, [], {}),
        "shape": ([3], [2**62, 4], [0, 2**62], [-1], [-2, -1], [1] * 70, [10**400], ["2"], [2.0], None, 2, "2",
        {"2": 1}),
        "data": ("", "*", "AAAA", None, 5, [], "A" * 10**6),
        "as": ("C128", "F64", 5, [], {}),
        "name": (None, "embed.weight", "nothing", 5, [], {}),
    }.items():  # fmt: skip
        for value in values:
            yield f"inline {key} {str(value)[:40]}", base.but(state=_refers(base, {"$numpy": right | {key: value}}))
    for key in right:
        less = {name: value for name, value in right.items() if name != key}
        yield f"inline without {key}", base.but(state=_refers(base, {"$numpy": less}))
    for reference in (
        None,
        5,
        [],
        {},
        True,
        "",
        "x" * 10**5,
        {"name": "layer.bias", "as": "C128"},
        {"name": "empty", "as": "C128"},
    ):
        yield f"a reference {str(reference)[:40]}", base.but(state=_refers(base, {"$numpy": reference}))


def names(base: Forgery) -> Iterator[Named]:
    """Yield names that lead out of the run, or steer a terminal, in every place where a name can stand."""
    bad = (
        "../../victim/secret", "/etc/passwd", "..", ".", "", "a/b", "a\\b", "nul\0", "s3://bucket/x", "memory://x",
        "a::zip://b",
        "\x1b[2J\x1b]0;owned\x07", "\u202egnp.exe", f"x\n{FORGED} whole", f"x\r{FORGED}", "\x9b31m\x85\u2028\u2029",
        "\ud800", "n" * 300,
        "CON", "~", "$(touch pwned)", "%s%n{0}", ".bashrc", "sitecustomize.py", "state.json", ".tmp-" + "0" * 32,
    )  # fmt: skip
    places = [
        *((f"manifest {path}", "manifest", path) for path in _texts(base.manifest)),
        *((f"state {path}", "state", path) for path in _texts(base.state)),
    ]
    for number, (what, part, path) in enumerate(places):
        for place, name in enumerate(bad):
            if "name" in path or "artifacts" in path or (number + place) % 20 == 0:
                yield f"{what} is {name[:20]!r}", base.but(**{part: replaced(getattr(base, part), path, name)})
    keys = [("manifest", path) for path in nodes(base.manifest) if path and isinstance(path[-1], str)]
    keys += [("state", path) for path in nodes(base.state) if path and isinstance(path[-1], str)]
    for number, (part, path) in enumerate(keys):
        for place, name in enumerate(bad):
            own = path[:-1] in {("artifacts",), ("metrics",), ("versions",), ("objects",)} or "tensors" in path[-2:]
            if own or (number + place) % 60 == 0:
                made = base.but(honest=part != "manifest" or path[0] != "artifacts")
                yield (
                    f"{part} key {path} is {name[:20]!r}",
                    made.but(**{part: renamed(getattr(base, part), path, name)}),
                )
    for name in bad:
        more = {f"checkpoints/{base.name}/{_file_name(name)}": base.model}
        yield f"another tensor file {name[:20]!r}", _with_file(base, name, base.manifest["artifacts"][MODEL], more)


def giants(base: Forgery) -> Iterator[Named]:
    """Yield what is too much: nesting, numbers, entries, lines; and what grows when it is unpacked."""
    for part in ("manifest", "state", "index"):
        for what, text in {
            "100,000 lists": b"[" * 100_000 + b"]" * 100_000,
            "100,000 dicts": b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
            "900 lists": b"[" * 900 + b"]" * 900,
            "a number of 100,000 digits": b"9" * 100_000,
            "a million empty lists": b"[" + b"[]," * 1_000_000 + b"[]]",
            "10 MB of text": b'"' + b"x" * 10_000_000 + b'"',
        }.items():
            inside = b'{"objects":{"model":{"role":"weights","file":null,"state":' + text + b'}},"training":{}}'
            yield f"{part}: {what}", _with_body(base, part, text)
            if part == "state":
                yield f"state of an object: {what}", base.but(state=inside)
    for depth in (90, 120, 240, 400, 900):
        for tag, begin, end in (
            ("lists", "[", "]"),
            ("$tuple", '{"$tuple":[', "]}"),
            ("$dict", '{"$dict":[[1,', "]]}"),
        ):
            text = begin * depth + "1" + end * depth
            inside = f'{{"objects":{{"model":{{"role":"weights","file":null,"state":{text}}}}},"training":{{}}}}'
            yield f"state of {depth} {tag}", base.but(state=inside.encode())
    rows = [json.loads(base.journal)]
    for what, journal in {
        "deep": b"[" * 100_000 + b"\n" + base.journal,
        "one long line": b"x" * 20_000_000,
        "half a million line breaks": b"\n" * 500_000,
        "numbers": b"9" * 100_000 + b"\n" + base.journal,
        "branches that go round": b"".join(
            _row(rows[0], branch=f"b{i}", begins=f"b{(i + 1) % 1000}") for i in range(1000)
        ),
        "a branch of itself": _row(rows[0], branch="b", begins="b"),
        "many branches": b"".join(_row(rows[0], branch=f"b{i}", begins=f"b{i - 1}") for i in range(20_000)),
        "rows that are far apart": b"".join(_row(rows[0] | {"row": 10 ** (40 * i)}) for i in range(50)),
    }.items():
        yield f"journal: {what}", base.but(journal=journal)
    bomb = io.BytesIO()
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        archive.writestr("../../../victim/slipped", bytes(100_000_000))
    more = {f"checkpoints/{base.name}/model.keras": bomb.getvalue()}
    artifact = {"size": len(bomb.getvalue()), "digest": digest(bomb.getvalue())}
    yield "a .keras archive that swells and leads out", _with_file(base, "model.keras", artifact, more)
    yield "ten thousand manifests", base.but(more={f"commits/{number:08d}.json": b"" for number in range(2, 10_000)})
    yield "a sequence number of 400 digits", base.but(more={"commits/" + "1" * 240 + ".json": b""})


def formats(base: Forgery) -> Iterator[Named]:
    """Yield versions of the format that are none."""
    for text in (
        "1",
        "1.",
        "1.99999",
        "2.0",
        "01.0",
        "1.0.0",
        "\u0661.0",
        "9" * 5000,
        "9" * 5000 + ".0",
        "-1.0",
        "1e0",
        ".",
        "x",
    ):
        yield f"format {text[:20]!r}", base.but(manifest=base.manifest | {"format": text})


def _with_file(base: Forgery, name: str, artifact: Any, more: dict[str, bytes]) -> Forgery:
    artifacts = base.manifest["artifacts"]
    honest = name not in artifacts
    return base.but(manifest=base.manifest | {"artifacts": artifacts | {name: artifact}}, more=more, honest=honest)


def _with_body(base: Forgery, part: str, text: bytes) -> Forgery:
    if part == "manifest":
        return base.but(manifest=text, honest=False)
    return base.but(**{part: text})


def _row(row: dict[str, Any], *, branch: str = "b", begins: str | None = None) -> bytes:
    begun = {} if begins is None else {"from": {"branch": begins, "rows": 1}}
    return json.dumps(row | {"branch": branch} | begun).encode() + b"\n" if row["row"] < 10**3000 else b""


def _refers(base: Forgery, reference: Any) -> Any:
    return replaced(base.state, ("objects", "model", "state"), {"embed.weight": reference})


def _texts(tree: Any) -> list[tuple[Any, ...]]:
    def at(path: tuple[Any, ...]) -> Any:
        found = tree
        for key in path:
            found = found[key]
        return found

    return [path for path in nodes(tree) if isinstance(at(path), str)]


def _file_name(name: str) -> str:
    plain = name.encode("utf-8", "replace").replace(b"/", b"_").replace(b"\0", b"_")[:200].decode(errors="replace")
    return plain if plain not in {"", ".", "..", "state.json"} else "x"
