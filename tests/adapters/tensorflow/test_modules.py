"""Modules are captured whole, named by the way to each variable, and come back bit for bit into what is there."""

import collections

import numpy as np
import pytest

from keepbest import Checkpointer, CheckpointPolicy, open_run
from keepbest.errors import StateError, StateMismatchError, UnsupportedStateError


def save(url, **objects):
    with Checkpointer(url, CheckpointPolicy(), **objects) as ckpt:
        ckpt.log(loss=1.0)


def restored(url, **objects):
    ckpt = Checkpointer(url, CheckpointPolicy(), **objects)
    ckpt.restore("latest")
    ckpt.close()


@pytest.fixture
def make(tf):
    """Make a module with modules in attributes, lists and dicts, and variables of every kind, all of one name."""
    Pair = collections.namedtuple("Pair", "left right")  # noqa: PYI024 - as users write it

    class Leaf(tf.Module):
        def __init__(self, fill):
            super().__init__()
            self.w = tf.Variable(np.full((3, 2), fill, np.float32), name="same")
            self.note, self.table = "text", np.ones(3)

    class Root(tf.Module):
        def __init__(self, fill):
            super().__init__()
            self.leaf = Leaf(fill)
            self.layers = [Leaf(fill + 1), {"deep": Leaf(fill + 2)}]
            self.heads = {"a": tf.Variable(fill + 3, name="same"), "b": (tf.Variable(fill + 4, name="same"),)}
            self.pair = Pair(tf.Variable([fill + 5]), tf.Variable([fill + 6], dtype=tf.bfloat16))
            self.seen = tf.Variable(int(fill), trainable=False, dtype=tf.int64)
            self.tied = self.leaf.w  # an attribute of the root is nearer
            self.parent = self
            self.random = tf.random.Generator.from_seed(int(fill))
            self.step = tf.function(lambda x: x * self.seen)
            self.dataset = tf.data.Dataset.range(3)

    return Root


KEYS = {
    "tied",
    "layers.0.w",
    "layers.1.deep.w",
    "heads.a",
    "heads.b.0",
    "pair.left",
    "pair.right",
    "seen",
    "random",
}


def bits(module):
    return [variable.numpy().tobytes() for variable in (*module.variables, module.random.state)]


def test_keys_are_the_shortest_ways_and_nothing_is_stored_twice(make, tf, url):
    """Every variable has one key, the way to it; equal names, shared variables and circles are no matter."""
    model = make(1.0)
    save(url, model=model)
    loaded = open_run(url).latest.load("model")
    assert loaded.keys() == KEYS
    assert len(model.variables) == len(KEYS) - 1
    assert np.array_equal(loaded["layers.1.deep.w"], np.full((3, 2), 3, np.float32))


def test_everything_comes_back_into_the_variables_that_are_there(make, url):
    """Trainable or not, of any dtype, and a generator: the bits are those of the save, the objects the same."""
    model, other = make(1.0), make(50.0)
    expected, held = bits(model), list(other.variables)
    save(url, model=model)
    assert bits(other) != expected
    restored(url, model=other)
    assert bits(other) == expected
    assert all(one is two for one, two in zip(held, other.variables, strict=True))
    assert np.array_equal(other.random.normal((3,)), model.random.normal((3,)))


def test_every_difference_is_listed_and_nothing_is_changed(make, tf, url):
    """Keys, shapes and dtypes that differ, of all objects, are in one error; not one variable was set."""
    save(url, model=make(1.0), extra=tf.Variable([1.0]))
    other, extra = make(9.0), tf.Variable([9, 9])
    other.heads["c"] = tf.Variable(0.0)
    del other.seen
    other.leaf.w = other.tied = tf.Variable(tf.zeros((5, 5)))
    other.pair = (tf.Variable([9]), tf.Variable([9.0], dtype=tf.bfloat16))
    before = bits(other)
    with pytest.raises(StateMismatchError) as caught:
        restored(url, model=other, extra=extra)
    for said in (
        "model: 'heads.c' is not in the checkpoint",
        "model: 'seen' is in the checkpoint and not in the module",
        "model: 'tied': its shape is (3, 2) in the checkpoint, (5, 5) here",
        "model: 'pair.left' is in the checkpoint and not in the module",
        "extra: its shape is (1,) in the checkpoint, (2,) here",
    ):
        assert said in caught.value.problems, said
    assert bits(other) == before


def test_another_dtype_is_a_difference(tf, url):
    """Weights of another precision are refused, not rounded."""
    one, other = tf.Module(), tf.Module()
    one.w, other.w = tf.Variable([1.0]), tf.Variable([1.0], dtype=tf.float64)
    save(url, model=one)
    with pytest.raises(StateMismatchError, match="'w': it is float32 in the checkpoint, float64 here"):
        restored(url, model=other)


def test_a_shape_that_may_change(tf, url):
    """A variable without a fixed shape is saved with the shape that it has, and takes every one that it may have."""
    one, other, narrow = (
        tf.Variable(tf.ones((count, 2)), shape=shape)
        for count, shape in ((3, [None, 2]), (1, tf.TensorShape(None)), (1, [1, None]))
    )
    save(url, growing=one)
    restored(url, growing=other)
    assert other.shape.rank is None
    assert tuple(other.read_value().shape) == (3, 2)
    with pytest.raises(StateMismatchError, match=r"shape is \(3, 2\) in the checkpoint, \(1, None\) here"):
        restored(url, growing=narrow)


