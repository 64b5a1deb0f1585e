"""One Keras backend a process: KERAS_BACKEND says which, or it is tensorflow. Small models, and fresh names."""

import os

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from pathlib import Path

import numpy as np
import pytest
from contracts import places

HERE = Path(__file__).parent

IGNORED = [
    # Keras 3.15 has not followed NumPy 2 in how its variables become arrays; nothing of ours asks for one.
    "ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning",
]


def pytest_collection_modifyitems(items):
    for item in items:
        if HERE in item.path.parents:
            for ignored in IGNORED:
                item.add_marker(pytest.mark.filterwarnings(ignored))


@pytest.fixture(scope="session")
def backend():
    return os.environ["KERAS_BACKEND"]


@pytest.fixture
def url(tmp_path):
    return str(tmp_path / "run")


ON_BUCKETS = os.environ["KERAS_BACKEND"] == "torch"
"""What a bucket gets does not depend on the backend, so it is tried on the quickest."""

collect_ignore = [] if ON_BUCKETS else ["test_buckets.py"]


@pytest.fixture(params=places.LASTING if ON_BUCKETS else ["local"])
def place(request):
    """An empty folder or prefix of a bucket, seen as its owner sees it."""
    return places.new_place(request)


@pytest.fixture
def run_url(place):
    """The URL of a run that does not exist yet, on disk and in buckets."""
    return place.at("run")


@pytest.fixture
def keras():
    """Keras, its global generators seeded and its names counted from the start."""
    import keras

    keras.utils.clear_session(free_memory=False)
    keras.utils.set_random_seed(7)
    return keras


@pytest.fixture
def make(keras, backend):
    """Build and compile a small model with everything that a bit-identical resume needs."""

    def make(units=8, *, metrics=("mae",), **compiling):
        keras.utils.set_random_seed(7)
        model = keras.Sequential(
            [
                keras.Input((4,)),
                keras.layers.Dense(units, activation="relu"),
                keras.layers.BatchNormalization(),
                keras.layers.Dropout(0.5),
                keras.layers.Dense(1),
            ]
        )
        if backend == "tensorflow":
            compiling = {"jit_compile": False} | compiling  # compiling takes longer than what is compiled
        model.compile(keras.optimizers.Adam(0.01), "mse", metrics=list(metrics), **compiling)
        return model

    return make


@pytest.fixture
def data():
    """48 random examples, and 16 to validate with."""
    random = np.random.default_rng(3)
    x, y = random.random((64, 4), np.float32), random.random((64, 1), np.float32)
    return {"x": x[:48], "y": y[:48], "validation_data": (x[48:], y[48:])}


@pytest.fixture
def fit(data):
    """Train quietly, in an order that is the same each time."""

    def fit(model, callbacks, **settings):
        wanted = {"batch_size": 16, "shuffle": False, "verbose": 0, "epochs": 3} | data | settings
        return model.fit(callbacks=callbacks, **wanted)

    return fit


@pytest.fixture
def values(keras):
    """Return copies of variables' values."""
    return lambda variables: [np.array(keras.ops.convert_to_numpy(variable.value)) for variable in variables]
