"""Datasets whose length nobody knows: how many steps an epoch had is right all the same."""

import pytest

from keepbest import CheckpointPolicy, open_run
from keepbest.adapters.keras import BestCheckpoint

POLICY = CheckpointPolicy(monitor="loss", keep_all=True)


@pytest.fixture
def dataset(data, backend):
    """Four batches, which TensorFlow does not count beforehand."""
    if backend == "torch":
        pytest.skip("Keras on PyTorch makes one step at a time")
    import tensorflow as tf

    batches = tf.data.Dataset.from_tensor_slices((data["x"], data["y"])).batch(12)
    return batches.filter(lambda x, y: tf.size(x) > 0)


@pytest.mark.filterwarnings("ignore:Your input ran out of data")
@pytest.mark.parametrize("steps_per_execution", [1, 2, 3, 8])
def test_steps_are_counted(make, dataset, url, steps_per_execution):
    """The end of each epoch has the steps that were made, also where they are no multiple of those made at a time."""
    model = make(steps_per_execution=steps_per_execution)
    model.fit(dataset, epochs=2, shuffle=False, verbose=0, callbacks=[BestCheckpoint(url, POLICY)])
    assert [found.step for found in open_run(url).checkpoints()] == [4, 8]


@pytest.mark.filterwarnings("ignore:Your input ran out of data")
@pytest.mark.parametrize("steps_per_execution", [2, 3, 8])
def test_steps_within_an_epoch(make, dataset, url, steps_per_execution):
    """So has what is saved within an epoch: where the data ran out in the middle of several, not as many as planned."""
    policy = CheckpointPolicy(every_n_steps=1, keep_all=True)
    model = make(steps_per_execution=steps_per_execution)
    model.fit(dataset, epochs=2, shuffle=False, verbose=0, callbacks=[BestCheckpoint(url, policy)])
    saved = open_run(url).checkpoints()
    made = [int(value) for one in saved for path, value in one.load("optimizer").items() if path.endswith("/iteration")]
    assert [one.step for one in saved] == made
    assert made[-1] == 8
