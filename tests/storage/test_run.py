"""A run as its readers hold it: which checkpoint is best, latest, or meant by a name, and what is said when none is."""

from __future__ import annotations

import math
import warnings
from pathlib import Path

import numpy as np
import pytest
from contracts.runs import SmallRun, record, same, weights

from keepbest.errors import (
    AmbiguousNameError,
    CheckpointNotFoundError,
    DamagedFileError,
    DamagedManifestError,
    NotARunError,
    StoragePermissionError,
    UnsupportedFormatError,
)
from keepbest.storage.backend import open_backend
from keepbest.storage.history import Row
from keepbest.storage.journal import Journal
from keepbest.storage.layout import commit_key, data_key
from keepbest.storage.local import LocalBackend
from keepbest.storage.manifest import CheckpointInfo, Score, seal
from keepbest.storage.ranking import best_of, newest_complete
from keepbest.storage.run import Run, open_run


@pytest.fixture
def run(backend):
    return Run(backend)


@pytest.fixture
def small(backend):
    return SmallRun(backend)


# ── opening ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_place_where_nothing_is_holds_no_run(run_url):
    """An URL with a typing error is not taken for an empty run, and looking at it creates nothing."""
    with pytest.raises(NotARunError, match="holds no run"):
        open_run(run_url)
    assert not Path(run_url).exists()


@pytest.mark.parametrize(
    "key",
    [
        "checkpoints/epoch=3-step=100.ckpt",
        "checkpoints/step-100/pytorch_model.bin",
        "commits/readme.txt",
        "metrics.jsonl",
        "best.json",
        "weights.safetensors",
    ],
)
def test_the_folder_of_another_program_is_no_run(run_url, key):
    """A folder that merely has names like ours in it is not taken for a run."""
    open_backend(run_url).put(key, [b'{"loss": 1}\n'])
    with pytest.raises(NotARunError):
        open_run(run_url)


def test_where_no_run_is_those_near_are_named(run_url):
    """The folder of runs, a folder within a run, and one that has a run in a hidden folder: each says where to look."""
    for name in ("b", "a", ".keepbest/model"):
        SmallRun(open_backend(f"{run_url}/{name}")).save()
    saved = Run(open_backend(f"{run_url}/a")).latest
    for url, meant in {
        run_url: [f"{run_url}/.keepbest/model", f"{run_url}/a", f"{run_url}/b"],
        f"{run_url}/.keepbest": [f"{run_url}/.keepbest/model"],
        f"{run_url}/a/commits": [f"{run_url}/a"],
        f"{run_url}/a/best": [f"{run_url}/a"],
        f"{run_url}/a/checkpoints": [f"{run_url}/a"],
        f"{run_url}/a/checkpoints/{saved.name}": [f"{run_url}/a"],
        f"{run_url}/c": [],
        f"{run_url}/commits": [],
    }.items():
        with pytest.raises(NotARunError) as caught:
            open_run(url)
        assert list(caught.value.near) == meant
        assert str(caught.value).endswith(f"Did you mean {' or '.join(meant)}?" if meant else "writes to.")


@pytest.mark.parametrize("folder", ["checkpoints", "commits"])
def test_a_folder_of_runs_may_be_called_as_ours_are(run_url, folder):
    """Others keep runs in a folder "checkpoints": those are named, and the folder around is not taken for a run."""
    SmallRun(open_backend(f"{run_url}/{folder}/run-1")).save()
    with pytest.raises(NotARunError) as caught:
        open_run(f"{run_url}/{folder}")
    assert caught.value.near == (f"{run_url}/{folder}/run-1",)
    with pytest.raises(NotARunError) as caught:
        open_run("memory://checkpoints")
    assert caught.value.near == ()


def test_a_misspelt_folder_is_answered_with_the_run_beside_it(tmp_path):
    """Runs whose names are nearly that, and no other folders."""
    SmallRun(open_backend(str(tmp_path / "torch_run"))).save()
    for name in ("torch_rum_notes", "other"):
        (tmp_path / name).mkdir()
    for wrong in ("torch_rum", "torch-run"):
        with pytest.raises(NotARunError) as caught:
            open_run(tmp_path / wrong)
        assert caught.value.near == (str(tmp_path / "torch_run"),)
    for wrong in ("else", "nowhere/torch_run"):
        with pytest.raises(NotARunError) as caught:
            open_run(tmp_path / wrong)
        assert caught.value.near == ()


def test_a_place_that_cannot_be_looked_through_still_holds_no_run(run_url, monkeypatch):
    """That a folder beside cannot be listed is not what is wrong."""
    plain = LocalBackend.list

    def refuse(backend, prefix, *, limit=None):
        if not prefix:
            raise StoragePermissionError(f"{backend.url}/private", "cannot list: permission denied")
        return plain(backend, prefix, limit=limit)

    monkeypatch.setattr(LocalBackend, "list", refuse)
    with pytest.raises(NotARunError, match=r"holds no run\. Give .* writes to\.$"):
        open_run(run_url)


