"""ModelCheckpoint behaves as Keras' own, side by side with it, where that is right; and safely where it is not."""

import os
from pathlib import Path

import fsspec
import numpy as np
import pytest
from contracts.places import LocalPlace
from safetensors.numpy import load_file

import keepbest
from keepbest import open_run
from keepbest.adapters.keras import ModelCheckpoint, load_weights
from keepbest.errors import (
    AmbiguousModeError,
    ConfigError,
    DamagedFileError,
    KeepbestError,
    ObjectNotFoundError,
    PlaceholderError,
    SaveFailedError,
    StateMismatchError,
    StorageError,
)
from keepbest.storage.backend import open_backend

LOSSES = (0.5, 0.4, 0.45, 0.3, 0.3)


class Script:
    """Plays the hooks of a training whose metrics are given, on a model whose weights say which save it was."""

    def __init__(self, model):
        self.model = model
        self.saves = 0

    def play(self, *callbacks, values=LOSSES, key="val_loss", batches=4, steps_per_execution=1):
        for callback in callbacks:
            callback.set_model(self.model)
            callback.on_train_begin()
        for epoch, value in enumerate(values):
            self.mark()
            for callback in callbacks:
                callback.on_epoch_begin(epoch)
            for batch in range(steps_per_execution - 1, batches, steps_per_execution):
                for callback in callbacks:
                    callback.on_train_batch_end(batch, {"loss": 1.0 - (4 * epoch + batch) / 100})
            logs = {"loss": 0.6 - epoch / 10} | ({} if value is None else {key: value})
            for callback in callbacks:
                callback.on_epoch_end(epoch, logs)

    def mark(self):
        self.saves += 1
        self.model.layers[0].set_weights([np.full((2, 1), self.saves), np.zeros(1)])


@pytest.fixture
def model(keras):
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse", metrics=["mae", keras.metrics.BinaryAccuracy(name="accuracy")])
    model.train_on_batch(np.zeros((2, 2)), np.zeros((2, 1)))
    return model


@pytest.fixture
def script(model):
    return Script(model)


@pytest.fixture
def kernel(keras, tmp_path):
    """Return the weight that tells the epoch of a saved model, in a place or on disk."""

    def kernel(where, name):
        path = where / name if isinstance(where, Path) else where.download(name, tmp_path)
        if str(path).endswith(".weights.h5"):
            model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
            model.load_weights(path)
        else:
            model = keras.saving.load_model(path, compile=False)
        return float(model.layers[0].get_weights()[0][0, 0])

    return kernel


def files(where):
    """Return what a user sees in a place or a folder, hidden files left out."""
    found = (LocalPlace(where) if isinstance(where, Path) else where).files()
    return [name for name in found if not name.startswith(".keepbest/")]


TABLE = [
    pytest.param("m_{epoch:02d}.keras", {}, id="every-epoch"),
    pytest.param("m.keras", {"save_best_only": True}, id="best"),
    pytest.param("m_{epoch}_{val_loss:.2f}.keras", {"save_best_only": True}, id="best-with-metric"),
    pytest.param("m.weights.h5", {"save_best_only": True, "save_weights_only": True}, id="best-weights"),
    pytest.param("m_{epoch}.weights.h5", {"save_weights_only": True}, id="weights"),
    pytest.param("m_{epoch}.h5", {}, id="h5"),
    pytest.param("{epoch}/deep/{loss:.3f}.keras", {}, id="folders"),
    pytest.param("m_{epoch}_{batch}.keras", {"save_freq": 3}, id="batches"),
    pytest.param("m_{epoch}_{batch}.keras", {"save_freq": 7}, id="batches-over-epochs"),
    pytest.param("m_{epoch}_{batch}.keras", {"save_freq": 6}, id="batches-more-than-an-epoch"),
    pytest.param("m_{epoch}.keras", {"save_best_only": True, "mode": "max"}, id="max"),
    pytest.param("m_{epoch}.keras", {"save_best_only": True, "mode": "min"}, id="min"),
    pytest.param("m_{epoch}.keras", {"save_best_only": True, "initial_value_threshold": 0.45}, id="threshold"),
    pytest.param("m_{epoch}.keras", {"save_best_only": True, "initial_value_threshold": 0.1}, id="never-reached"),
    pytest.param("m_{epoch}.keras", {"save_best_only": True, "monitor": "val_mae"}, id="metric-down"),
    pytest.param("m_{epoch}.keras", {"save_best_only": True, "monitor": "val_accuracy"}, id="metric-up"),
    pytest.param("m_{epoch}.keras", {"save_best_only": True, "monitor": "loss"}, id="training-loss"),
]


@pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5 file")
@pytest.mark.parametrize(("template", "settings"), TABLE)
def test_same_as_keras(  # noqa: PLR0913, PLR0917 - fixtures
    keras, script, kernel, place, tmp_path, capsys, template, settings
):
    """The same files, with the same weights, after the same messages as keras.callbacks.ModelCheckpoint."""
    seen = []
    for kind, where in ((keras.callbacks.ModelCheckpoint, LocalPlace(tmp_path / "keras")), (ModelCheckpoint, place)):
        script.saves = 0
        callback = kind(where.at(template), verbose=1, **settings)
        key = callback.monitor if callback.monitor != "loss" else "val_loss"
        script.play(callback, key=key)
        printed = capsys.readouterr().out.replace(where.url, "ROOT")
        weights = {name: kernel(where, name) for name in files(where)}
        seen.append((weights, printed, callback.best, callback.filepath.replace(where.url, "ROOT")))
    assert seen[1] == seen[0]
    assert seen[1][0] or settings.get("initial_value_threshold") == 0.1


def test_same_as_keras_in_fit(keras, make, fit, tmp_path, capsys):
    """Beside each other in one fit, both write the same files at the same moments."""
    model = make()
    pairs = [
        (keras.callbacks.ModelCheckpoint, "keras"),
        (ModelCheckpoint, "ours"),
    ]
    callbacks = []
    for kind, side in pairs:
        callbacks.append(kind(tmp_path / side / "a_{epoch}_{val_mae:.3f}.keras", verbose=1, save_best_only=True))
        callbacks.append(kind(tmp_path / side / "b_{epoch}-{batch}.weights.h5", save_weights_only=True, save_freq=2))
    fit(model, callbacks)
    printed = [line for line in capsys.readouterr().out.splitlines() if line]
    for side in ("keras", "ours"):
        assert any(side in line for line in printed)
    assert [line.replace("/keras/", "/ours/") for line in printed if "/keras/" in line] == [
        line for line in printed if "/ours/" in line
    ]
    assert files(tmp_path / "ours") == files(tmp_path / "keras")
    for name in files(tmp_path / "keras"):
        if name.endswith(".keras"):
            both = [keras.saving.load_model(tmp_path / side / name) for _, side in pairs]
            for one, other in zip(both[0].get_weights(), both[1].get_weights(), strict=True):
                assert np.array_equal(one, other)


def test_same_counting_with_several_steps_at_a_time(keras, script, tmp_path):
    """With steps_per_execution, batches are counted as Keras counts them."""
    for side, kind in {"keras": keras.callbacks.ModelCheckpoint, "ours": ModelCheckpoint}.items():
        script.play(kind(tmp_path / side / "m_{epoch}_{batch}.keras", save_freq=5), batches=6, steps_per_execution=2)
    assert files(tmp_path / "ours") == files(tmp_path / "keras")
    assert files(tmp_path / "ours")


@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param({"filepath": "m.txt"}, id="suffix"),
        pytest.param({"filepath": "m.keras", "save_weights_only": True}, id="suffix-of-weights"),
        pytest.param({"filepath": "m.keras", "save_freq": "epochs"}, id="save-freq"),
        pytest.param({"filepath": "m.keras", "save_freq": 1.5}, id="save-freq-float"),
    ],
)
def test_same_errors_as_keras(keras, arguments):
    """What Keras refuses with a ValueError is refused with its words, as one of ours too."""
    with pytest.raises(ValueError, match=".") as theirs:
        keras.callbacks.ModelCheckpoint(**arguments)
    with pytest.raises(ConfigError) as ours:
        ModelCheckpoint(**arguments)
    assert isinstance(ours.value, ValueError)
    assert str(ours.value).startswith(str(theirs.value))


