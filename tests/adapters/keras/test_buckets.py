"""What is particular to buckets: whole uploads, few requests, options of one's own; seen by plain clients."""

import shutil
from dataclasses import dataclass

import numpy as np
import pytest
from contracts import documented
from contracts.http_faults import access_denied, answer
from contracts.places import GcsPlace, S3Place
from contracts.proxy import FaultProxy
from contracts.sftp_server import PASSWORD, SftpServer
from contracts.stores import whole_text
from safetensors.numpy import load_file

from keepbest import CheckpointPolicy, open_run
from keepbest.adapters.keras import BestCheckpoint, ModelCheckpoint, load_weights
from keepbest.errors import (
    BucketNotFoundError,
    ConfigError,
    PlaceholderError,
    SaveFailedError,
    StorageError,
    StoragePermissionError,
    UnreachableError,
)

COSTS = documented.table("requests to S3")
"""What the page says."""

POLICY = CheckpointPolicy(monitor="val_loss")


REFUSED = {"s3": access_denied(), "gcs": answer(403, b'{"error": {"code": 403, "message": "no"}}')}

WRITE = {"s3": "PUT", "gcs": "POST"}


@dataclass(frozen=True)
class Through:
    """A place in a bucket, and a proxy before its server to which only the options lead."""

    kind: str
    place: object
    proxy: FaultProxy
    options: dict


@pytest.fixture(params=["s3", "gcs"])
def through(request, monkeypatch):
    """A place in a bucket to which nothing leads but its options."""
    kind = request.param
    url, server = (request.getfixturevalue(f"{kind}_{what}") for what in ("url", "server"))
    place = {"s3": S3Place, "gcs": GcsPlace}[kind](url, server)
    for name in server.environment:
        monkeypatch.delenv(name)
    with FaultProxy(server.url) as proxy:
        if kind == "s3":
            who = server.identity("writer")
            options = {"key": who.access, "secret": who.secret, "endpoint_url": proxy.url}
        else:
            options = {"token": "anon", "endpoint_url": proxy.url}
        yield Through(kind, place, proxy, options)


@pytest.fixture
def bucket(through):
    return through.place


@pytest.fixture
def small(keras):
    """A small model that was trained."""
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    model.train_on_batch(np.zeros((2, 2)), np.zeros((2, 1)))
    return model


def requests(what, through):
    """Return how many requests something takes, as the page says."""
    return int(COSTS[what][f"requests to {through.kind.upper()}"])


def end_epoch(callback, model, epoch, value):
    """Play the end of an epoch of a model whose first weight is its number, from 1."""
    model.layers[0].set_weights([np.full((2, 1), epoch + 1.0), np.zeros(1)])
    callback.set_model(model)
    callback.on_epoch_begin(epoch)
    callback.on_epoch_end(epoch, {"val_loss": value})


def visible(place):
    """Return what a user sees, hidden folders left out."""
    return [name for name in place.files() if ".keepbest" not in name.split("/")]


def first_weight(keras, place, name, folder):
    """Return the number of the epoch that a file was saved in."""
    return keras.saving.load_model(place.download(name, folder)).layers[0].get_weights()[0][0, 0]


