"""HDF5 from others: Keras' `.weights.h5`, the older `.h5`, and the weights inside `.keras`. No model is built.

Only the datasets are read, by h5py: no configuration, so no layer of a stranger's is made and no lambda is run. Links
that lead out of the file, or round in it, are refused, and so is what would take far more memory than was stored.
"""

from __future__ import annotations

import errno
import json
import math
import re
import shutil
import tempfile
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import ConfigError, ForeignFileError, KeepbestError
from ..storage.arrays import dtype_name
from ..storage.foreign import check_name, check_size, checked_shape, nbytes
from ..storage.printable import printable
from .foreign import Found, Lazy, Part, Unread, add_part

if TYPE_CHECKING:
    import h5py

WEIGHTS = "model.weights.h5"
"""The member of a `.keras` file that holds the values."""

_METADATA = "metadata.json"
_LARGEST_METADATA = 1 << 20
_ZIPPED_TIMES = 20
"""By how much weights honestly grow when a zip file is unpacked; Keras itself does not compress them."""
_UNZIPPED = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
"""What Keras writes; the others zipfile unpacks in blocks that may be of any size."""
_MALFORMED_ZIP = (EOFError, OSError, RuntimeError, ValueError, zipfile.BadZipFile, zlib.error)
"""What zipfile raises for a file that is damaged."""
_FILTERED_TIMES = 1000
"""The same for the filters of HDF5, which may compress a tensor of zeros."""
_FILTERS = {1: "gzip", 2: "shuffle", 3: "fletcher32", 32000: "lzf"}
"""Those that h5py has built in; others would be loaded from the machine's plugins."""
_COMPRESSING = {1, 32000}
_MALFORMED = (ArithmeticError, AttributeError, LookupError, OSError, RuntimeError, TypeError, ValueError)
"""What h5py raises for a file that is damaged."""
_BY_NUMBER = (
    "The optimizer's values are there by number, not by name, so no training can continue from them: the checkpoint "
    "counts as weights only."
)
_DEEPEST = 64
_IN_H5 = re.compile(r"([^/]+/)*vars/[0-9]+")
_OPAQUE_BFLOAT16 = np.dtype("V2")
"""What HDF5 makes of bfloat16, which it has no name for; of what Keras saves nothing else is of two opaque bytes."""
_NUMBERS = "iufc"
"""Kinds of dtypes, as NumPy calls them; of each there are some that no tensor file has."""
_OPTIMIZERS = ("optimizer/", "optimizer_weights/")


@contextmanager
def read_h5(path: Path, name: str) -> Iterator[Found]:
    """Read a `.weights.h5` or `.h5` file; its tensors can be had for as long as the block lasts.

    Raises:
        ForeignFileError: it is no HDF5 file, or not one that can be read safely.
        ConfigError: h5py is not installed.
    """
    with _opened(path, str(path)) as file:
        yield _found(file, str(path), "a Keras weights file", name)


@contextmanager
def read_keras(path: Path, name: str) -> Iterator[Found]:
    """Read the weights of a `.keras` file; raises as `read_h5`. Cost: a temporary file as large as the weights."""
    with tempfile.TemporaryDirectory(prefix="keepbest-") as folder:
        unpacked = Path(folder, WEIGHTS)
        version = _unpack(path, unpacked)
        with _opened(unpacked, str(path)) as file:
            yield _found(file, str(path), f"a Keras {version} model".replace("  ", " "), name)


def _unpack(path: Path, target: Path) -> str:
    """Unpack the weights, and return the version of Keras that wrote them, or an empty text."""
    try:
        with zipfile.ZipFile(path) as archive:
            members = {member.filename: member for member in archive.infolist()}
            if WEIGHTS not in members:
                raise ForeignFileError(str(path), f"it has no {WEIGHTS}, so it is no Keras 3 model.")
            if any(member.compress_type not in _UNZIPPED for member in members.values()):
                raise ForeignFileError(str(path), "it is compressed in a way that no .keras file is.")
            weights = members[WEIGHTS]
            stored = min(weights.compress_size, path.stat().st_size)  # the archive itself says the first
            check_size(str(path), WEIGHTS, weights.file_size, stored, times=_ZIPPED_TIMES)
            with archive.open(weights) as source, target.open("wb") as file:
                shutil.copyfileobj(source, file, 1 << 20)  # zipfile ends at the size that was checked
            about = members.get(_METADATA)
            if about is None or about.file_size > _LARGEST_METADATA:
                return ""
            return _version(archive.read(about))
    except _MALFORMED_ZIP as error:
        if isinstance(error, OSError) and error.errno != errno.EINVAL:
            raise  # the disk's, such as a full one
        raise ForeignFileError(str(path), f"it is no whole zip file, as .keras files are ({error!s:.200}).") from error


