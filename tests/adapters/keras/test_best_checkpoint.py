"""BestCheckpoint: one line in `fit` saves, keeps the best, stops on patience, and continues where a run stopped."""

import gc
import signal
import threading

import numpy as np
import pytest
from fsspec.asyn import get_loop

from keepbest import CheckpointPolicy, MonitorSpec, open_run
from keepbest.adapters.keras import BestCheckpoint
from keepbest.errors import (
    AmbiguousModeError,
    ConfigError,
    MetricValueError,
    MissingMetricError,
    PolicyError,
    SaveFailedError,
    StateError,
    StateMismatchError,
    StorageFullError,
    UsageError,
)
from keepbest.storage.backend import open_backend
from keepbest.storage.local import LocalBackend

POLICY = CheckpointPolicy(monitor="val_loss")
FALLING = CheckpointPolicy(monitor="val_loss", mode="max")
"""Of a loss that falls, the first is the best."""


class BrokenError(Exception):
    pass


@pytest.fixture
def state(values):
    return lambda model: values([*model.variables, *model.optimizer.variables])


def same(one, other):
    return all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


def told(caught, text):
    return [warning for warning in caught if text in str(warning.message)]


@pytest.fixture
def breaks(keras):
    """Return a callback that raises at the end of a batch, or of an epoch."""

    class Breaks(keras.callbacks.Callback):
        def __init__(self, *, step=None, epoch=None):
            super().__init__()
            self.step, self.epoch = step, epoch

        def on_train_batch_end(self, batch, logs=None):
            if self.step is not None:
                self.step -= 1
                if self.step == 0:
                    raise BrokenError

        def on_epoch_begin(self, epoch, logs=None):
            if epoch == self.epoch:
                raise BrokenError

    return Breaks


@pytest.fixture
def adds(keras):
    """Return a callback that adds to the logs of each epoch, before those after it see them."""

    class Adds(keras.callbacks.Callback):
        def __init__(self, **values):
            super().__init__()
            self.values = values

        def on_epoch_end(self, epoch, logs=None):
            logs.update({name: value(epoch) if callable(value) else value for name, value in self.values.items()})

    return Adds


# ── saving ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_fit_leaves_a_run(make, fit, run_url, values):
    """After fit the run holds every epoch's metrics, and the best weights load without Keras."""
    model = make()
    history = fit(model, [BestCheckpoint(run_url, POLICY)])
    run = open_run(run_url)
    assert run.history()["val_loss"] == history.history["val_loss"]
    assert set(run.latest.metrics) == set(history.history)
    assert (run.latest.epoch, run.latest.step) == (2, 9)
    best = int(np.argmin(history.history["val_loss"]))
    assert run.best.epoch == best
    weights = run.best.load("model")
    assert same([weights[variable.path] for variable in model.variables], values(model.variables))
    assert run.verify().ok


def test_any_url_and_both_modes(make, fit):
    """It saves to any URL, and with mode="sync" each epoch is durable before the next begins."""
    import fsspec

    fsspec.filesystem("memory").store.clear()
    fit(make(), [BestCheckpoint("memory://keras/run", POLICY, mode="sync")])
    assert open_run("memory://keras/run").latest.epoch == 2


def test_the_best_weights_at_the_end(make, fit, run_url, values):
    """When fit ends by itself, the model has the weights of its best epoch; the run's latest has the last ones."""
    model = make()
    fit(model, [BestCheckpoint(run_url, FALLING)])
    run = open_run(run_url)
    assert (run.best.epoch, run.latest.epoch) == (0, 2)
    weights = run.best.load("model")
    assert same([weights[variable.path] for variable in model.variables], values(model.variables))


def test_the_best_weights_after_an_early_stop(make, fit, url, values):
    """When patience ends fit, likewise."""
    model = make()
    policy = FALLING.model_copy(update={"patience": 2})
    assert fit(model, [BestCheckpoint(url, policy)], epochs=9).epoch == [0, 1, 2]
    weights = open_run(url).best.load("model")
    assert same([weights[variable.path] for variable in model.variables], values(model.variables))


