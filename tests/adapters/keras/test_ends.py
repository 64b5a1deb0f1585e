"""How `fit` ended stands in the run's journal, and `explain` says it."""

from itertools import pairwise

import pytest

from keepbest import CheckpointPolicy, open_run
from keepbest.adapters.keras import BestCheckpoint

POLICY = CheckpointPolicy(monitor="val_loss")
IMPATIENT = CheckpointPolicy(monitor="val_loss", patience=1, min_delta=1e9)


def ends(url):
    """Return the cause of each end, and the kind of the note before it."""
    notes = [entry for entry in open_run(url).journal() if not hasattr(entry, "metrics")]
    return [(one.kind, end.cause) for one, end in pairwise(notes) if end.kind == "ended"]


@pytest.fixture
def stops(keras):
    """Return a callback that ends `fit` at the end of an epoch, or of a batch in it."""

    class Stops(keras.callbacks.Callback):
        def __init__(self, epoch=None, batch=None):
            super().__init__()
            self.epoch, self.batch = epoch, batch

        def on_epoch_end(self, epoch, logs=None):
            if epoch == self.epoch:
                self.model.stop_training = True

        def on_train_batch_end(self, batch, logs=None):
            if batch == self.batch:
                self.model.stop_training = True

    return Stops


def test_all_epochs(make, fit, url):
    """A `fit` that trained all its epochs ended because of that, once the last save had ended; so did one after it."""
    fit(make(), [BestCheckpoint(url, POLICY)])
    assert ends(url) == [("saved", "complete")]
    fit(make(), [BestCheckpoint(url, POLICY)], epochs=4)
    assert ends(url) == [("saved", "complete")] * 2


def test_all_epochs_are_told(make, fit, url, capsys):
    """`explain` says so."""
    from keepbest.cli import main

    fit(make(), [BestCheckpoint(url, POLICY)])
    assert main(["explain", url]) == 0
    assert "All epochs were done." in capsys.readouterr().out


def test_the_policys_own_early_stop(make, fit, url):
    """One that a monitor ended says that, in the last epoch too."""
    fit(make(), [BestCheckpoint(url, IMPATIENT)])
    assert ends(url) == [("saved", "stopped")]
    fit(make(), [BestCheckpoint(f"{url}-last", IMPATIENT)], epochs=2)
    assert ends(f"{url}-last") == [("saved", "stopped")]


@pytest.mark.parametrize("when", [{"epoch": 0}, {"batch": 0}], ids=["epoch", "batch"])
def test_another_callback(make, fit, url, stops, when):
    """One that another callback ended, between epochs or in the middle of the last, is not called complete."""
    fit(make(), [stops(**when), BestCheckpoint(url, POLICY)], epochs=2 if "epoch" in when else 1)
    assert ends(url) == [("saved", "callback")]


@pytest.mark.filterwarnings("ignore:a callback that is listed after BestCheckpoint")
def test_a_callback_listed_after(make, fit, url, stops):
    """So is one that ends it after BestCheckpoint has seen the epoch."""
    fit(make(), [BestCheckpoint(url, POLICY), stops(epoch=1)])
    assert ends(url) == [("saved", "callback")]


def test_nothing_left_to_train(make, fit, url):
    """Who starts a finished script again adds no end."""
    fit(make(), [BestCheckpoint(url, POLICY)])
    fit(make(), [BestCheckpoint(url, POLICY)])
    assert ends(url) == [("saved", "complete")]


def test_an_exception(make, fit, url, keras):
    """After an exception, of which Keras tells its callbacks nothing, the run was broken off."""

    class Breaks(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch:
                raise ZeroDivisionError

    callback = BestCheckpoint(url, POLICY)
    with pytest.raises(ZeroDivisionError):
        fit(make(), [callback, Breaks()])
    del callback
    assert ends(url) == [("saved", "exception")]


def test_a_loop_of_ones_own(keras, make, url):
    """A loop that calls the hooks itself and says not how many epochs there are may have ended for any reason."""
    model = make()
    hooks = keras.callbacks.CallbackList([BestCheckpoint(url, POLICY)], model=model)
    hooks.on_train_begin()
    hooks.on_epoch_begin(0)
    hooks.on_epoch_end(0, {"val_loss": 0.5})
    hooks.on_train_end()
    assert ends(url) == [("saved", "closed")]
