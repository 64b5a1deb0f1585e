"""`keepbest convert`: what it takes and gives, and what it says; what needs a framework is in its adapter's tests."""

import json
import os
import subprocess
import sys
import time
import zipfile

import h5py
import numpy as np
import pytest
import safetensors.numpy

from keepbest import Checkpointer, CheckpointPolicy, open_run


@pytest.fixture
def weights(tmp_path):
    """A safetensors file of two tensors."""
    file = tmp_path / "weights.safetensors"
    safetensors.numpy.save_file({"a": np.arange(6.0).reshape(2, 3), "b": np.arange(3, dtype=np.int8)}, file)
    return file


@pytest.fixture
def h5(tmp_path):
    """Make an HDF5 file: what is to be in it is written by the function given."""

    def make(write):
        with h5py.File(tmp_path / "in.weights.h5", "w") as file:
            write(file)
        return tmp_path / "in.weights.h5"

    return make


class Nothing:
    """An object whose state is empty."""

    def state_dict(self):
        return {}

    def load_state_dict(self, state):
        """Take it."""


def loaded(url, name="model"):
    return open_run(str(url)).latest.load(name)


# ── into a run ────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_safetensors_file_becomes_a_checkpoint_anywhere(keepbest, weights, place):
    """On disk and in a bucket: weights only, for the reason "converted", whole, and bit for bit what was there."""
    assert keepbest("convert", weights, place.url).code == 0
    checkpoint = open_run(place.url).latest
    assert (checkpoint.complete, checkpoint.info.reasons, checkpoint.epoch) == (False, ("converted",), None)
    found = checkpoint.load("model")
    assert {name: (value.dtype.name, value.tolist()) for name, value in found.items()} == {
        "a": ("float64", [[0, 1, 2], [3, 4, 5]]),
        "b": ("int8", [0, 1, 2]),
    }
    assert open_run(place.url).verify().ok


def test_what_is_told_to_people(keepbest, weights, tmp_path):
    """The checkpoint's name, what it holds, and what kind of file it was."""
    said = keepbest("convert", weights, tmp_path / "run", "--name", "net", "--epoch", "12", "--step", "340")
    name = open_run(tmp_path / "run").latest.name
    assert name.startswith("epoch-012_step-000340_")
    assert said.out.splitlines() == [
        f"Converted a safetensors file to {name} of {tmp_path / 'run'} (weights only):",
        "  net: 2 tensors",
        "It ended epoch 12, counted from 1, at step 340; --epoch and --step say it otherwise.",
    ]


def test_a_name_that_no_checkpointer_would_take_is_refused(keepbest, weights, tmp_path):
    """The name of an object is ASCII, as everywhere."""
    said = keepbest("convert", weights, tmp_path / "run", "--name", "ne\u0301t")
    assert (said.code, "--name" in said.err) == (2, True)
    assert not (tmp_path / "run").exists()


def test_what_is_told_to_programs(keepbest, weights, tmp_path):
    """Epochs count from 0 there."""
    told = keepbest("convert", weights, tmp_path / "run", "--epoch", "12", "--json").json
    assert told == {
        "schema": "keepbest.convert/1",
        "run": str(tmp_path / "run"),
        "checkpoint": open_run(tmp_path / "run").latest.name,
        "sequence": 1,
        "step": 0,
        "epoch": 11,
        "complete": False,
        "format": "a safetensors file",
        "objects": {"model": 2},
        "left_out": [],
        "files": [],
    }


@pytest.mark.parametrize("option", ["--epoch", "--step"])
def test_a_count_that_no_training_reaches_is_refused(keepbest, weights, tmp_path, option):
    """It is one sentence, and nothing is written; the largest that can be stored is taken."""
    said = keepbest("convert", weights, tmp_path / "run", option, 10**20)
    assert (said.code, option in said.err, (tmp_path / "run").exists()) == (2, True, False)
    assert keepbest("convert", weights, tmp_path / "run", option, 2**62).code == 0
    assert open_run(tmp_path / "run").verify().ok


