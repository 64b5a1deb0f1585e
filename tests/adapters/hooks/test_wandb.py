"""The hook that logs to Weights & Biases, offline: what is read back is what `wandb sync` would upload."""

from __future__ import annotations

import json
import struct
import warnings

import pytest

from keepbest.adapters.hooks import WandB
from keepbest.errors import ConfigError
from keepbest.storage.history import Row

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import wandb
    from wandb.proto.wandb_internal_pb2 import Record

BLOCK, HEAD, MAGIC = 32768, 7, 7
"""A .wandb file is a LevelDB log, begun by seven bytes: blocks of 32 KiB, each piece of a record with a head."""


@pytest.fixture
def offline(tmp_path, monkeypatch):
    """No network, and the files in `tmp_path`; the service that wandb starts ends with the test."""
    for name, value in {
        "WANDB_MODE": "offline",
        "WANDB_SILENT": "true",
        "WANDB_BASE_URL": "http://127.0.0.1:9",
        "WANDB_X_DISABLE_STATS": "true",
    }.items():
        monkeypatch.setenv(name, value)
    yield str(tmp_path)
    wandb.teardown()


def records(folder):
    """Every record of the only run in `folder`, once the service has written it and ended."""
    wandb.teardown()
    (path,) = folder.glob("wandb/offline-run-*/*.wandb")
    data, at, whole = path.read_bytes(), MAGIC, b""
    while at + HEAD <= len(data):
        if BLOCK - at % BLOCK < HEAD:
            at += BLOCK - at % BLOCK
            continue
        _, length, kind = struct.unpack_from("<IHB", data, at)
        whole += data[at + HEAD : at + HEAD + length]
        at += HEAD + length
        if kind in {1, 4}:  # whole, or the last piece
            yield Record.FromString(whole)
            whole = b""


def items(found):
    return {entry.key or "/".join(entry.nested_key): json.loads(entry.value_json) for entry in found}


def history(folder):
    return [items(record.history.item) for record in records(folder) if record.HasField("history")]


def summary(folder):
    found = {}
    for record in records(folder):
        if record.HasField("summary"):
            found |= items(record.summary.update)
    return found


def test_rows_are_the_history(train, tmp_path, offline):
    """Each row is logged once, in order, with its step and epoch beside it; those of steps have names of their own."""
    train(WandB(project="p", dir=offline))
    found = [{name: value for name, value in line.items() if name[0] != "_"} for line in history(tmp_path)]
    expected = []
    for epoch, loss in enumerate([0.9, 0.5, 0.7]):
        expected += [
            {"step/loss": 10.0 * epoch + step, "step": 3 * epoch + step + 1, "epoch": epoch} for step in range(3)
        ]
        expected.append({"val_loss": loss, "loss": float(epoch), "step": 3 * epoch + 3, "epoch": epoch})
    assert found == expected


def test_the_step_is_the_axis(train, tmp_path, offline):
    """W&B draws every metric over the training step, not over the number of the call."""
    train(WandB(project="p", dir=offline), **{"top.1": 0.5})
    defined = {
        record.metric.name: record.metric.step_metric for record in records(tmp_path) if record.HasField("metric")
    }
    assert {name: defined[name] for name in ["loss", "step/loss", "val_loss", "top\\.1"]} == {
        "loss": "step", "step/loss": "step", "val_loss": "step", "top\\.1": "step",
    }  # fmt: skip


def test_the_summary_has_the_best(train, tmp_path, offline):
    """The best so far and its checkpoint are in the summary, the policy in the config; the run is marked as ended."""
    ckpt = train(WandB(project="p", dir=offline))
    found = summary(tmp_path)
    assert found["best/val_loss"] == 0.5
    assert found["best/checkpoint"] == ckpt.run.best.name
    configs = [items(record.config.update) for record in records(tmp_path) if record.HasField("config")]
    assert any(config.get("keepbest", {}).get("keep_all") is True for config in configs)
    assert [record.exit.exit_code for record in records(tmp_path) if record.HasField("exit")] == [0]


def test_a_training_that_broke_off_is_marked_so(train, tmp_path, offline):
    """W&B shows a training that an exception ended as failed."""
    train(WandB(project="p", dir=offline), cut=True)
    assert [record.exit.exit_code for record in records(tmp_path) if record.HasField("exit")] == [1]


def test_a_run_that_was_handed_over_stays_open(train, tmp_path, offline):
    """Whoever made the run goes on logging to it after training."""
    run = wandb.init(project="p", dir=offline)
    train(WandB(run))
    run.log({"after": 1.0})
    run.finish()
    assert history(tmp_path)[-1]["after"] == 1.0
    assert len(history(tmp_path)) == 13


def test_what_w_and_b_raises_reaches_training_as_a_warning(train, tmp_path, offline):
    """A run that was finished meanwhile costs one warning, and training goes on to its end."""
    run = wandb.init(project="p", dir=offline)
    hook = WandB(run)
    run.finish()
    with pytest.warns(UserWarning, match="hook WandB"):
        ckpt = train(hook)
    assert len(ckpt.run.checkpoints()) == 3


def test_a_metric_called_like_the_axis_is_told_apart(tmp_path, offline):
    """A metric of the name `epoch` does not move the row to another place."""
    hook = WandB(project="p", dir=offline)
    hook(Row(kind="epoch", epoch=4, step=7, time=1.7e9, metrics={"epoch": 99.0}))
    hook.close()
    (line,) = history(tmp_path)
    assert (line["epoch"], line["step"], line["metric_epoch"]) == (4, 7, 99.0)


def test_arguments_that_exclude_each_other_are_refused(tmp_path, offline):
    """A run and arguments for another, and what `wandb.init` does not take, are errors that say so."""
    run = wandb.init(project="p", dir=offline)
    with pytest.raises(ConfigError, match="not both"):
        WandB(run, project="q")
    run.finish()
    with pytest.raises(ConfigError, match="projekt"):
        WandB(projekt="q")
