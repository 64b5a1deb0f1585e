"""Exporting a checkpoint's files out of its run."""

from pathlib import Path

import pytest
import safetensors.numpy

import keepbest
from keepbest.errors import (
    CheckpointNotFoundError,
    ConfigError,
    DamagedFileError,
    DamagedManifestError,
    ObjectExistsError,
)
from keepbest.storage import statefile, tensorfile
from keepbest.storage.backend import open_backend
from keepbest.storage.commit import BytesDraft, TensorDraft
from keepbest.storage.manifest import Manifest, decode, encode, seal, unseal
from keepbest.storage.run_writer import RunWriter
from keepbest.storage.statefile import ObjectRecord
from keepbest.storage.tensorfile import TensorSpec


def commit(url, **objects):
    """Commit one checkpoint of objects given as name=role; "inline" has no tensor file."""
    writer = RunWriter(open_backend(url))
    drafts, records = [], {}
    for number, (name, role) in enumerate(objects.items()):
        file = None if role == "inline" else f"{name}.safetensors"
        records[name] = ObjectRecord(role="state" if role == "inline" else role, file=file, state={})
        if file is not None:
            plan = tensorfile.plan([TensorSpec(name="w", dtype="U8", shape=(5,))], {})
            drafts.append(TensorDraft(file=file, plan=plan, data=memoryview(bytes([number] * 5))))
    drafts.append(BytesDraft(file="state.json", data=statefile.dump(records, {})))
    name = "epoch-001_abcdef"
    manifest = Manifest(
        sequence=1, write_id="0" * 32, name=name, step=0, epoch=0, parent=None, time=0.0, reasons=("request",),
        complete=True, metrics={}, scores=(), artifacts=dict(writer.write(name, drafts)), host="", versions={},
    )  # fmt: skip
    writer.commit(manifest)
    return keepbest.open_run(url).latest


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def checkpoint(run_url):
    """A checkpoint with a model, an optimizer and a small state, on every backend."""
    return commit(run_url, model="weights", optimizer="optimizer", sampler="inline")


def test_one_file_takes_the_only_weights(checkpoint, tmp_path):
    """A .safetensors target becomes the model's weights, and what was written is returned."""
    (written,) = checkpoint.export(tmp_path / "w.safetensors")
    assert written.path == str(tmp_path / "w.safetensors")
    assert written.nbytes == (tmp_path / "w.safetensors").stat().st_size
    assert safetensors.numpy.load_file(written.path)["w"].tolist() == [0] * 5


def test_an_export_is_a_copy_and_never_a_link(checkpoint, tmp_path):
    """Whoever changes an exported file changes no checkpoint."""
    (written,) = checkpoint.export(tmp_path / "w.safetensors")
    with Path(written.path).open("r+b") as file:
        file.write(b"junk")
    assert checkpoint.export(tmp_path / "again.safetensors")


def test_records_come_along_when_asked_for(checkpoint, tmp_path):
    """With its records, an export holds the manifest, which still says what every file must be."""
    checkpoint.export(tmp_path / "out", with_records=True)
    assert names(tmp_path / "out") == ["manifest.json", "model.safetensors", "optimizer.safetensors", "state.json"]
    manifest = decode((tmp_path / "out" / "manifest.json").read_bytes(), "")
    for file, artifact in manifest.artifacts.items():
        assert (tmp_path / "out" / file).stat().st_size == artifact.size


def test_objects_and_records_compose(checkpoint, tmp_path):
    """Naming an object leaves out the others' tensors, with the records or without."""
    checkpoint.export(tmp_path / "out", objects="model", with_records=True)
    assert names(tmp_path / "out") == ["manifest.json", "model.safetensors", "state.json"]


def test_a_folder_that_holds_other_files_keeps_them(checkpoint, tmp_path):
    """Exporting into a folder that is in use adds files and touches none."""
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "notes.txt").write_text("mine")
    checkpoint.export(tmp_path / "out", objects=["model"])
    assert names(tmp_path / "out") == ["model.safetensors", "notes.txt"]


