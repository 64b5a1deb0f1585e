"""Keras' own files come into a run without Keras, and out of it with the model's help."""

import json
import subprocess
import sys
import zipfile

import h5py
import numpy as np
import pytest
from contracts.stateful import Holder

from keepbest import Checkpointer, CheckpointPolicy, open_run
from keepbest.cli import main


@pytest.fixture
def convert(capsys):
    """Call the verb, and return its exit code, what it printed, and what it said was wrong."""

    def call(*words):
        capsys.readouterr()
        code = main(["convert", *map(str, words)])
        out, err = capsys.readouterr()
        return code, out, err

    return call


@pytest.fixture
def model(make, data):
    """A trained model with a random layer."""
    model = make()
    model.train_on_batch(data["x"], data["y"])
    return model


def plain(keras, data, units=6):
    """Return a trained model that draws no random numbers."""
    keras.utils.clear_session(free_memory=False)
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(units), keras.layers.Dense(1)])
    model.compile(keras.optimizers.Adam(0.01), "mse", jit_compile=False)
    model.train_on_batch(data["x"], data["y"])
    return model


def same(found, expected):
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        assert one.dtype == other.dtype
        assert one.tobytes() == other.tobytes()


@pytest.mark.parametrize("ending", [".weights.h5", ".keras"])
def test_weights_come_in_bit_for_bit_by_their_places(convert, model, values, tmp_path, ending):
    """Each variable is found at the path that it has in the file; what Keras loads from it is the same."""
    file = tmp_path / f"in{ending}"
    (model.save_weights if ending == ".weights.h5" else model.save)(file)
    code, out, err = convert(file, tmp_path / "run", "--json")
    assert (code, err, json.loads(out)["complete"]) == (0, "", False)
    weights = open_run(tmp_path / "run").latest.load("model")
    kernel, bias = values(model.layers[0].variables)
    same([weights["layers/dense/vars/0"], weights["layers/dense/vars/1"]], [kernel, bias])
    assert len(weights) == len(model.weights)
    assert open_run(tmp_path / "run").verify().ok


def test_a_whole_model_in_h5_continues_in_fit(convert, keras, data, values, tmp_path):
    """The older format has names for the optimizer's values too, so training goes on from it bit for bit."""
    first = plain(keras, data)
    first.save(tmp_path / "in.h5")
    assert convert(tmp_path / "in.h5", tmp_path / "run", "--epoch", "3")[0] == 0
    checkpoint = open_run(tmp_path / "run").latest
    assert (checkpoint.complete, checkpoint.epoch) == (True, 2)
    assert list(checkpoint.load("model")) == sorted(variable.path for variable in first.variables)
    before = values([*first.variables, *first.optimizer.variables])
    second = plain(keras, data)
    second.set_weights([weight * 0 for weight in second.get_weights()])
    with Checkpointer(str(tmp_path / "run"), CheckpointPolicy(), model=second, optimizer=second.optimizer) as ckpt:
        ckpt.resume()
    same(values([*second.variables, *second.optimizer.variables]), before)


def test_bfloat16_keeps_its_bits_in_both_formats(convert, keras, values, tmp_path):
    """HDF5 has no bfloat16: Keras stores opaque bytes, which are understood."""
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, dtype="bfloat16")])
    model.save_weights(tmp_path / "in.weights.h5")
    model.save(tmp_path / "in.h5")
    for run, (file, names) in {
        "new": ("in.weights.h5", ["layers/dense/vars/0", "layers/dense/vars/1"]),
        "old": ("in.h5", ["sequential/dense/kernel", "sequential/dense/bias"]),
    }.items():
        assert convert(tmp_path / file, tmp_path / run)[0] == 0
        weights = open_run(tmp_path / run).latest.load("model")
        same([weights[name] for name in names], values(model.layers[0].variables))