def test_after_fit_the_files_are_there_and_plain(keras, make, fit, data, through, bucket, tmp_path):  # noqa: PLR0913, PLR0917 - fixtures
    """In the bucket are the files that Keras would have written and `.keepbest/`; downloaded, they open and predict."""
    model = make()
    settings = {"save_best_only": True, "storage_options": through.options}
    callbacks = [
        ModelCheckpoint(bucket.at("model_{epoch:02d}.keras"), **settings),
        ModelCheckpoint(bucket.at("deep/best.weights.h5"), save_weights_only=True, **settings),
        ModelCheckpoint(bucket.at("best.safetensors"), **settings),
        keras.callbacks.ModelCheckpoint(tmp_path / "keras_{epoch:02d}.keras", save_best_only=True),
    ]
    fit(model, callbacks, epochs=2)
    theirs = sorted(path.name.replace("keras_", "model_") for path in tmp_path.iterdir())
    assert theirs
    assert visible(bucket) == sorted(["best.safetensors", "deep/best.weights.h5", *theirs])

    best = keras.saving.load_model(tmp_path / theirs[-1].replace("model_", "keras_"))
    expected = best.predict(data["x"], verbose=0)
    for name in visible(bucket):
        path = bucket.download(name, tmp_path)
        if name.endswith(".safetensors"):
            assert {variable.path for variable in model.variables} == set(load_file(path))
            loaded = make()
            load_weights(loaded, bucket.at(name), storage_options=through.options)
        elif name.endswith(".weights.h5"):
            loaded = make()
            loaded.optimizer.build(loaded.trainable_variables)
            loaded.load_weights(path)
        elif name == theirs[-1]:
            loaded = keras.saving.load_model(path)
        else:
            continue
        assert np.array_equal(loaded.predict(data["x"], verbose=0), expected), name


def test_the_old_format(keras, small, bucket, through, tmp_path):
    """`.h5` is written to a bucket, too."""
    end_epoch(ModelCheckpoint(bucket.at("m.h5"), storage_options=through.options), small, 0, 0.5)
    assert visible(bucket) == ["m.h5"]
    loaded = keras.saving.load_model(bucket.download("m.h5", tmp_path), compile=False)
    assert np.array_equal(loaded.predict(np.ones((3, 2)), verbose=0), small.predict(np.ones((3, 2)), verbose=0))


@pytest.mark.parametrize("after", [0, 2, 3], ids=["data", "commit", "placing"])
def test_a_failed_upload_leaves_the_old_file(keras, small, through, bucket, tmp_path, after):  # noqa: PLR0913, PLR0917 - fixtures
    """Whatever write of a save is refused: fit is told, the old file and `best` stay, and a later save succeeds."""
    callback = ModelCheckpoint(bucket.at("m.keras"), save_best_only=True, storage_options=through.options)
    end_epoch(callback, small, 0, 0.5)
    through.proxy.on(REFUSED[through.kind], method=WRITE[through.kind], after=after, times=1)
    with pytest.raises(StoragePermissionError):
        end_epoch(callback, small, 1, 0.4)
    assert callback.best == 0.5
    assert visible(bucket) == ["m.keras"]
    assert first_weight(keras, bucket, "m.keras", tmp_path) == 1
    end_epoch(callback, small, 2, 0.45)
    assert callback.best == 0.45
    assert first_weight(keras, bucket, "m.keras", tmp_path) == 3
    assert len([name for name in bucket.files() if "/commits/" in name]) == 1
    assert len([name for name in bucket.files() if name.endswith("/m.keras")]) == 1


def test_a_save_takes_few_requests(small, through, bucket):
    """A save that replaces another takes no more requests than it needs, on the connections that are open."""
    settings = {"save_best_only": True, "initial_value_threshold": 0.9, "storage_options": through.options}
    callback = ModelCheckpoint(bucket.at("m_{epoch}.keras"), **settings)
    end_epoch(callback, small, 0, 0.5)
    through.proxy.clear()
    end_epoch(callback, small, 1, 0.4)
    assert through.proxy.count() == requests("ModelCheckpoint", through)
    assert len({record.connection for record in through.proxy.records()}) <= 2
    through.proxy.clear()
    end_epoch(callback, small, 2, 0.45)
    assert through.proxy.count() == 0


