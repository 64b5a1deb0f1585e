"""The hook that writes for TensorBoard."""

from __future__ import annotations

import subprocess
import sys

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from keepbest.adapters.hooks import TensorBoard
from keepbest.errors import ConfigError
from keepbest.storage.history import Row


def read(logdir):
    """What TensorBoard itself shows of a folder."""
    found = EventAccumulator(str(logdir), size_guidance={"scalars": 0, "tensors": 0})
    found.Reload()
    return found


def points(found, tag):
    return [(event.step, round(event.value, 6)) for event in found.Scalars(tag)]


def test_rows_are_scalars(train, tmp_path):
    """Metrics of epochs and of steps stand under tags of their own, at their training steps."""
    ckpt = train(TensorBoard(tmp_path / "logs"))
    found = read(tmp_path / "logs")
    assert sorted(found.Tags()["scalars"]) == ["best/val_loss", "loss", "step/loss", "val_loss"]
    assert points(found, "val_loss") == [(3, 0.9), (6, 0.5), (9, 0.7)]
    assert points(found, "loss") == [(3, 0.0), (6, 1.0), (9, 2.0)]
    assert points(found, "step/loss") == [(e * 3 + s + 1, 10.0 * e + s) for e in range(3) for s in range(3)]
    assert found.Scalars("loss")[0].wall_time == ckpt.history.rows[3].time


def test_the_best_and_the_checkpoints_are_marked(train, tmp_path):
    """Where the best improved, and which checkpoints were saved, and why, can be seen."""
    ckpt = train(TensorBoard(tmp_path / "logs"))
    found = read(tmp_path / "logs")
    assert points(found, "best/val_loss") == [(3, 0.9), (6, 0.5)]
    texts = [event.tensor_proto.string_val[0].decode() for event in found.Tensors("checkpoints")]
    assert [text.split("`")[1] for text in texts] == [checkpoint.name for checkpoint in ckpt.run.checkpoints()]
    assert "improvement" in texts[0]
    assert "improvement" not in texts[2]
    assert found.SummaryMetadata("checkpoints").plugin_data.plugin_name == "text"


def test_a_resumed_run_drops_what_it_logs_again(train, tmp_path):
    """After a break the same folder shows each step once, and the abandoned values are gone."""
    train(TensorBoard(tmp_path / "logs"), cut=True)
    assert points(read(tmp_path / "logs"), "loss") == [(3, 0.0), (6, 1.0), (9, 2.0)]
    train(TensorBoard(tmp_path / "logs"), epochs=4, shift=0.5)
    found = read(tmp_path / "logs")
    assert points(found, "loss") == [(3, 0.0), (6, 1.0), (9, 2.5), (12, 3.5)]
    assert [step for step, _ in points(found, "step/loss")] == list(range(1, 13))


def test_a_training_that_begins_anew_is_shown_alone(train, tmp_path):
    """What another training had left in the folder is not shown, and its files stay."""
    train(TensorBoard(tmp_path / "logs"))
    (tmp_path / "run").rename(tmp_path / "elsewhere")
    train(TensorBoard(tmp_path / "logs"), epochs=1, shift=0.5)
    assert points(read(tmp_path / "logs"), "loss") == [(3, 0.5)]
    assert len(list((tmp_path / "logs").iterdir())) == 2


def test_epochs_are_the_axis_where_no_steps_are_counted(train, tmp_path):
    """A loop that logs epochs alone does not draw them all at step 0, also after it resumed."""
    train(TensorBoard(tmp_path / "logs"), steps=0, cut=True)
    train(TensorBoard(tmp_path / "logs"), steps=0, epochs=4, shift=0.5)
    assert points(read(tmp_path / "logs"), "loss") == [(0, 0.0), (1, 1.0), (2, 2.5), (3, 3.5)]


def test_an_epoch_is_shown_while_training_goes_on(tmp_path):
    """Who looks after an epoch sees it; the file need not be closed for that."""
    hook = TensorBoard(tmp_path / "logs")
    hook(Row(kind="epoch", epoch=0, step=1, time=1.7e9, metrics={"loss": 0.5}))
    assert points(read(tmp_path / "logs"), "loss") == [(1, 0.5)]
    hook.close()


def test_a_training_that_logs_nothing_leaves_nothing(tmp_path):
    """A hook that is made and closed makes no file."""
    TensorBoard(tmp_path / "logs").close()
    assert list(tmp_path.iterdir()) == []


def test_no_framework_is_imported():
    """Writing for TensorBoard imports neither TensorFlow nor PyTorch, and naming the hooks imports no library."""
    script = (
        "import sys, tempfile; from keepbest.adapters.hooks import TensorBoard, WandB, MLflow, CSV\n"
        "from keepbest.storage.history import Row\n"
        "assert not {'tensorboard', 'wandb', 'mlflow'} & set(sys.modules)\n"
        "hook = TensorBoard(tempfile.mkdtemp())\n"
        "hook(Row(kind='epoch', epoch=0, step=1, time=1.7e9, metrics={'loss': 0.5})); hook.close()\n"
        "assert not {'tensorflow', 'torch', 'keras', 'jax'} & set(sys.modules)\n"
        "print('wrote')\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (done.stdout, done.returncode) == ("wrote\n", 0), done.stderr


@pytest.mark.parametrize("name", ["s3://bucket/logs", "file"])
def test_a_folder_that_cannot_be_is_refused_at_once(name, tmp_path, monkeypatch):
    """A URL and a file are named when the hook is made."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="folder on a disk"):
        TensorBoard(name)