def test_same_warning_of_an_unknown_mode_as_keras(keras):
    """An unknown mode is told in Keras' words and taken for "auto"."""
    with pytest.warns(UserWarning, match="mode 'MAX' is unknown") as caught:
        keras.callbacks.ModelCheckpoint("m.keras", mode="MAX")
        callback = ModelCheckpoint("m.keras", mode="MAX")
    assert str(caught[0].message) == str(caught[1].message)
    assert caught[1].filename == __file__
    assert callback.mode == "auto"


def test_arguments_by_position(tmp_path):
    """The order of the arguments is Keras' own."""
    callback = ModelCheckpoint(tmp_path / "m.weights.h5", "val_mae", 1, True, True, "max", 5, 0.5)
    expected = (str(tmp_path / "m.weights.h5"), "val_mae", 1, True, True, "max", 5, 0.5)
    names = ("filepath", "monitor", "verbose", "save_best_only", "save_weights_only", "mode", "save_freq", "best")
    assert tuple(getattr(callback, name) for name in names) == expected


# ── what Keras' own does wrong ────────────────────────────────────────────────────────────────────────────────────


def test_best_within_epochs(script, kernel, place):
    """save_best_only with an int save_freq judges by the logs of batches; Keras' own raises a TypeError."""
    callback = ModelCheckpoint(place.at("m.keras"), monitor="loss", save_best_only=True, save_freq=2)
    script.play(callback, values=LOSSES[:2])
    assert callback.best == pytest.approx(1 - 7 / 100)
    assert kernel(place, "m.keras") == 2


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_nan_is_never_the_best(script, kernel, place, capsys, bad):
    """NaN or infinity, first or later, is not saved, and the message says why."""
    callback = ModelCheckpoint(place.at("m.keras"), verbose=1, save_best_only=True)
    script.play(callback, values=(bad, 0.5, bad, 0.4))
    printed = capsys.readouterr().out
    assert f"Epoch 1: val_loss did not improve from None (val_loss is {bad}, which is never the best)" in printed
    assert "Epoch 4: val_loss improved from 0.50000 to 0.40000" in printed
    assert callback.best == 0.4
    assert kernel(place, "m.keras") == 4


def test_missing_metric_saves_as_keras_does(keras, script, tmp_path):
    """Without the metric, Keras 3 warns and saves; so do we, into a file of which nothing is known."""
    for side, kind in {"keras": keras.callbacks.ModelCheckpoint, "ours": ModelCheckpoint}.items():
        with pytest.warns(UserWarning, match="^Can save best model only with val_loss available.$"):
            script.play(kind(tmp_path / side / "m_{epoch}.keras", save_best_only=True), values=(None, 0.5, None))
    assert files(tmp_path / "ours") == files(tmp_path / "keras") == ["m_1.keras", "m_2.keras", "m_3.keras"]


def test_missing_metric_never_replaces_a_better_file(script, kernel, place):
    """A model that cannot be judged does not replace one that was judged: that is told, and nothing is written."""
    callback = ModelCheckpoint(place.at("m.keras"), save_best_only=True)
    with pytest.warns(
        UserWarning, match=r"available\. .*m\.keras holds a model of which val_loss is known \(0\.50000\)"
    ):
        script.play(callback, values=(0.5, None, 0.6))
    assert kernel(place, "m.keras") == 1
    assert callback.best == 0.5


def test_missing_metric_and_a_threshold(script, kernel, place):
    """With a threshold, a file that was there is taken to have it, and is not replaced unseen."""
    script.play(ModelCheckpoint(place.at("m.keras")), values=(0.5,))
    with pytest.warns(UserWarning, match="was left as it is"):
        script.play(
            ModelCheckpoint(place.at("m.keras"), save_best_only=True, initial_value_threshold=0.5), values=(None,)
        )
    assert kernel(place, "m.keras") == 1


def test_a_vector_is_not_judged(script, tmp_path):
    """A metric with several values is told in Keras' words."""
    callback = ModelCheckpoint(tmp_path / "m.keras", save_best_only=True)
    with pytest.warns(
        UserWarning, match=r"only when `monitor` is a scalar value\. Received: \[0\.1 0\.2\]\. Falling back"
    ):
        script.play(callback, values=(np.array([0.1, 0.2]),))
    assert files(tmp_path) == ["m.keras"]
    assert callback.best is None