def test_a_wrong_bucket_is_known_before_the_first_epoch(keras, make, fit, through, bucket):
    """A misspelt bucket, or credentials that are refused, end fit before it trains; what is right takes one request."""
    scheme = bucket.url.partition("://")[0]
    epochs = []

    class Count(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            epochs.append(epoch)

    for url in (f"{scheme}://keepbest-no-such-bucket/m_{{epoch}}.keras", f"{scheme}://keepbest-no-such-bucket/m.keras"):
        wrong = ModelCheckpoint(url, save_best_only=True, storage_options=through.options)
        with pytest.raises(BucketNotFoundError, match="'keepbest-no-such-bucket' does not exist"):
            fit(make(), [wrong, Count()], epochs=1)
    right = ModelCheckpoint(bucket.at("m.keras"), storage_options=through.options)
    through.proxy.clear()
    right.on_train_begin()
    assert through.proxy.count() == requests("fit", through)
    through.proxy.on(REFUSED[through.kind])
    with pytest.raises(StoragePermissionError):
        fit(make(), [right, Count()], epochs=1)
    assert epochs == []
    assert bucket.files() == []


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("s3://m.keras", r"names no bucket.* Write s3://BUCKET/m\.keras"),
        ("gs://m_{epoch:02d}.keras", r"names no bucket.* Write gs://BUCKET/m_\{epoch:02d\}\.keras"),
        ("s3://{epoch}/m.keras", r"names no bucket.* Write s3://BUCKET/m\.keras"),
        ("abfs://m.safetensors", r"names no container"),
        ("sftp://m.keras", r"names no server.* Write sftp://SERVER/m\.keras"),
    ],
)
def test_a_file_in_the_place_of_a_bucket_is_refused(url, says):
    """A URL of a file and no bucket is a setting that is wrong, and the error says what to write."""
    with pytest.raises(ConfigError, match=says):
        ModelCheckpoint(url)


def test_a_password_in_a_url_is_not_printed(make, fit, tmp_path, capsys, caplog):
    """A URL may hold a password: files get to their place, and neither the console nor an error shows it."""
    caplog.set_level("DEBUG", logger="keepbest")
    with SftpServer(tmp_path) as server:
        at = server.url_with_password
        callbacks = [
            ModelCheckpoint(f"{at}/m_{{epoch}}.keras", verbose=1),
            ModelCheckpoint(f"{at}/best.safetensors", verbose=1, save_best_only=True),
            BestCheckpoint(f"{at}/run", POLICY, verbose=1),
        ]
        fit(make(), callbacks, epochs=2)
        again = [BestCheckpoint(f"{at}/run", POLICY, verbose=1)]
        fit(make(), again, epochs=3)
        load_weights(make(), f"{at}/best.safetensors")
        (tmp_path / "m_1.keras").unlink()
        (tmp_path / "m_1.keras").mkdir()
        with pytest.raises(StorageError) as folder:
            fit(make(), callbacks[:1], epochs=1)
        with pytest.raises(PlaceholderError) as placeholder:
            fit(make(), [ModelCheckpoint(f"{at}/{{nothing}}.keras")], epochs=1)
        with pytest.raises(ConfigError) as suffix:
            ModelCheckpoint(f"{at}/m.pt")
    printed = capsys.readouterr().out
    assert "m_2.keras" in printed
    assert "Resuming sftp://" in printed
    errors = "".join(whole_text(caught.value) for caught in (folder, placeholder, suffix))
    assert PASSWORD not in printed + errors + caplog.text + repr(callbacks[0]._shelf)
    assert (tmp_path / "m_2.keras").is_file()


def test_options_reach_everything(make, fit, small, through, bucket, tmp_path):  # noqa: PLR0913, PLR0917 - fixtures
    """Where only `storage_options` lead to the bucket, all of it works: saving, resuming, thresholds, a run."""
    settings = {"save_best_only": True, "storage_options": through.options}
    end_epoch(ModelCheckpoint(bucket.at("m.keras"), **settings), small, 0, 0.3)
    resumed = ModelCheckpoint(bucket.at("m.keras"), resume=True, **settings)
    bucket.delete("m.keras")
    resumed.set_model(small)
    resumed.on_train_begin()
    assert resumed.best == 0.3
    assert visible(bucket) == ["m.keras"]
    cautious = ModelCheckpoint(bucket.at("m.keras"), initial_value_threshold=0.3, **settings)
    with pytest.warns(UserWarning, match="was left as it is"):
        end_epoch(cautious, small, 1, None)

    url = bucket.at("run")
    fit(make(), [BestCheckpoint(url, POLICY, storage_options=through.options)], epochs=1)
    assert fit(make(), [BestCheckpoint(url, POLICY, storage_options=through.options)], epochs=2).epoch == [1]
    local = str(tmp_path / "run")
    mirrored = {"mirror": bucket.at("mirror"), "mirror_options": through.options}
    fit(make(), [BestCheckpoint(local, POLICY, **mirrored)], epochs=1)
    shutil.rmtree(local)
    assert fit(make(), [BestCheckpoint(local, POLICY, **mirrored)], epochs=2).epoch == [1]
    assert open_run(bucket.at("mirror"), storage_options=through.options).latest.epoch == 1