@pytest.mark.parametrize("described", ["model.keras", "model.json"])
def test_a_run_of_keras_becomes_weights_that_the_model_loads(convert, model, values, tmp_path, described):
    """With the model at hand, the file is Keras' own, and load_weights gives every variable its bits."""
    with Checkpointer(str(tmp_path / "run"), CheckpointPolicy(), model=model) as ckpt:
        ckpt.log(loss=1.0)
    if described == "model.json":
        (tmp_path / described).write_text(model.to_json())
    else:
        type(model).from_config(model.get_config()).save(tmp_path / described)
    code, _, err = convert(tmp_path / "run", tmp_path / "out.weights.h5")
    assert (code, "Give it with --model" in err, (tmp_path / "out.weights.h5").exists()) == (2, True, False)
    code, out, _ = convert(tmp_path / "run", tmp_path / "out.weights.h5", "--model", tmp_path / described)
    assert (code, "out.weights.h5" in out) == (0, True)
    other = type(model).from_config(model.get_config())
    other.load_weights(tmp_path / "out.weights.h5")
    same(values(other.weights), values(model.weights))


@pytest.mark.parametrize(("target", "says"), [("out.pth", True), ("out/", True), ("out.weights.h5", False)])
def test_who_gets_the_tensors_of_keras_is_told_how_they_lie(convert, model, tmp_path, target, says):
    """A layer of PyTorch does not take them as they are; a file of Keras is no place to say so."""
    with Checkpointer(str(tmp_path / "run"), CheckpointPolicy(), model=model) as ckpt:
        ckpt.log(loss=1.0)
    model.save(tmp_path / "model.keras")
    words = () if says else ("--model", tmp_path / "model.keras")
    code, out, _ = convert(tmp_path / "run", f"{tmp_path}/{target}", *words)
    assert (code, "a Dense kernel is (inputs, outputs)" in " ".join(out.split())) == (0, says)


def test_the_wrong_model_is_an_error_that_lists_the_differences(convert, make, model, tmp_path):
    """Nothing is written."""
    with Checkpointer(str(tmp_path / "run"), CheckpointPolicy(), model=model) as ckpt:
        ckpt.log(loss=1.0)
    make(units=5).save(tmp_path / "other.keras")
    code, _, err = convert(tmp_path / "run", tmp_path / "out.weights.h5", "--model", tmp_path / "other.keras")
    assert (code, "has shape (4, 8) in the checkpoint, (4, 5) here" in err) == (2, True)
    assert ("only=[" in err, "Give the --model that it was saved from" in err) == (False, True)
    assert not (tmp_path / "out.weights.h5").exists()


def test_what_is_no_models_is_an_error_of_one_sentence(convert, model, tmp_path):
    """Numbers for names, plain values for tensors, or no dictionary at all."""
    model.save(tmp_path / "model.keras")
    for number, state in enumerate([{0: np.ones(3)}, {"dense/kernel": "text"}, [np.ones(3)]]):
        with Checkpointer(str(tmp_path / f"{number}"), CheckpointPolicy(), mode="sync", odd=Holder(state)) as ckpt:
            ckpt.save()
        words = ["--name", "odd", "--model", tmp_path / "model.keras"]
        code, _, err = convert(tmp_path / f"{number}", tmp_path / "out.weights.h5", *words)
        assert (code, "it is not the weights of a Keras model" in err) == (2, True), err
    assert not (tmp_path / "out.weights.h5").exists()


def alike(keras, seed):
    """Return a model of twelve layers that differ in nothing but their weights."""
    keras.utils.set_random_seed(seed)
    layers = [keras.layers.Dense(4, use_bias=False) for _ in range(12)]
    model = keras.Sequential([keras.Input((4,)), *layers])
    model.compile("sgd", "mse")
    return model


