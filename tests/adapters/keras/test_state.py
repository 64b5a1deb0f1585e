"""Models, optimizers, variables and generators are captured whole and come back bit for bit, on whatever backend."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from keepbest import Checkpointer, CheckpointPolicy, open_run
from keepbest.errors import StateError, StateMismatchError

OTHERS = {"tensorflow": "jax", "jax": "tensorflow", "torch": "jax"}


def save(url, **objects):
    with Checkpointer(url, CheckpointPolicy(), **objects) as ckpt:
        ckpt.log(loss=1.0)


def restored(url, **objects):
    ckpt = Checkpointer(url, CheckpointPolicy(), **objects)
    ckpt.restore("latest")
    ckpt.close()


def trained(make, data):
    model = make()
    model.train_on_batch(data["x"], data["y"])
    return model


def test_keys_are_the_variables_paths(make, data, url):
    """The tensor file is plain: its keys are Keras' own paths, metric variables are not in it, seed generators are."""
    model = trained(make, data)
    save(url, model=model, optimizer=model.optimizer)
    weights = open_run(url).latest.load("model")
    assert list(weights) == [variable.path for variable in model.variables]
    assert "sequential/dense/kernel" in weights
    assert any("seed_generator" in path for path in weights)
    optimizer = open_run(url).latest.load("optimizer")
    assert {"adam/iteration", "adam/learning_rate", "adam/sequential_dense_kernel_momentum"} <= optimizer.keys()


def test_model_and_optimizer_come_back_bit_for_bit(make, data, values, run_url):
    """Every variable, float and integer, trainable or not, has the bits it was saved with."""
    model = trained(make, data)
    everything = [*model.variables, *model.optimizer.variables]
    before = values(everything)
    save(run_url, model=model, optimizer=model.optimizer)
    for _ in range(3):
        model.train_on_batch(data["x"], data["y"])
    restored(run_url, model=model, optimizer=model.optimizer)
    for variable, value, expected in zip(everything, values(everything), before, strict=True):
        assert value.dtype == expected.dtype
        assert value.tobytes() == expected.tobytes(), variable.path


@pytest.mark.parametrize("rule", ["SGD", "RMSprop", "Nadam", "AdamW", "Ftrl", "Lion", "LossScaleOptimizer", "ema"])
def test_every_kind_of_optimizer(keras, rule, values, url):
    """The state of an optimizer is complete, those that wrap another or average weights included."""
    kinds = {
        "LossScaleOptimizer": lambda: keras.optimizers.LossScaleOptimizer(keras.optimizers.Adam()),
        "ema": lambda: keras.optimizers.SGD(0.1, momentum=0.9, use_ema=True, gradient_accumulation_steps=2),
    }
    layer = keras.layers.Dense(3)
    layer.build((None, 4))
    optimizers = [kinds.get(rule, getattr(keras.optimizers, rule, None))() for _ in range(2)]
    for optimizer in optimizers:
        optimizer.build(layer.trainable_variables)
    for variable in optimizers[0].variables:
        variable.assign(np.full(variable.shape, 3))
    save(url, optimizer=optimizers[0])
    restored(url, optimizer=optimizers[1])
    assert len(optimizers[1].variables) >= 2
    for one, other in zip(*(values(optimizer.variables) for optimizer in optimizers), strict=True):
        assert one.tobytes() == other.tobytes()


def test_a_model_rebuilt_in_the_same_process(keras, make, data, values, url):
    """A model whose names Keras counted on (dense_9, dense_10) takes the state of the first (dense, dense_1)."""
    model = trained(make, data)
    save(url, model=model, optimizer=model.optimizer)
    for _ in range(4):
        again = make()
    again.optimizer.build(again.trainable_variables)
    assert "dense_8" in again.variables[0].path
    assert any("dense_9" in variable.path for variable in again.variables)
    restored(url, model=again, optimizer=again.optimizer)
    ours, theirs = [*model.variables, *model.optimizer.variables], [*again.variables, *again.optimizer.variables]
    for one, other in zip(values(ours), values(theirs), strict=True):
        assert one.tobytes() == other.tobytes()