def test_options_are_seen_nowhere(small, through, bucket, caplog):
    """No key is in what a callback shows of itself, in an error, in a log or in the bucket."""
    caplog.set_level("DEBUG", logger="keepbest")
    callback = ModelCheckpoint(bucket.at("m.keras"), storage_options=through.options)
    end_epoch(callback, small, 0, 0.5)
    through.proxy.on(REFUSED[through.kind], method=WRITE[through.kind])
    with pytest.raises(StoragePermissionError) as caught:
        end_epoch(callback, small, 1, 0.4)
    shown = f"{callback!r} {callback._shelf!r} {caught.value!r} {caught.value} {caplog.text}".encode()
    stored = b"".join(bucket.read(name) for name in bucket.files())
    for secret in {"key", "secret"} & through.options.keys():
        assert through.options[secret].encode() not in shown + stored


@pytest.mark.parametrize("suffix", [".keras", ".safetensors"])
def test_a_large_model_goes_up_in_parts(keras, through, bucket, tmp_path, suffix):
    """A model of several parts arrives as it is, and no part stays behind."""
    model = keras.Sequential([keras.Input((1200,)), keras.layers.Dense(4000)])
    callback = ModelCheckpoint(bucket.at(f"m{suffix}"), storage_options=through.options)
    callback.set_model(model)
    callback.on_epoch_end(0, {})
    loaded = keras.Sequential([keras.Input((1200,)), keras.layers.Dense(4000)])
    if suffix == ".keras":
        loaded = keras.saving.load_model(bucket.download("m.keras", tmp_path))
    else:
        load_weights(loaded, bucket.at("m.safetensors"), storage_options=through.options)
    assert np.array_equal(loaded.get_weights()[0], model.get_weights()[0])
    assert len(bucket.files()) == 1 + 3
    if through.kind == "s3":
        assert through.proxy.count(method="PUT", path="partNumber=3")


def test_at_the_root_of_a_bucket(small, request, through, tmp_path):
    """A file may lie at the root of a bucket, the hidden folder beside it."""
    server = request.getfixturevalue(f"{through.kind}_server")
    place = type(through.place)(f"{through.place.url.partition('://')[0]}://{server.make_bucket()}", server)
    end_epoch(ModelCheckpoint(place.at("m_{epoch}.keras"), storage_options=through.options), small, 0, 0.5)
    assert visible(place) == ["m_1.keras"]
    assert {name.split("/")[0] for name in place.files()} == {"m_1.keras", ".keepbest"}


def test_a_server_that_goes_away(keras, make, fit, through, bucket):
    """Fit ends soon, with an error that says what could not be saved; later it goes on from what was."""
    bucket.write("first.txt", b"")  # which takes its time
    options = through.options | {"deadline": 4}

    class Cut(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch == 1:
                through.proxy.kill()

    ended = BestCheckpoint(bucket.at("run"), POLICY, mode="sync", storage_options=options)
    with pytest.raises(SaveFailedError, match="cannot be reached"):
        fit(make(), [ended, Cut()], epochs=9)
    with pytest.raises(UnreachableError, match="run/metrics/"):  # or a warning, once it is collected
        ended.checkpointer.close(save=False)
    ended.checkpointer.close()
    through.proxy.revive()
    again = BestCheckpoint(bucket.at("run"), POLICY, storage_options=options)
    assert fit(make(), [again], epochs=2).epoch == [1]
    assert again.checkpointer.run.verify().ok