def test_the_last_weights_if_asked_for(make, fit, url, values):
    """With restore_best=False the model keeps the weights of its last epoch."""
    model = make()
    fit(model, [BestCheckpoint(url, FALLING, restore_best=False)])
    weights = open_run(url).latest.load("model")
    assert same([weights[variable.path] for variable in model.variables], values(model.variables))


def test_nothing_was_ranked(make, fit, url, adds):
    """If every value was NaN there is no best: one warning says so, and the last weights stay."""
    with pytest.warns(UserWarning, match="val_loss|ranked") as caught:
        fit(make(), [adds(val_loss=float("nan")), BestCheckpoint(url, POLICY)])
    texts = [str(warning.message) for warning in caught]
    assert any("is never the best" in text for text in texts)
    assert any("no checkpoint that was ranked" in text for text in texts)


def test_decisions_are_shown(make, fit, url, capsys):
    """verbose=1 prints a line for each epoch, in Keras' own way, and `decision` is the last one."""
    callback = BestCheckpoint(url, FALLING, verbose=1)
    fit(make(), [callback], epochs=2)
    printed = capsys.readouterr().out
    assert "\nEpoch 1: saved (epoch, improvement); val_loss" in printed
    assert "\nRestoring model weights from the end of the best epoch: 1." in printed
    assert callback.decision.saved
    fit(make(), [BestCheckpoint(url, FALLING, verbose=1)], epochs=2)
    assert f"\nResuming {url} from the end of epoch 2" in capsys.readouterr().out


# ── steps ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("steps_per_execution", [1, 2, 3, 4])
def test_steps_are_counted(make, fit, url, backend, steps_per_execution):
    """A checkpoint knows how many steps were trained, however many Keras makes at a time."""
    if backend == "torch" and steps_per_execution > 1:
        pytest.skip("Keras on PyTorch makes one step at a time")
    model = make(steps_per_execution=steps_per_execution)
    fit(model, [BestCheckpoint(url, POLICY)], batch_size=12, epochs=2)
    assert open_run(url).latest.step == 8 == int(np.array(model.optimizer.iterations.value))


def test_saved_within_an_epoch(keras, make, fit, run_url, values):
    """A checkpoint taken within an epoch has the weights and optimizer of that very step, on JAX too."""
    model, seen = make(), {}

    class Spy(keras.callbacks.Callback):
        def on_train_batch_begin(self, batch, logs=None):
            seen[int(np.array(self.model.optimizer.iterations.value))] = values(
                [*self.model.variables, *self.model.optimizer.variables]
            )

    policy = CheckpointPolicy(monitor="val_loss", every_n_epochs=None, every_n_steps=2, keep_all=True)
    fit(model, [Spy(), BestCheckpoint(run_url, policy, restore_best=False)], batch_size=12)
    held = [found for found in open_run(run_url).checkpoints() if "step" in found.info.reasons]
    assert [found.step for found in held] == [2, 4, 6, 8, 10, 12]
    for found in held[::2]:
        stored = [*found.load("model").values(), *found.load("optimizer").values()]
        assert same(stored, seen[found.step])


def test_no_step_waits_for_its_logs(keras, url):
    """Keras may train on without waiting for the logs of each batch, where its backend allows it."""
    from keras.src.backend import IS_THREAD_SAFE

    callbacks = keras.callbacks.CallbackList([BestCheckpoint(url, POLICY)])
    assert callbacks._async_train == IS_THREAD_SAFE


# ── continuing ────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("first", [1, 3])
def test_continued_is_as_if_never_interrupted(make, fit, run_url, state, first):
    """Two fits, the second of a new model, end with the very bits of one: weights, optimizer, dropout, history."""
    once = make()
    fit(once, [BestCheckpoint(f"{run_url}-once", POLICY, restore_best=False)], epochs=4)
    fit(make(), [BestCheckpoint(run_url, POLICY)], epochs=first)
    again = make()
    trained = fit(again, [BestCheckpoint(run_url, POLICY, restore_best=False)], epochs=4)
    assert trained.epoch == list(range(first, 4))
    assert same(state(again), state(once))
    assert open_run(run_url).history()["val_loss"] == open_run(f"{run_url}-once").history()["val_loss"]
    assert open_run(run_url).latest.step == 12


