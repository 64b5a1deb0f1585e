"""The clients that are compared: each uploads a state, so that it is there when the call returns, and downloads it.

A `BytesClient` puts one file as it is, and many tensors as a safetensors file that it makes in memory first. What it
gets becomes tensors without a copy.
"""

from __future__ import annotations

import abc
import io
import logging
import tempfile
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, ClassVar

import boto3
import fsspec
import obstore
import s3fs  # noqa: F401 - for fsspec: in the process that measures, importing would take longer than many a transfer
import torch
from bucket_servers import Place
from bucket_state import MB, State
from obstore.store import S3Store
from safetensors.torch import save_file
from torch.distributed import checkpoint
from torch.distributed.checkpoint._fsspec_filesystem import FsspecReader, FsspecWriter

from keepbest import Checkpointer, CheckpointPolicy, open_run
from keepbest.storage.backend import open_backend

PART = 16 * MB
"""Bytes of a part, where a client lets one choose."""

CONNECTIONS = 8


class Client(abc.ABC):
    """A way to a bucket, made before the clock starts."""

    def __init__(self, place: Place) -> None:
        self.place = place

    def prepare(self, key: str, state: State) -> None:  # noqa: B027 - most need nothing
        """Do what a training does once, before its first save; not timed."""

    @abc.abstractmethod
    def upload(self, key: str, state: State) -> None:
        """Return when the server has confirmed all of it."""

    @abc.abstractmethod
    def download(self, key: str, state: State) -> object:
        """Return the bytes or the tensors, in memory; of `state` only names and shapes are looked at."""


class BytesClient(Client):
    """A client that knows no tensors."""

    def upload(self, key: str, state: State) -> None:
        """Serialize if need be, and put."""
        self.put(key, state.serialized())

    def download(self, key: str, state: State) -> object:
        """Get, and view as tensors if need be."""
        return state.parsed(self.get(key))

    @abc.abstractmethod
    def put(self, key: str, data: bytes) -> None:
        """Upload."""

    @abc.abstractmethod
    def get(self, key: str) -> bytes | bytearray | memoryview:
        """Download."""


class Keepbest(Client):
    """`Checkpointer.save` with mode="sync", from tensors to committed; loading checks every tensor's digest."""

    settings: ClassVar[dict[str, str]] = {}

    def prepare(self, key: str, state: State) -> None:
        """Open the run."""
        self._checkpointer = Checkpointer(
            self.place.url(key),
            CheckpointPolicy(),
            storage_options=self.place.storage_options | self.settings,
            mode="sync",
            weights=state.tensors,
        )

    def upload(self, key: str, state: State) -> None:  # noqa: ARG002 - `prepare` has them
        """Save."""
        self._checkpointer.save()

    def download(self, key: str, state: State) -> object:
        """Open the run, as a new process would, and load."""
        run = open_run(self.place.url(key), storage_options=self.place.storage_options | self.settings)
        found = run.latest.load("weights", framework="torch")
        return found if state.data is None else found["weight"].numpy()


class KeepbestS3fs(Keepbest):
    """The same where obstore is not installed."""

    settings: ClassVar[dict[str, str]] = {"client": "s3fs"}


class KeepbestBytes(BytesClient):
    """The same bytes through keepbest's `Backend` alone."""

    def __init__(self, place: Place) -> None:
        super().__init__(place)
        self._backend = open_backend(place.url("raw"), place.storage_options)

    def put(self, key: str, data: bytes) -> None:
        """Hand over one buffer."""
        self._backend.put(key, [memoryview(data)])
        self._backend.settle()

    def get(self, key: str) -> memoryview:
        """Read it as one range."""
        return self._backend.read_ranges(key, [(0, self._backend.head(key).size)])[0]


class FsspecBytes(BytesClient):
    """s3fs or gcsfs, by the scheme."""

    def __init__(self, place: Place) -> None:
        super().__init__(place)
        self._fs = fsspec.filesystem(place.scheme, **place.storage_options)

    def _path(self, key: str) -> str:
        return f"{self.place.bucket}/{key}"


class FsspecPipe(FsspecBytes):
    """`pipe_file` and `cat_file`."""

    def put(self, key: str, data: bytes) -> None:
        """Pipe."""
        self._fs.pipe_file(self._path(key), data)

    def get(self, key: str) -> bytes:
        """Cat."""
        found: bytes = self._fs.cat_file(self._path(key))
        return found


class FsspecOpen(FsspecBytes):
    """`open`, then one `write` or `read`."""

    def put(self, key: str, data: bytes) -> None:
        """Write."""
        with self._fs.open(self._path(key), "wb") as file:
            file.write(data)

    def get(self, key: str) -> bytes:
        """Read."""
        with self._fs.open(self._path(key), "rb") as file:
            found: bytes = file.read()
        return found


class Boto(BytesClient):
    """boto3 from memory, with its own defaults: parts of 8 MB, ten threads."""

    def __init__(self, place: Place) -> None:
        super().__init__(place)
        self._s3 = s3_client(place)

    def put(self, key: str, data: bytes) -> None:
        """upload_fileobj."""
        self._s3.upload_fileobj(io.BytesIO(data), self.place.bucket, key)

    def get(self, key: str) -> memoryview:
        """download_fileobj."""
        file = io.BytesIO()
        self._s3.download_fileobj(self.place.bucket, key, file)
        return file.getbuffer()


