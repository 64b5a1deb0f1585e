"""TensorFlow, in a process of its own: PyTorch's tests must not share one with it."""

import os

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import importlib.util
from pathlib import Path

import pytest

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


@pytest.fixture
def url(tmp_path):
    return str(tmp_path / "run")


@pytest.fixture(scope="session")
def tf():
    import tensorflow as tf

    return tf


@pytest.fixture
def keras():
    """Keras, its global generators seeded and its names counted from the start."""
    import keras

    keras.utils.clear_session(free_memory=False)
    keras.utils.set_random_seed(7)
    return keras


@pytest.fixture(scope="session")
def trainer():
    """The module trainer.py."""
    spec = importlib.util.spec_from_file_location("tensorflow_trainer", HERE / "trainer.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
