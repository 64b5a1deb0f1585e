"""HDF5 and Keras' archives by strangers: what is damaged or swells is an error of ours."""

import errno
import random
import struct
import tracemalloc
import zipfile
from pathlib import Path

import h5py
import numpy as np
import pytest

from keepbest.core import foreign_h5
from keepbest.errors import ForeignFileError, KeepbestError

BYTES = {"F64": 8, "F32": 4}


@pytest.fixture
def h5(tmp_path):
    """A small file as Keras writes it, in its newer and its older way."""
    with h5py.File(tmp_path / "in.h5", "w") as file:
        file["layers/dense/vars/0"] = np.arange(6.0).reshape(2, 3)
        file.create_dataset("layers/dense/vars/1", data=np.zeros(2000, "f4"), compression="gzip", shuffle=True)
        group = file.create_group("model_weights/dense")
        group.attrs["weight_names"] = [b"kernel"]
        group["kernel"] = np.ones(3, "f4")
        file["optimizer/vars/0"] = np.ones(3)
        file["text"] = "a"
    return tmp_path / "in.h5"


@pytest.fixture
def archive(h5, tmp_path):
    """Make a `.keras` file, with its members compressed as asked."""

    def make(weights, metadata=zipfile.ZIP_STORED, size=None):
        with zipfile.ZipFile(tmp_path / "in.keras", "w") as file:
            file.writestr("metadata.json", '{"keras_version": "3.1"}', metadata)
            file.writestr("é.json", "{}")
            data = h5.read_bytes() if size is None else bytes(size)
            file.writestr(foreign_h5.WEIGHTS, data, weights)
        return tmp_path / "in.keras"

    return make


def read_all(read, path):
    """Read every tensor, as a conversion does."""
    with read(path, "model") as found:
        for part in found.parts.values():
            for tensor in part.value.values():
                source = tensor.source
                size = int(np.prod(source.shape)) * BYTES.get(source.dtype, 1)
                source.copy_into(memoryview(bytearray(size)))


def mutants(data, number, places):
    """Return copies of a file with some bytes changed, the same ones each time."""
    for seed in range(number):
        chance, damaged = random.Random(seed), bytearray(data)
        for _ in range(chance.choice([1, 1, 4, 16])):
            damaged[chance.choice(places)] = chance.choice([0, 1, 255, chance.randrange(256)])
        yield bytes(damaged)


def refusals(read, path, files):
    """Return how many of the files were refused; any error that is not ours ends the test."""
    refused = 0
    for data in files:
        path.write_bytes(data)
        try:
            read_all(read, path)
        except KeepbestError:
            refused += 1
    return refused


def test_a_damaged_h5_file_is_an_error_of_ours(h5):
    """Whatever h5py raises for it."""
    data = h5.read_bytes()
    assert refusals(foreign_h5.read_h5, h5, mutants(data, 60, range(len(data)))) > 5


@pytest.mark.parametrize("kind", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED], ids=["stored", "deflated"])
def test_a_damaged_keras_file_is_an_error_of_ours(archive, kind):
    """Whatever zipfile raises for it."""
    file = archive(kind)
    data = file.read_bytes()
    directory = data.index(b"PK\x01\x02")
    places = [*range(200), *range(directory, len(data))]
    assert refusals(foreign_h5.read_keras, file, mutants(data, 200, places)) > 20


@pytest.mark.parametrize("kind", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA], ids=["bzip2", "lzma"])
@pytest.mark.parametrize("member", ["weights", "metadata"])
def test_a_keras_file_is_unpacked_only_where_that_is_bounded(archive, kind, member):
    """Python unpacks bzip2 and LZMA in blocks that may be of any size, and Keras writes neither."""
    file = archive(**{"weights": zipfile.ZIP_STORED, member: kind})
    with pytest.raises(ForeignFileError, match="compressed in a way"):
        read_all(foreign_h5.read_keras, file)