class BotoFile(Boto):
    """boto3 `upload_file`: of one file that is there before the clock starts; many tensors are written to one first."""

    def __init__(self, place: Place) -> None:
        super().__init__(place)
        self._folder = tempfile.TemporaryDirectory(prefix="keepbest-bench-")

    def prepare(self, key: str, state: State) -> None:
        """Write the file if the bytes are at hand."""
        if state.data is not None:
            self._file(key).write_bytes(state.data)

    def upload(self, key: str, state: State) -> None:
        """Write the file if the bytes are not, and upload it."""
        if state.data is None:
            save_file(state.tensors, self._file(key))
        self._s3.upload_file(str(self._file(key)), self.place.bucket, key)
        self._file(key).unlink()

    def get(self, key: str) -> bytes:
        """download_file, then read it."""
        self._s3.download_file(self.place.bucket, key, str(self._file(key)))
        data = self._file(key).read_bytes()
        self._file(key).unlink()
        return data

    def put(self, key: str, data: bytes) -> None:
        """Not used: `upload` does it."""
        raise NotImplementedError

    def _file(self, key: str) -> Path:
        return Path(self._folder.name, key.replace("/", "-"))


class Obstore(BytesClient):
    """obstore's own `put`, in parts; and ranges got in parallel, as its `get` alone uses one connection."""

    def __init__(self, place: Place) -> None:
        super().__init__(place)
        self._store = S3Store(
            place.bucket,
            endpoint=place.endpoint,
            access_key_id=place.key,
            secret_access_key=place.secret,
            region="us-east-1",
            client_options={"allow_http": True},
        )

    def put(self, key: str, data: bytes) -> None:
        """Put."""
        obstore.put(self._store, key, data, chunk_size=PART, max_concurrency=CONNECTIONS)

    def get(self, key: str) -> bytearray:
        """Get ranges into one buffer."""
        size = obstore.head(self._store, key)["size"]
        whole = bytearray(size)

        def part(begin: int) -> None:
            end = min(begin + PART, size)
            whole[begin:end] = memoryview(obstore.get_range(self._store, key, start=begin, end=end))

        with ThreadPoolExecutor(CONNECTIONS) as pool:
            list(pool.map(part, range(0, size, PART)))
        return whole


class TorchSave(Client):
    """`torch.save` and `torch.load` through `fsspec.open`."""

    def upload(self, key: str, state: State) -> None:
        """Save."""
        with fsspec.open(self.place.url(key), "wb", **self.place.storage_options) as file:
            torch.save(state.tensors, file)

    def download(self, key: str, state: State) -> object:
        """Load."""
        with fsspec.open(self.place.url(key), "rb", **self.place.storage_options) as file:
            found = torch.load(file)
        return found if state.data is None else found["weight"].numpy()


class DistributedCheckpoint(Client):
    """`torch.distributed.checkpoint` with its FsspecWriter, in one process.

    `sync_files` is off: for what is no local file it means `os.sync()`, which would wait for the server's disk too.
    It renames its metadata at the end; gcsfs tries the store's own way first, which fake-gcs-server does not have.
    """

    def __init__(self, place: Place) -> None:
        super().__init__(place)
        logging.getLogger("gcsfs").setLevel(logging.CRITICAL)  # it tells of each such attempt

    def upload(self, key: str, state: State) -> None:
        """Save."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that there is one process
            writer = FsspecWriter(self.place.url(key), sync_files=False, **self.place.storage_options)
            checkpoint.save(state.tensors, storage_writer=writer)

    def download(self, key: str, state: State) -> object:
        """Load into new tensors."""
        found = {name: torch.empty_like(tensor) for name, tensor in state.tensors.items()}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            reader = FsspecReader(self.place.url(key), **self.place.storage_options)
            checkpoint.load(found, storage_reader=reader)
        return found if state.data is None else found["weight"].numpy()


KEEPBEST = "keepbest"

CLIENTS: dict[str, dict[str, type[Client]]] = {
    "s3": {
        KEEPBEST: Keepbest,
        "keepbest over s3fs": KeepbestS3fs,
        "keepbest Backend": KeepbestBytes,
        "obstore": Obstore,
        "boto3 upload_fileobj": Boto,
        "boto3 upload_file": BotoFile,
        "s3fs pipe": FsspecPipe,
        "s3fs open": FsspecOpen,
        "torch.save, fsspec": TorchSave,
        "DCP FsspecWriter": DistributedCheckpoint,
    },
    "gs": {
        KEEPBEST: Keepbest,
        "keepbest Backend": KeepbestBytes,
        "gcsfs pipe": FsspecPipe,
        "gcsfs open": FsspecOpen,
        "torch.save, fsspec": TorchSave,
        "DCP FsspecWriter": DistributedCheckpoint,
    },
}
"""By scheme and name, keepbest first."""

RAW = frozenset(name for of in CLIENTS.values() for name, made in of.items() if issubclass(made, BytesClient))
"""Those that put the bytes of one file as they are."""


def s3_client(place: Place) -> Any:
    """Return boto3's client for the server."""
    return boto3.client(
        "s3",
        endpoint_url=place.endpoint,
        aws_access_key_id=place.key,
        aws_secret_access_key=place.secret,
        region_name="us-east-1",
    )
