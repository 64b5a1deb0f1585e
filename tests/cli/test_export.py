"""`keepbest export`."""

import pytest
import safetensors.numpy


def test_one_file_takes_the_best_weights(keepbest, run, tmp_path):
    """A name that ends in .safetensors becomes the best model's weights, readable without keepbest."""
    target = tmp_path / "best.safetensors"
    said = keepbest("export", run, target)
    assert said.code == 0
    assert str(target) in said.out
    assert safetensors.numpy.load_file(target)["weight"].tobytes() == b"\x01" * 24


def test_a_folder_takes_all_tensor_files_of_the_checkpoint_named(keepbest, run, tmp_path):
    """A folder is made and gets every tensor file, and nothing else."""
    assert keepbest("export", run, "latest", tmp_path / "new" / "out").code == 0
    assert sorted(file.name for file in (tmp_path / "new" / "out").iterdir()) == [
        "model.safetensors",
        "optimizer.safetensors",
    ]


def test_all_adds_the_records(keepbest, run, tmp_path):
    """`--all` copies the state file and the manifest too."""
    assert keepbest("export", run, tmp_path / "out", "--all").code == 0
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == [
        "manifest.json",
        "model.safetensors",
        "optimizer.safetensors",
        "state.json",
    ]


def test_an_object_can_be_named(keepbest, run, tmp_path):
    """`--object` says whose tensors are wanted."""
    assert keepbest("export", run, tmp_path / "out", "--object", "optimizer").code == 0
    assert [file.name for file in (tmp_path / "out").iterdir()] == ["optimizer.safetensors"]


def test_nothing_is_overwritten_unless_forced(keepbest, run, tmp_path):
    """A file that exists is kept, and the message says how to replace it."""
    target = tmp_path / "mine.safetensors"
    target.write_text("mine")
    said = keepbest("export", run, target)
    assert (said.code, target.read_text()) == (2, "mine")
    assert said.err.endswith("To replace it, say --force.\n")
    assert keepbest("export", run, target, "--force").code == 0
    assert safetensors.numpy.load_file(target)["weight"].shape == (2, 3)


def test_json_names_what_was_written(keepbest, run, tmp_path):
    """Programs get the paths, sizes and digests."""
    said = keepbest("export", run, "1", tmp_path / "out", "--json")
    exported = said.json
    assert (exported["schema"], exported["sequence"], said.err) == ("keepbest.export/1", 1, "")
    for file in exported["files"]:
        assert (tmp_path / "out" / file["path"]).stat().st_size == file["bytes"]
        assert file["digest"].startswith("xxh3-128:")


def test_a_target_is_needed(keepbest, run):
    """Without a target, or with too many words, it is wrong usage."""
    assert keepbest("export", run).code == 2
    assert keepbest("export", run, "best", "a", "b").code == 2


def test_standard_output_is_no_target(keepbest, run, tmp_path, monkeypatch):
    """Who asks for standard output is told that there is none to be had, and gets no folder of that name."""
    monkeypatch.chdir(tmp_path)
    said = keepbest("export", run, "best", "-")
    assert (said.code, said.out) == (2, "")
    assert "nothing is written to standard output: name a folder, or a file that ends in .safetensors" in said.err
    assert not (tmp_path / "-").exists()
    assert keepbest("export", run, "best", "./-").code == 0


def test_of_a_damaged_checkpoint_it_says_which_verb_finds_whole_ones(keepbest, run, place, tmp_path):
    """The advice is for the command line, and names no checkpoint that may be the one that is gone."""
    for name in place.files():
        if name.startswith("checkpoints/epoch-002"):
            place.delete(name)
    said = keepbest("export", run, "best", tmp_path / "x.safetensors")
    assert said.code == 2
    assert "`keepbest verify` lists which checkpoints of the run are whole" in said.err
    assert "ckpt." not in said.err
    assert "restore" not in said.err


@pytest.mark.parametrize("target", ["x.safetensors", "", "checkpoints/x.safetensors", "best/x.safetensors"])
def test_nothing_is_put_into_a_run(keepbest, local_build, tmp_path, target):
    """A target inside of a run is refused, and the error says where to write instead."""
    local_build.save(0, val_loss=1.0)
    local_build.writer.refresh_hints()
    folder = tmp_path / "run"
    before = sorted(folder.rglob("*"))
    said = keepbest("export", folder, "best", f"{folder}/{target}")
    assert (said.code, f"{folder}-weights/" in " ".join(said.err.split())) == (2, True)
    assert sorted(folder.rglob("*")) == before
