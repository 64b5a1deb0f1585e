"""Overlap: saves at every batch while training goes on, each of which is the state of its batch, bit for bit."""

import gc
import threading
import time
import weakref

import numpy as np
import pytest
from contracts.witness import differences

from keepbest import Checkpointer, CheckpointPolicy, open_run
from keepbest.adapters.keras import BestCheckpoint
from keepbest.storage.memory import MemoryBackend

EVERY_STEP = CheckpointPolicy(every_n_epochs=None, every_n_steps=1, keep_all=True)
URL = "memory://keras-overlap-{}"


@pytest.fixture
def memory_url(request):
    return URL.format(abs(hash((request.node.nodeid, time.monotonic()))))


@pytest.fixture
def late(monkeypatch):
    """Have the tensors read late: the writer waits until training is a step ahead, or is waited for."""
    ahead, put = threading.Event(), MemoryBackend.put

    def held(self, key, chunks, **settings):
        assert ahead.wait(20)
        return put(self, key, chunks, **settings)

    ahead.set()
    monkeypatch.setattr(MemoryBackend, "put", held)
    return ahead


def loaded(url, **objects):
    """Return what each checkpoint holds, the oldest first."""
    found = sorted(open_run(url).checkpoints(), key=lambda checkpoint: checkpoint.sequence)
    return [{name: checkpoint.load(name) for name in objects} for checkpoint in found]


def named(values, variables):
    return dict(zip([variable.path for variable in variables], values(variables), strict=True))


def compare(url, seen):
    """Return where checkpoints are not what was seen."""
    found = loaded(url, **seen[0])
    assert len(found) == len(seen)
    return [place for one, other in zip(seen, found, strict=True) for place in differences(one, other)]


def train(url, ahead, step, record, objects):
    """Save at every step, and go on while it is being written; returns what was seen."""
    seen = []
    with Checkpointer(url, EVERY_STEP, **objects) as ckpt:
        for number in range(5):
            step(number)
            seen.append(record())
            ckpt.wait()
            ahead.clear()
            ckpt.log_step()
            step(100 + number)  # while the writer waits: it changes everything, and is part of the next save
            ahead.set()
    return seen


@pytest.mark.parametrize("jit", [False, True], ids=["plain", "compiled"])
@pytest.mark.parametrize("rule", ["Adam", "SGD", "Ftrl"])
def test_every_batch_is_saved_as_it_was(  # noqa: PLR0913, PLR0917 - pytest hands them over
    make, data, values, memory_url, late, rule, jit, keras, backend
):
    """Model and optimizer, also compiled by XLA: what is written late is what the save found."""
    if backend != "tensorflow" and not jit:
        pytest.skip("only TensorFlow has both ways")
    model = make(units=200, jit_compile=jit) if backend == "tensorflow" else make(units=200)
    optimizer = keras.optimizers.get({"class_name": rule, "config": {"learning_rate": 0.01}})
    if rule == "SGD":
        optimizer.momentum, optimizer.use_ema = 0.9, True
    model.compile(optimizer, "mse", **({"jit_compile": jit} if backend == "tensorflow" else {}))

    def step(number):
        model.train_on_batch(np.roll(data["x"], number, axis=0), data["y"])

    step(0)
    objects = {"model": model, "optimizer": model.optimizer}
    seen = train(
        memory_url, late, step,
        lambda: {"model": named(values, model.variables), "optimizer": named(values, model.optimizer.variables)},
        objects,
    )  # fmt: skip
    assert compare(memory_url, seen) == []


def test_an_embedding_is_saved_as_it_was(keras, values, memory_url, late, backend):
    """Sparse gradients, which change some rows in place, change no snapshot."""
    model = keras.Sequential([keras.layers.Embedding(500, 50), keras.layers.Flatten(), keras.layers.Dense(1)])
    model.build((None, 3))
    model.compile(keras.optimizers.SGD(0.5), "mse", **({"jit_compile": False} if backend == "tensorflow" else {}))

    def step(number):
        tokens = np.random.default_rng(number).integers(0, 500, (8, 3))
        model.train_on_batch(tokens, np.ones((8, 1), np.float32))

    step(0)
    seen = train(memory_url, late, step, lambda: {"model": named(values, model.variables)}, {"model": model})
    assert compare(memory_url, seen) == []


