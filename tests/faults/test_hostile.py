"""A part of the hostile runs that `make faults` makes, and what was found with them, one test for each."""

from __future__ import annotations

import os

import numpy as np
import pytest
from faults import forgeries, hostile
from faults.stranger import honest_run

import keepbest
from keepbest.cli import main
from keepbest.core.generators import as_stateful
from keepbest.errors import CheckpointNotFoundError, ConfigError, DamagedError, KeepbestError, PolicyError, StorageError
from keepbest.storage.backend import open_backend
from keepbest.storage.run_writer import RunWriter


@pytest.mark.slow
def test_hostile_runs_do_no_harm(tmp_path):
    """A stranger's run runs no code, leads nowhere, takes no more than it may, and fails only with named errors."""
    tallies = list(hostile.scenarios(tmp_path, sample=True, seed=1))
    assert sum(tally.tried for tally in tallies) > 250
    for tally in tallies:
        assert tally.harmless, f"{tally.scenario}: {tally.findings}"


def test_convert_names_a_dtype_that_nobody_knows(tmp_path, capsys):
    """What no tensor file can hold is damage of the tensor, and nothing is written."""
    made = dict(forgeries.tensor_files(honest_run()))["dtype F6_E2M3"]
    made.write(tmp_path / "run")
    assert main(["convert", str(tmp_path / "run"), f"{tmp_path}/out/"]) == 2
    assert "F6_E2M3" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.fixture
def forged(tmp_path):
    """An honest run on a disk, its forgery, and a folder of somebody else."""
    base = honest_run()
    base.write(tmp_path / "run")
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs/precious").write_text("kept")
    return base, tmp_path / "run", tmp_path / "theirs"


def test_retiring_deletes_nothing_behind_a_link(forged):
    """A checkpoint's folder that is a link leads retention to nobody else's files."""
    base, run, theirs = forged
    data = run / "checkpoints" / base.name
    data.rename(run.parent / "moved")
    data.symlink_to(theirs)
    writer = RunWriter(open_backend(run))
    with pytest.raises(StorageError, match="symbolic link"):
        writer.retire([1])
    assert (theirs / "precious").read_text() == "kept"


@pytest.mark.parametrize("link", ["symbolic", "hard"])
def test_rows_are_appended_to_no_file_outside(forged, link):
    """A journal that is a link to somebody's file does not grow that file."""
    _, run, theirs = forged
    (run / "metrics.jsonl").unlink()
    make = run.joinpath("metrics.jsonl").symlink_to if link == "symbolic" else run.joinpath("metrics.jsonl").hardlink_to
    make(theirs / "precious")
    backend = open_backend(run)
    try:
        appender = backend.append("metrics.jsonl")
        appender.write(b"{}\n")
        appender.close()
    except StorageError as error:
        assert "symbolic link" in str(error)  # noqa: PT017 - a hard link is told from no file, and is copied first
    assert (theirs / "precious").read_text() == "kept"


def test_a_pipe_is_waited_for_by_nobody(forged):
    """A journal that is a pipe gives an error or nothing, at once, to readers and writers."""
    _, run, _ = forged
    (run / "metrics.jsonl").unlink()
    os.mkfifo(run / "metrics.jsonl")
    assert keepbest.open_run(run).history().rows == []
    with pytest.raises(StorageError):
        open_backend(run).append("metrics.jsonl")


def test_publish_places_only_files_of_the_checkpoint(forged):
    """A name that leads out of the checkpoint is no file of it."""
    _, run, theirs = forged
    opened = keepbest.open_run(run)
    with pytest.raises(CheckpointNotFoundError):
        opened.publish(opened.latest, "../../../theirs/precious", str(run.parent / "taken"))
    assert not (run.parent / "taken").exists()
    assert theirs.exists()


