"""Stateful RNNs: what their layers carry from batch to batch is saved and resumed, beside the weights."""

import numpy as np
import pytest

from keepbest import CheckpointPolicy, open_run
from keepbest.adapters.keras import BestCheckpoint, load_weights
from keepbest.errors import ConfigError

POLICY = CheckpointPolicy(monitor="val_loss")


@pytest.fixture
def recurrent(keras, backend):
    """Build a model of stateful layers, one of which holds two, one of which has cells in cells."""

    def recurrent(batch_size=16):
        keras.utils.set_random_seed(7)
        layers = keras.layers
        model = keras.Sequential(
            [
                keras.Input(batch_shape=(batch_size, 4)),
                layers.Reshape((4, 1)),
                layers.Bidirectional(layers.SimpleRNN(2, stateful=True, return_sequences=True)),
                layers.RNN([layers.SimpleRNNCell(2), layers.LSTMCell(3)], stateful=True),
                layers.Dense(1),
            ]
        )
        settings = {"jit_compile": False} if backend == "tensorflow" else {}
        model.compile(keras.optimizers.Adam(0.05), "mse", **settings)
        return model

    return recurrent


def last(url):
    latest = open_run(url).latest
    return [*latest.load("model").values(), *latest.load("rnn_states")]


def test_states_go_on(recurrent, fit, url):
    """Two fits, the second of a new model, end with the very bits of one: the states of the layers go on, too."""
    fit(recurrent(), [BestCheckpoint(f"{url}-once", POLICY)])
    fit(recurrent(), [BestCheckpoint(url, POLICY)], epochs=1)
    fit(recurrent(), [BestCheckpoint(url, POLICY)])
    once, twice = last(f"{url}-once"), last(url)
    assert len(once) == len(twice)
    assert all(np.array_equal(one, other) for one, other in zip(once, twice, strict=True))


def test_states_are_saved_as_they_are(recurrent, fit, url, values, keras, backend):  # noqa: PLR0913, PLR0917 - fixtures
    """What is saved is what the layers carry after the last batch of the epoch."""
    model = recurrent()
    fit(model, [BestCheckpoint(url, POLICY, restore_best=False)])
    carried = values(keras.tree.flatten([model.layers[1].states, model.layers[2].states]))
    saved = open_run(url).latest.load("rnn_states")
    assert len(saved) == len(carried) == 5
    assert all(any(np.array_equal(one, other) for one in saved) for other in carried)
    assert backend == "jax" or all(state.any() for state in carried)  # on JAX, Keras itself loses them


def test_states_are_no_weights(recurrent, fit, url):
    """The weights load into a model of another batch size, as one trains by batches and predicts one by one."""
    fit(recurrent(), [BestCheckpoint(url, POLICY)])
    load_weights(recurrent(1), f"{url}/best/model.safetensors")


def test_their_name_is_taken(url):
    """Nothing else can be saved under the name that the states have."""
    with pytest.raises(ConfigError, match="model's own"):
        BestCheckpoint(url, POLICY, objects={"rnn_states": {}})
