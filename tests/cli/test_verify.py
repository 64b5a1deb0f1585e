"""`keepbest verify`."""

import fnmatch
import time
from pathlib import Path

import pytest

from keepbest import Checkpointer


def only(place, pattern):
    """Return the name of the one file that fits a shell pattern."""
    (name,) = fnmatch.filter(place.files(), pattern)
    return name


def test_a_whole_run_is_the_answer_yes(keepbest, run):
    """Exit code 0 says that every byte is as it was written; every whole checkpoint is named."""
    said = keepbest("verify", run)
    assert said.code == 0
    lines = said.out.splitlines()
    assert [line.split()[0] for line in lines[:-1]] == ["whole"] * 3
    assert lines[-1].startswith(f"{run}: 3 checkpoints whole, ")
    assert said.err == ""


def test_a_flipped_bit_is_the_answer_no(keepbest, run, place):
    """Exit code 1 and the name of the tensor tell what a flipped bit has damaged, and what is still whole."""
    name = only(place, "checkpoints/epoch-002*/model.safetensors")
    data = bytearray(place.read(name))
    data[-1] ^= 1
    place.write(name, bytes(data))
    said = keepbest("verify", run)
    assert said.code == 1
    assert [line.split()[0] for line in said.out.splitlines()[:3]] == ["whole", "whole", "DAMAGED"]
    assert "the tensor 'weight' in " in said.out
    assert "1 checkpoint damaged, 2 checkpoints whole" in said.out
    whole = only(place, "checkpoints/epoch-003*/model.safetensors").split("/")[1]
    assert f"training can go on from a whole one by ckpt.restore('{whole}')." in said.out


@pytest.mark.parametrize("target", ["commits/00000001.json", "checkpoints/epoch-001*/state.json"])
def test_json_names_the_whole_and_the_damaged(keepbest, run, place, target):
    """Programs get the same answer as one object."""
    place.write(only(place, target), b"junk")
    said = keepbest("verify", run, "--json")
    report = said.json
    assert (said.code, report["schema"], report["ok"]) == (1, "keepbest.verify/1", False)
    assert [name[:9] for name in report["whole"]] == ["epoch-002", "epoch-003"]
    assert set(report["problems"][0]) == {"checkpoint", "file", "tensor", "message", "untrusted", "part"}


def test_a_missing_file_is_damage(keepbest, run, place):
    """A file that someone deleted is named."""
    place.delete(only(place, "checkpoints/epoch-003*/optimizer.safetensors"))
    said = keepbest("verify", run)
    assert said.code == 1
    assert "optimizer.safetensors: it does not exist" in said.out


def test_a_checkpoint_that_was_deleted_by_hand_can_be_taken_off_the_list(keepbest, run, place):
    """It says what else to delete, and counts only what was read; then the run is whole."""
    sizes = {name: len(place.read(name)) for name in place.files() if name.startswith("checkpoints/")}
    for name in sizes:
        if "epoch-003" in name:
            place.delete(name)
    said = keepbest("verify", run, "--json")
    assert (said.code, said.json["bytes"]) == (1, sum(size for name, size in sizes.items() if "epoch-003" not in name))
    assert f"delete {run}/commits/00000003.json, too" in keepbest("verify", run).out
    place.delete("commits/00000003.json")
    assert keepbest("verify", run).code == 0


def test_a_checkpoint_that_training_retires_meanwhile_is_no_damage(keepbest, build, run, monkeypatch):
    """Looking at a run that is still training raises no false alarm."""
    from keepbest.storage import verify

    check = verify.verify

    def check_while_training_goes_on(backend, listing, trusted):
        build.writer.retire([1])
        return check(backend, listing, trusted)

    monkeypatch.setattr(verify, "verify", check_while_training_goes_on)
    said = keepbest("verify", run, "--json")
    assert said.code == 0
    assert [name[:9] for name in said.json["whole"]] == ["epoch-002", "epoch-003"]


def test_long_runs_name_the_newest_whole_and_count_the_rest(keepbest, build):
    """A long list of whole checkpoints does not bury what matters."""
    for epoch in range(53):
        build.save(epoch, data=False, val_loss=1.0)
    lines = keepbest("verify", build.url).out.splitlines()
    assert len(lines) == 52
    assert lines[50] == "whole    and 3 older"


class Counted(list):
    """A list that counts how often it is gone through."""

    times = 0

    def __iter__(self):
        self.times += 1
        return super().__iter__()


