"""BestCheckpoint among other callbacks: what is saved is what was trained and judged, whatever they do to the model."""

import numpy as np
import pytest

from keepbest import CheckpointPolicy, open_run
from keepbest.adapters.keras import BestCheckpoint
from keepbest.errors import StorageFullError
from keepbest.storage.local import LocalBackend

SELDOM = CheckpointPolicy(monitor="val_loss", mode="max", every_n_epochs=10, keep_all=True)
"""Of a loss that falls, the first is the best; the last epoch is saved because it is the last."""


def same(one, other):
    return all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


@pytest.fixture
def trained(keras, values):
    """Return a callback that remembers the weights of each epoch's end; list it first."""

    class Trained(keras.callbacks.Callback):
        def __init__(self):
            super().__init__()
            self.weights = []

        def on_epoch_end(self, epoch, logs=None):
            self.weights.append(dict(zip(*self._named(), strict=True)))

        def _named(self):
            variables = self.model.variables
            return [variable.path for variable in variables], values(variables)

    return Trained


@pytest.fixture
def stops(keras):
    """Return a callback that ends `fit` at an epoch's end."""

    class Stops(keras.callbacks.Callback):
        def __init__(self, epoch):
            super().__init__()
            self.epoch = epoch

        def on_epoch_end(self, epoch, logs=None):
            if epoch == self.epoch:
                self.model.stop_training = True

    return Stops


@pytest.fixture
def averaging(keras, make):
    """Build a model whose optimizer averages the weights; at the end of `fit`, Keras puts the averages into it."""

    def averaging():
        model = make()
        model.compile(keras.optimizers.SGD(0.1, use_ema=True), "mse")
        return model

    return averaging


def last_saved(url):
    latest = open_run(url).latest
    return latest, latest.load("model")


# ── the end ───────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("patience", [1, 9], ids=["early-stop", "all-epochs"])
def test_the_end_is_saved_before_weights_are_restored(keras, make, fit, url, trained, patience):  # noqa: PLR0913, PLR0917 - fixtures
    """The last epoch's checkpoint has its own weights, although EarlyStopping puts older ones into the model."""
    seen = trained()
    stopping = keras.callbacks.EarlyStopping("val_loss", mode="max", patience=patience, restore_best_weights=True)
    fit(make(), [seen, stopping, BestCheckpoint(url, SELDOM)])
    latest, weights = last_saved(url)
    assert latest.epoch == len(seen.weights) - 1
    assert latest.info.reasons == ("end",)
    assert same(weights.values(), seen.weights[-1].values())


def test_the_end_is_saved_before_averages(averaging, fit, url, trained):
    """The last epoch's checkpoint has the weights that were trained, although Keras puts averages into the model."""
    seen = trained()
    fit(averaging(), [seen, BestCheckpoint(url, SELDOM)])
    latest, weights = last_saved(url)
    assert latest.epoch == 2
    assert same(weights.values(), seen.weights[-1].values())


def test_the_end_is_saved_before_averages_after_patience(averaging, fit, url, trained):
    """Likewise where the policy's own patience ends `fit`."""
    seen = trained()
    fit(averaging(), [seen, BestCheckpoint(url, SELDOM.model_copy(update={"patience": 2}))], epochs=9)
    latest, weights = last_saved(url)
    assert latest.epoch == 2
    assert same(weights.values(), seen.weights[-1].values())


def test_the_end_is_saved_once(make, fit, url):
    """The checkpoint of the end is made once, the decision says so, and a run that is complete gets no other."""
    callback = BestCheckpoint(url, SELDOM)
    fit(make(), [callback])
    assert callback.decision.save_reasons == ("end",)
    fit(make(), [BestCheckpoint(url, SELDOM)])
    assert [found.info.reasons for found in open_run(url).checkpoints()] == [("improvement",), ("end",)]


def test_an_end_that_failed_is_not_made_up_for_with_other_weights(averaging, fit, url, monkeypatch):
    """Where the last save fails and that is a warning, averages do not take the place of what could not be saved."""
    put, failed = LocalBackend.put, []

    def full_once(self, key, *args, **settings):
        if "epoch-003" in key and not failed:
            failed.append(key)
            raise StorageFullError("the disk")
        return put(self, key, *args, **settings)

    monkeypatch.setattr(LocalBackend, "put", full_once)
    policy = SELDOM.model_copy(update={"on_save_error": "warn"})
    with pytest.warns(UserWarning, match="Training goes on"):
        fit(averaging(), [BestCheckpoint(url, policy, mode="sync")])
    assert failed
    assert [found.epoch for found in open_run(url).checkpoints()] == [0]


def test_the_others_find_the_checkpointer_open(keras, make, fit, url):
    """A callback that is listed later may still read the run at the end of the last epoch."""
    callback, found = BestCheckpoint(url, SELDOM), []

    class Reads(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            found.append(len(callback.checkpointer.history["val_loss"]))

    fit(make(), [callback, Reads()])
    assert found == [1, 2, 3]


def test_ended_by_a_callback_that_is_listed_later(make, fit, url, stops):
    """Whoever ends `fit` after BestCheckpoint saw the epoch: that epoch is saved all the same, with one warning."""
    with pytest.warns(UserWarning, match="List BestCheckpoint last") as caught:
        fit(make(), [BestCheckpoint(url, SELDOM), stops(1)])
    assert len([one for one in caught if "List BestCheckpoint last" in str(one.message)]) == 1
    assert open_run(url).latest.epoch == 1


def test_nothing_to_say_where_the_epoch_was_saved(make, fit, url, stops):
    """If the policy saves every epoch, whoever ends `fit` later ends it after its last checkpoint."""
    fit(make(), [BestCheckpoint(url, CheckpointPolicy(monitor="val_loss")), stops(1)])
    assert open_run(url).latest.epoch == 1


# ── what the documents say of the order ───────────────────────────────────────────────────────────────────────────


def test_averages_that_are_swapped_after_it(keras, averaging, fit, url):
    """With SwapEMAWeights(swap_on_epoch=True) after BestCheckpoint, a restart trains on from what was trained."""
    runs = {f"{url}-once": [4], f"{url}-twice": [2, 4]}
    for run, fits in runs.items():
        for epochs in fits:
            callbacks = [BestCheckpoint(run), keras.callbacks.SwapEMAWeights(swap_on_epoch=True)]
            fit(averaging(), callbacks, epochs=epochs)
    once, twice = (open_run(run).latest.load("model") for run in runs)
    assert same(once.values(), twice.values())


def test_a_learning_rate_that_is_set_before_it(keras, make, fit, url):
    """A learning rate that a callback before BestCheckpoint sets at an epoch's end is the one after a restart."""
    falling = keras.callbacks.ReduceLROnPlateau("val_loss", mode="max", patience=1, factor=0.5)
    fit(make(), [falling, BestCheckpoint(url)], epochs=2)
    rate = open_run(url).latest.load("optimizer")["adam/learning_rate"]
    assert rate == np.float32(0.005)
