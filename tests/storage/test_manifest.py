"""Manifests: any altered byte is noticed, and what an older or a stranger's one says is checked."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keepbest.errors import DamagedError, DamagedManifestError, UnsupportedFormatError
from keepbest.storage.manifest import (
    Artifact,
    CheckpointInfo,
    Manifest,
    Score,
    TensorRecord,
    decode,
    encode,
    info,
    seal,
    unseal,
)
from keepbest.storage.run import Run, open_run
from keepbest.storage.run_writer import RunWriter

RUN_1_0 = Path(__file__).parent / "fixtures" / "run-1.0"


def manifest(**facts):
    """Return a small manifest with the facts that matter to a test."""
    return Manifest(
        **{
            "sequence": 7,
            "write_id": "0" * 32,
            "name": "epoch-003_step-001200_9f3ac2",
            "step": 1200,
            "epoch": 2,
            "parent": 6,
            "time": 1.7e9,
            "reasons": ("improvement", "epoch"),
            "complete": True,
            "metrics": {"val_loss": 0.25, "größe": 1e-300},
            "scores": (Score(monitor="val_loss", mode="min", value=0.25),),
            "artifacts": {
                "model.safetensors": Artifact(
                    size=140,
                    digest="xxh3-128:" + "1" * 32,
                    header_digest="xxh3-128:" + "2" * 32,
                    data_start=128,
                    tensors={
                        "w": TensorRecord(dtype="F32", shape=(3,), offsets=(0, 12), digest="xxh3-128:" + "3" * 32)
                    },
                ),
                "state.json": Artifact(size=2, digest="xxh3-128:" + "4" * 32),
            },
            "host": "somewhere",
            "versions": {"keepbest": "0.1.0"},
        }
        | facts
    )


def altered(change, found=None):
    """Return the bytes of a manifest whose fields `change` alters in place, with a digest that fits."""
    fields = json.loads(unseal(encode(found or manifest()), "x"))
    change(fields)
    return seal(json.dumps(fields).encode())


# ── to and from bytes ────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_manifest_is_read_back():
    """What was written is what is read."""
    assert decode(encode(manifest()), "x") == manifest()


@settings(max_examples=60)
@given(
    st.dictionaries(st.text(st.characters(exclude_categories=["Cs"]), max_size=8), st.floats(), max_size=4),
    st.none() | st.floats(),
    st.floats(allow_nan=False, allow_infinity=False),
)
def test_any_metric_is_read_back(metrics, score, time):
    """Metrics of any name and value, NaN and infinities included, are read back to the last bit."""
    written = manifest(metrics=metrics, scores=(Score(monitor="m", mode="max", value=score),), time=time)
    data = encode(written)
    found = decode(data, "x")
    assert repr(found.metrics) == repr(written.metrics)
    assert repr(found.scores) == repr(written.scores)
    assert found.time == time
    json.loads(data, parse_constant=pytest.fail)  # no NaN, no Infinity: any JSON reader takes it


def test_the_light_record_has_the_facts():
    """What a policy sees of a checkpoint is what its manifest says."""
    found = info(manifest())
    assert (found.sequence, found.step, found.epoch, found.parent, found.nbytes) == (7, 1200, 2, 6, 142)
    assert found.score().value == found.score("val_loss").value == 0.25
    assert found.score("val_acc") is None


def test_a_manifest_is_json_that_any_language_checks():
    """The envelope is as `docs/format.md` says: slicing out the body and hashing it needs no JSON canon."""
    data = encode(manifest())
    envelope = json.loads(data)
    assert list(envelope) == ["digest", "body"]
    assert envelope["body"]["format"] == "1.0"
    assert data.startswith(b'{"digest":"xxh3-128:')
    assert data.endswith(b"}\n")
    assert json.loads(data[data.index(b'"body":') + 7 : -2]) == envelope["body"]


# ── damage ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_every_flipped_bit_is_noticed():
    """Flip any bit of a manifest: it is never read as something else than was written."""
    data = encode(manifest())
    for place in range(len(data)):
        for bit in range(8):
            flipped = bytearray(data)
            flipped[place] ^= 1 << bit
            with pytest.raises(DamagedManifestError) as caught:
                decode(bytes(flipped), "commits/00000007.json")
            assert caught.value.location == "commits/00000007.json"


def test_every_truncation_is_noticed():
    """Cut a manifest anywhere, to nothing included, or add to it: it is damaged."""
    data = encode(manifest())
    for end in range(len(data)):
        with pytest.raises(DamagedManifestError):
            decode(data[:end], "x")
    for more in (b"\n", b"}\n", b"\0", data):
        with pytest.raises(DamagedManifestError):
            decode(data + more, "x")


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"{", id="no-json"),
        pytest.param(b"\xff", id="no-utf8"),
        pytest.param(b"null", id="null"),
        pytest.param(b"[]", id="list"),
        pytest.param(b"{}", id="empty"),
        pytest.param(b'{"format":1}', id="number"),
        pytest.param(b'{"format":""}', id="no-version"),
        pytest.param('{"format":"².0"}'.encode(), id="superscript"),
        pytest.param(b'{"format":"-1.0"}', id="negative"),
        pytest.param(b'{"format":"1.0"}', id="only-a-version"),
        pytest.param(b"[" * 100_000, id="nested-without-end"),
    ],
)
def test_what_is_no_manifest_is_damage(body):
    """JSON that is no manifest, with a digest that fits, is an error of ours."""
    with pytest.raises(DamagedManifestError):
        decode(seal(body), "x")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.just(10**400),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@settings(max_examples=300)
@given(st.data())
def test_a_manifest_of_a_stranger_is_a_manifest_or_damage(data):
    """Put anything in the place of any value: there is a manifest or an error of ours, and no other exception."""
    fields = json.loads(unseal(encode(manifest()), "x"))
    inside = fields
    while True:
        key = data.draw(st.sampled_from(sorted(inside) if isinstance(inside, dict) else range(len(inside))))
        if isinstance(inside[key], dict | list) and inside[key] and data.draw(st.booleans()):
            inside = inside[key]
            continue
        inside[key] = data.draw(JSON)
        break
    try:
        found = decode(seal(json.dumps(fields).encode()), "x")
    except DamagedError:
        return
    assert isinstance(found, Manifest)


@pytest.mark.parametrize("name", ["", ".", "..", "../../home", "a/b", "/etc", "a\\b", "a\0b"])
def test_no_name_leads_out_of_its_folder(name):
    """A stranger's manifest cannot make us read, let alone retire, what lies elsewhere."""
    with pytest.raises(DamagedManifestError, match="no plain name"):
        decode(altered(lambda fields: fields.update(name=name)), "x")
    with pytest.raises(DamagedManifestError, match="no plain name"):
        decode(altered(lambda fields: fields["artifacts"].update({name: fields["artifacts"]["state.json"]})), "x")


