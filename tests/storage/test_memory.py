"""The memory backend: how to build it for the contract, and what fsspec users see of it."""

from __future__ import annotations

import fsspec
import pytest
from contracts.backend_contract import BackendContract

from keepbest.errors import NotARunError
from keepbest.storage.backend import open_backend


class TestMemory(BackendContract):
    @pytest.fixture
    def url(self, memory_url):
        return memory_url

    @pytest.fixture
    def outside(self, memory_url):
        return lambda name: f"{memory_url}-outside/{name}"

    @staticmethod
    def peek(url):
        with fsspec.open(url) as file:
            return file.read()

    @staticmethod
    def names_beside(url):
        filesystem, path = fsspec.url_to_fs(url)
        return sorted(name.rpartition("/")[2] for name in filesystem.ls(path.rpartition("/")[0], detail=False))


def test_fsspec_users_see_the_objects(memory_url):
    """What is stored is found under the same URL by pandas, safetensors and whoever else goes by fsspec."""
    open_backend(memory_url).put("checkpoints/c/a.bin", [b"content"])
    with fsspec.open(f"{memory_url}/checkpoints/c/a.bin") as file:
        assert file.read() == b"content"
    filesystem = fsspec.filesystem("memory")
    assert filesystem.find(memory_url) == [f"/{memory_url.partition('://')[2]}/checkpoints/c/a.bin"]


def test_what_fsspec_users_write_is_seen(memory_url):
    """An object that another program puts there is read and listed like our own."""
    with fsspec.open(f"{memory_url}/commits/1", "wb") as file:
        file.write(b"theirs")
    backend = open_backend(memory_url)
    assert backend.read("commits/1") == b"theirs"
    assert [entry.key for entry in backend.list("")] == ["commits/1"]


@pytest.mark.parametrize("end", ["", "/", "//"])
def test_a_slash_at_the_end_means_nothing(memory_url, end):
    """A URL with a slash at its end is the same run."""
    open_backend(memory_url + end).put("commits/1", [b"x"])
    assert open_backend(memory_url).read("commits/1") == b"x"
    assert open_backend(memory_url + end).url == memory_url


def test_the_root_of_the_store_can_be_a_run(memory_url):
    """`memory://` by itself holds its objects where fsspec users look for them."""
    key = f"commits/{memory_url[-32:]}"
    backend = open_backend("memory://")
    backend.put(key, [b"x"])
    try:
        assert fsspec.filesystem("memory").cat_file(f"memory://{key}") == b"x"
        assert key in [entry.key for entry in backend.list("commits/")]
    finally:
        backend.delete([key])


def test_a_url_that_is_a_file_is_no_run(memory_url):
    """A file's URL is refused at once, and so is one that leads through a file."""
    open_backend(memory_url).put("file", [b"x"])
    for url in (f"{memory_url}/file", f"{memory_url}/file/run"):
        with pytest.raises(NotARunError, match="file"):
            open_backend(url)


def test_no_object_lies_below_an_object(memory_url):
    """A key that leads through an object is refused with an error of ours, which names it."""
    backend = open_backend(memory_url)
    backend.put("a", [b"x"])
    with pytest.raises(NotARunError, match="a/b"):
        backend.put("a/b", [b"x"])
    with pytest.raises(NotARunError, match="a/b"):
        backend.append("a/b").write(b"x")


def test_publish_goes_through_no_file(memory_url):
    """A path that leads through a file is an error that names it."""
    backend = open_backend(memory_url)
    backend.put("a", [b"x"])
    with pytest.raises(NotARunError, match="a/model.keras"):
        backend.publish("a", f"{memory_url}/a/model.keras")