def test_the_number_of_one_that_is_gone_says_so(small):
    """A number that was given before is no misspelt one either; one that never was is."""
    for _ in range(2):
        small.save()
    small.writer.retire([1])
    for which, gone in (("1", True), (1, True), ("0", False), ("3", False), ("9" * 5000, False)):
        with pytest.raises(CheckpointNotFoundError) as caught:
            Run(small.backend).get(which)
        assert caught.value.gone is gone


def test_a_name_that_is_gone_is_not_taken_for_a_misspelt_one(small):
    """The name of a checkpoint that was deleted is answered with where to look, and not with another's name."""
    small.save()
    with pytest.raises(
        CheckpointNotFoundError, match=r"It may have been retired: the policy's keep_… settings"
    ) as gone:
        Run(small.backend).get("epoch-007_step-000700_abcdef")
    assert "Did you mean" not in str(gone.value)
    with pytest.raises(CheckpointNotFoundError, match="Did you mean 'latest'"):
        Run(small.backend).get("lates")


@pytest.mark.parametrize("kind", ["epoch", "step"])
def test_a_run_that_only_logged_is_a_run(run_url, kind):
    """A training that has logged and not saved yet can be looked at; it says that it holds no checkpoint."""
    journal = Journal(open_backend(run_url))
    journal.append(Row(kind=kind, epoch=0, step=1, time=0.0, metrics={"loss": 1.0}))
    journal.close()
    run = open_run(run_url)
    assert run.checkpoints() == []
    assert len(run.history().rows) == 1
    assert run.verify().ok
    for which in ("best", "latest", 1, "epoch-001"):
        with pytest.raises(CheckpointNotFoundError, match=r"It holds none\.$"):
            run.get(which)


def test_every_look_sees_what_is_there_now(run, small):
    """A run that stays open shows what another process saved and retired since."""
    first = small.save(0.5)
    assert run.best.sequence == run.latest.sequence == 1
    small.save(0.4)
    assert run.best.sequence == run.latest.sequence == 2
    small.writer.retire([2])
    assert [found.name for found in run.checkpoints()] == [first.name]


# ── best ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def info(sequence, value, *, mode="min", complete=True, scores=None):
    """Return a light record that is ranked by `value`."""
    if scores is None:
        scores = (Score(monitor="val_loss", mode=mode, value=value),)
    return CheckpointInfo(
        sequence=sequence,
        name=f"c{sequence}",
        step=sequence,
        epoch=None,
        parent=None,
        time=0.0,
        reasons=(),
        complete=complete,
        scores=scores,
    )


@pytest.mark.parametrize(
    ("values", "mode", "best"),
    [
        pytest.param([0.3, 0.1, 0.2], "min", 2, id="min"),
        pytest.param([0.3, 0.1, 0.4], "max", 3, id="max"),
        pytest.param([0.2, 0.1, 0.1], "min", 2, id="tie-goes-to-the-earliest"),
        pytest.param([0.0, -0.0], "max", 1, id="zeros-are-equal"),
        pytest.param([math.nan, 0.5, math.nan], "min", 2, id="nan"),
        pytest.param([-math.inf, 0.5], "min", 2, id="minus-infinity"),
        pytest.param([math.inf, 0.5], "max", 2, id="infinity"),
        pytest.param([None, 0.5, None], "min", 2, id="unranked"),
        pytest.param([None, math.nan], "min", None, id="none-is-ranked"),
        pytest.param([], "min", None, id="none-at-all"),
        pytest.param([-1e308, 1e308], "max", 2, id="large"),
    ],
)
def test_the_best_by_one_monitor(values, mode, best):
    """The best is the lowest or highest value that is a number; of equals the earliest."""
    held = [info(number, value, mode=mode) for number, value in enumerate(values, 1)]
    for monitor in (None, "val_loss"):
        found = best_of(held, monitor)
        assert (found and found.sequence) == best


def test_the_best_by_several_monitors():
    """Without a name, the newest checkpoint's first monitor counts; with a name, that one, in its own direction."""
    loss = [Score(monitor="loss", mode="min", value=value) for value in (0.1, 0.2, 0.3)]
    f1 = [Score(monitor="f1", mode="max", value=value) for value in (0.5, 0.9, 0.7)]
    held = [
        info(1, None, scores=(loss[0],)),
        info(2, None, scores=(loss[1], f1[1])),
        info(3, None, scores=(f1[2], loss[2])),
    ]
    assert best_of(held, None).sequence == 2
    assert best_of(held, "loss").sequence == 1
    assert best_of(held, "f1").sequence == 2
    assert best_of(held, "accuracy") is None


