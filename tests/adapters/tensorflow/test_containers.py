"""Lists, tuples and dicts with variables in them: restoring sets the variables, for whoever else holds on to them."""

import collections

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


Pair = collections.namedtuple("Pair", "left right")  # noqa: PYI024 - as users write it


def test_variables_in_containers_are_set(tf, url):
    """In a list, a tuple, a named tuple, a dict, and in one within another: the variables are the same, and set."""
    variables = [tf.Variable([float(number)]) for number in range(6)]
    one, two, three, four, five, six = variables
    objects = {
        "ema": [one],
        "pair": Pair(two, three),
        "heads": {"a": four, 7: {"deep": (five,)}, "note": "first", "losses": [1.0]},
        "queue": {"last": collections.deque([six], maxlen=1)},
    }
    save(url, **objects)
    for variable in variables:
        variable.assign([99.0])
    objects["heads"]["note"] = "second"
    objects["heads"]["losses"] += [2.0, 3.0]
    objects["heads"]["new"] = 5
    restored(url, **objects)
    assert [float(variable[0]) for variable in variables] == [0, 1, 2, 3, 4, 5]
    assert objects["ema"][0] is one
    assert objects["pair"] == Pair(two, three)
    assert objects["heads"] == {"a": four, 7: {"deep": (five,)}, "note": "first", "losses": [1.0]}
    assert objects["heads"]["a"] is four
    assert objects["heads"][7]["deep"][0] is five
    assert objects["queue"]["last"][0] is six


def test_what_a_module_keeps_may_be_handed_over(tf, url):
    """The lists and dicts that TensorFlow puts in place of a module's own are taken as such."""
    module = tf.Module()
    module.list, module.dict, module.tuple = [tf.Variable(1.0)], {"a": tf.Variable(2.0)}, (tf.Variable(3.0), 4)[:1]
    held = [module.list, module.dict, module.tuple]
    save(url, ema=held[0], heads=held[1], pair=held[2])
    for variable in module.variables:
        variable.assign(9.0)
    restored(url, ema=held[0], heads=held[1], pair=held[2])
    assert sorted(float(variable) for variable in module.variables) == [1.0, 2.0, 3.0]


def test_keras_variables_in_containers_are_set(keras, url):
    """Those of Keras likewise."""
    variables = [keras.Variable(np.ones(2)), keras.Variable(np.zeros(3))]
    save(url, ema=variables)
    for variable in variables:
        variable.assign(variable + 5)
    restored(url, ema=variables)
    assert [variable.numpy().tolist() for variable in variables] == [[1, 1], [0, 0, 0]]


def test_one_variable_in_two_places_is_stored_once(tf, url):
    """Tied variables take the space of one, and are one after a restore."""
    from keepbest import open_run

    tied = tf.Variable(tf.ones(100_000))
    save(url, heads={"a": tied, "b": tied})
    tied.assign(tf.zeros(100_000))
    heads = {"a": tied, "b": tied}
    restored(url, heads=heads)
    assert heads["b"] is tied
    assert float(tied[0]) == 1
    latest = open_run(url).latest
    assert latest.info.nbytes < 500_000
    assert np.array_equal(latest.load("heads")["b"], np.ones(100_000))


def test_every_difference_is_listed_and_nothing_is_changed(tf, url):
    """A missing key, a length, a shape, a dtype, another kind of container: one error, and no variable was set."""
    v = lambda *values: tf.Variable(values)  # noqa: E731 - many of them
    save(url, heads={"a": v(1.0), "b": v(1.0), "c": [v(1.0)], "d": {"e": v(1.0)}, "f": v(1.0)}, ema=[v(1.0), v(1.0)])
    first = v(9.0)
    heads = {"a": first, "b": v(1.0, 2.0), "c": [v(9.0), v(9.0)], "d": [v(9.0)], "g": v(9.0)}
    with pytest.raises(StateMismatchError) as caught:
        restored(url, heads=heads, ema=[v(9.0), v(9)])
    assert set(caught.value.problems) == {
        "heads: 'b': its shape is (1,) in the checkpoint, (2,) here",
        "heads: 'c' has 1 items in the checkpoint, 2 here",
        "heads: 'd' is a dict in the checkpoint, a list here",
        "heads: 'f' is in the checkpoint and not here",
        "heads: 'g' is not in the checkpoint",
        "ema: '1': it is float32 in the checkpoint, int32 here",
    }
    assert float(first[0]) == 9


def test_a_tuple_cannot_take_another_value(tf, url):
    """Plain data in a tuple could not be restored: it is refused when it is handed over, and named."""
    with pytest.raises(UnsupportedStateError, match=r"cannot save state\.1: .*stands in a tuple.*list or a dict"):
        Checkpointer(url, CheckpointPolicy(), state=(tf.Variable(1.0), 3))
    with pytest.raises(UnsupportedStateError, match=r"cannot save state\.0\.1: .*stands in a tuple"):
        Checkpointer(url, CheckpointPolicy(), state=((tf.Variable(1.0), 3), tf.Variable(1.0)))


def test_a_variable_where_plain_data_was(tf, url):
    """What was a number is no state of a variable."""
    save(url, state={"a": 1.0, "b": [1]})
    with pytest.raises(StateMismatchError, match="state: 'a': it is a float in the checkpoint, a variable here"):
        restored(url, state={"a": tf.Variable(1.0), "b": [1]})


def test_containers_without_variables_are_as_before(url):
    """Plain data and arrays in a dict or list are replaced in place, whatever their form was."""
    state, losses = {"array": np.ones(3), "n": 1}, [1.0]
    save(url, state=state, losses=losses)
    state["array"], state["more"] = np.zeros(5), 2
    losses.append(5.0)
    restored(url, state=state, losses=losses)
    assert np.array_equal(state["array"], np.ones(3))
    assert "more" not in state
    assert losses == [1.0]
