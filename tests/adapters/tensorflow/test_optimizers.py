"""Optimizers of Keras on variables of one's own, under GradientTape: their slots come back bit for bit."""

import warnings

import numpy as np
import pytest

from keepbest import Checkpointer, CheckpointPolicy
from keepbest.errors import StateMismatchError, UnsupportedStateError


def save(url, **objects):
    with Checkpointer(url, CheckpointPolicy(), **objects) as ckpt:
        ckpt.log(loss=1.0)


def restored(url, **objects):
    ckpt = Checkpointer(url, CheckpointPolicy(), **objects)
    ckpt.restore("latest")
    ckpt.close()


@pytest.fixture
def make(tf):
    """Return variables, two of them of one name and one shape, and a function that trains them."""

    def make():
        variables = [tf.Variable(tf.ones((3, 2))), tf.Variable(tf.ones((3, 2)) * 2), tf.Variable(tf.ones(4), name="b")]

        def step(optimizer, number):
            with tf.GradientTape() as tape:
                loss = tf.add_n([tf.reduce_sum(v * v) * (i + number) for i, v in enumerate(variables)])
            optimizer.apply_gradients(zip(tape.gradient(loss, variables), variables, strict=True))

        return variables, step

    return make


RULES = {
    "Adam": {},
    "SGD": {"momentum": 0.9, "nesterov": True},
    "AdamW": {"clipnorm": 1.0},
    "RMSprop": {"centered": True},
    "Nadam": {},
    "Ftrl": {},
    "Lion": {"use_ema": True},
    "Adagrad": {},
}


@pytest.mark.parametrize("rule", RULES)
def test_training_goes_on_bit_for_bit(tf, make, url, rule):
    """Ten steps, or four and six with a restore between in fresh objects: the variables are the same."""
    new = lambda: getattr(tf.optimizers, rule)(0.05, **RULES[rule])  # noqa: E731 - one for each process
    variables, step = make()
    optimizer = new()
    for number in range(4):
        step(optimizer, number)
    save(url, variables=variables, optimizer=optimizer)
    again, step_again = make()
    fresh = new()
    fresh.build(again)
    restored(url, variables=again, optimizer=fresh)
    for number in range(4, 10):
        step(optimizer, number)
        step_again(fresh, number)
    everything = zip([*variables, *optimizer.variables], [*again, *fresh.variables], strict=True)
    assert all(one.numpy().tobytes() == other.numpy().tobytes() for one, other in everything)
    assert len(optimizer.variables) > 4


def test_a_schedule_goes_on(keras, make, url):
    """A learning rate that follows the optimizer's own count goes on where it was."""
    new = lambda: keras.optimizers.Adam(keras.optimizers.schedules.ExponentialDecay(0.1, 2, 0.5))  # noqa: E731 - two
    variables, step = make()
    optimizer, fresh = new(), new()
    for number in range(4):
        step(optimizer, number)
    save(url, optimizer=optimizer)
    fresh.build(variables)
    restored(url, optimizer=fresh)
    assert float(fresh.learning_rate) == float(optimizer.learning_rate) == pytest.approx(0.1 * 0.5**2)


def test_an_optimizer_that_has_no_slots_yet(keras, make, url):
    """Resuming with an optimizer that was not built is refused with the call that builds it; nothing was changed."""
    variables, step = make()
    optimizer = keras.optimizers.Adam(0.1)
    step(optimizer, 0)
    save(url, variables=variables, optimizer=optimizer)
    again, _ = make()
    with pytest.raises(StateMismatchError, match=r"optimizer: .*not built.*optimizer\.build\(") as caught:
        restored(url, variables=again, optimizer=keras.optimizers.Adam(0.1))
    assert len(caught.value.problems) == 1
    assert np.array_equal(again[0], np.ones((3, 2)))


def test_an_optimizer_for_other_variables(keras, tf, make, url):
    """Slots of other shapes or names are differences, each listed."""
    _, step = make()
    optimizer, other = keras.optimizers.Adam(0.1), keras.optimizers.Adam(0.1)
    step(optimizer, 0)
    save(url, optimizer=optimizer)
    other.build([tf.Variable(tf.ones(5)), tf.Variable(tf.ones((3, 2))), tf.Variable(tf.ones(4), name="b")])
    with pytest.raises(StateMismatchError, match=r"has shape \(3, 2\) in the checkpoint, \(5,\) here") as caught:
        restored(url, optimizer=other)
    assert len(caught.value.problems) == 2


def test_an_optimizer_of_tensorflow_1_is_refused(tf, url):
    """Those of tf.compat.v1, whose slots belong to no object, are named and not saved half."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        optimizer = tf.compat.v1.train.AdamOptimizer(0.1)
    with pytest.raises(UnsupportedStateError, match="cannot save optimizer: .*AdamOptimizer"):
        Checkpointer(url, CheckpointPolicy(), optimizer=optimizer)
