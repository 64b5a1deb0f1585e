"""Variables of a MirroredStrategy: one copy is saved, and all are set."""

import subprocess
import sys

import numpy as np
import pytest

from keepbest import Checkpointer, CheckpointPolicy, open_run
from keepbest.errors import UnsupportedStateError

SCRIPT = '''
"""Two replicas on one machine: train, save, spoil, restore, go on; prints what the replicas hold."""
import sys
import keras
import numpy as np
import tensorflow as tf
from keepbest import Checkpointer, CheckpointPolicy

cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
with strategy.scope():
    model = tf.Module()
    model.w = tf.Variable(tf.ones(4))
    model.seen = tf.Variable(
        0.0, trainable=False, synchronization=tf.VariableSynchronization.ON_READ,
        aggregation=tf.VariableAggregation.SUM,
    )
    optimizer = keras.optimizers.Adam(0.1)
    optimizer.build([model.w])


@tf.function
def step():
    def replica():
        me = tf.cast(tf.distribute.get_replica_context().replica_id_in_sync_group, tf.float32)
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(model.w * (me + 1))
        model.seen.assign_add(me + 1)
        optimizer.apply_gradients([(tape.gradient(loss, model.w), model.w)])

    strategy.run(replica)


def state():
    held = [strategy.experimental_local_results(variable) for variable in (model.w, optimizer.variables[2].value)]
    found = [part.numpy().tolist() for parts in held for part in parts]
    return [len(held[0]), *found, float(model.seen.read_value())]


with Checkpointer(sys.argv[1], CheckpointPolicy(), model=model, optimizer=optimizer) as ckpt:
    for _ in range(3):
        step()
    ckpt.log(loss=1.0)
    before = state()
    step()
    assert state() != before
    ckpt.restore("latest")
    assert state() == before, (state(), before)
    step()
print("ended", before)
'''


def test_two_replicas(tmp_path):
    """With two replicas every copy has what was saved; a variable that is summed when it is read keeps its sum."""
    script = tmp_path / "two.py"
    script.write_text(SCRIPT)
    done = subprocess.run(
        [sys.executable, str(script), str(tmp_path / "run")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "ended [2, " in done.stdout
    assert float(open_run(str(tmp_path / "run")).latest.load("model")["seen"]) == 9.0


def test_one_replica(tf, url):
    """The variables of a strategy on one device are saved as any others, and load into plain ones."""
    strategy = tf.distribute.MirroredStrategy(["CPU:0"])
    mirrored, plain = tf.Module(), tf.Module()
    with strategy.scope():
        mirrored.w = tf.Variable([1.0, 2.0])
    plain.w = tf.Variable([0.0, 0.0])
    assert type(mirrored.w) is not type(plain.w)
    with Checkpointer(url, CheckpointPolicy(), model=mirrored) as ckpt:
        ckpt.log(loss=1.0)
        mirrored.w.assign([5.0, 5.0])
        ckpt.restore("latest")
    assert np.array_equal(mirrored.w.numpy(), [1, 2])
    with Checkpointer(url, CheckpointPolicy(), model=plain) as ckpt:
        ckpt.restore("latest")
    assert np.array_equal(plain.w.numpy(), [1, 2])


def test_an_iterator_over_several_replicas_is_refused(tf, url):
    """TensorFlow does not say where a distributed iterator stands: it is refused, and named."""
    strategy = tf.distribute.MirroredStrategy(["CPU:0"])
    iterator = iter(strategy.experimental_distribute_dataset(tf.data.Dataset.range(8).batch(2)))
    with pytest.raises(UnsupportedStateError, match="cannot save data: .*several replicas"):
        Checkpointer(url, CheckpointPolicy(), data=iterator)