def test_the_best_of_a_run(run, small):
    """The best checkpoint of a run gives the weights that had the best value."""
    for loss in (0.5, 0.2, 0.2, 0.4):
        small.save(loss)
    assert run.best.sequence == run.best_by("val_loss").sequence == 2
    assert same(run.best.load("model"), weights(2))


def test_a_monitor_that_there_is_none_of_is_told_from_those_there_are(run, small):
    """A misspelt monitor is an error that lists the monitors, and says which was meant; so is one of no value."""
    small.save(0.5)
    with pytest.raises(CheckpointNotFoundError, match=r"no monitor 'val_los' .* by val_loss\. Did you mean 'val_loss'"):
        run.best_by("val_los")
    with pytest.raises(CheckpointNotFoundError, match=r"no monitor 'f1' .* are ranked by val_loss\.$"):
        run.best_by("f1")


def test_where_none_is_ranked_there_is_no_best(run, small):
    """When no value could be judged, asking for the best is an error that lists what there is."""
    facts = small.save(math.nan, ranked=False)
    with pytest.raises(CheckpointNotFoundError, match=facts.name):
        _ = run.best
    assert run.latest.name == facts.name


# ── latest ───────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("complete", "latest"),
    [
        pytest.param([True, True], 2, id="the-newest"),
        pytest.param([True, False], 1, id="the-newest-that-training-can-continue-from"),
        pytest.param([False, False], 2, id="or-the-newest-at-all"),
        pytest.param([], None, id="none"),
    ],
)
def test_the_latest(complete, latest):
    """The latest is the newest that training can continue from, if there is one."""
    found = newest_complete([info(number, None, complete=flag) for number, flag in enumerate(complete, 1)])
    assert (found and found.sequence) == latest


# ── by name ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_checkpoint_by_what_people_type(run, small):
    """Best, latest, a number, a name or the beginning of one find the checkpoint that is meant."""
    first, second = small.save(0.1, epoch=0), small.save(0.2, epoch=1)
    assert run.get("best").name == run.get(1).name == run.get("1").name == first.name
    assert run.get("latest").name == run.get(second.name).name == run.get("epoch-002").name == second.name


def test_what_a_checkpoint_does_not_hold_is_named_for_what_it_is(run, small):
    """A misspelt object, tensor or file is told as that, with those there are, and is not called a checkpoint."""
    small.save()
    checkpoint = run.latest
    with pytest.raises(CheckpointNotFoundError, match=r"^no object 'modle' in .* It holds model\. .* 'model'\?$"):
        checkpoint.load("modle")
    with pytest.raises(CheckpointNotFoundError, match=r"^no tensor 'layer\.wieght' in .* mean 'layer\.weight'\?$"):
        checkpoint.load("model", only="layer.wieght")
    with pytest.raises(CheckpointNotFoundError, match=r"^no file 'state\.jso' in .* mean 'state\.json'\?$"):
        checkpoint.read_file("state.jso")
    with pytest.raises(CheckpointNotFoundError, match=r"^no object 'lates' in [^?]*$"):
        checkpoint.load("lates")


def test_a_name_that_is_not_there(run, small):
    """A name that fits none, or several, is an error that says which there are."""
    names = [small.save(epoch=0).name, small.save(epoch=0).name]
    with pytest.raises(CheckpointNotFoundError, match="no checkpoint 'epoch-009'") as caught:
        run.get("epoch-009")
    assert caught.value.known == tuple(names)
    for which in (3, "3", 0, -1):
        with pytest.raises(CheckpointNotFoundError):
            run.get(which)
    with pytest.raises(AmbiguousNameError, match=names[1]):
        run.get("epoch-001")


def test_a_checkpoint_shows_its_facts(run, small):
    """Facts are at hand without reading a file, and printing a checkpoint shows which it is."""
    facts = small.save(0.25, epoch=4)
    found = run.latest
    assert (found.name, found.sequence, found.step, found.epoch) == (facts.name, 1, 10, 4)
    assert (found.metrics, found.complete, found.nbytes) == ({"val_loss": 0.25}, True, facts.nbytes)
    assert found.scores[0].mode == "min"
    assert repr(found) == f"<Checkpoint {facts.name} #1: val_loss=0.25>"
    assert run.url in repr(run)
    found.metrics["val_loss"] = 0.0
    assert found.metrics == {"val_loss": 0.25}


# ── damaged ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def damage(backend, sequence):
    backend.replace(commit_key(sequence), backend.read(commit_key(sequence))[:-20] + b"x" * 20)


