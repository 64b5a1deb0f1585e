"""Targets: the parsers that a fuzzer is set on, each with valid inputs to begin with, and what a result must be."""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import json
import math
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fsspec
import msgspec
from faults.policies import TREES, judged
from faults.specimen import MODEL
from faults.stranger import Forgery, dumps, honest_run

import keepbest
from keepbest import CheckpointPolicy
from keepbest.cli import machine, words
from keepbest.cli.account import Account
from keepbest.cli.explaining import story
from keepbest.cli.explaining_epoch import explained
from keepbest.core import foreign_folder, foreign_safetensors
from keepbest.core.position import Position
from keepbest.core.standing import Standing
from keepbest.errors import KeepbestError
from keepbest.storage import layout, signature, statefile
from keepbest.storage.arrays import converter
from keepbest.storage.backend import open_backend
from keepbest.storage.checkpoint import Checkpoint
from keepbest.storage.journal import read_entries, read_history
from keepbest.storage.listing import read_listing
from keepbest.storage.manifest import decode, encode, info, seal, unseal
from keepbest.storage.signature import FileStatement, Statement
from keepbest.storage.tensorfile import ITEM_BYTES
from keepbest.storage.tensorfile import read as read_tensors
from keepbest.storage.verify import verify

_URL = "memory://fuzz"


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A parser."""

    corpus: Callable[[], list[bytes]]
    read: Callable[[bytes, Path], object]
    cases: int
    """In the suite: a million of all targets together, divided so that each takes a few seconds."""


@functools.cache
def _honest() -> Forgery:
    return honest_run()


def _manifests() -> list[bytes]:
    files = _honest().files()
    return [unseal(files["commits/00000001.json"], "")]


def _read_manifest(data: bytes, _: Path) -> None:
    _as_manifest(seal(data))


def _as_manifest(data: bytes) -> None:
    manifest = decode(data, "commits/00000001.json")
    assert decode(encode(manifest), "") == manifest or "nan" in repr(manifest), "other than it was"
    facts = info(manifest)
    json.dumps(machine.checkpoint(facts), allow_nan=False)
    _ = words.age(facts.time, 1.7e9), words.epoch(facts.epoch), words.size(facts.nbytes), str(facts.step)


def _sealed() -> list[bytes]:
    return [data for key, data in _honest().files().items() if key.startswith("commits/")]


def _read_sealed(data: bytes, _: Path) -> None:
    _as_manifest(data)


def _states() -> list[bytes]:
    base = _honest()
    return [
        dumps(base.state),
        *(dumps({"objects": {name: held}, "training": {}}) for name, held in base.state["objects"].items()),
    ]


def _read_state(data: bytes, _: Path) -> None:
    found = statefile.parse(data, "state.json")
    for record in found.objects.values():
        list(statefile.references(record).items())
        _as_error(lambda record=record: statefile.restore(record, {}, lambda _tag: converter("numpy")))


def _as_error(call: Callable[[], Any]) -> None:
    with contextlib.suppress(KeepbestError):
        call()


def _standings() -> list[bytes]:
    position = {"next_epoch": 3, "step": 30, "steps_in_epoch": 0}
    standing = {
        "monitor": "val_loss", "mode": "min", "smoothing": None, "best": 0.5, "best_epoch": 1, "best_step": 10,
        "wait": 1,
        "nonfinite": 0, "smoothing_state": [0.5, 1], "overfit_pairs": [[0.5, 0.25]],
    }  # fmt: skip
    return [dumps(position), dumps(standing), dumps(position | standing)]


def _read_standing(data: bytes, _: Path) -> None:
    try:
        found = json.loads(data)
    except (ValueError, RecursionError):
        return
    _as_error(lambda: str(Position.from_json(found)))
    _as_error(lambda: Standing.from_json(found).to_json())


def _put(files: dict[str, bytes]) -> Any:
    memory = fsspec.filesystem("memory")
    for key, data in files.items():
        memory.pipe_file(f"{_URL}/{key}", data)
    return open_backend(_URL)


@functools.cache
def _standing_run() -> Any:
    return _put(_honest().files())


def _tensor_records() -> list[bytes]:
    return [dumps(_honest().manifest["artifacts"][MODEL])]


def _read_tensor_file(data: bytes, _: Path) -> None:
    """The record of a tensor file, as the manifest has it; the file itself is the honest one."""
    backend, base = _standing_run(), _honest()
    body = dumps(base.manifest | {"artifacts": {MODEL: "@artifact@"}}).replace(b'"@artifact@"', data)
    artifact = decode(seal(body), "").artifacts.get(MODEL)
    if artifact is not None and artifact.tensors is not None:
        for name, view in read_tensors(backend, f"checkpoints/{base.name}/{MODEL}", artifact).items():
            assert converter("numpy")(view, None).nbytes == len(view.data), name


def _headers() -> list[bytes]:
    model = _honest().model
    return [
        model[8 : 8 + int.from_bytes(model[:8], "little")],
        b'{"a":{"dtype":"U8","shape":[8],"data_offsets":[0,8]}}',
    ]


def _read_header(data: bytes, _: Path) -> None:
    """A header, and what lies behind it, all digests right: `verify` says what is wrong."""
    try:
        header = json.loads(data)
    except (ValueError, RecursionError):
        header = data
    base = _honest()
    made = base.with_model(header if isinstance(header, dict) else data, base.model[-128:])
    backend = _put(made.files())
    listing = read_listing(backend)
    str(verify(backend, listing))
    for facts in listing.checkpoints:
        Checkpoint(backend, facts).load("model")


def _indexes() -> list[bytes]:
    return [dumps(_honest().index)]


def _read_index(data: bytes, _: Path) -> None:
    backend = _put({"commits/index-00000001.json": seal(data), "commits/00000001.json": _sealed()[0]})
    for facts in read_listing(backend).checkpoints:
        json.dumps(machine.checkpoint(facts), allow_nan=False)


def _rows() -> list[bytes]:
    line = _honest().journal
    child = json.dumps(json.loads(line) | {"branch": "b", "from": {"branch": json.loads(line)["branch"], "rows": 1}})
    return [line, child.encode(), line + child.encode() + b"\n" + line]


def _read_journal(data: bytes, _: Path) -> None:
    history = read_history(_put({"metrics.jsonl": data}))
    _ = dict(history), history.epochs, history.steps_log, repr(history)


def _notes() -> list[bytes]:
    place = {"branch": json.loads(_honest().journal)["branch"], "rows": 1}
    check = {
        "monitor": "val_loss", "mode": "min", "value": 0.5, "judged": "nan", "age": 1, "best": 0.4, "best_epoch": 0,
        "wait": 1, "patience": 2, "improved": True, "stop": True, "eligible": True, "gap": -0.1, "overfitting": True,
        "unmet": ["acc > 1"], "reason": "because",
    }  # fmt: skip
    at = {**place, "time": 1.7e9, "epoch": 0, "step": 10}
    name = "epoch-001_step-000010_0a1b2c"
    settings = CheckpointPolicy(monitor="val_loss", patience=2).model_dump(mode="json")
    lines = [
        {"kind": "began", "checkpoint": name, "policy": settings, "host": "here", "versions": {"keepbest": "0"}},
        {
            "kind": "decided",
            "event": "epoch",
            "checkpoint": name,
            "reasons": ["epoch"],
            "checks": [check],
            "stop": True,
        },
        {"kind": "decided", "event": "step", "checkpoint": None, "reasons": ["step"], "busy": True},
        {
            "kind": "saved",
            "checkpoint": name,
            "sequence": 1,
            "nbytes": 9,
            "blocked": 0.1,
            "seconds": 1,
            "retired": [name],
        },
        {"kind": "failed", "checkpoint": name, "error": "StorageFullError: full"},
        {"kind": "back", "checkpoint": name},
        {"kind": "ended", "cause": "exception", "error": "ValueError"},
    ]
    texts = [json.dumps({**at, **line}).encode() for line in lines]
    return [*texts, b"\n".join([_honest().journal.strip(), *texts])]


def _read_notes(data: bytes, _: Path) -> None:
    entries = read_entries(_put({"metrics.jsonl": data}))
    account = Account(_URL, entries, [])
    for sections in (story(account, 1.8e9), *(explained(account, epoch, 1.8e9) for epoch in account.epochs.values())):
        for section in sections:
            assert all(isinstance(sentence, str) for sentence in section.sentences)


def _names() -> list[bytes]:
    return [
        b"checkpoints/epoch-001_step-000010_0a1b2c/model.safetensors",
        b"checkpoints/step-000010_0a1b2c-weights/state.json",
        b"commits/00000007.json", b"commits/index-00000064.json", b"metrics/0000000000000000001-0a1b2c3d-000000.jsonl",
        b".tmp-0123456789abcdef0123456789abcdef/x", b"best.json",
    ]  # fmt: skip


def _read_name(data: bytes, _: Path) -> None:
    key = data.decode("utf-8", "surrogateescape")
    layout.checkpoint_of(key)
    layout.temporary_of(key)
    for parse, build in ((layout.commit_sequence, layout.commit_key), (layout.index_sequence, layout.index_key)):
        number = parse(key)
        if number is not None:
            assert build is not layout.commit_key or build(number) == key, "it is built otherwise than it is read"


def _urls() -> list[bytes]:
    return [
        b"runs/7", b"~/runs/7", b"file:///tmp/runs/7", b"memory://a/b", b"s3://bucket/run?x=1", b"gs://bucket/run",
        b"abfs://c@a/run",
        b"simplecache::s3://bucket/run", b"zip://a::s3://b/c", b"sftp://user:password@host:22/run",
        b"hf://datasets/a/b", b"data:,x",
    ]  # fmt: skip


def _read_url(data: bytes, _: Path) -> None:
    url = data.decode("utf-8", "surrogateescape")
    options = {"token": "anon"} if url.startswith(("gs:", "gcs:")) else None  # else gcsfs looks for credentials
    open_backend(url, options)


def _options() -> list[bytes]:
    return [
        b'{"client_kwargs":{"region_name":"x"},"part_size":8388608,"connections":4,"deadline":60}',
        b'{"key":"a","secret":"b","endpoint_url":"http://127.0.0.1:9","anon":true}', b'{"token":"anon","project":"p"}',
    ]  # fmt: skip


def _read_options(data: bytes, _: Path) -> None:
    try:
        options = json.loads(data)
    except (ValueError, RecursionError):
        return
    if isinstance(options, dict):
        for url in ("s3://bucket/run", "memory://a/b", "runs/7"):
            _as_error(lambda url=url: open_backend(url, options))
        _as_error(lambda: open_backend("gs://bucket/run", options | {"token": "anon"}))


def _policies() -> list[bytes]:
    return [dumps(tree) for tree in TREES]


def _read_policy(data: bytes, _: Path) -> None:
    found = judged(lambda: CheckpointPolicy.from_json(data), "JSON")
    assert not found, found


_YAML = (
    b"monitor: val_loss\nmode: min\nkeep_best: 3\nwhen: &w\n  kind: any_of\n  rules:\n"
    b"  - {kind: at_end}\n  - kind: every_n_epochs\n    n: 2\n"
)
_TOML = b"monitor = 'val_loss'\nmode = 'min'\nkeep_best = 3\n[when]\nkind = 'any_of'\nrules = [{kind = 'at_end'}]\n"


def _read_policy_file(suffix: str) -> Callable[[bytes, Path], None]:
    def read(data: bytes, folder: Path) -> None:
        path = folder / f"fuzzed{suffix}"
        path.write_bytes(data)
        found = judged(lambda: CheckpointPolicy.from_file(path), suffix)
        assert not found, found

    return read


def _templates() -> list[bytes]:
    return [
        b"models/m_{epoch:02d}-{val_loss:.2f}.keras", b"s3://bucket/m_{epoch}.weights.h5",
        b"gs://b/x/{batch}_{acc}.safetensors",
        b"{epoch!r:>10}.keras", b"m{{x}}.keras",
    ]  # fmt: skip


def _read_template(data: bytes, _: Path) -> None:
    found = _filepath().parse(data.decode("utf-8", "surrogateescape"), save_weights_only=False)
    _ = found.folder, found.hidden_run, found.is_fast
    path = found.at(3, 7, {"val_loss": 0.5, "acc": float("nan")})
    assert isinstance(found.relative(path), str)


def _signatures() -> list[bytes]:
    digest = f"sha256:{'0a' * 32}"
    file = FileStatement(digest=digest, header_digest=digest, tensors={"weight": digest})
    statement = Statement(
        key=f"ed25519:{'1b' * 32}", run="runs/7", sequence=1, write_id="0" * 32, name=_honest().name, manifest=digest,
        files={MODEL: file, "state.json": FileStatement(digest=digest, header_digest=None, tensors=None)},
    )  # fmt: skip
    body = msgspec.json.encode(statement)
    return [b'{"signature":"ed25519:' + b"2c" * 64 + b'","statement":' + body + b"}\n", body]


def _read_signature(data: bytes, _: Path) -> None:
    found = signature.unpack(data)
    for body in (data, *(found or ())):
        signature.read_statement(body)


def _tensor_files() -> list[bytes]:
    header = b'{"__metadata__":{"format":"pt"},"a":{"dtype":"F32","shape":[2,2],"data_offsets":[0,16]}}'
    return [_honest().model, len(header).to_bytes(8, "little") + header + bytes(16)]


def _read_tensors_of_others(data: bytes, folder: Path) -> None:
    path = folder / "fuzzed.safetensors"
    path.write_bytes(data)
    with foreign_safetensors.read_file(path, "model") as found:
        _fill(found)


def _indexes_of_others() -> list[bytes]:
    names = dict.fromkeys(json.loads(_headers()[0]).keys() - {"__metadata__"}, "model.safetensors")
    return [dumps({"metadata": {"total_size": 128}, "weight_map": names})]


def _read_index_of_others(data: bytes, folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(_honest().model)
    (folder / foreign_folder.INDEX).write_bytes(data)
    with foreign_safetensors.read_folder(folder, "model") as found:
        _fill(found)


def _fill(found: Any) -> None:
    for part in found.parts.values():
        for lazy in part.value.values():
            size = math.prod(lazy.source.shape) * ITEM_BYTES[lazy.source.dtype]
            lazy.source.copy_into(memoryview(bytearray(size)))


@functools.cache
def _filepath() -> Any:
    """Return the module without its package, which imports Keras."""
    path = Path(keepbest.__file__).parent / "adapters" / "keras" / "filepath.py"
    spec = importlib.util.spec_from_file_location("keepbest.adapters.keras_filepath.alone", path)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


TARGETS = {
    "manifests": Target(corpus=_manifests, read=_read_manifest, cases=60_000),
    "sealed files": Target(corpus=_sealed, read=_read_sealed, cases=160_000),
    "state files": Target(corpus=_states, read=_read_state, cases=100_000),
    "positions and standings": Target(corpus=_standings, read=_read_standing, cases=80_000),
    "records of tensor files": Target(corpus=_tensor_records, read=_read_tensor_file, cases=36_000),
    "headers of tensor files": Target(corpus=_headers, read=_read_header, cases=8_000),
    "indexes": Target(corpus=_indexes, read=_read_index, cases=20_000),
    "journals": Target(corpus=_rows, read=_read_journal, cases=36_000),
    "notes, and what is told of them": Target(corpus=_notes, read=_read_notes, cases=36_000),
    "names and keys": Target(corpus=_names, read=_read_name, cases=300_000),
    "URLs": Target(corpus=_urls, read=_read_url, cases=8_000),
    "storage options": Target(corpus=_options, read=_read_options, cases=8_000),
    "policies as JSON": Target(corpus=_policies, read=_read_policy, cases=36_000),
    "policies as YAML": Target(corpus=lambda: [_YAML, *_policies()], read=_read_policy_file(".yaml"), cases=4_000),
    "policies as TOML": Target(corpus=lambda: [_TOML], read=_read_policy_file(".toml"), cases=8_000),
    "signatures": Target(corpus=_signatures, read=_read_signature, cases=60_000),
    "tensor files of others": Target(corpus=_tensor_files, read=_read_tensors_of_others, cases=10_000),
    "indexes of others": Target(corpus=_indexes_of_others, read=_read_index_of_others, cases=10_000),
    "templates of filepaths": Target(corpus=_templates, read=_read_template, cases=80_000),
}
"""By name."""
