"""The hook that logs to MLflow, with a tracking store of files."""

from __future__ import annotations

import math
import traceback
import uuid
import warnings
from types import SimpleNamespace

import pytest

from keepbest.adapters.hooks import MLflow
from keepbest.errors import ConfigError
from keepbest.storage.history import Row

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from mlflow import MlflowClient


@pytest.fixture
def store(tmp_path, monkeypatch):
    """A store, the experiment "digits" seen without keepbest, and how many requests were sent to it."""
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    uri = (tmp_path / "mlruns").as_uri()
    client = MlflowClient(tracking_uri=uri)

    def runs():
        return client.search_runs([client.get_experiment_by_name("digits").experiment_id], order_by=["start_time ASC"])

    def points(run, name):
        return [(point.step, point.value) for point in client.get_metric_history(run.info.run_id, name)]

    return SimpleNamespace(
        uri=uri, runs=runs, points=points, hook=lambda: MLflow("7", experiment="digits", tracking_uri=uri)
    )


def test_rows_are_metrics(train, store):
    """Metrics of epochs and of steps have names of their own, at their training steps; tags name the checkpoints."""
    ckpt = train(store.hook())
    (run,) = store.runs()
    assert store.points(run, "val_loss") == [(3, 0.9), (6, 0.5), (9, 0.7)]
    assert store.points(run, "loss") == [(3, 0.0), (6, 1.0), (9, 2.0)]
    assert store.points(run, "step/loss") == [(e * 3 + s + 1, 10.0 * e + s) for e in range(3) for s in range(3)]
    assert (run.info.run_name, run.info.status) == ("7", "FINISHED")
    assert run.data.tags["keepbest.best"] == ckpt.run.best.name
    assert run.data.tags["keepbest.latest"] == ckpt.run.latest.name


def test_a_resumed_training_goes_on_in_the_same_run(train, store):
    """MLflow shows one run of a training that broke off and went on, and how each of the two ended."""
    train(store.hook(), cut=True)
    (run,) = store.runs()
    assert run.info.status == "FAILED"
    train(store.hook(), epochs=4, shift=0.5)
    (same,) = store.runs()
    assert (same.info.run_id, same.info.status) == (run.info.run_id, "FINISHED")
    assert sorted(store.points(same, "loss")) == [(3, 0.0), (6, 1.0), (9, 2.0), (9, 2.5), (12, 3.5)]


def test_a_training_that_begins_anew_is_a_new_run(train, store, tmp_path):
    """The values of two trainings never mix, though they have the same name."""
    train(store.hook(), epochs=1)
    (tmp_path / "run").rename(tmp_path / "elsewhere")
    train(store.hook(), epochs=1, shift=0.5)
    assert sorted(store.points(run, "loss") for run in store.runs()) == [[(3, 0.0)], [(3, 0.5)]]


def test_rows_are_sent_many_at_a_time(store, monkeypatch):
    """2,500 rows are a handful of requests, none of more values than a server takes."""
    sizes = []
    real = MlflowClient.log_batch
    monkeypatch.setattr(
        MlflowClient, "log_batch", lambda self, *a, **k: (sizes.append(len(k["metrics"])), real(self, *a, **k))
    )
    hook = store.hook()
    for step in range(1, 1251):
        hook(Row(kind="step", epoch=0, step=step, time=1.7e9 + step, metrics={"a": float(step), "b": 0.0}))
    hook.close()
    (run,) = store.runs()
    assert store.points(run, "step/a") == [(step, float(step)) for step in range(1, 1251)]
    assert sum(sizes) == 2500
    assert max(sizes) <= 1000
    assert len(sizes) <= 6


def test_names_and_values_that_mlflow_would_refuse_are_logged(store):
    """NaN, infinity, and a name with other characters do not end the logging."""
    hook = store.hook()
    hook(Row(kind="epoch", epoch=0, step=1, time=1.7e9, metrics={"top@5": math.nan, "a": math.inf, "b": -math.inf}))
    hook.close()
    (run,) = store.runs()
    assert math.isnan(store.points(run, "top_5")[0][1])
    assert store.points(run, "a")[0][1] > 1e300
    assert store.points(run, "b")[0][1] < -1e300


def test_what_the_server_refuses_reaches_training_as_a_warning(train, store, tmp_path):
    """A store that is gone costs one warning, and training goes on to its end."""
    hook = store.hook()
    (tmp_path / "mlruns").rename(tmp_path / "gone")
    (tmp_path / "mlruns").touch()
    with pytest.warns(UserWarning, match="hook MLflow"):
        ckpt = train(hook)
    assert len(ckpt.run.checkpoints()) == 3


@pytest.mark.parametrize("name", ["", "it's"])
def test_a_name_that_cannot_be_found_again_is_refused(name, store):
    """The name is looked for when training resumes, so it must be one that a search takes."""
    with pytest.raises(ConfigError, match="name"):
        MLflow(name, tracking_uri=store.uri)


def test_a_store_that_does_not_exist_is_refused_at_once(tmp_path):
    """A tracking URI of an unknown kind is named when the hook is made."""
    with pytest.raises(ConfigError, match="experiment 'digits'"):
        MLflow("7", experiment="digits", tracking_uri="strange://x")


def test_the_password_of_a_server_is_not_shown(monkeypatch):
    """A server that does not answer is named without its password, in the traceback too."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    password = uuid.uuid4().hex  # a traceback shows lines of the source
    with pytest.raises(ConfigError, match="experiment 'digits'") as caught:
        MLflow("7", experiment="digits", tracking_uri=f"http://me:{password}@127.0.0.1:1")
    assert password not in "".join(traceback.format_exception(caught.value))