def test_a_variable_that_is_assigned_is_saved_as_it_was(keras, values, memory_url, late):
    """`assign`, `assign_add` and their like, between saves of a loop of one's own, reach no snapshot before them."""
    model = keras.Sequential([keras.Input((64,)), keras.layers.Dense(400)])
    kernel, bias = model.variables

    def step(number):
        kernel.assign_add(keras.ops.ones(kernel.shape) * number)
        bias.assign(bias + 1)

    seen = train(memory_url, late, step, lambda: {"model": named(values, model.variables)}, {"model": model})
    assert compare(memory_url, seen) == []


def test_fit_saves_what_each_epoch_left(make, fit, memory_url, values, late, keras):  # noqa: PLR0913, PLR0917 - pytest hands them over
    """BestCheckpoint beside `fit`: the next epoch trains while the last is written."""
    seen = []

    class Sees(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            seen.append({"model": named(values, self.model.variables)})
            best.checkpointer.wait()
            late.clear()

        def on_train_batch_end(self, batch, logs=None):
            late.set()

        def on_train_end(self, logs=None):
            late.set()

    best = BestCheckpoint(memory_url, {"keep_all": True}, restore_best=False)
    fit(make(units=300), [Sees(), best], epochs=4)
    assert compare(memory_url, seen) == []


# ── TensorFlow and JAX by themselves ──────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("jit", [False, True], ids=["plain", "compiled"])
def test_a_step_of_tensorflow_is_saved_as_it_was(backend, memory_url, late, jit):
    """A `tf.function`, compiled by XLA or not, that changes variables in place and by scatter, changes no snapshot."""
    if backend != "tensorflow":
        pytest.skip("this process has another backend")
    import tensorflow as tf

    dense, rows = tf.Variable(tf.zeros((300, 100))), tf.Variable(tf.zeros((300, 100)))
    wide = tf.Variable(tf.zeros(30_000, tf.complex128))
    half = tf.Variable(tf.zeros(30_000, tf.bfloat16))

    @tf.function(jit_compile=jit)
    def change(by):
        dense.assign_add(tf.ones_like(dense) * by)
        rows.scatter_update(tf.IndexedSlices(tf.ones((2, 100)) * by, tf.constant([3, 200])))
        wide.assign(wide + tf.cast(by, tf.complex128))
        half.assign_add(tf.ones_like(half))

    state = {"dense": dense, "rows": rows, "wide": wide, "half": half}

    def record():
        return {"state": {name: np.array(variable.numpy()) for name, variable in state.items()}}

    seen = train(memory_url, late, lambda number: change(tf.constant(float(number + 1))), record, {"state": state})
    assert compare(memory_url, seen) == []


@pytest.mark.parametrize("donate", [False, True], ids=["kept", "donated"])
def test_a_step_of_jax_is_saved_as_it_was(backend, memory_url, late, donate):
    """Arrays given away to the next step, whose memory XLA may use for it, are in the snapshot as they were."""
    if backend != "jax":
        pytest.skip("this process has another backend")
    import jax
    import jax.numpy as jnp

    state = {"w": jnp.zeros((300, 100)), "m": jnp.ones(30_000), "half": jnp.zeros(50_000, jnp.bfloat16)}
    change = jax.jit(
        lambda state, by: {name: value + by.astype(value.dtype) for name, value in state.items()},
        donate_argnums=(0,) if donate else (),
    )

    def step(number):
        changed = change(dict(state), jnp.float32(number + 1))
        state.update({name: jax.block_until_ready(value) for name, value in changed.items()})

    def record():
        return {"state": {name: np.array(value, copy=True) for name, value in state.items()}}

    seen = train(memory_url, late, step, record, {"state": state})
    assert compare(memory_url, seen) == []


def test_what_was_replaced_is_let_go(backend, memory_url):
    """Once it is written, the snapshot's arrays are gone: memory is that of one state, of two while writing."""
    if backend == "torch":
        pytest.skip("whose tensors stay as long as the model")
    if backend == "jax":
        import jax.numpy as jnp

        fresh = lambda: jnp.ones(50_000)  # noqa: E731 - either this
    else:
        import tensorflow as tf

        fresh = lambda: tf.ones(50_000)  # noqa: E731 - or that
    state = {"w": fresh()}
    with Checkpointer(memory_url, EVERY_STEP, state=state) as ckpt:
        for _ in range(3):
            seen = weakref.ref(state["w"])
            ckpt.save().result(60)
            state["w"] = fresh()
            ckpt.save().result(60)
            gc.collect()
            assert seen() is None
