"""Options and URLs of buckets: what is misspelt is said before anything is contacted or made."""

from __future__ import annotations

import pytest

from keepbest.errors import ConfigError
from keepbest.storage.backend import open_backend


@pytest.mark.parametrize(
    ("url", "meant"),
    [
        ("s3:/bucket/run", "s3://bucket/run"),
        ("s3:bucket/run", "s3://bucket/run"),
        ("S3:/bucket", "s3://bucket"),
        ("gs:/bucket/run", "gs://bucket/run"),
    ],
)
def test_a_url_with_a_slash_missing_is_no_folder(url, meant, tmp_path, monkeypatch):
    """Who meant a bucket does not find that the run went to the disk of a machine that is gone."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=f"Did you mean {meant}"):
        open_backend(url)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("url", "option", "meant"),
    [
        ("s3://bucket/run", "enpoint_url", "endpoint_url"),
        ("s3://bucket/run", "deadlin", "deadline"),
        ("gs://bucket/run", "tokne", "token"),
        ("gs://bucket/run", "conection", "connections"),
    ],
)
def test_an_option_that_does_not_exist_is_named(url, option, meant, monkeypatch):
    """A misspelt option is an error that suggests the right one, and does not show its value."""
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", "http://127.0.0.1:1")
    with pytest.raises(ConfigError, match=f"Did you mean '{meant}'") as caught:
        open_backend(url, {option: "secret-value"})
    assert "secret-value" not in str(caught.value)


@pytest.mark.parametrize(("one", "other"), [("s3a://bucket/run", "s3://bucket/run"), ("gcs://b/run/", "gs://b/run")])
def test_two_names_of_one_place_are_one(one, other, monkeypatch):
    """A run and its mirror are compared by their URLs: what is the same place has one."""
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", "http://127.0.0.1:1")
    assert open_backend(one).url == open_backend(other).url == other


@pytest.mark.parametrize("url", ["memory://run", "s3://bucket/run", "gs://bucket/run", "sftp://host/run"])
@pytest.mark.parametrize("option", ["cls", "self"])
def test_an_option_that_python_takes_for_itself_is_none(url, option):
    """It would reach what makes the filesystem as its first argument. The fuzzer found it."""
    with pytest.raises(ConfigError, match=f"there is no storage option '{option}'"):
        open_backend(url, {option: 4})


@pytest.mark.parametrize("client", [None, "s3fs", "obstore"])
@pytest.mark.parametrize("value", ["secret-value", 4, ["region_name"], {1: "a", "b": "c"}])
@pytest.mark.parametrize("option", ["client_kwargs", "config_kwargs", "s3_additional_kwargs"])
def test_options_that_are_handed_on_are_a_dictionary_by_name(client, option, value):
    """Whatever else is given in their place is an error at once, by every client. The fuzzer found it."""
    with pytest.raises(ConfigError, match=f"'{option}' must be a dictionary of options by name") as caught:
        open_backend("s3://bucket/run", {option: value, "client": client})
    assert "secret-value" not in str(caught.value)


def test_a_zero_byte_in_a_file_url_is_refused():
    """Also one that is written as %00."""
    with pytest.raises(ConfigError, match="it holds a zero byte"):
        open_backend("file:///tmp/a%00b")