def test_a_complete_run_trains_nothing(make, fit, run_url, values):
    """Started again, a training that is done trains nothing and gives the model the best weights."""
    first = make()
    fit(first, [BestCheckpoint(run_url, FALLING)])
    second = make()
    trained = fit(second, [BestCheckpoint(run_url, FALLING)])
    assert trained.epoch == []
    assert same(values(second.variables), values(first.variables))
    assert len(open_run(run_url).history()["val_loss"]) == 3


def test_patience_goes_on(make, fit, run_url):
    """Patience used before a restart stays used."""
    policy = FALLING.model_copy(update={"patience": 4})
    assert fit(make(), [BestCheckpoint(run_url, policy)], epochs=3).epoch == [0, 1, 2]
    assert fit(make(), [BestCheckpoint(run_url, policy)], epochs=20).epoch == [3, 4]


def test_out_of_patience_trains_nothing(make, fit, url):
    """A run that patience has ended stays ended when it is started again."""
    policy = FALLING.model_copy(update={"patience": 2})
    assert fit(make(), [BestCheckpoint(url, policy)], epochs=9).epoch == [0, 1, 2]
    assert fit(make(), [BestCheckpoint(url, policy)], epochs=9).epoch == []


def test_the_best_survives(make, fit, url):
    """The best of before a restart is not replaced by what is worse."""
    fit(make(), [BestCheckpoint(url, FALLING)], epochs=1)
    fit(make(), [BestCheckpoint(url, FALLING)], epochs=3)
    assert open_run(url).best.epoch == 0


def test_the_same_callback_again(make, fit, url):
    """One callback serves several fits: each goes on where the last one ended."""
    model, callback = make(), BestCheckpoint(url, POLICY)
    assert fit(model, [callback], epochs=2).epoch == [0, 1]
    assert fit(model, [callback], epochs=3).epoch == [2]
    assert len(callback.checkpointer.history["val_loss"]) == 3


def test_the_model_forgets_where_it_began(make, fit, url):
    """A later fit of the same model without the callback begins at epoch 0, as always."""
    fit(make(), [BestCheckpoint(url, POLICY)], epochs=2)
    model = make()
    assert fit(model, [BestCheckpoint(url, POLICY)], epochs=3).epoch == [2]
    assert fit(model, [], epochs=1).epoch == [0]
    assert fit(model, [BestCheckpoint(url, POLICY)], epochs=3).epoch == []
    assert fit(model, [], epochs=1).epoch == [0]


def test_initial_epoch_of_a_fresh_run(make, fit, url):
    """A fresh run that is told to begin later counts from there."""
    assert fit(make(), [BestCheckpoint(url, POLICY)], initial_epoch=5, epochs=7).epoch == [5, 6]
    assert open_run(url).latest.epoch == 6


def test_left_within_an_epoch(make, fit, run_url, breaks):
    """A run that was left within an epoch begins that epoch anew, with one warning that says so."""
    policy = CheckpointPolicy(monitor="val_loss", every_n_steps=1)
    with pytest.raises(BrokenError):
        fit(make(), [BestCheckpoint(run_url, policy, mode="sync"), breaks(step=6)])
    with pytest.warns(UserWarning, match="left in the middle of epoch 2, after 2 of its steps") as caught:
        assert fit(make(), [BestCheckpoint(run_url, policy)]).epoch == [1, 2]
    assert len(told(caught, "left in the middle")) == 1
    assert open_run(run_url).latest.step == 3 + 2 + 3 + 3


def test_objects_of_ones_own(make, fit, run_url):
    """Further objects are saved and resumed with the model."""
    fit(make(), [BestCheckpoint(run_url, POLICY, objects={"notes": {"seen": 7}})])
    notes = {"seen": 0}
    fit(make(), [BestCheckpoint(run_url, POLICY, objects={"notes": notes})])
    assert notes == {"seen": 7}