@pytest.mark.parametrize("shape", [(1,) * 1001, (2**59,), (0, 2**59), (0, 2**40, 2**40)])
def test_a_shape_that_no_array_can_have_is_refused(shape):
    """Also if it has no bytes, as one axis is 0: NumPy counts the others all the same. The fuzzer found it."""
    with pytest.raises(ValueError, match="axes|elements"):
        TensorRecord(dtype="F64", shape=shape, offsets=(0, 0), digest="xxh3-128:" + "0" * 32)
    assert np.zeros((0, 2**59 - 1), np.complex128).size == 0


@pytest.mark.parametrize("missing", ["header_digest", "data_start", "tensors"])
def test_half_of_a_tensor_file_is_damage(missing):
    """A tensor file without its header's digest, its place or its tensors is noticed when the manifest is read."""
    with pytest.raises(DamagedManifestError, match="belong together"):
        decode(altered(lambda fields: fields["artifacts"]["model.safetensors"].pop(missing)), "x")


# ── versions ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_newer_minor_version_is_read():
    """Fields that a newer minor version added are passed over, wherever they stand."""

    def newer(fields):
        fields.update(format="1.7", signature={"by": "somebody"})
        fields["artifacts"]["state.json"]["compression"] = "zstd"
        fields["scores"][0]["weight"] = 2
        fields["artifacts"]["model.safetensors"]["tensors"]["w"]["sharding"] = [1, 2]

    assert decode(altered(newer), "x") == manifest(format="1.7")


@pytest.mark.parametrize("version", ["2.0", "2", "10.1", "0.9"])
def test_another_major_version_is_refused(version):
    """A format that this version does not know is an error that says to install another, whatever else it holds."""
    with pytest.raises(UnsupportedFormatError, match="Install a newer keepbest") as caught:
        decode(seal(json.dumps({"format": version, "new": True}).encode()), "commits/00000007.json")
    assert (caught.value.found, caught.value.supported) == (version, 1)


# ── format 1.0, for ever ─────────────────────────────────────────────────────────────────────────────────────────────


def test_a_run_of_format_1_0_is_read_for_ever():
    """A run that the first version wrote, kept beside this test, is read whole: best, latest, history, values."""
    run = open_run(str(RUN_1_0))
    assert run.verify().ok, str(run.verify())
    first, second, last = run.checkpoints()
    assert [found.sequence for found in (first, second, last)] == [1, 2, 4]
    assert (run.best.sequence, run.latest.sequence) == (2, 4)
    assert (second.epoch, second.step, second.metrics) == (1, 20, {"val_loss": 0.25})
    assert math.isnan(last.metrics["val_loss"])
    assert last.scores == (Score(monitor="val_loss", mode="min", value=None),)
    weights = second.load("model")
    assert {name: (array.dtype.name, array.shape) for name, array in weights.items()} == {
        "layer.weight": ("float32", (4, 3)),
        "layer.bias": ("int64", (3,)),
        "tied": ("float32", (4, 3)),
        "half": ("bfloat16", (2,)),
        "z": ("complex64", ()),
        "flags": ("bool", (0, 2)),
    }
    assert np.array_equal(weights["layer.weight"], np.arange(12, dtype=np.float32).reshape(4, 3) + 2)
    assert np.shares_memory(weights["tied"], weights["layer.weight"])
    sampler = second.load("sampler")
    assert sampler.pop("order").tolist() == [2, 0, 1]
    assert sampler == {
        "position": 2,
        "seen": {3, 1, 2},
        "by_class": {0: (1.5, None), True: b"\x00\xff"},
        "nan": pytest.approx(math.nan, nan_ok=True),
    }
    history = run.history()
    assert history["val_loss"][:2] == [0.5, 0.25]
    assert math.isnan(history["val_loss"][3])
    assert history.steps["val_loss"] == [10, 20, 30, 40]


def test_a_run_of_format_1_0_is_written_on(tmp_path):
    """Training goes on in a run that the first version wrote."""
    from contracts.runs import SmallRun

    shutil.copytree(RUN_1_0, tmp_path / "run", symlinks=True)
    run = open_run(str(tmp_path / "run"))
    writer = SmallRun(run.backend)
    assert isinstance(writer.writer, RunWriter)
    assert writer.save(0.1).sequence == 5
    assert run.best.sequence == 5
    assert Run(run.backend).verify().ok


def test_the_record_of_a_checkpoint_needs_few_words():
    """Whoever tests a policy can make a record with the facts that matter."""
    found = CheckpointInfo(sequence=1, name="c", step=1, epoch=None, parent=None, time=0.0, reasons=(), complete=True)
    assert found.score() is None