def test_a_run_that_holds_checkpoints_is_added_to_only_if_told(keepbest, weights, local_run):
    """Without --append nothing is written, and the message names it."""
    before = len(open_run(local_run).checkpoints())
    said = keepbest("convert", weights, local_run)
    assert (said.code, "--append" in said.err) == (2, True)
    assert len(open_run(local_run).checkpoints()) == before
    assert keepbest("convert", weights, local_run, "--append", "--epoch", "9").code == 0
    run = open_run(local_run)
    assert len(run.checkpoints()) == before + 1
    assert (run.best.sequence, run.checkpoints()[-1].epoch, run.verify().ok) == (2, 8, True)


def test_a_folder_of_other_things_is_not_made_a_run(keepbest, weights, tmp_path):
    """A checkpoint is not put among somebody's files, even with --append."""
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    for words in ([], ["--append"]):
        said = keepbest("convert", weights, tmp_path / "mine", *words)
        assert (said.code, "holds something already" in said.err) == (2, True)
    assert os.listdir(tmp_path / "mine") == ["notes.txt"]


def test_a_folder_of_shards_comes_in_whole(keepbest, tmp_path):
    """The index says which files; a tensor that it names and no file has is an error."""
    folder = tmp_path / "hf"
    folder.mkdir()
    for number in (1, 2):
        array = np.full(3, number, np.float32)
        safetensors.numpy.save_file({f"w{number}": array}, folder / f"model-{number}.safetensors", {"format": "pt"})
    places = {"w1": "model-1.safetensors", "w2": "model-2.safetensors"}
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": places}))
    assert keepbest("convert", folder, tmp_path / "run").code == 0
    assert {name: value.tolist() for name, value in loaded(tmp_path / "run").items()} == {"w1": [1] * 3, "w2": [2] * 3}
    index.write_text(json.dumps({"weight_map": places | {"w3": "model-2.safetensors"}}))
    said = keepbest("convert", folder, tmp_path / "other")
    assert (said.code, "'w3' should be in model-2.safetensors, and is not" in said.err) == (2, True)


def test_an_index_of_many_second_names_is_read_at_once(keepbest, tmp_path):
    """Ten thousand names of one tensor take a second, not a minute."""
    (tmp_path / "hf").mkdir()
    ties = {f"tied{number}": "a" for number in range(10_000)}
    safetensors.numpy.save_file({"a": np.ones(3)}, tmp_path / "hf" / "one.safetensors", ties)
    index = {"weight_map": dict.fromkeys(["a", *ties], "one.safetensors")}
    (tmp_path / "hf" / "model.safetensors.index.json").write_text(json.dumps(index))
    before = time.process_time()
    assert keepbest("convert", tmp_path / "hf", tmp_path / "run").code == 0
    assert time.process_time() - before < 5
    assert len(loaded(tmp_path / "run")) == 10_001


def test_what_a_conversion_left_that_failed_is_in_nobodys_way(keepbest, weights, h5, tmp_path):
    """With a file that is whole the same command ends well: nothing that the first one left is held against it."""
    values = np.arange(1000.0)
    file = h5(lambda file: file.create_dataset("vars/0", data=values, chunks=(1000,), fletcher32=True))
    file.write_bytes(file.read_bytes().replace(values[500:501].tobytes(), values[501:502].tobytes()))
    said = keepbest("convert", file, tmp_path / "run")
    assert (said.code, "'vars/0' cannot be read" in said.err) == (2, True)
    (tmp_path / "run" / f".tmp-{'0' * 32}").write_bytes(b"half")
    assert os.listdir(tmp_path / "run" / "checkpoints") == []
    said = keepbest("convert", weights, tmp_path / "run")
    assert (said.code, said.err) == (0, "")
    assert open_run(tmp_path / "run").verify().ok


