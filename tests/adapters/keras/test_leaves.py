"""Tensors of TensorFlow and JAX are leaves of any state, and any checkpoint loads as tensors of either."""

import numpy as np
import pytest

from keepbest import Checkpointer, CheckpointPolicy, open_run
from keepbest.errors import UnsupportedStateError

DTYPES = (
    "float64", "float32", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint64", "uint32", "uint16",
    "uint8", "bool", "complex64", "complex128", "float8_e4m3fn", "float8_e5m2",
)  # fmt: skip


def bits(tensor):
    return np.ascontiguousarray(np.asarray(tensor.numpy() if hasattr(tensor, "numpy") else tensor)).tobytes()


@pytest.fixture
def arrays():
    import ml_dtypes  # noqa: F401 - teaches NumPy the names of the small floats

    random = np.random.default_rng(0)
    made = {dtype: random.integers(0, 2, (3, 5)).astype(dtype) for dtype in DTYPES}
    return made | {"scalar": np.float32(3.5), "empty": np.zeros((0, 3), np.float32)}


@pytest.fixture
def framework(backend):
    """The framework that is tested in this process: the backend's own, TensorFlow's where that is PyTorch."""
    return backend if backend == "jax" else "tensorflow"


@pytest.fixture
def tensors(framework, arrays):
    if framework == "tensorflow":
        import tensorflow as tf

        return {
            name: tf.constant(array) if array.ndim == 0 else tf.convert_to_tensor(array)
            for name, array in arrays.items()
        }
    import jax

    with jax.enable_x64(True):
        return {name: jax.numpy.array(array) for name, array in arrays.items()}


def save(url, **objects):
    with Checkpointer(url, CheckpointPolicy(), **objects) as ckpt:
        ckpt.log(loss=1.0)


@pytest.mark.parametrize("inline", [True, False], ids=["in-state", "in-a-file"])
def test_every_dtype_comes_back(framework, arrays, tensors, run_url, inline):
    """A tensor of any dtype keeps its bits, its shape and its kind, wherever it is stored."""
    held = {"tensors": dict(tensors), "ballast": np.zeros(1 if inline else 100_000)}
    save(run_url, held=held)
    held["tensors"] = {}
    ckpt = Checkpointer(run_url, CheckpointPolicy(), held=held)
    ckpt.resume()
    ckpt.close()
    for name, array in arrays.items():
        tensor = held["tensors"][name]
        assert type(tensor).__module__.split(".")[0] in (framework, "jaxlib")
        assert (bits(tensor), tuple(tensor.shape)) == (array.tobytes(), array.shape), name


@pytest.mark.parametrize("wanted", ["numpy", "tensorflow", "jax", "torch"])
def test_loads_as_any_framework(tensors, arrays, run_url, wanted):
    """What one framework saved loads as tensors of another, bit for bit, 64-bit ones on JAX included."""
    save(run_url, held=tensors | {"ballast": np.zeros(100_000)})
    loaded = open_run(run_url).latest.load("held", framework=wanted)
    for name, array in arrays.items():
        tensor = loaded[name]
        if wanted == "torch":
            import torch

            raw = tensor.reshape(-1).view(torch.uint8).numpy().tobytes() if tensor.dim() else tensor.numpy().tobytes()
            assert raw == array.tobytes(), name
        else:
            assert bits(tensor) == array.tobytes(), name
            assert (
                str(np.dtype(tensor.dtype.as_numpy_dtype if wanted == "tensorflow" else tensor.dtype))
                == array.dtype.name
            )


def test_what_changes_later_is_not_saved(framework, url):
    """A checkpoint has the values of the moment it was taken, not those that a variable was given since."""
    if framework != "tensorflow":
        pytest.skip("an array of JAX never changes")
    import tensorflow as tf

    variable = tf.Variable([1.0, 2.0])
    with Checkpointer(url, CheckpointPolicy(), variable=variable) as ckpt:
        ckpt.log_step(loss=variable[0])
        step = tf.Variable(3.0)
        ckpt.log_step(loss=step)
        step.assign(9.0)
        ckpt.log()
        variable.assign([5.0, 6.0])
        ckpt.wait()
        assert [row.metrics["loss"] for row in ckpt.history.rows if row.kind == "step"] == [1.0, 3.0]
        ckpt.restore("latest")
    assert list(variable.numpy()) == [1.0, 2.0]


def test_generators_of_tensorflow(framework, url):
    """A generator of one's own, and the global one where there is one, give the numbers that would have come next."""
    if framework != "tensorflow":
        pytest.skip("JAX has no generators")
    import tensorflow as tf

    own, shared = tf.random.Generator.from_seed(3), tf.random.get_global_generator()
    save(url, own=own)
    expected = [own.normal((2,)).numpy(), shared.normal((2,)).numpy()]
    ckpt = Checkpointer(url, CheckpointPolicy(), own=own)
    ckpt.resume()
    ckpt.close()
    assert np.array_equal([own.normal((2,)).numpy(), shared.normal((2,)).numpy()], expected)


def test_what_cannot_be_saved(framework, url):
    """A tensor that is not dense, or has no bits to save, is an error that names it and what to do."""
    if framework == "tensorflow":
        import tensorflow as tf

        unfit = [
            (tf.sparse.from_dense([[1.0]]), "dense"),
            (tf.ragged.constant([[1]]), "dense"),
            (tf.constant("a"), "dtype string"),
        ]
    else:
        import jax

        unfit = [(jax.random.key(1), "key_data")]
    for tensor, why in unfit:
        with pytest.raises(UnsupportedStateError, match=f"held.deep.*{why}"):
            Checkpointer(url, CheckpointPolicy(), held={"deep": tensor})