def _version(metadata: bytes) -> str:
    try:
        version = json.loads(metadata)["keras_version"]
    except (ValueError, LookupError, TypeError, RecursionError):
        return ""
    return printable(version)[:20] if isinstance(version, str) else ""


@contextmanager
def _opened(path: Path, location: str) -> Iterator[h5py.File]:
    try:
        import h5py  # noqa: PLC0415 - only for these formats
    except ModuleNotFoundError as error:
        raise ConfigError("reading .h5 and .keras files needs h5py. Install it with: pip install h5py") from error
    try:
        file = h5py.File(path, "r")
    except _MALFORMED as error:
        raise _damaged(location, error) from error
    with file:
        yield file


def _found(file: h5py.File, location: str, kind: str, name: str) -> Found:
    walk = _Walk(location)
    try:
        walk.group(file, "", depth=0)
    except KeepbestError:
        raise
    except _MALFORMED as error:
        raise _damaged(location, error) from error
    if not walk.model:
        raise ForeignFileError(location, "it holds no weights.")
    parts = {name: Part(role="weights", value=walk.model)}
    left_out = list(walk.left_out)
    if walk.optimizer:
        add_part(parts, "optimizer", Part(role="optimizer", value=walk.optimizer), location)
    by_number = any(_IN_H5.fullmatch(name) for name in walk.optimizer)
    if by_number:
        left_out.append(_BY_NUMBER)
    stored = Path(file.filename).stat().st_size
    return Found(
        location=location,
        format=kind,
        parts=parts,
        complete=bool(walk.optimizer) and not by_number,
        left_out=tuple(left_out),
        stored=stored,
        times=_FILTERED_TIMES if walk.filtered else 1,
    )


def _damaged(location: str, error: Exception) -> ForeignFileError:
    text = printable(" ".join(str(error).split()))[:200]
    return ForeignFileError(location, f"it is no whole HDF5 file ({type(error).__name__}: {text}).")


class _Walk:
    """Goes through a file once, and remembers its tensors."""

    def __init__(self, location: str) -> None:
        self.model: dict[str, Lazy] = {}
        self.optimizer: dict[str, Lazy] = {}
        self.filtered = False
        """Some are compressed."""
        self.left_out: list[str] = []
        self._location = location
        self._seen: set[Any] = set()

    def group(self, group: h5py.Group, path: str, *, depth: int, own: str = "") -> None:
        """Take all that is below a group; `own` is the path of the layer's group, whose weights have names."""
        import h5py  # noqa: PLC0415 - see _opened

        place = h5py.h5o.get_info(group.id).addr
        if depth > _DEEPEST or place in self._seen:
            raise ForeignFileError(self._location, "its groups are nested without end.")
        self._seen.add(place)
        if "weight_names" in group.attrs:
            own = path
        for key in group:
            inner = f"{path}{key}"
            check_name(self._location, inner)
            kind = group.get(key, getclass=True, getlink=True)
            if kind is not h5py.HardLink:
                raise ForeignFileError(
                    self._location, f"'{inner}' is a {kind.__name__}, which may lead to any file, and is not followed."
                )
            found = group[key]
            if isinstance(found, h5py.Group):
                self.group(found, f"{inner}/", depth=depth + 1, own=own)
            elif isinstance(found, h5py.Dataset):
                self._dataset(found, inner, own)

    def _dataset(self, dataset: h5py.Dataset, path: str, own: str) -> None:
        stored = _lazy(self._location, path, dataset)
        if stored is None:
            self.left_out.append(f"'{path}' holds no numbers and was left out.")
            return
        lazy, filtered = stored
        self.filtered |= filtered
        target = self.optimizer if path.startswith(_OPTIMIZERS) else self.model
        wanted = path.removeprefix(own) if own else path.removeprefix("model_weights/")
        key, number = wanted, 1
        while key in target:
            number += 1
            key = f"{wanted}~{number}"
        target[key] = lazy