def test_a_full_disk_is_said_of_the_folder_and_leaves_nothing(keepbest, tmp_path):
    """What torch raises of a file that cannot be written whole becomes our error."""
    big, run, out = tmp_path / "big.safetensors", tmp_path / "run", tmp_path / "out"
    safetensors.numpy.save_file({"weight": np.zeros(100_000, np.float32)}, big)
    assert keepbest("convert", big, run).code == 0
    command = f"ulimit -f 64; exec {sys.executable} -m keepbest convert {run} {out}/model.pth"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False, timeout=120)
    assert (done.returncode, done.stderr) == (2, f"Error: {out}: cannot write: File too large.\n")
    assert not out.exists()


def test_files_in_a_folder_called_checkpoints_are_somebodys(keepbest, weights, tmp_path):
    """Training of another kind keeps its own there."""
    (tmp_path / "mine" / "checkpoints").mkdir(parents=True)
    (tmp_path / "mine" / "checkpoints" / "last.pt").write_text("mine")
    said = keepbest("convert", weights, tmp_path / "mine")
    assert (said.code, "holds something already" in said.err) == (2, True)


@pytest.mark.parametrize(
    "file", ["../weights.safetensors", "/etc/passwd", "a/b.safetensors", "x\x1b[2J.safetensors", "pytorch_model.bin", 7]
)
def test_an_index_leads_to_no_other_folder(keepbest, tmp_path, weights, file):
    """Shards lie beside the index, and are safetensors."""
    (tmp_path / "hf").mkdir()
    index = tmp_path / "hf" / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": file}}))
    said = keepbest("convert", tmp_path / "hf", tmp_path / "run")
    assert (said.code, "no safetensors file of the same folder" in said.err, "\x1b" in said.err) == (2, True, False)


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"weight_map": 3}', '{"weight_map": {}}', "[" * 100_000, '{"weight_map": []}'], ids=len
)
def test_an_index_that_is_none_is_an_error_of_one_sentence(keepbest, tmp_path, text):
    """Whatever JSON it is."""
    (tmp_path / "hf").mkdir()
    (tmp_path / "hf" / "model.safetensors.index.json").write_text(text)
    said = keepbest("convert", tmp_path / "hf", tmp_path / "run")
    assert (said.code, "was not converted" in said.err) == (2, True)


@pytest.mark.parametrize("name", ["../up", "a\x1b[31m", "a\nb", "/root", "a/./b"], ids=ascii)
def test_names_of_tensors_that_lead_out_or_steer_a_terminal_are_refused(keepbest, tmp_path, name):
    """They are refused, and shown escaped."""
    safetensors.numpy.save_file({name: np.ones(2)}, tmp_path / "in.safetensors")
    said = keepbest("convert", tmp_path / "in.safetensors", tmp_path / "run")
    assert (said.code, "a tensor in it is called" in said.err, "\x1b" in said.err) == (2, True, False)


def test_a_safetensors_file_that_is_damaged_is_an_error(keepbest, weights, tmp_path):
    """Cut short, or no such file at all."""
    for number, data in enumerate([b"", b"\xff" * 40, weights.read_bytes()[:-1], weights.read_bytes() + b"x"]):
        (tmp_path / "in.safetensors").write_bytes(data)
        said = keepbest("convert", tmp_path / "in.safetensors", tmp_path / f"run{number}")
        assert (said.code, "it is no whole safetensors file" in said.err) == (2, True), data


def test_tensors_that_were_tied_stay_one(keepbest, tmp_path):
    """The metadata's second names, as safetensors.torch.save_model writes them, are names of the same tensor."""
    safetensors.numpy.save_file({"a": np.ones(1000)}, tmp_path / "in.safetensors", {"format": "pt", "b": "a"})
    assert keepbest("convert", tmp_path / "in.safetensors", tmp_path / "run").code == 0
    assert sorted(loaded(tmp_path / "run")) == ["a", "b"]
    assert open_run(tmp_path / "run").latest.nbytes < 12_000


# ── HDF5 and Keras' archives, by strangers ────────────────────────────────────────────────────────────────────────


def external(file):
    file["layers/dense/vars/0"] = h5py.ExternalLink("/etc/passwd", "/x")