def test_a_direction_nobody_knows(script, tmp_path):
    """A metric of which neither Keras nor keepbest knows the direction is an error that names it; never a guess."""
    with pytest.raises(AmbiguousModeError, match="'val_glorp'") as caught:
        script.play(ModelCheckpoint(tmp_path / "m.keras", "val_glorp", save_best_only=True), key="val_glorp")
    assert isinstance(caught.value, ValueError)
    assert files(tmp_path) == []


def test_the_metrics_own_direction(keras, tmp_path):
    """A metric class that declares its direction is believed, even against what its name suggests."""

    class Upward(keras.metrics.Mean):
        def __init__(self, name):
            super().__init__(name=name)
            self._direction = "up"

        def update_state(self, y_true, y_pred, sample_weight=None):
            super().update_state(y_pred)

    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse", metrics=[Upward(name="weird_error")])
    callback = ModelCheckpoint(tmp_path / "m.keras", "val_weird_error", save_best_only=True)
    Script(model).play(callback, key="val_weird_error", values=(0.1, 0.3, 0.2))
    assert callback.best == 0.3
    assert callback.monitor_op is keras.ops.greater


def test_missing_placeholder(script, tmp_path):
    """A placeholder without a metric is an error that lists what was logged, a KeyError as in Keras."""
    with pytest.raises(
        PlaceholderError, match="Failed to format this callback filepath: .*Did you mean 'val_loss'"
    ) as caught:
        script.play(ModelCheckpoint(tmp_path / "m_{val_los:.2f}.keras"))
    assert isinstance(caught.value, KeyError)
    assert files(tmp_path) == []


def test_a_folder_in_the_way(script, place):
    """A folder where the file should go is told as such, on disk in Keras' words, and keeps what is in it."""
    place.write("m.keras/notes.txt", b"precious")
    words = "is a folder" if "://" in place.url else "Please specify a non-directory filepath"
    with pytest.raises(OSError, match=words) as caught:
        script.play(ModelCheckpoint(place.at("m.keras")))
    assert isinstance(caught.value, StorageError)
    assert files(place) == ["m.keras/notes.txt"]


def test_a_failed_save_harms_nothing(script, kernel, place, monkeypatch):
    """If Keras fails half way, the old file and `best` stay, nothing half-written is left, and fit is told."""
    callback = ModelCheckpoint(place.at("m.keras"), save_best_only=True)
    script.play(callback, values=(0.5,))

    def broken(path, **_):
        Path(path).write_bytes(b"half")
        raise TypeError("cannot serialise")

    monkeypatch.setattr(script.model, "save", broken)
    with pytest.raises(SaveFailedError, match="cannot serialise") as caught:
        script.play(callback, values=(0.4,))
    assert isinstance(caught.value.__cause__, TypeError)
    assert callback.best == 0.5
    assert kernel(place, "m.keras") == 1
    assert not [name for name in place.files() if ".tmp-" in name]
    monkeypatch.undo()
    script.play(callback, values=(0.45,))
    assert callback.best == 0.45
    assert kernel(place, "m.keras") == script.saves


def test_a_full_disk_is_told_as_such(script, tmp_path, monkeypatch):
    """An OSError of Keras' own writing reaches the user as one of ours."""
    callback = ModelCheckpoint(tmp_path / "m.keras")
    monkeypatch.setattr(script.model, "save", lambda *_, **__: (_ for _ in ()).throw(OSError(28, "No space left")))
    with pytest.raises(keepbest.errors.StorageFullError):
        script.play(callback)


def test_a_reader_never_sees_half_a_file(script, place, monkeypatch):
    """While Keras writes, what is at the user's path is the old file, whole: the new one appears at once."""
    path = place.at("m.keras")
    script.play(ModelCheckpoint(path), values=(0.5,))
    before = place.read("m.keras")
    real, seen = script.model.save, []

    def watched(target, **settings):
        real(target, **settings)
        seen.append(place.read("m.keras"))

    monkeypatch.setattr(script.model, "save", watched)
    script.play(ModelCheckpoint(path), values=(0.4,))
    assert seen == [before]
    assert place.read("m.keras") != before


# ── what is beside the files ──────────────────────────────────────────────────────────────────────────────────────