def test_if_one_file_exists_none_is_written(checkpoint, tmp_path):
    """Without leave to overwrite, one file in the way stops the whole export."""
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "optimizer.safetensors").write_text("mine")
    with pytest.raises(ObjectExistsError):
        checkpoint.export(tmp_path / "out")
    assert names(tmp_path / "out") == ["optimizer.safetensors"]
    checkpoint.export(tmp_path / "out", overwrite=True)
    assert names(tmp_path / "out") == ["model.safetensors", "optimizer.safetensors"]
    assert safetensors.numpy.load_file(tmp_path / "out" / "optimizer.safetensors")["w"].tolist() == [1] * 5


@pytest.mark.parametrize("harm", ["flip", "cut", "delete"])
def test_damage_stops_the_export_before_anything_appears(tmp_path, harm):
    """If any file is not what was written, no file appears, not even a whole one, and nothing is left lying about."""
    checkpoint = commit(str(tmp_path / "run"), model="weights", optimizer="optimizer")
    file = tmp_path / "run" / "checkpoints" / checkpoint.name / "optimizer.safetensors"
    data = file.read_bytes()
    if harm == "delete":
        file.unlink()
    else:
        file.write_bytes(data[:-1] if harm == "cut" else data[:-1] + b"\xff")
    with pytest.raises(DamagedFileError, match=r"optimizer\.safetensors"):
        checkpoint.export(tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_two_models_need_a_name(run_url, tmp_path):
    """Where several objects hold weights, one file is refused until one is named; it is never guessed."""
    checkpoint = commit(run_url, generator="weights", critic="weights")
    with pytest.raises(ConfigError, match="generator, critic"):
        checkpoint.export(tmp_path / "w.safetensors")
    checkpoint.export(tmp_path / "w.safetensors", objects="critic")
    assert safetensors.numpy.load_file(tmp_path / "w.safetensors")["w"].tolist() == [1] * 5


def test_what_cannot_be_exported_is_said(checkpoint, tmp_path):
    """An object that does not exist, or has no tensor file, is an error that names those that have one."""
    with pytest.raises(CheckpointNotFoundError, match="model, optimizer"):
        checkpoint.export(tmp_path / "out", objects="mdoel")
    with pytest.raises(ConfigError, match=r"state\.json.*model, optimizer"):
        checkpoint.export(tmp_path / "out", objects="sampler")


@pytest.mark.parametrize(
    "target", ["model.pt", "model.KERAS", "s3://bucket/model.safetensors"], ids=["torch", "keras", "bucket"]
)
def test_a_target_that_would_surprise_is_refused(checkpoint, tmp_path, monkeypatch, target):
    """Another format's suffix or another place is an error, not a folder of that name."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError):
        checkpoint.export(target)
    assert names(tmp_path) in ([], ["run"])


def test_one_file_has_no_room_for_records(checkpoint, tmp_path):
    """Records are for a folder; with one file they are refused."""
    with pytest.raises(ConfigError, match="folder"):
        checkpoint.export(tmp_path / "w.safetensors", with_records=True)


def test_a_strangers_manifest_cannot_write_outside_the_target(tmp_path):
    """A file name that leads out of the folder is damage, and nothing is written anywhere."""
    url = str(tmp_path / "run")
    writer = RunWriter(open_backend(url))
    artifacts = dict(writer.write("epoch-001_abcdef", [BytesDraft(file="state.json", data=b"{}")]))
    (tmp_path / "run" / "checkpoints" / "evil").write_bytes(b"{}")
    manifest = Manifest(
        sequence=1, write_id="0" * 32, name="epoch-001_abcdef", step=0, epoch=0, parent=None, time=0.0, reasons=(),
        complete=True, metrics={}, scores=(), artifacts=artifacts, host="", versions={},
    )  # fmt: skip
    (tmp_path / "run" / "commits").mkdir()
    body = unseal(encode(manifest), "x").replace(b'"state.json"', b'"../evil"')
    (tmp_path / "run" / "commits" / "00000001.json").write_bytes(seal(body))
    with pytest.raises(DamagedManifestError, match="no plain name"):
        keepbest.open_run(url).latest.export(tmp_path / "a" / "out", with_records=True)
    assert not (tmp_path / "a").exists()