def test_counters_are_ranked_as_numbers(keras, values, url):
    """With more than ten layers of a kind, the tenth is not taken for the second."""

    def build():
        model = keras.Sequential([keras.Input((2,)), *(keras.layers.Dense(2) for _ in range(13))])
        for number, variable in enumerate(model.variables):
            variable.assign(np.full(variable.shape, number))
        return model

    first, second = build(), build()
    expected = values(first.variables)
    save(url, model=first)
    for variable in second.variables:
        variable.assign(np.full(variable.shape, -1))
    restored(url, model=second)
    assert all(np.array_equal(one, other) for one, other in zip(values(second.variables), expected, strict=True))


@pytest.mark.parametrize("layers", [("a", "b"), ("dense", "dense_1")])
def test_what_a_model_is_called_does_not_matter(keras, values, url, layers):
    """Weights fit a model that is built anew under another name; layers are told apart by theirs, as ever."""

    def build(name, *layers):
        return keras.Sequential([keras.Input((2,)), *(keras.layers.Dense(2, name=each) for each in layers)], name=name)

    saved = build("saved", *layers)
    for number, variable in enumerate(saved.variables):
        variable.assign(np.full(variable.shape, number))
    save(url, model=saved)
    again = build("again", *layers)
    restored(url, model=again)
    for one, other in zip(values(again.variables), values(saved.variables), strict=True):
        assert one.tobytes() == other.tobytes()
    with pytest.raises(StateMismatchError, match="'again/c/kernel' is not in the checkpoint"):
        restored(url, model=build("again", layers[0], "c"))


def test_layers_of_other_names_are_other_layers(keras, url):
    """Where no model's name comes before them, nothing is put in the place of what is called otherwise."""

    def build(*names):
        place = given = keras.Input((2,))
        for name in names:
            place = keras.layers.Dense(2, name=name)(place)
        return keras.Model(given, place)

    save(url, model=build("one", "two"))
    with pytest.raises(StateMismatchError, match="three"):
        restored(url, model=build("one", "three"))


def test_what_an_optimizer_is_called_matters(keras, make, data, url):
    """Adam's state is none for AdamW, though its variables are called alike."""
    model = trained(make, data)
    save(url, model=model, optimizer=model.optimizer)
    other = make()
    other.compile(keras.optimizers.AdamW(), "mse")
    other.optimizer.build(other.trainable_variables)
    with pytest.raises(StateMismatchError, match="optimizer"):
        restored(url, model=other, optimizer=other.optimizer)


def test_every_difference_is_listed(keras, make, values, url):
    """A model that does not fit is left alone, and the error names every path, shape and dtype."""
    save(url, model=make())
    other = keras.Sequential([keras.Input((4,)), keras.layers.Dense(5), keras.layers.Dense(1, name="head")])
    before = values(other.variables)
    with pytest.raises(StateMismatchError) as caught:
        restored(url, model=other)
    assert "head/kernel' is not in the checkpoint" in str(caught.value)
    assert "batch_normalization/gamma' is in the checkpoint and not in the model" in str(caught.value)
    assert all(np.array_equal(one, two) for one, two in zip(values(other.variables), before, strict=True))
    with pytest.raises(StateMismatchError, match=r"dense/kernel' has shape \(4, 8\) in the checkpoint, \(4, 9\) here"):
        restored(url, model=make(9))


def test_another_dtype_is_a_difference(keras, url):
    """Weights of another precision are refused, not rounded."""
    build = lambda dtype: keras.Sequential([keras.Input((2,)), keras.layers.Dense(2, dtype=dtype, name="d")], name="m")  # noqa: E731
    save(url, model=build("float32"))
    with pytest.raises(StateMismatchError, match="'m/d/kernel' is float32 in the checkpoint, bfloat16 here"):
        restored(url, model=build("bfloat16"))


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float64", "int8", "bool", "uint8", "float8_e4m3fn"])
def test_dtypes_of_variables(keras, backend, dtype, values, url):
    """A variable of any dtype that the backend has keeps its bits."""
    if dtype == "float64" and backend == "jax":
        pytest.skip("JAX has no float64 unless the process is started with it")
    array = np.array([[0, 1, 1], [1, 0, 1]], np.float32)
    one, other = (
        keras.Variable(keras.ops.cast(array * times, dtype), dtype=dtype, trainable=False) for times in (1, 0)
    )
    save(url, variable=one)
    restored(url, variable=other)
    same = keras.ops.all(keras.ops.equal(keras.ops.cast(one, "float32"), keras.ops.cast(other, "float32")))
    assert bool(same)
    assert keras.backend.standardize_dtype(other.dtype) == dtype