@pytest.mark.parametrize("again", [False, True], ids=["same names", "other counters"])
def test_layers_that_are_alike_do_not_change_places(convert, keras, values, tmp_path, again):
    """HDF5 has dense_10 before dense_2; each layer gets its own weights all the same."""
    keras.utils.clear_session(free_memory=False)
    model = alike(keras, 1)
    model.save(tmp_path / "in.h5")
    (alike(keras, 2) if again else model).save(tmp_path / "model.keras")
    assert convert(tmp_path / "in.h5", tmp_path / "run")[0] == 0
    words = ["--model", tmp_path / "model.keras"]
    code, _, err = convert(tmp_path / "run", tmp_path / "out.weights.h5", *words)
    assert (code, err) == (0, "")
    other = type(model).from_config(model.get_config())
    other.load_weights(tmp_path / "out.weights.h5")
    same(values(other.weights), values(model.weights))


def test_what_came_out_of_weights_h5_goes_back_without_the_model(convert, make, model, values, tmp_path):
    """Its tensors have their places for names, so the file is made again, the optimizer's too, and Keras loads it."""
    model.save_weights(tmp_path / "in.weights.h5")
    assert convert(tmp_path / "in.weights.h5", tmp_path / "run")[0] == 0
    assert convert(tmp_path / "run", tmp_path / "out.weights.h5")[0] == 0
    other = make()
    other.optimizer.build(other.trainable_variables)
    other.load_weights(tmp_path / "out.weights.h5")
    same(values([*other.weights, *other.optimizer.variables]), values([*model.weights, *model.optimizer.variables]))


def test_a_lambda_in_the_model_is_refused_unrun(convert, keras, tmp_path):
    """Keras' safe mode stays on, whatever it says in the file."""
    weights = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    with Checkpointer(str(tmp_path / "run"), CheckpointPolicy(), model=weights) as ckpt:
        ckpt.log(loss=1.0)
    trap = f"(__import__('pathlib').Path({str(tmp_path / 'ran')!r}).touch(), x)[1]"
    evil = keras.Sequential([keras.Input((4,)), keras.layers.Lambda(eval(f"lambda x: {trap}")), keras.layers.Dense(3)])
    (tmp_path / "ran").unlink()
    evil.save(tmp_path / "evil.keras")
    (tmp_path / "evil.json").write_text(evil.to_json())
    for file in ("evil.keras", "evil.json"):
        code, _, err = convert(tmp_path / "run", tmp_path / "out.weights.h5", "--model", tmp_path / file)
        assert (code, "safe mode" in err, (tmp_path / "ran").exists()) == (2, True, False)


def test_reading_needs_no_keras(model, tmp_path):
    """Whoever has only h5py can convert a model; neither Keras nor its backends are imported."""
    model.save(tmp_path / "in.keras")
    script = (
        "import sys; from keepbest.cli import main; code = main(sys.argv[1:]);"
        "print(code, sorted({'keras', 'tensorflow', 'torch', 'jax'} & set(sys.modules)))"
    )
    words = ["convert", str(tmp_path / "in.keras"), str(tmp_path / "run")]
    said = subprocess.run([sys.executable, "-c", script, *words], capture_output=True, text=True, check=True)
    assert said.stdout.splitlines()[-1] == "0 []"


def test_only_the_weights_of_an_archive_are_read(convert, model, tmp_path):
    """Its configuration may be anything: it is not looked at, and nothing else is unpacked."""
    model.save(tmp_path / "whole.keras")
    with zipfile.ZipFile(tmp_path / "whole.keras") as old, zipfile.ZipFile(tmp_path / "in.keras", "w") as new:
        new.writestr("config.json", "no JSON")
        new.writestr("../outside", "x")
        new.writestr("model.weights.h5", old.read("model.weights.h5"))
    assert convert(tmp_path / "in.keras", tmp_path / "in" / "run")[0] == 0
    assert sorted(file.name for file in tmp_path.iterdir()) == ["in", "in.keras", "whole.keras"]
    assert np.array_equal(
        open_run(tmp_path / "in" / "run").latest.load("model", only="layers/dense/vars/0")["layers/dense/vars/0"],
        h5py.File(_weights_of(tmp_path / "whole.keras"))["layers/dense/vars/0"][()],
    )


def _weights_of(archive):
    with zipfile.ZipFile(archive) as opened:
        return opened.extract("model.weights.h5", archive.parent / "in")
