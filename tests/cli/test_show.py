"""`keepbest show`."""

import pytest

from keepbest import Checkpointer, CheckpointPolicy


def test_the_best_is_shown_unless_another_is_named(keepbest, run):
    """Without a name, show describes the best checkpoint."""
    said = keepbest("show", run)
    assert said.code == 0
    assert said.out.startswith("epoch-002_step-000020_")
    assert said.out.splitlines()[0].endswith(", best")


@pytest.mark.parametrize("which", ["latest", "3", "epoch-003"])
def test_a_checkpoint_is_found_by_place_number_or_beginning(keepbest, run, which):
    """Latest, a sequence number and the beginning of a name all find a checkpoint."""
    assert keepbest("show", run, which, "--json").json["sequence"] == 3


def test_everything_about_it_is_there(keepbest, run):
    """When, where, why, with what and what is inside: all of it is shown."""
    out = keepbest("show", run, "2").out
    for fact in (
        "testhost",
        "number 1",
        "epoch     2",
        "step      20",
        "everything, training can continue from it",
        "keepbest 0.1.0, torch 2.13.0",
        "train_loss  0.5",
        "val_loss (lower is better): 0.4",
        "model: weights, in model.safetensors",
        "xxh3-128:",
        "1 tensor (1 F32), 6 elements",
    ):
        assert fact in out
    assert "[2, 3]" not in out


def test_tensors_are_listed_when_asked_for(keepbest, run):
    """`--tensors` names every tensor with its dtype, shape and size."""
    assert "weight  F32    [2, 3]     24" in keepbest("show", run, "--tensors").out


def test_json_holds_every_tensor(keepbest, run):
    """Programs get files, digests, tensors and objects without asking for more."""
    said = keepbest("show", run, "latest", "--json")
    shown = said.json
    assert (said.err, shown["schema"], shown["marks"]) == ("", "keepbest.show/1", ["latest"])
    assert shown["objects"] == {
        "model": {"role": "weights", "file": "model.safetensors"},
        "optimizer": {"role": "optimizer", "file": "optimizer.safetensors"},
    }
    weight = shown["files"]["model.safetensors"]["tensors"]["weight"]
    assert (weight["dtype"], weight["shape"], weight["bytes"]) == ("F32", [2, 3], 24)
    assert shown["files"]["state.json"]["tensors"] is None


def test_a_damaged_state_file_does_not_hide_the_rest(keepbest, run, place):
    """What the manifest says is shown even if state.json is damaged, and the damage is said."""
    for name in place.files():
        if name.endswith("/state.json"):
            place.write(name, b"junk")
    said = keepbest("show", run, "--json")
    assert (said.code, said.json["objects"], said.json["sequence"]) == (0, None, 2)
    assert "state.json is damaged" in said.err


def test_a_value_that_is_not_the_logged_one_is_called_smoothed(keepbest, tmp_path):
    """What a checkpoint is ranked by is the logged value, unless it says otherwise."""
    policy = CheckpointPolicy(monitor="val_loss", smoothing="mean:2", mode="max", keep_last=2)
    with Checkpointer(str(tmp_path / "run"), policy) as ckpt:
        for loss in (1.0, 2.0):
            ckpt.log(val_loss=loss)
    said = [keepbest("show", tmp_path / "run", which).out.splitlines() for which in ("1", "best")]
    assert [[line for line in lines if "higher is better" in line] for lines in said] == [
        ["  val_loss (higher is better): 1"],
        ["  val_loss (higher is better): 1.5, smoothed"],
    ]


def test_a_run_where_nothing_is_best_says_so(keepbest, build):
    """Without a monitor there is no best; the error lists what can be named instead."""
    build.save(0, monitors=())
    said = keepbest("show", build.url)
    assert said.code == 2
    assert "no checkpoint 'best'" in said.err
    assert "epoch-001_step-000010_" in said.err