def test_a_keras_file_whose_member_lies_beyond_every_file_is_an_error_of_ours(h5, tmp_path):
    """An offset that no file system can hold."""
    path, info = tmp_path / "in.keras", zipfile.ZipInfo(foreign_h5.WEIGHTS)
    info.extra = struct.pack("<HHQ", 1, 8, 1 << 63)
    with zipfile.ZipFile(path, "w") as file:
        file.writestr(info, h5.read_bytes())
    data = bytearray(path.read_bytes())
    offset = data.rindex(b"PK\x01\x02") + 42
    data[offset : offset + 4] = b"\xff" * 4  # "see the extra field"
    path.write_bytes(data)
    with pytest.raises(ForeignFileError, match="no whole zip file"):
        read_all(foreign_h5.read_keras, path)


def test_a_small_keras_file_takes_little_memory(archive):
    """Nothing of a member that swells is unpacked, though its size as it is told is small."""
    file = archive(zipfile.ZIP_BZIP2, size=96 << 20)
    data = file.read_bytes()
    file.write_bytes(data.replace((96 << 20).to_bytes(4, "little"), (1000).to_bytes(4, "little")))
    tracemalloc.start()
    try:
        with pytest.raises(KeepbestError):
            read_all(foreign_h5.read_keras, file)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 8 << 20


def test_a_full_disk_is_not_called_a_damaged_file(archive, monkeypatch):
    """An error of the machine stays what it is."""

    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "open", full)
    with pytest.raises(OSError, match="No space left"):
        read_all(foreign_h5.read_keras, archive(zipfile.ZIP_STORED))


def test_a_chunk_that_is_much_larger_than_its_tensor_is_refused(tmp_path):
    """HDF5 unpacks whole chunks, however little of them is the tensor's."""
    with h5py.File(tmp_path / "in.h5", "w") as file:
        file.create_dataset("vars/0", (4,), "f4", maxshape=(None,), chunks=(20 << 20,), compression="gzip")
    with pytest.raises(ForeignFileError, match="a chunk of 'vars/0' would take 83,886,080 bytes"):
        read_all(foreign_h5.read_h5, tmp_path / "in.h5")


def test_a_large_tensor_may_be_one_chunk(tmp_path):
    """Honest files compress well, and a chunk may be as large as its tensor."""
    with h5py.File(tmp_path / "in.h5", "w") as file:
        shape = (17 << 20,)
        file.create_dataset("vars/0", data=np.zeros(shape, "f4"), chunks=shape, compression="gzip", compression_opts=1)
    with foreign_h5.read_h5(tmp_path / "in.h5", "model") as found:
        assert found.parts["model"].value["vars/0"].source.shape == shape


@pytest.mark.parametrize("twice", ["gzip", "lzf"])
def test_what_is_compressed_more_than_once_is_refused(tmp_path, twice):
    """A thousand times a thousand is a million."""
    plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    plist.set_chunk((1000,))
    plist.set_deflate(9)
    if twice == "gzip":
        plist.set_deflate(9)
    else:
        plist.set_filter(h5py.h5z.FILTER_LZF, h5py.h5z.FLAG_OPTIONAL)
    with h5py.File(tmp_path / "in.h5", "w") as file:
        space = h5py.h5s.create_simple((1000,))
        h5py.h5d.create(file.id, b"0", h5py.h5t.NATIVE_FLOAT, space, plist)
    with pytest.raises(ForeignFileError, match="'0' is compressed more than once"):
        read_all(foreign_h5.read_h5, tmp_path / "in.h5")


@pytest.mark.parametrize(
    ("state", "can"),
    [
        ({"layers/dense/vars/0": np.ones(2)}, True),
        ({}, False),
        ({"layers/dense/vars/0": "text"}, False),
        ({"dense/kernel": np.ones(2)}, False),
        ({0: np.ones(2)}, False),
        (np.ones(2), False),
        (None, False),
    ],
    ids=["tensors", "nothing", "text", "other names", "numbers", "a tensor", "none"],
)
def test_only_tensors_at_their_places_go_back_without_the_model(state, can):
    """Nothing else would be a file that Keras loads."""
    assert foreign_h5.can_write(state) is can