def soft(file):
    file["layers/dense/vars/0"] = np.ones(3)
    file["layers/other/vars/0"] = h5py.SoftLink("/layers/dense/vars/0")


def external_data(file):
    file.create_dataset("layers/dense/vars/0", (8,), "u1", external=[("/etc/hostname", 0, 8)])


def virtual(file):
    layout = h5py.VirtualLayout((8,), "u1")
    layout[:] = h5py.VirtualSource("/etc/hostname.h5", "x", (8,))
    file.create_virtual_dataset("layers/dense/vars/0", layout)


def round_about(file):
    file["layers/dense/vars/0"] = np.ones(3)
    file["layers/dense/vars/again"] = file["layers"]


def doubling(file):
    group = file.create_group("layers")
    for _ in range(40):
        inner = group.create_group("a")
        group["b"] = inner
        group = inner
    group["0"] = np.ones(3)


def enormous(file):
    file.create_dataset("layers/dense/vars/0", (1 << 40,), "f4", chunks=(1 << 20,), compression="gzip")


def enormous_unfiltered(file):
    file.create_dataset("layers/dense/vars/0", (1 << 20, 1 << 20), "f4", chunks=(1024, 1024))


def many(file):
    for number in range(2000):
        file.create_dataset(f"layers/dense/vars/{number}", (1 << 23,), "f4", chunks=(1 << 20,))


def steering(file):
    file["layers/\x1b[2J/vars/0"] = np.ones(3)


def upwards(file):
    file.create_group("layers").create_group("..")["0"] = np.ones(3)


def nothing(file):
    file.create_group("layers/dense/vars")


@pytest.mark.parametrize(
    ("write", "why"),
    [
        (external, "is a ExternalLink"),
        (soft, "is a SoftLink"),
        (external_data, "are in another file"),
        (virtual, "are in another file"),
        (round_about, "nested without end"),
        (doubling, "nested without end"),
        (enormous, "would take 4,398,046,511,104 bytes, and 0 are stored"),
        (enormous_unfiltered, "would take 4,398,046,511,104 bytes, and 0 are stored"),
        (many, "all of it would take 67,108,864,000 bytes"),
        (steering, "control characters"),
        (upwards, "is called 'layers/..'"),
        (nothing, "it holds no weights"),
    ],
)
def test_an_h5_file_that_leads_elsewhere_or_swells_is_refused(keepbest, h5, tmp_path, write, why):
    """Before anything is read or allocated; links are not followed, and the message says what was wrong."""
    said = keepbest("convert", h5(write), tmp_path / "run")
    assert (said.code, why in said.err, "\x1b" in said.err) == (2, True, False), said.err
    assert not (tmp_path / "run" / "commits").exists()


def test_an_honest_h5_file_may_be_compressed(keepbest, h5, tmp_path):
    """Zeros compress well, and big-endian numbers are numbers."""

    def write(file):
        file.create_dataset("layers/dense/vars/0", data=np.zeros((1000, 1000), np.float32), compression="gzip")
        file.create_dataset("layers/dense/vars/1", data=np.arange(5, dtype=">i4"))
        file["layers/names/vars/0"] = "text"

    said = keepbest("convert", h5(write), tmp_path / "run")
    assert said.code == 0
    assert "'layers/names/vars/0' holds no numbers and was left out." in said.out
    found = loaded(tmp_path / "run")
    assert found["layers/dense/vars/0"].shape == (1000, 1000)
    assert found["layers/dense/vars/1"].tolist() == [0, 1, 2, 3, 4]


def test_a_keras_file_that_unpacks_to_too_much_is_refused(keepbest, tmp_path):
    """A zip file of a few kilobytes that holds gigabytes of zeros is not unpacked."""
    with zipfile.ZipFile(tmp_path / "bomb.keras", "w", zipfile.ZIP_DEFLATED) as archive:
        with archive.open("model.weights.h5", "w", force_zip64=True) as member:
            for _ in range(100):
                member.write(bytes(1 << 20))
    said = keepbest("convert", tmp_path / "bomb.keras", tmp_path / "run")
    assert (said.code, "model.weights.h5 would take 104,857,600 bytes" in said.err) == (2, True)