def test_export_copies_no_file_that_something_might_run(forged, tmp_path):
    """A tensor file that is called `conftest.py`, or hidden, is not put into the folder of who exports."""
    base, _, _ = forged
    for name in ("conftest.py", ".safetensors"):
        made = base.but(more={f"checkpoints/{base.name}/{name}": base.model})
        artifacts = made.manifest["artifacts"]
        held = artifacts | {name: artifacts["model.safetensors"]}
        made.but(manifest=made.manifest | {"artifacts": held}).write(tmp_path / name)
        with pytest.raises(KeepbestError):
            keepbest.open_run(tmp_path / name).latest.export(tmp_path / "out")
        assert not (tmp_path / "out" / name).exists()


def test_a_generator_is_not_led_out_of_its_memory():
    """NumPy believes any place in a state that it is given; keepbest does not."""
    for generator in (np.random.RandomState(1), np.random.Generator(np.random.MT19937(1))):
        stateful = as_stateful(generator)
        state = stateful.state_dict()
        state["state"]["pos"] = 10**6
        with pytest.raises(ValueError, match="no place"):
            stateful.load_state_dict(state)


def test_names_cannot_forge_lines_of_the_command(forged, capsys, tmp_path):
    """A line break in a name is written out, in errors too."""
    base, _, _ = forged
    state = base.state | {"objects": {"x\nFORGED": base.state["objects"]["model"]}}
    base.but(state=state).write(tmp_path / "lines")
    main(["export", str(tmp_path / "lines"), "latest", str(tmp_path / "out"), "--object", "y"])
    said = capsys.readouterr()
    assert "FORGED" in said.out + said.err
    assert "\nFORGED" not in said.out + said.err


@pytest.mark.parametrize(
    "text", ["keep_best: " + "9" * 5000, "monitor: " + "[" * 5000, "when: &w {kind: any_of, rules: [*w]}"]
)
def test_policy_files_fail_with_a_policy_error(tmp_path, text):
    """Numbers without end, nesting and circles in a policy's file are mistakes in it, and nothing else."""
    (tmp_path / "policy.yaml").write_text(text)
    with pytest.raises(PolicyError):
        keepbest.CheckpointPolicy.from_file(tmp_path / "policy.yaml")


def test_a_version_of_many_digits_is_damage(tmp_path):
    """Python refuses to read a number of 5,000 digits with an error of its own; the manifest is damaged."""
    base = honest_run()
    base.but(manifest=base.manifest | {"format": "9" * 5000}, index=None).write(tmp_path)
    with pytest.raises(DamagedError):
        keepbest.open_run(tmp_path).latest  # noqa: B018 - the access is the test


def test_a_template_that_cannot_be_filled_is_a_setting_that_is_wrong():
    """What `str.format` raises for a template reaches the user as an error of keepbest's."""
    from faults.targets import _filepath

    for template in ("{}.keras", "{epoch:q}.keras", "{epoch.nothing}.keras"):
        with pytest.raises(ConfigError):
            _filepath().parse(template, save_weights_only=False).at(0, None, {})


@pytest.mark.parametrize("wide", ["{epoch:0202020202d}", "{epoch:1000d}", "{val_loss:.99999f}"])
def test_a_template_that_would_fill_the_memory_is_a_setting_that_is_wrong(wide):
    """A slip in a width is told before the first epoch. The fuzzer found it: 400 MB for one name."""
    from faults.targets import _filepath

    with pytest.raises(ConfigError, match="places in a placeholder"):
        _filepath().parse(f"models/m_{wide}.keras", save_weights_only=False)
    assert _filepath().parse("m_{epoch:0255d}.keras", save_weights_only=False).at(0, None, {}).endswith("01.keras")


def test_a_hidden_run_places_only_what_the_template_can_give():
    """What a hidden run says its file is called must be a name that the template makes."""
    from faults.targets import _filepath

    found = _filepath().parse("models/m_{epoch:02d}.keras", save_weights_only=False)
    assert found.could_be("m_03.keras")
    for name in ("../../.bashrc", "/etc/passwd", "m_../../x.keras", "other.keras", "m_1/2.keras"):
        assert not found.could_be(name)