def test_equal_paths_are_told_apart(keras, values, url):
    """Two variables of one path are both saved, each for itself."""

    class Twice(keras.Layer):
        def build(self, _):
            self.one = self.add_weight(shape=(2,), initializer="ones", name="w")
            self.other = self.add_weight(shape=(2,), initializer="zeros", name="w")

    layer = Twice()
    layer.build(None)
    save(url, layer=layer)
    layer.other.assign([5.0, 5.0])
    restored(url, layer=layer)
    assert [list(value) for value in values(layer.variables)] == [[1, 1], [0, 0]]


def test_generators_go_on_where_they_were(keras, url):
    """A seed generator of one's own, and Keras' global one, give the numbers that would have come next."""
    generator = keras.random.SeedGenerator(5)
    draw = lambda: [float(keras.random.uniform((), seed=seed)) for seed in (generator, None)]  # noqa: E731
    draw()
    save(url, generator=generator)
    expected = draw()
    ckpt = Checkpointer(url, CheckpointPolicy(), generator=generator)
    ckpt.resume()
    assert draw() == expected
    ckpt.close()


def test_no_global_generator_is_called_into_being(keras, make, url):
    """Saving leaves Keras' global random state as it is: where there is no generator, none is made."""
    from keras.src.backend.common import global_state

    keras.utils.clear_session(free_memory=False)
    save(url, model=make())
    assert global_state.get_global_attribute("global_seed_generator") is None


def test_a_model_without_weights_yet(keras, url):
    """A model that is not built is refused when it is handed over, with what to do; not saved empty."""
    with pytest.raises(StateError, match=r"'sequential' is not built.*keras\.Input"):
        Checkpointer(url, CheckpointPolicy(), model=keras.Sequential([keras.layers.Dense(1)]))


def test_an_optimizer_without_state_yet(make, data, url):
    """An optimizer that is not built cannot take the state of one that is: one sentence says how to build it."""
    model = trained(make, data)
    save(url, model=model, optimizer=model.optimizer)
    fresh = make()
    if fresh.optimizer.built:
        pytest.skip("this backend builds the optimizer with the model")
    with pytest.raises(StateMismatchError, match=r"optimizer\.build\(model\.trainable_variables\)") as caught:
        restored(url, model=fresh, optimizer=fresh.optimizer)
    assert len(caught.value.problems) == 1


def test_another_backends_checkpoint(backend, make, data, url):
    """What one backend wrote restores on another, although they count steps and seeds in integers of other widths."""
    script = Path(__file__).parent / "writer.py"
    subprocess.run([sys.executable, script, url], env=os.environ | {"KERAS_BACKEND": OTHERS[backend]}, check=True)
    model = trained(make, data)
    restored(url, model=model, optimizer=model.optimizer)
    for name, variables in (("model", model.variables), ("optimizer", model.optimizer.variables)):
        for path, stored in open_run(url).latest.load(name).items():
            here = next(variable for variable in variables if variable.path == path)
            assert np.array_equal(np.asarray(here.numpy() if backend != "torch" else here.value.detach()), stored), path


def test_other_frameworks_read_it(backend, make, url):
    """The weights load as tensors of another framework, with no Keras around."""
    model = make()
    save(url, model=model)
    framework = {"tensorflow": "jax", "jax": "torch", "torch": "numpy"}[backend]
    loaded = open_run(url).latest.load("model", framework=framework)
    kernel = loaded["sequential/dense/kernel"]
    assert type(kernel).__module__.split(".")[0] in (framework, "jaxlib")
    assert np.array_equal(np.asarray(kernel), np.asarray(model.layers[0].get_weights()[0]))