def test_a_policy_that_is_none_is_refused_at_once(url):
    """The name of a metric is no policy."""
    with pytest.raises(PolicyError, match="not 'val_loss'"):
        BestCheckpoint(url, "val_loss")


def test_optimizers_of_a_models_own_are_not_passed_over(make, fit, url, keras):
    """What fit does not know of, as a GAN's second optimizer, is named, unless it was handed over; then it is saved."""
    model = make()
    model.second = keras.optimizers.Adam()
    model.second.build(model.trainable_variables)
    with pytest.warns(UserWarning, match=r"optimizers of its own \(second\), whose state is not saved"):
        fit(model, [BestCheckpoint(url, POLICY)])
    model = make()
    model.second = keras.optimizers.Adam()
    model.second.build(model.trainable_variables)
    fit(model, [BestCheckpoint(f"{url}-2", POLICY, objects={"second": model.second})])
    assert "second" in open_run(f"{url}-2").latest.state().objects


def test_a_model_that_does_not_fit(make, fit, run_url, state):
    """Another model is refused by fit with every difference, and is left as it is."""
    fit(make(), [BestCheckpoint(run_url, POLICY)], epochs=1)
    other = make(9)
    before = [np.array(array) for array in other.get_weights()]
    with pytest.raises(StateMismatchError, match=r"dense/kernel' has shape \(4, 8\) in the checkpoint"):
        fit(other, [BestCheckpoint(run_url, POLICY)])
    assert same(other.get_weights(), before)


# ── what goes wrong ───────────────────────────────────────────────────────────────────────────────────────────────


def test_a_metric_that_is_not_logged(make, fit, url):
    """A monitored metric that fit does not log ends it with an error that says what was meant."""
    with pytest.raises(MissingMetricError, match="Did you mean 'val_loss'"):
        fit(make(), [BestCheckpoint(url, CheckpointPolicy(monitor="val_los", mode="min"))])


def test_epochs_without_validation(make, fit, url):
    """With validation_freq=2, every=2 in the policy says that the metric is due every second epoch only."""
    fit(make(), [BestCheckpoint(url, CheckpointPolicy(monitor="val_loss", every=2))], validation_freq=2, epochs=4)
    assert [row.epoch for row in open_run(url).history().rows if "val_loss" in row.metrics] == [1, 3]


def test_logs_that_are_no_numbers(make, fit, url, adds):
    """A vector in the logs is left out of the history with one warning; a monitored one is an error."""
    adding = adds(val_classes=np.array([0.1, 0.2]))
    with pytest.warns(UserWarning, match="val_classes in the logs of fit is no number") as caught:
        fit(make(), [adding, BestCheckpoint(url, POLICY)])
    assert len(told(caught, "is no number")) == 1
    with pytest.raises(MetricValueError):
        fit(make(), [adding, BestCheckpoint(f"{url}-2", CheckpointPolicy(monitor="val_classes", mode="min"))])
    policy = CheckpointPolicy(monitor="val_classes", mode="min", reduce="mean")
    fit(make(), [adding, BestCheckpoint(f"{url}-3", policy)])
    assert open_run(f"{url}-3").history()["val_classes"] == pytest.approx([0.15] * 3)


def test_logs_that_are_tensors(keras, make, fit, url, adds):
    """A tensor that holds one number is one: where Keras leaves it in the logs, it is judged and recorded."""
    policy = CheckpointPolicy(monitor="val_own", mode="min")
    fit(make(), [adds(val_own=keras.ops.convert_to_tensor(0.5), own=np.float32(2)), BestCheckpoint(url, policy)])
    assert open_run(url).history()["val_own"] == [0.5] * 3
    assert open_run(url).best.epoch == 0
    assert open_run(url).history()["own"] == [2.0] * 3