def _lazy(location: str, path: str, dataset: h5py.Dataset) -> tuple[Lazy, bool] | None:
    """Return a dataset as a tensor, and whether it is compressed; None if it holds no numbers."""
    if dataset.external or dataset.is_virtual:
        raise ForeignFileError(location, f"the values of '{path}' are in another file, which is not read.")
    filtered = _filtered(location, path, dataset)
    if dataset.shape is None:
        return None
    bfloat16 = dataset.dtype == _OPAQUE_BFLOAT16
    if dataset.dtype.kind == "V" and not bfloat16:
        raise ForeignFileError(location, f"'{path}' is of a dtype that HDF5 has no name for ({dataset.dtype}).")
    kind = np.dtype(np.uint16) if bfloat16 else dataset.dtype.newbyteorder("=")
    dtype = "BF16" if bfloat16 else dtype_name(kind.name)
    if dtype is None and kind.kind in _NUMBERS:
        raise ForeignFileError(location, f"'{path}' is of dtype {kind}, which cannot be stored.")
    if dtype is None:
        return None
    shape = checked_shape(location, path, dataset.shape)
    size, stored = nbytes(shape, kind.itemsize), dataset.id.get_storage_size()
    check_size(location, f"'{path}'", size, stored, times=_FILTERED_TIMES if filtered else 1)
    chunk = math.prod(dataset.chunks or ()) * kind.itemsize
    if chunk > size:  # HDF5 unpacks whole chunks, however little of them is the tensor's
        check_size(location, f"a chunk of '{path}'", chunk, stored)

    def read(target: memoryview) -> None:
        array = np.frombuffer(target, dataset.dtype if bfloat16 else kind).reshape(shape)
        try:
            dataset.read_direct(array)
        except _MALFORMED as error:
            raise ForeignFileError(location, f"'{path}' cannot be read ({error!s:.200}).") from error

    return Lazy(tag="keras", source=Unread(dtype=dtype, shape=shape, read=read)), filtered


def _filtered(location: str, path: str, dataset: h5py.Dataset) -> bool:
    """Say whether a dataset is compressed, if it is in a way that its size bounds."""
    plist = dataset.id.get_create_plist()
    filters = [plist.get_filter(place)[0] for place in range(plist.get_nfilters())]
    if any(number not in _FILTERS for number in filters):
        raise ForeignFileError(location, f"'{path}' is compressed by a filter that h5py does not have built in.")
    if len(set(filters)) < len(filters) or set(filters) >= _COMPRESSING:
        raise ForeignFileError(location, f"'{path}' is compressed more than once.")
    return bool(filters)


def can_write(state: Any) -> bool:
    """Say whether an object's tensors came out of a `.weights.h5`, and can go back into one without the model."""
    return (
        isinstance(state, Mapping)
        and bool(state)
        and all(isinstance(name, str) and _IN_H5.fullmatch(name) for name in state)
        and all(isinstance(value, np.ndarray) for value in state.values())
    )


def write_h5(path: Path, arrays: Mapping[str, np.ndarray[Any, Any]]) -> None:
    """Write a `.weights.h5` with tensors at the places that are their names.

    Raises:
        ConfigError: h5py is not installed.
    """
    try:
        import h5py  # noqa: PLC0415 - see _opened
    except ModuleNotFoundError as error:
        raise ConfigError("writing .h5 files needs h5py. Install it with: pip install h5py") from error
    with h5py.File(path, "w") as file:
        for name, array in arrays.items():
            dataset = file.create_dataset(name, data=array)
            if array.dtype.name == "bfloat16":
                dataset.attrs["dtype"] = "bfloat16"  # as Keras does
