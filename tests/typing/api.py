"""Never run: mypy checks here that the public face has the types that users see."""

from typing import assert_type

import keepbest
from keepbest import Checkpoint, Checkpointer, CheckpointPolicy, Decision, History, MetricMonitor, Run, SaveHandle

policy = CheckpointPolicy(monitor="val_loss", mode="min", keep_best=3, keep_last=1, patience=5)
with Checkpointer("runs/7", policy, model=object(), optimizer=object()) as ckpt:
    assert_type(ckpt, Checkpointer)
    for epoch in ckpt.epochs(20):
        assert_type(epoch, int)
        ckpt.log_step(loss=0.1)
        assert_type(ckpt.log(val_loss=0.1), Decision)
    assert_type(ckpt.restore("best"), Checkpoint)
    assert_type(ckpt.save(), SaveHandle)
    assert_type(ckpt.history, History)

    assert_type(ckpt.restore("best", trusted="signing.pub.pem"), Checkpoint)

run = keepbest.open_run("runs/7", storage_options={"anon": True})
assert_type(keepbest.open_run("runs/7", trusted=keepbest.Trusted(b"-----BEGIN", run="7")), Run)
assert_type(run, Run)
assert_type(run.best.metrics, dict[str, float])
assert_type(run.latest.step, int)
assert_type(run.history()["val_loss"], list[float])
assert_type(run.verify().ok, bool)

with keepbest.on_progress(lambda progress: progress.done):
    assert_type(run.verify().nbytes, int)
keepbest.on_progress(print).close()

monitor = MetricMonitor("val_acc", patience=3)
assert_type(monitor.update({"val_acc": 0.5}).improved, bool)