def test_an_exception_in_fit(make, fit, run_url, state, breaks):
    """After an exception, the next fit with the same callback goes on from what was saved."""
    model, callback = make(), BestCheckpoint(run_url, POLICY, restore_best=False)
    with pytest.raises(BrokenError):
        fit(model, [callback, breaks(epoch=2)], epochs=4)
    assert fit(model, [callback], epochs=4).epoch == [2, 3]
    once = make()
    fit(once, [BestCheckpoint(f"{run_url}-once", POLICY, restore_best=False)], epochs=4)
    assert same(state(model), state(once))


def failing_put(*_args):
    raise StorageFullError("the disk")


def test_a_failed_save_ends_fit(make, fit, run_url, monkeypatch):
    """A save that fails behind training ends fit with its cause, at the next epoch at the latest."""
    with monkeypatch.context() as patch:
        patch.setattr(type(open_backend(run_url)), "put", failing_put)
        with pytest.raises(SaveFailedError, match="no space is left"):
            fit(make(), [BestCheckpoint(run_url, POLICY)])
    assert fit(make(), [BestCheckpoint(run_url, POLICY)], epochs=2).epoch == [0, 1]


def test_a_failed_save_may_be_a_warning(make, fit, run_url, monkeypatch):
    """With on_save_error="warn" training goes on."""
    callback = BestCheckpoint(run_url, POLICY.model_copy(update={"on_save_error": "warn"}), restore_best=False)
    monkeypatch.setattr(type(open_backend(run_url)), "put", failing_put)
    with pytest.warns(UserWarning, match="Training goes on"):
        assert fit(make(), [callback]).epoch == [0, 1, 2]


def test_a_failed_save_is_not_lost_with_an_exception(make, fit, url, monkeypatch, breaks):
    """An exception ends fit while a save fails: whoever fits again hears of it."""
    model, callback = make(), BestCheckpoint(url, POLICY)
    monkeypatch.setattr(LocalBackend, "put", failing_put)
    with pytest.raises(BrokenError):
        fit(model, [callback, breaks(epoch=1)])
    with pytest.raises(SaveFailedError):
        fit(model, [callback])
    monkeypatch.undo()
    assert fit(model, [callback], epochs=1).epoch == [0]


def test_a_forgotten_callback_lets_go(make, fit, url, breaks):
    """After an exception, a callback that nobody holds gives SIGTERM back and ends its thread."""
    before = signal.getsignal(signal.SIGTERM)
    callback = BestCheckpoint(url, POLICY)
    with pytest.raises(BrokenError):
        fit(make(), [callback, breaks(epoch=2)])
    assert signal.getsignal(signal.SIGTERM) is not before
    opened = callback.checkpointer
    del callback
    assert signal.getsignal(signal.SIGTERM) is before
    assert opened._closed


def test_a_callback_may_be_forgotten_in_any_thread(make, fit, run_url, breaks):
    """Python may collect a callback wherever it likes: the thread in which it does must not wait for the run to end."""
    callback = BestCheckpoint(run_url, POLICY)
    callback.itself = callback  # only the collector finds it
    gc.disable()
    try:
        with pytest.raises(BrokenError):
            fit(make(), [callback, breaks(epoch=1)])
        opened = callback.checkpointer
        del callback
        collected = threading.Event()
        get_loop().call_soon_threadsafe(lambda: (gc.collect(), collected.set()))
        assert collected.wait(30)
    finally:
        gc.enable()
    for thread in [one for one in threading.enumerate() if one.name == "keepbest-forgotten"]:
        thread.join(30)
    assert opened._closed
    assert open_run(run_url).latest.epoch == 0