def test_thousands_of_damaged_checkpoints_are_named_in_one_pass(keepbest, local_run, monkeypatch):
    """What verify prints of a run that is damaged throughout takes no longer for each than for one."""
    from keepbest.storage import verify

    names = [f"epoch-{number:03d}_abcdef" for number in range(100)]
    found = [
        verify.Problem(checkpoint=name, file=None, tensor=None, message=f"{what} of {name}")
        for what in ("size", "digest")
        for name in names
    ]
    problems = Counted(found)
    monkeypatch.setattr(verify, "verify", lambda *_: verify.Report(checked=100, whole=(), nbytes=0, problems=problems))
    said = keepbest("verify", local_run)
    assert said.out.splitlines()[:3] == [
        f"DAMAGED  {names[0]}", f"         - size of {names[0]}", f"         - digest of {names[0]}",
    ]  # fmt: skip
    assert "100 checkpoints damaged, 0 checkpoints whole" in said.out
    assert problems.times <= 2


def spoil(run):
    """Let the pointer of a run on disk show another checkpoint, and a line of its journal be none."""
    folder = Path(run)
    time.sleep(0.02)
    (folder / "best").symlink_to(next((folder / "checkpoints").glob("epoch-001*")).relative_to(folder))
    (folder / "metrics.jsonl").write_text("junk\n")


def test_what_lies_beside_the_checkpoints_is_looked_at(keepbest, local_run):
    """A pointer to another checkpoint and an unreadable journal are the answer no, and no checkpoint's fault."""
    spoil(local_run)
    said = keepbest("verify", local_run)
    assert said.code == 1
    lines = said.out.splitlines()
    assert [line.split()[0] for line in lines[:3]] == ["whole"] * 3
    assert lines[3] == "WRONG    best"
    assert lines[4].startswith(f"         - {local_run}/best leads to checkpoints/epoch-001_")
    assert lines[5] == "WRONG    metrics.jsonl"
    assert lines[6].startswith(f"         - {local_run}/metrics.jsonl: 1 line cannot be read (line 1). ")
    assert lines[7].startswith(f"{local_run}: best and metrics.jsonl wrong, 3 checkpoints whole, ")
    found = keepbest("verify", local_run, "--json").json
    assert (found["schema"], found["ok"], len(found["whole"])) == ("keepbest.verify/1", False, 3)
    assert [(problem["checkpoint"], problem["part"], problem["file"]) for problem in found["problems"]] == [
        ("best", "best", None), ("metrics.jsonl", "journal", None),
    ]  # fmt: skip


def test_of_one_checkpoint_only_that_is_looked_at(keepbest, local_run):
    """Who asks for one checkpoint is told of that one, whatever else is wrong with the run."""
    spoil(local_run)
    assert keepbest("verify", local_run, "latest").code == 0


def test_damage_and_what_lies_beside_are_told_apart(keepbest, run, place):
    """The last line counts damaged checkpoints, and names what else is wrong."""
    place.write(only(place, "checkpoints/epoch-002*/state.json"), b"junk")
    place.write("metrics.jsonl", b"junk\n")
    said = keepbest("verify", run)
    assert said.code == 1
    assert f"{run}: 1 checkpoint damaged, metrics.jsonl wrong, 2 checkpoints whole, " in said.out


def test_a_journal_without_checkpoints_is_looked_at(keepbest, tmp_path):
    """Of a run that holds no checkpoint the journal still can be wrong."""
    url = str(tmp_path / "run")
    with Checkpointer(url, {"every_n_epochs": 2}, state={"x": 1}) as ckpt:
        ckpt.log(loss=1.0)
        with (tmp_path / "run" / "metrics.jsonl").open("a") as file:
            file.write("junk\n")
        said = keepbest("verify", url)
    assert said.code == 1
    assert "WRONG    metrics.jsonl" in said.out
    assert said.out.splitlines()[-1] == f"{url}: it holds no checkpoint, so there is nothing to verify but its journal."


def test_a_run_without_checkpoints_has_nothing_to_verify(keepbest, tmp_path):
    """Where no checkpoint is, that is said and is no damage; and if the journal tells of some, that they are gone."""
    url = str(tmp_path / "run")
    with Checkpointer(url, {"every_n_epochs": 2}, state={"x": 1}) as ckpt:
        ckpt.log(loss=1.0)
        said = keepbest("verify", url)
        assert (said.code, said.out) == (0, f"{url}: it holds no checkpoint, so there is nothing to verify.\n")
        ckpt.log(loss=0.5)
    for manifest in (tmp_path / "run" / "commits").iterdir():
        manifest.unlink()
    said = keepbest("verify", url)
    assert said.code == 0
    assert said.out == (
        f"{url}: it holds no checkpoint, so there is nothing to verify. Its journal tells of 1 save that ended well: "
        "what was kept has been deleted since, and not by its policy.\n"
    )
    assert keepbest("verify", url, "--json").json["whole"] == []
