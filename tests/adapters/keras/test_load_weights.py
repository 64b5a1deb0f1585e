"""load_weights: a healthy file that is of another format is not called damaged."""

import pytest

from keepbest.adapters.keras import load_weights
from keepbest.errors import ConfigError, DamagedFileError


@pytest.mark.parametrize(
    ("name", "save", "how"),
    [
        pytest.param("m.keras", "save", r"keras\.saving\.load_model\(path\)", id="model"),
        pytest.param("m.weights.h5", "save_weights", r"model\.load_weights\(path\)", id="weights"),
    ],
)
def test_a_file_that_keras_wrote(make, tmp_path, name, save, how):
    """A file in one of Keras' own formats is called so, and the text says what loads it."""
    model = make()
    getattr(model, save)(tmp_path / name)
    with pytest.raises(ConfigError, match=rf"{name} is .*Keras.*{how}"):
        load_weights(model, tmp_path / name)


@pytest.mark.parametrize("name", ["m.keras", "m.safetensors"])
def test_a_file_that_is_damaged(make, tmp_path, name):
    """What is of no format is called damaged, whatever its name is."""
    (tmp_path / name).write_bytes(b"nothing")
    with pytest.raises(DamagedFileError):
        load_weights(make(), tmp_path / name)