def test_a_keras_file_that_lies_about_its_size_is_refused(keepbest, tmp_path):
    """No more is unpacked than the directory of the archive says, and what is left is no weights."""
    with zipfile.ZipFile(tmp_path / "in.keras", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("model.weights.h5", bytes(100 << 20))
    data = (tmp_path / "in.keras").read_bytes()
    true = (100 << 20).to_bytes(4, "little")
    assert data.count(true) == 2
    (tmp_path / "in.keras").write_bytes(data.replace(true, (1000).to_bytes(4, "little")))
    said = keepbest("convert", tmp_path / "in.keras", tmp_path / "run")
    assert (said.code, "was not converted" in said.err) == (2, True)


def test_numbers_that_cannot_be_stored_are_an_error(keepbest, h5, tmp_path):
    """They are weights, and weights are never left out."""

    def write(file):
        file["layers/dense/vars/0"] = np.ones(3)
        file["layers/dense/vars/1"] = np.ones(3, np.complex128)

    said = keepbest("convert", h5(write), tmp_path / "run")
    assert (said.code, "'layers/dense/vars/1' is of dtype complex128, which cannot be stored" in said.err) == (2, True)


def test_weights_are_not_called_as_the_optimizer_is(keepbest, h5, tmp_path):
    """One of the two would be lost, so the name is refused."""

    def write(file):
        file["layers/dense/vars/0"] = np.ones(3)
        file["optimizer/vars/0"] = np.zeros(3)

    said = keepbest("convert", h5(write), tmp_path / "run", "--name", "optimizer")
    assert (said.code, "cannot be called 'optimizer'" in said.err) == (2, True)
    assert keepbest("convert", h5(write), tmp_path / "run", "--name", "net").code == 0
    assert loaded(tmp_path / "run", "net")["layers/dense/vars/0"].tolist() == [1, 1, 1]


def test_a_keras_file_that_claims_to_be_large_is_refused(keepbest, tmp_path):
    """What its directory says that is stored counts only as far as the file is large."""
    with zipfile.ZipFile(tmp_path / "in.keras", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("model.weights.h5", bytes(100 << 20))
    data = bytearray((tmp_path / "in.keras").read_bytes())
    place = data.rindex(b"PK\x01\x02") + 20  # of the compressed size
    data[place : place + 4] = (50 << 20).to_bytes(4, "little")
    (tmp_path / "in.keras").write_bytes(data)
    said = keepbest("convert", tmp_path / "in.keras", tmp_path / "run")
    stored = (tmp_path / "in.keras").stat().st_size
    assert (said.code, f"would take 104,857,600 bytes, and {stored:,} are stored" in said.err) == (2, True)


@pytest.mark.parametrize("name", ["in.keras", "in.h5", "in.weights.h5"])
def test_what_is_no_such_file_is_an_error_of_one_sentence(keepbest, tmp_path, name):
    """The ending of a name proves nothing."""
    for number, data in enumerate([b"", b"PK\x03\x04", b"\x89HDF\r\n\x1a\n" + bytes(200)]):
        (tmp_path / name).write_bytes(data)
        said = keepbest("convert", tmp_path / name, tmp_path / f"run{number}")
        assert (said.code, "was not converted" in said.err) == (2, True)


# ── out of a run ──────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_best_becomes_a_folder_for_hugging_face(keepbest, run, tmp_path):
    """One shard needs no index; from a bucket too."""
    said = keepbest("convert", run, f"{tmp_path}/hf/", "--json")
    assert (said.code, said.json["format"], said.json["sequence"]) == (0, "hf", 2)
    assert os.listdir(tmp_path / "hf") == ["model.safetensors"]
    assert said.json["files"] == [
        {
            "path": str(tmp_path / "hf" / "model.safetensors"),
            "bytes": (tmp_path / "hf" / "model.safetensors").stat().st_size,
        }
    ]
    assert safetensors.numpy.load_file(tmp_path / "hf" / "model.safetensors")["weight"].tobytes() == b"\x01" * 24


def test_a_checkpoint_and_an_object_can_be_named(keepbest, local_run, tmp_path):
    """`--checkpoint` and `--name` say which weights."""
    words = ["--checkpoint", "latest", "--name", "optimizer", "--to", "hf"]
    assert keepbest("convert", local_run, tmp_path / "hf", *words).code == 0
    assert safetensors.numpy.load_file(tmp_path / "hf" / "model.safetensors")["weight"].tobytes() == b"\x02" * 24


def test_weights_that_are_there_are_replaced_only_if_forced(keepbest, local_run, tmp_path):
    """Then none of the old is left that a reader would take for the model's; other files stay."""
    folder = tmp_path / "hf"
    folder.mkdir()
    for name in ("model-00001-of-00002.safetensors", "model.safetensors.index.json", "config.json"):
        (folder / name).write_text("mine")
    said = keepbest("convert", local_run, folder)
    assert (said.code, "say --force" in said.err) == (2, True)
    assert (folder / "model.safetensors.index.json").read_text() == "mine"
    assert keepbest("convert", local_run, folder, "--force").code == 0
    assert sorted(os.listdir(folder)) == ["config.json", "model.safetensors"]
    assert (folder / "config.json").read_text() == "mine"


@pytest.mark.parametrize(
    ("target", "say"),
    [
        ("out.safetensors", "`keepbest export` copies them out"),
        ("out.ckpt", "A name that ends in .pth, .pt or .weights.h5"),
        ("out.keras", "A name that ends in .pth, .pt or .weights.h5"),
        ("s3://bucket/out.pth", "is no local path"),
    ],
)
def test_what_is_not_written_is_said(keepbest, local_run, target, say):
    """And what is, instead."""
    said = keepbest("convert", local_run, target)
    assert (said.code, say in " ".join(said.err.split())) == (2, True), said.err


def test_a_file_of_others_in_a_bucket_is_to_be_copied_first(keepbest, tmp_path):
    """What is read are local files, and the error says so instead of taking the URL for that of a run."""
    said = keepbest("convert", "s3://bucket/last.ckpt", tmp_path / "run")
    assert (said.code, "Copy it here first" in " ".join(said.err.split())) == (2, True), said.err
    assert not (tmp_path / "run").exists()


def test_weights_h5_needs_the_model(keepbest, local_run, tmp_path):
    """Where each weight goes in the file, only the model knows; the error says how to give it."""
    said = keepbest("convert", local_run, tmp_path / "out.weights.h5")
    assert (said.code, "Give it with --model" in said.err) == (2, True)
    assert not (tmp_path / "out.weights.h5").exists()


@pytest.mark.parametrize(
    ("words", "say"),
    [
        (["--force"], "--force"),
        (["--checkpoint", "best"], "--checkpoint"),
        (["--to", "hf"], "--to"),
        (["--max-shard-size", "1GB"], "--max-shard-size"),
    ],
)
def test_options_of_the_other_direction_are_named(keepbest, weights, tmp_path, words, say):
    """What cannot have a meaning is not passed over."""
    said = keepbest("convert", weights, tmp_path / "run", *words)
    assert (said.code, f"into a run; it goes without {say}" in said.err) == (2, True)


@pytest.mark.parametrize("words", [["--append"], ["--epoch", "1"], ["--step", "0"]], ids=str)
def test_options_of_this_direction_are_named_as_well(keepbest, local_run, tmp_path, words):
    """The same, out of a run."""
    said = keepbest("convert", local_run, tmp_path / "out.pth", *words)
    assert (said.code, f"out of a run; it goes without {words[0]}" in said.err) == (2, True)


def test_a_size_that_is_none_is_an_error(keepbest, local_run, tmp_path):
    """What huggingface_hub cannot read is told with an example."""
    said = keepbest("convert", local_run, f"{tmp_path}/hf/", "--max-shard-size", "huge")
    assert (said.code, "write 5GB or 500MB" in said.err, os.listdir(tmp_path)) == (2, True, ["run"])


def test_a_conversion_that_fails_leaves_no_new_folder(keepbest, local_run, tmp_path):
    """None of those that were made on the way is left; one that was there is."""
    (tmp_path / "mine").mkdir()
    said = keepbest("convert", local_run, f"{tmp_path}/mine/a/b/", "--max-shard-size", "huge")
    assert (said.code, os.listdir(tmp_path / "mine")) == (2, [])
    assert keepbest("convert", local_run, f"{tmp_path}/mine/a/b/").code == 0
    assert os.listdir(tmp_path / "mine" / "a" / "b") == ["model.safetensors"]


def test_an_object_without_tensors_becomes_no_weights_file(keepbest, tmp_path):
    """An empty file would say that all went well."""
    with Checkpointer(str(tmp_path / "run"), CheckpointPolicy(), mode="sync", model=Nothing()) as ckpt:
        ckpt.save()
    said = keepbest("convert", tmp_path / "run", tmp_path / "out.weights.h5", "--name", "model")
    assert (said.code, (tmp_path / "out.weights.h5").exists()) == (2, False), said.err


def test_files_of_others_go_into_runs_only(keepbest, weights, tmp_path):
    """Between two formats there is a run."""
    said = keepbest("convert", weights, tmp_path / "out.pth")
    assert (said.code, "goes into a run" in said.err) == (2, True)


def test_a_source_that_nobody_reads_is_an_error(keepbest, tmp_path):
    """A file of another kind, and a place where there is nothing."""
    (tmp_path / "in.onnx").write_bytes(b"x")
    said = keepbest("convert", tmp_path / "in.onnx", tmp_path / "run")
    assert (said.code, ".safetensors" in said.err) == (2, True)
    said = keepbest("convert", tmp_path / "gone", tmp_path / "out.pth")
    assert (said.code, "holds no run" in said.err) == (2, True)


def test_names_of_objects_are_those_that_a_checkpointer_takes(keepbest, weights, tmp_path):
    """A name becomes a file's name, and is none that leads elsewhere; what a training is given can be converted."""
    said = keepbest("convert", weights, tmp_path / "run", "--name", "../model")
    told = "no object can be called '../model': it names a file" in said.err
    assert (said.code, told, sorted(os.listdir(tmp_path))) == (2, True, ["weights.safetensors"])
    assert keepbest("convert", weights, tmp_path / "run", "--name", "ema-model.1").code == 0
    assert keepbest("convert", tmp_path / "run", tmp_path / "out.pth", "--name", "ema-model.1").code == 0
    assert (tmp_path / "out.pth").exists()


def test_the_name_of_the_generators_is_taken(keepbest, weights, tmp_path):
    """Weights called so could not be resumed."""
    said = keepbest("convert", weights, tmp_path / "run", "--name", "rng")
    assert (said.code, "'rng' is taken" in said.err, (tmp_path / "run").exists()) == (2, True, False)


def test_help_says_both_ways(keepbest):
    """And calls the first word what it is."""
    said = keepbest("convert", "--help")
    assert (said.code, "SOURCE TARGET" in said.out, "torch.distributed.checkpoint" in said.out) == (0, True, True)


@pytest.mark.parametrize("target", ["", "/x.pth"])
def test_nothing_is_converted_into_a_run_that_is_there(keepbest, weights, tmp_path, target):
    """A checkpoint is not put among the files of another run; the error says where to convert to instead."""
    for name in ("a", "b"):
        assert keepbest("convert", weights, tmp_path / name).code == 0
    before = sorted((tmp_path / "b").rglob("*"))
    said = keepbest("convert", tmp_path / "a", f"{tmp_path}/b{target}")
    assert (said.code, f"{tmp_path}/b is itself a run" in " ".join(said.err.split())) == (2, True)
    assert sorted((tmp_path / "b").rglob("*")) == before
