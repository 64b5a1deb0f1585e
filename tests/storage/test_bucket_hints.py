"""Settings of a bucket that cannot be right: the error says which one it is and what to write, and comes at once."""

from __future__ import annotations

import pytest
from contracts.servers import UNRESOLVABLE
from contracts.stores import whole_text, within

from keepbest.errors import ConfigError, CredentialsError, UnreachableError
from keepbest.storage.backend import open_backend

KEYS = {"key": "a", "secret": "b"}
HIDDEN = f"hunter{2}"
"""Computed, so that the lines of a traceback do not have it."""


@pytest.mark.parametrize(
    ("url", "options"),
    [
        ("s3://bucket/run", KEYS | {"client": "s3fs"}),
        ("s3://bucket/run", KEYS | {"client": "obstore"}),
        ("gs://bucket/run", {"token": "anon"}),
    ],
    ids=["s3fs", "obstore", "gcs"],
)
@pytest.mark.parametrize("endpoint", ["127.0.0.1:9000", "localhost:9000", "minio.example.org"])
def test_an_endpoint_without_its_scheme(url, options, endpoint):
    """An endpoint that is no URL is told at once, with how it begins."""
    with pytest.raises(ConfigError, match="http:// or https://") as caught, within(2):
        open_backend(url, options | {"endpoint_url": endpoint}).list("")
    assert endpoint in str(caught.value)


def test_an_endpoint_of_the_environment_without_its_scheme(monkeypatch):
    """The same of `AWS_ENDPOINT_URL`; a password in it is not shown."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"me:{HIDDEN}@127.0.0.1:9000")
    with pytest.raises(ConfigError, match=r"127\.0\.0\.1:9000.*http:// or https://") as caught:
        open_backend("s3://bucket/run", KEYS).list("")
    assert HIDDEN not in whole_text(caught.value)


@pytest.mark.parametrize(
    ("url", "options"), [("s3://bucket/run", KEYS), ("gs://bucket/run", {"token": "anon"})], ids=["s3", "gcs"]
)
def test_the_password_of_an_endpoint_without_its_scheme_is_not_shown(url, options):
    """The same of one that is given."""
    with pytest.raises(ConfigError, match=r"http:// or https://") as caught:
        open_backend(url, options | {"endpoint_url": f"me:{HIDDEN}@127.0.0.1:9000"}).list("")
    assert HIDDEN not in whole_text(caught.value)


@pytest.mark.parametrize("where", ["option", "environment"])
def test_a_profile_that_does_not_exist(monkeypatch, where):
    """A misspelt profile is told by its name, with where it comes from and how to see those there are."""
    monkeypatch.delenv("AWS_ACCESS_KEY_ID", raising=False)
    if where == "environment":
        monkeypatch.setenv("AWS_PROFILE", "labb")
    with pytest.raises(ConfigError, match=r"labb.*AWS_PROFILE.*aws configure list-profiles"):
        open_backend("s3://bucket/run", {"profile": "labb"} if where == "option" else {}).list("")


@pytest.mark.parametrize("token", [None, "google_default"])
def test_a_key_file_of_the_environment_that_does_not_exist(monkeypatch, tmp_path, token):
    """A misspelt path in GOOGLE_APPLICATION_CREDENTIALS is told; not taken for "no credentials"."""
    monkeypatch.delenv("STORAGE_EMULATOR_HOST", raising=False)
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "key.json"))
    options = {} if token is None else {"token": token}
    with pytest.raises(CredentialsError, match=r"GOOGLE_APPLICATION_CREDENTIALS names a file .*/key\.json"), within(2):
        open_backend("gs://bucket/run", options)
    open_backend("gs://bucket/run", {"token": "anon"})


@pytest.mark.parametrize("key", [f'{{"private_key": "{HIDDEN}"}}', HIDDEN * 300], ids=["json", "base64"])
def test_a_key_in_the_place_of_a_key_file_is_not_shown(monkeypatch, key):
    """Who put the key itself where its path belongs is told so, without the key."""
    monkeypatch.delenv("STORAGE_EMULATOR_HOST", raising=False)
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", key)
    with pytest.raises(CredentialsError, match="names a file that does not exist") as caught:
        open_backend("gs://bucket/run")
    assert HIDDEN not in whole_text(caught.value)


@pytest.mark.parametrize(
    ("url", "options"),
    [("s3://bucket/run", KEYS), ("gs://bucket/run", {"token": "anon"})],
    ids=["s3", "gcs"],
)
def test_a_server_that_cannot_be_resolved_is_named(url, options):
    """A misspelt server is told by its name."""
    backend = open_backend(url, options | {"endpoint_url": f"http://{UNRESOLVABLE}:1", "deadline": 4})
    with pytest.raises(UnreachableError, match=f"{UNRESOLVABLE}"):
        backend.list("")