def test_a_user_sees_only_the_files(script, place):
    """In the folder is what Keras would have written, and one hidden folder; of each callback one commit stays."""
    script.play(
        ModelCheckpoint(place.at("m_{epoch}.keras")), ModelCheckpoint(place.at("best.keras"), save_best_only=True)
    )
    assert files(place) == ["best.keras", *(f"m_{n}.keras" for n in range(1, 6))]
    runs = {name.split("/")[1] for name in place.files() if name.startswith(".keepbest/")}
    assert len(runs) == 2
    for run in runs:
        opened = open_run(place.at(f".keepbest/{run}"))
        assert len(opened.checkpoints()) == 1
        assert opened.verify().ok


def test_local_files_take_their_space_once(script, tmp_path):
    """The hidden run and the user's path share one file where the file system has hard links."""
    script.play(ModelCheckpoint(tmp_path / "m.keras"), values=(0.5,))
    assert (tmp_path / "m.keras").stat().st_nlink == 2


def test_a_fresh_callback_starts_afresh(script, kernel, place):
    """A new callback knows nothing of the run before, as in Keras: its first value is the best so far."""
    script.play(ModelCheckpoint(place.at("m.keras"), save_best_only=True), values=(0.1,))
    callback = ModelCheckpoint(place.at("m.keras"), save_best_only=True)
    script.play(callback, values=(0.9,))
    assert callback.best == 0.9
    assert kernel(place, "m.keras") == 2


def test_best_goes_on_over_two_fits(script, kernel, place):
    """The same callback keeps its best from one fit to the next, as in Keras."""
    callback = ModelCheckpoint(place.at("m.keras"), save_best_only=True)
    script.play(callback, values=(0.3,))
    script.play(callback, values=(0.5,))
    assert kernel(place, "m.keras") == 1


def test_resume_continues_the_best(script, kernel, place):
    """With resume=True a worse model does not replace the best of the run before; a better one does."""
    settings = {"filepath": place.at("m.keras"), "save_best_only": True, "resume": True}
    script.play(ModelCheckpoint(**settings), values=(0.5, 0.3))
    callback = ModelCheckpoint(**settings)
    script.play(callback, values=(0.4,))
    assert callback.best == 0.3
    assert kernel(place, "m.keras") == 2
    script.play(callback, values=(0.2,))
    assert kernel(place, "m.keras") == 4


def test_resume_finishes_what_a_crash_left(script, kernel, place, monkeypatch):
    """A crash after the commit and before the file was placed: resume=True places it, so file and best agree."""
    settings = {"filepath": place.at("m.keras"), "save_best_only": True, "resume": True}
    script.play(ModelCheckpoint(**settings), values=(0.5,))

    class PowerCutError(BaseException):
        pass

    def cut(*_):
        raise PowerCutError

    with monkeypatch.context() as patch:
        patch.setattr(type(open_backend(place.url)), "publish", cut)
        with pytest.raises(PowerCutError):
            script.play(ModelCheckpoint(place.at("m.keras"), save_best_only=True), values=(0.3,))
    assert kernel(place, "m.keras") == 1
    callback = ModelCheckpoint(**settings)
    script.play(callback, values=())
    assert callback.best == 0.3
    assert kernel(place, "m.keras") == 2


def test_resume_in_a_folder_that_was_moved(script, kernel, tmp_path):
    """What is remembered moves with the folder, and its files are placed there."""
    script.play(ModelCheckpoint(tmp_path / "a" / "m_{epoch}.keras", save_best_only=True), values=(0.5, 0.3))
    (tmp_path / "a").rename(tmp_path / "b")
    callback = ModelCheckpoint(tmp_path / "b" / "m_{epoch}.keras", save_best_only=True, resume=True)
    script.play(callback, values=(0.4,))
    assert callback.best == 0.3
    assert not (tmp_path / "a").exists()


def test_resume_by_another_metric(script, place):
    """A best by another metric, or in another direction, is refused: it cannot be compared."""
    script.play(ModelCheckpoint(place.at("m.keras"), save_best_only=True))
    for settings in ({"monitor": "val_mae"}, {"mode": "max"}):
        with pytest.raises(ConfigError, match="cannot be compared"):
            script.play(ModelCheckpoint(place.at("m.keras"), save_best_only=True, resume=True, **settings))


# ── places and formats ────────────────────────────────────────────────────────────────────────────────────────────