def test_a_damaged_manifest_is_left_out_with_a_warning(backend, run, small):
    """One unreadable manifest hides no other checkpoint, and is told of at the line that asked."""
    for loss in (0.1, 0.2, 0.3):
        small.save(loss)
    damage(backend, 1)
    for look in (
        lambda: [found.sequence for found in run.checkpoints()] == [2, 3],
        lambda: run.best.sequence == 2,
        lambda: run.best_by("val_loss").sequence == 2,
        lambda: run.get("best").sequence == 2,
        lambda: run.get(3).sequence == 3,
    ):
        with pytest.warns(UserWarning, match=r"1 manifest\(s\) of .* cannot be read.*00000001\.json") as caught:
            assert look()
        assert [warning.filename for warning in caught] == [__file__]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert run.latest.sequence == 3


def test_a_damaged_newest_manifest_is_an_error(backend, run, small):
    """Training does not silently go back to an older state because the newest cannot be read."""
    for loss in (0.1, 0.2):
        small.save(loss)
    damage(backend, 2)
    with pytest.raises(DamagedManifestError, match=r"00000002\.json"):
        _ = run.latest
    with pytest.warns(UserWarning, match="left out"):
        assert same(run.get(1).load("model"), weights(1))


def test_a_newer_format_is_an_error_that_says_so(backend, run, small):
    """When a newer keepbest wrote the newest checkpoint, the older one says what to install."""
    small.save()
    backend.put_if_absent(commit_key(2), seal(b'{"format":"2.0"}'))
    with pytest.raises(UnsupportedFormatError, match="Install a newer keepbest"):
        _ = run.latest


def test_a_manifest_under_another_number_is_damage(backend, run, small):
    """A manifest that was copied to another number is not a second checkpoint."""
    small.save()
    backend.copy(commit_key(1), commit_key(2))
    with pytest.raises(DamagedManifestError, match="it is the manifest of number 1"):
        _ = run.latest
    assert not run.verify().ok


def test_a_checkpoint_that_was_retired_meanwhile(run, small):
    """Who holds on to a checkpoint that training retires is told that it is gone, not that it is damaged."""
    small.save()
    second = small.save()
    held = run.latest
    small.writer.retire([2])
    with pytest.raises(CheckpointNotFoundError, match=second.name):
        held.load("model")
    assert SmallRun(run.backend).save().sequence == 2  # the number is given out again
    with pytest.raises(CheckpointNotFoundError, match=second.name):
        held.load("model")


# ── loading ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_state_is_loaded_as_it_was_saved(run, small):
    """Every object comes back by its name, its tensors as NumPy arrays, with no framework around."""
    optimizer = {"groups": [{"lr": 0.1, "betas": (0.9, 0.99)}], "state": {0: {"m": np.ones(3)}}}
    small.save(objects={"model": record("model", weights(1)), "optimizer": record("optimizer", optimizer, inline=True)})
    assert run.latest.objects() == ["model", "optimizer"]
    found = run.latest.load("optimizer")
    assert found["groups"] == optimizer["groups"]
    assert same(found["state"][0], {"m": np.ones(3)})


def test_loading_twice_gives_two_copies(run, small):
    """What is loaded belongs to who loaded it."""
    small.save()
    checkpoint = run.latest
    checkpoint.load("model")["layer.weight"][:] = 99
    assert same(checkpoint.load("model"), weights(1))


def test_an_altered_state_file_is_noticed(backend, run, small):
    """Flip any byte of the state file, cut it or take it away: loading is an error that names it."""
    facts = small.save()
    key = data_key(facts.name, "state.json")
    whole = backend.read(key)
    for place in range(len(whole)):
        flipped = bytearray(whole)
        flipped[place] ^= 1
        backend.replace(key, bytes(flipped))
        with pytest.raises(DamagedFileError, match=r"state\.json"):
            run.latest.load("model")
    backend.replace(key, whole[:-1])
    with pytest.raises(DamagedFileError, match="bytes, not"):
        run.latest.load("model")
    backend.delete([key])
    with pytest.raises(DamagedFileError, match="does not exist"):
        run.latest.load("model")


# ── publishing ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_file_is_published(run, run_url, small, tmp_path):
    """A file of a checkpoint is placed where the user says, replaced by the next one, and stays when it is retired."""
    target = str(tmp_path / "out/best.safetensors") if "://" not in run_url else f"{run_url}-out/best.safetensors"
    for _ in range(2):
        small.save()
        run.publish(run.latest, "model.safetensors", target)
    small.writer.retire([1, 2])
    published = open_backend(target.rpartition("/")[0])
    from safetensors.numpy import load

    assert same(load(published.read("best.safetensors")), weights(2))
    assert [entry.key for entry in published.list("")] == ["best.safetensors"]