def test_a_model_that_is_not_built(keras, backend, data, url):
    """A model whose weights only come into being with its first batch is refused before it trains, with what to do."""
    model = keras.Sequential([keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    settings = data | {"verbose": 0, "epochs": 1, "callbacks": [BestCheckpoint(url, POLICY)]}
    if backend == "tensorflow":
        with pytest.raises(StateError, match=r"is not built.*keras\.Input"):
            model.fit(**settings)
    else:  # these build it before fit begins
        model.fit(**settings)
        assert open_run(url).latest.epoch == 0


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        pytest.param({"url": "nowhere://x"}, ConfigError, "no backend", id="scheme"),
        pytest.param({"mode": "later"}, ConfigError, "mode", id="mode"),
        pytest.param({"objects": {"model": {}}}, ConfigError, "model's own", id="name"),
        pytest.param(
            {"policy": CheckpointPolicy(monitor="loss", keep_best=0)}, ConfigError, "keep_best=1", id="no-best"
        ),
        pytest.param({"policy": {"monitor": "loss", "pacience": 3}}, PolicyError, "patience", id="field"),
        pytest.param({"policy": {"monitor": "glorp", "keep_last": 0}}, PolicyError, "keep_last", id="field-ambiguous"),
    ],
)
def test_wrong_settings_are_refused_at_once(url, arguments, error, text):
    """What can be known when the callback is made is an error there, not after the first epoch."""
    with pytest.raises(error, match=text):
        BestCheckpoint(**({"url": url} | arguments))


def test_what_keras_cannot_tell(url):
    """A policy that saves on exceptions is told that Keras does not tell of them."""
    with pytest.warns(UserWarning, match="on_exception has no effect under fit") as caught:
        BestCheckpoint(url, CheckpointPolicy(on_exception=True))
    assert caught[0].filename == __file__


def test_before_fit(url):
    """There is no checkpointer before the first fit."""
    with pytest.raises(UsageError, match="call fit first"):
        BestCheckpoint(url, POLICY).checkpointer  # noqa: B018 - the access is the test


# ── which way is better ───────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def declares(keras):
    """Return a metric that declares its direction."""

    class Declares(keras.metrics.Mean):
        def __init__(self, name, direction):
            super().__init__(name=name)
            self._direction = direction

        def update_state(self, y_true, y_pred, sample_weight=None):
            super().update_state(y_pred)

    return Declares


@pytest.mark.parametrize(("direction", "mode"), [("up", "max"), ("down", "min")])
def test_the_metrics_own_direction(make, fit, url, declares, direction, mode):  # noqa: PLR0913, PLR0917 - fixtures
    """A metric unknown by name is judged as its Keras class declares, where the policy is given by its fields."""
    callback = BestCheckpoint(url, {"monitor": "val_glorp", "keep_best": 2})
    fit(make(metrics=[declares("glorp", direction)]), [callback])
    assert callback.checkpointer.monitors[0].mode == mode


def test_the_metrics_own_direction_beats_its_name(make, fit, url, declares):
    """The class knows better than the name, in a policy with mode="auto" too; all other settings stay."""
    policy = CheckpointPolicy(monitor=("val_my_error", "loss"), patience=7, min_delta="1%")
    callback = BestCheckpoint(url, policy)
    fit(make(metrics=[declares("my_error", "up")]), [callback])
    monitors = callback.checkpointer.monitors
    assert [(m.key, m.mode, m.patience, m.min_delta) for m in monitors] == [
        ("val_my_error", "max", 7, "1%"),
        ("loss", "min", 7, "1%"),
    ]


def test_what_the_policy_says_beats_all(make, fit, url, declares):
    """A mode that is written down is taken at its word."""
    callback = BestCheckpoint(url, CheckpointPolicy(monitor=MonitorSpec(key="val_glorp", mode="min")))
    fit(make(metrics=[declares("glorp", "up")]), [callback])
    assert callback.checkpointer.monitors[0].mode == "min"


def test_a_direction_nobody_knows(make, fit, url, adds):
    """Where neither the class nor the name tells, fit ends before it trains, with an error that names the metric."""
    model = make()
    with pytest.raises(AmbiguousModeError, match="'val_glorp'"):
        fit(model, [adds(val_glorp=1.0), BestCheckpoint(url, {"monitor": "val_glorp"})])
    assert int(np.array(model.optimizer.iterations.value)) == 0


def test_without_a_policy(make, fit, url):
    """Without a policy every epoch is saved, the last one kept, and the model keeps its last weights."""
    fit(make(), [BestCheckpoint(url)])
    assert [found.epoch for found in open_run(url).checkpoints()] == [2]