def test_a_module_without_variables_yet(tf, url):
    """A module that makes its variables when it is called is refused before that, with what to do; not saved empty."""
    lazy = tf.Module(name="lazy")
    with pytest.raises(StateError, match=r"'lazy' has no variables.*call it on a batch"):
        Checkpointer(url, CheckpointPolicy(), model=lazy)
    full = tf.Module()
    full.w = tf.Variable(1.0)
    save(url, model=full)
    with Checkpointer(url, CheckpointPolicy(), model=full) as ckpt:
        del full.w
        with pytest.raises(StateMismatchError, match="no variables.*call it on a batch"):
            ckpt.restore("latest")
        full.w = tf.Variable(1.0)


def test_keras_layers_within_a_module(keras, tf, url):
    """What of a module is Keras' is saved as Keras names it, and takes the state of layers that Keras counted on."""

    class Mixed(tf.Module):
        def __init__(self):
            super().__init__()
            self.body = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3), keras.layers.Dropout(0.5)])
            self.scale = tf.Variable(2.0)
            self.optimizer = keras.optimizers.Adam(0.1)
            self.optimizer.build([self.scale, *self.body.trainable_variables])
            self.more = [keras.layers.Dense(2)]
            self.more[0].build((None, 3))

        def everything(self):
            return [*self.body.variables, *self.optimizer.variables, *self.more[0].variables]

    model, other = Mixed(), Mixed()
    model.optimizer.apply_gradients([(tf.constant(1.0), model.scale)])
    expected = [variable.numpy().tobytes() for variable in (model.scale, *model.everything())]
    save(url, model=model)
    loaded = open_run(url).latest.load("model")
    assert set(loaded) == {"body", "scale", "optimizer", "more.0"}
    assert "sequential/dense/kernel" in loaded["body"]
    restored(url, model=other)
    assert [variable.numpy().tobytes() for variable in (other.scale, *other.everything())] == expected
    wider = Mixed()
    wider.more = [keras.layers.Dense(9)]
    wider.more[0].build((None, 3))
    with pytest.raises(StateMismatchError, match=r"model: 'more\.0': '.*kernel' has shape \(3, 2\) in the checkpoint"):
        restored(url, model=wider)


def test_keras_models_stay_with_keras(keras, url):
    """A class of one's own that is a Keras model, or a layer, is the Keras adapter's."""

    class Own(keras.Model):
        def __init__(self):
            super().__init__()
            self.dense = keras.layers.Dense(2)

        def call(self, x):
            return self.dense(x)

    model = Own()
    model(np.ones((1, 3), np.float32))
    save(url, model=model)
    assert "own/dense/kernel" in open_run(url).latest.load("model")


def test_values_in_no_variable_are_refused(tf, url):
    """A table that changes holds what nobody would save: it is named; one that never changes is no matter."""
    model = tf.Module()
    model.w = tf.Variable(1.0)
    keys = tf.constant(["a", "b"])
    model.fixed = tf.lookup.StaticHashTable(tf.lookup.KeyValueTensorInitializer(keys, tf.constant([1, 2])), -1)
    save(url, model=model)
    model.tables = {"seen": tf.lookup.experimental.MutableHashTable(tf.string, tf.int64, -1)}
    with pytest.raises(UnsupportedStateError, match=r"cannot save model\.tables\.seen: .*in no variable"):
        Checkpointer(url + "-2", CheckpointPolicy(), model=model)


def test_a_class_of_modules_from_elsewhere_is_found(tf, url):
    """A subclass of tf.Module, whatever package it is of, is known by its descent."""
    kind = type("Linear", (tf.Module,), {"__module__": "someones.package"})
    model = kind()
    model.w = tf.Variable([1.0])
    save(url, model=model)
    model.w.assign([2.0])
    restored(url, model=model)
    assert model.w.numpy() == [1.0]


def test_the_best_can_be_weights_alone(tf, url):
    """A module counts as a model: `best_contents="weights"` keeps it without the optimizer."""
    model = tf.Module()
    model.w = tf.Variable([1.0])
    policy = CheckpointPolicy(monitor="loss", best_contents="weights")
    with Checkpointer(url, policy, model=model, step=tf.Variable(1)) as ckpt:
        ckpt.log(loss=1.0)
        ckpt.log(loss=2.0)
    assert set(open_run(url).best.objects()) == {"model"}


@pytest.mark.parametrize("wanted", ["numpy", "jax"])
def test_other_frameworks_read_it(make, url, wanted):
    """The weights load as tensors of another framework, with no TensorFlow asked for."""
    save(url, model=make(1.0))
    kernel = open_run(url).latest.load("model", framework=wanted)["layers.0.w"]
    assert type(kernel).__module__.split(".")[0] in (wanted, "jaxlib")
    assert np.array_equal(np.asarray(kernel), np.full((3, 2), 2, np.float32))
