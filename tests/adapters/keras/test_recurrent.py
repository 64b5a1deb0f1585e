"""Stateful RNNs: what their layers carry from batch to batch is saved and resumed, beside the weights."""

import os

import numpy as np
import pytest

from keepbest import Checkpointer, CheckpointPolicy, open_run
from keepbest.adapters.keras import BestCheckpoint, load_weights
from keepbest.errors import ConfigError, StateError

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


def test_their_name_is_taken(recurrent, url):
    """Nothing else can be saved under the name that the states have."""
    with pytest.raises(ConfigError, match="model's own"):
        BestCheckpoint(url, POLICY, objects={"rnn_states": {}})
    with pytest.raises(ConfigError, match="'rnn_states' is the name .* the object 'model' carries"):
        Checkpointer(url, POLICY, model=recurrent(), rnn_states={})


# ── a loop of one's own ───────────────────────────────────────────────────────────────────────────────────────────


def loop(url, model, data, epochs):
    """Train by batches, and call the model as well.

    On JAX only that leaves states behind, and what Keras has compiled goes by those that it found when it was compiled.
    """
    model.run_eagerly = model.run_eagerly or os.environ["KERAS_BACKEND"] == "jax"
    model.optimizer.build(model.trainable_variables)
    with Checkpointer(url, CheckpointPolicy(), model=model, optimizer=model.optimizer) as ckpt:
        for epoch in ckpt.epochs(epochs):
            batch = slice(16 * epoch, 16 * epoch + 16)
            model.train_on_batch(data["x"][batch], data["y"][batch])
            model(data["x"][batch])


def test_a_loop_of_ones_own_goes_on(recurrent, data, url, values, keras):
    """A Checkpointer in a loop of one's own saves the states where BestCheckpoint does, and resumes bit for bit."""
    loop(f"{url}-once", recurrent(), data, 2)
    loop(url, recurrent(), data, 1)
    model = recurrent()
    loop(url, model, data, 2)
    once, twice = last(f"{url}-once"), last(url)
    assert len(once) == len(twice)
    assert all(np.array_equal(one, other) for one, other in zip(once, twice, strict=True))
    saved = open_run(url).latest.load("rnn_states")
    carried = values(keras.tree.flatten([model.layers[1].states, model.layers[2].states]))
    assert all(state.any() for state in saved)
    assert len(saved) == len(carried)
    assert all(any(np.array_equal(one, other) for one in saved) for other in carried)


def test_fit_goes_on_from_a_loop(recurrent, data, fit, url):
    """What a loop of one's own has saved, `fit` with BestCheckpoint goes on from, as both save the same."""
    loop(url, recurrent(), data, 1)
    before = last(url)
    fit(recurrent(), [BestCheckpoint(url, CheckpointPolicy(), restore_best=False)], epochs=1)
    assert len(before) == len(last(url))
    fit(recurrent(), [BestCheckpoint(url, CheckpointPolicy(), restore_best=False)], epochs=2)
    assert open_run(url).latest.epoch == 1


def test_weights_alone_are_restored_into_another_batch_size(recurrent, data, url, values):
    """`restore(only="model")` is for a model of another batch size; its states stay as they are."""
    loop(url, recurrent(), data, 1)
    single = recurrent(1)
    with Checkpointer(url, CheckpointPolicy(), model=single) as ckpt:
        ckpt.restore("latest", only="model")
    saved = open_run(url).latest.load("model").values()
    assert all(np.array_equal(one, other) for one, other in zip(saved, values(single.variables), strict=True))


def test_each_model_has_its_own(recurrent, data, url):
    """Of several models each has an object of its own beside it, which says whose states they are."""
    objects = {"model": recurrent(), "critic": recurrent()}
    objects["critic"](data["x"][:16])
    with Checkpointer(url, CheckpointPolicy(), **objects) as ckpt:
        ckpt.log(loss=1.0)
    latest = open_run(url).latest
    assert set(latest.objects()) >= {"model", "critic", "rnn_states", "critic_rnn_states"}
    assert all(state.any() for state in latest.load("critic_rnn_states"))
    assert not any(state.any() for state in latest.load("rnn_states"))


def test_a_model_without_them_has_no_such_object(make, data, url):
    """Where no layer carries anything, nothing more is saved."""
    loop(url, make(), data, 1)
    assert not [name for name in open_run(url).latest.objects() if "rnn" in name]


def test_an_unbuilt_one_is_refused(keras, url):
    """Before a stateful layer is built it has no states yet, and who would save it is told so at once."""
    layer = keras.layers.LSTM(2, stateful=True)
    with pytest.raises(StateError, match="is not built"):
        Checkpointer(url, CheckpointPolicy(), model=keras.Sequential([layer]))