def test_any_url(script, kernel, tmp_path):
    """A filepath may be any URL that keepbest stores to."""
    fsspec.filesystem("memory").store.clear()
    callback = ModelCheckpoint("memory://bucket/deep/m_{epoch}.keras", verbose=0)
    script.play(callback, values=(0.5, 0.4))
    fs = fsspec.filesystem("memory")
    seen = [name for name in fs.find("bucket") if ".keepbest" not in name]
    assert seen == ["/bucket/deep/m_1.keras", "/bucket/deep/m_2.keras"]
    fs.get_file("/bucket/deep/m_2.keras", tmp_path / "m.keras")
    assert kernel(tmp_path, "m.keras") == 2
    script.play(ModelCheckpoint((tmp_path / "u.keras").as_uri()), values=(0.5,))
    assert (tmp_path / "u.keras").exists()


def test_a_relative_path(script, kernel, tmp_path, monkeypatch):
    """A bare file name means the current folder."""
    monkeypatch.chdir(tmp_path)
    script.play(ModelCheckpoint("m.keras"), values=(0.5,))
    assert sorted(os.listdir(tmp_path)) == [".keepbest", "m.keras"]


def test_a_scheme_nobody_serves():
    """A URL that cannot be stored to is refused when the callback is made, not after the first epoch."""
    with pytest.raises(ConfigError, match="no backend serves"):
        ModelCheckpoint("nowhere://bucket/m.keras")


@pytest.mark.parametrize("weights_only", [False, True])
def test_safetensors(script, keras, make, place, tmp_path, weights_only):  # noqa: PLR0913, PLR0917 - fixtures
    """`.safetensors` is the weights alone, which safetensors reads by itself and `load_weights` puts back."""
    path = place.at("best.safetensors")
    callback = ModelCheckpoint(path, save_best_only=True, save_weights_only=weights_only)
    script.play(callback)
    weights = load_file(place.download("best.safetensors", tmp_path))
    assert [str(array.dtype) for array in weights.values()] == ["float32", "float32"]
    assert float(weights[script.model.layers[0].kernel.path][0, 0]) == 4
    again = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    load_weights(again, path)
    assert float(again.layers[0].get_weights()[0][0, 0]) == 4
    with pytest.raises(StateMismatchError):
        load_weights(make(), path)
    place.write("best.safetensors", b"no")
    with pytest.raises(DamagedFileError):
        load_weights(again, path)
    place.delete("best.safetensors")
    with pytest.raises(ObjectNotFoundError):
        load_weights(again, path)


def test_a_run_is_no_file_of_weights(make, tmp_path):
    """Given a run, `load_weights` says which of its files is meant."""
    run = tmp_path / "run"
    with keepbest.Checkpointer(run, model=make()) as ckpt:
        ckpt.log(loss=1.0)
    with pytest.raises(ConfigError, match=r"is a folder, .*best/model.safetensors"):
        load_weights(make(), run)


def test_middle_of_an_epoch_is_whole(keras, make, fit, tmp_path):
    """A file saved within an epoch has the weights of that very step, on JAX too."""
    model = make()
    weights = []

    class Spy(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            weights.append([np.array(array) for array in self.model.get_weights()])

    fit(model, [ModelCheckpoint(tmp_path / "{epoch}-{batch}.safetensors", save_freq=1), Spy()], epochs=2)
    for number, expected in enumerate(weights):
        name = f"{number // 3 + 1}-{number % 3 + 1}.safetensors"
        stored = load_file(tmp_path / name)
        for variable, array in zip(model.weights, expected, strict=True):
            assert np.array_equal(stored[variable.path], array)


def test_errors_are_keepbest_errors(script, tmp_path):
    """Whatever goes wrong is a KeepbestError."""
    (tmp_path / "file").write_text("")
    with pytest.raises(KeepbestError):
        script.play(ModelCheckpoint(tmp_path / "file" / "m.keras"))


def test_a_quiet_callback_does_not_hold_up_batches(tmp_path):
    """Keras may train on without waiting for each batch's logs where none are needed."""
    assert ModelCheckpoint(tmp_path / "m.keras").async_safe
    assert not ModelCheckpoint(tmp_path / "m.keras", save_freq=10).async_safe
