"""Export: copy a checkpoint's files out of its run, as plain local files that owe keepbest nothing.

The order of effects (a crash between any two leaves complete files and `.tmp-…` ones, never a half-written one):

1. every file is copied under a temporary name beside its place, compared with its digest on the way, made durable;
2. when all are right, each is put in its place.

Copies are never links: whoever changes an exported file must not change the checkpoint.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from msgspec import Struct

from ..errors import (
    CheckpointNotFoundError,
    ConfigError,
    DamagedFileError,
    ObjectExistsError,
    ObjectNotFoundError,
)
from .backend import Backend, Buffer
from .digest import Check, altered, digest, is_signed
from .layout import STATE_FILE, TEMPORARY_PREFIX, TENSOR_SUFFIX, commit_key, data_key, data_prefix, is_signature
from .local import LocalBackend, local_path
from .manifest import Artifact, Manifest, unseal
from .printable import without_password
from .statefile import ObjectRecord

MANIFEST_FILE = "manifest.json"
"""What the copy of a checkpoint's manifest is called."""

_CHUNK = 8 << 20
_WRITTEN = (TENSOR_SUFFIX, STATE_FILE, ".keras", ".h5")
"""How names of files end that are copied to a folder. A stranger's may have others, that a shell or Python runs."""
_OTHER_FORMATS = frozenset(
    (".bin", ".ckpt", ".gguf", ".h5", ".json", ".keras", ".msgpack", ".npy", ".npz", ".onnx", ".pkl", ".pt", ".pth")
)

Objects = Callable[[], Mapping[str, ObjectRecord]]
"""Reads the state file, which only some exports need."""


class ExportedFile(Struct, frozen=True, kw_only=True):
    """One file that was copied."""

    path: str
    """Absolute."""
    nbytes: int
    digest: str


class PlannedFile(Struct, frozen=True, kw_only=True):
    """One file to be copied."""

    key: str
    path: Path
    artifact: Artifact | None
    """None: it is the manifest, which carries its own digest, or a signature."""


def plan(
    manifest: Manifest, read_objects: Objects, target: str, *, objects: Sequence[str] | None, with_records: bool
) -> tuple[PlannedFile, ...]:
    """Decide which files go where; see `Checkpoint.export` for the arguments.

    Raises:
        ConfigError: the target cannot hold what is asked for, or it is not clear which object is meant.
        CheckpointNotFoundError: the checkpoint holds no such object, or no tensor file.
    """
    path = _local_target(target)
    if _is_file(path, target):
        if with_records:
            raise ConfigError(
                f"the records go beside the tensor files, and {target} is one file. Give a folder to export them too."
            )
        file = _one_tensor_file(manifest, read_objects(), objects)
        return (PlannedFile(key=data_key(manifest.name, file), path=path, artifact=manifest.artifacts[file]),)
    files = _files(manifest, read_objects, objects, with_records=with_records)
    for file in files:
        if not file.endswith(_WRITTEN) or file.startswith("."):
            raise ConfigError(
                f"'{file}' of checkpoint {manifest.name} is no file that keepbest writes, so it is not copied. Name "
                "the objects to export, or give a name that ends in .safetensors."
            )
    planned = [
        PlannedFile(key=data_key(manifest.name, file), path=path / file, artifact=artifact)
        for file, artifact in files.items()
    ]
    if with_records:
        key = commit_key(manifest.sequence)
        planned.append(PlannedFile(key=key, path=path / MANIFEST_FILE, artifact=None))
    return tuple(planned)


def folder_of(target: str) -> Path:
    """Return the folder that files are put into; raises `ConfigError` for what is no local path."""
    path = _local_target(target)
    return path.parent if _is_file(path, target) else path


def _is_file(path: Path, target: str) -> bool:
    return path.suffix == TENSOR_SUFFIX and not target.endswith("/")


def plan_signatures(backend: Backend, name: str, target: str) -> tuple[PlannedFile, ...]:
    """Plan to copy the signatures of checkpoint `name` to a folder. Cost: one listing."""
    prefix, path = data_prefix(name), _local_target(target)
    files = [entry.key.removeprefix(prefix) for entry in backend.list(prefix)]
    return tuple(
        PlannedFile(key=prefix + file, path=path / file, artifact=None) for file in files if is_signature(file)
    )


def execute(backend: Backend, files: Sequence[PlannedFile], *, overwrite: bool) -> tuple[ExportedFile, ...]:
    """Copy the files of a plan.

    Raises:
        ObjectExistsError: a target exists and `overwrite` is False; nothing was copied.
        DamagedFileError, DamagedManifestError: a file is not what was written; none was put in its place.
        StorageError: the target cannot be written.
    """
    if not overwrite:
        for file in files:
            if os.path.lexists(file.path):
                raise ObjectExistsError(str(file.path))
    folder = files[0].path.parent
    new_folder = not folder.exists()
    local = LocalBackend(folder)
    staged: list[str] = []
    try:
        exported = [_stage(backend, local, file, staged) for file in files]
        for key, file in zip(staged, files, strict=True):
            if overwrite:
                local.publish(key, str(file.path))
            else:
                local.put_file(file.path.name, str(folder / key))
    except BaseException:
        local.delete(staged)
        if new_folder and folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()
        raise
    local.delete(staged)
    local.settle()
    return tuple(exported)


def _local_target(target: str) -> Path:
    scheme, found, _ = target.partition("://")
    if found and scheme not in {"file", "local"}:
        raise ConfigError(
            f"an export goes to local files, not to {scheme}:// ({without_password(target)}). Give a path."
        )
    path = local_path(target)
    if path.suffix.lower() in _OTHER_FORMATS and not target.endswith("/") and not path.is_dir():
        raise ConfigError(
            f"an export writes safetensors, and {target} ends in {path.suffix}. Give a name that ends in "
            f"{TENSOR_SUFFIX}, or a folder (with a / at its end)."
        )
    return path


def _one_tensor_file(manifest: Manifest, records: Mapping[str, ObjectRecord], objects: Sequence[str] | None) -> str:
    """Return the tensor file of the one object asked for, or of the one that holds weights."""
    files = {name: record.file for name, record in records.items() if record.file is not None}
    names = objects
    if names is None:
        names = [name for name in files if records[name].role == "weights"] or list(files)
    if len(names) != 1:
        what = (
            f"checkpoint {manifest.name} has {len(names)} that could be meant: {', '.join(names)}"
            if names
            else (f"checkpoint {manifest.name} has no tensor file")
        )
        raise ConfigError(f"one file takes the tensors of one object, and {what}. Name one, or give a folder.")
    return _tensor_file(manifest, records, names[0])


def _files(
    manifest: Manifest, read_objects: Objects, objects: Sequence[str] | None, *, with_records: bool
) -> dict[str, Artifact]:
    """Return the files that go to a folder."""
    artifacts = manifest.artifacts
    if objects is None:
        files = {file: held for file, held in artifacts.items() if with_records or held.tensors is not None}
    else:
        records = read_objects()
        wanted = {_tensor_file(manifest, records, name) for name in objects}
        taken = {record.file for record in records.values()}
        files = {
            file: held for file, held in artifacts.items() if file in wanted or (with_records and file not in taken)
        }
    if not files:
        raise CheckpointNotFoundError("*.safetensors", f"checkpoint {manifest.name}", list(artifacts), kind="file")
    return files


def _tensor_file(manifest: Manifest, records: Mapping[str, ObjectRecord], name: str) -> str:
    holders = [other for other, record in records.items() if record.file is not None]
    if name not in records:
        raise CheckpointNotFoundError(name, f"checkpoint {manifest.name}", holders, kind="object")
    file = records[name].file
    if file is None or file not in manifest.artifacts:
        raise ConfigError(
            f"'{name}' of checkpoint {manifest.name} has no tensor file; its state stands in state.json. "
            f"Tensor files: {', '.join(holders) or 'none'}."
        )
    return file


def _stage(backend: Backend, local: LocalBackend, file: PlannedFile, staged: list[str]) -> ExportedFile:
    key = TEMPORARY_PREFIX + uuid.uuid4().hex
    where = f"{backend.url}/{file.key}"
    if file.artifact is None:
        data = backend.read(file.key)
        if not is_signature(file.path.name):  # which nobody believes before it was verified
            unseal(data, where)
        nbytes, found = local.put(key, [data]), digest(data)
    else:
        nbytes, found = local.put(key, checked(backend, file.key, file.artifact, where)), file.artifact.digest
    staged.append(key)
    return ExportedFile(path=str(file.path), nbytes=nbytes, digest=found)


def checked(backend: Backend, key: str, artifact: Artifact, where: str) -> Iterator[Buffer]:
    """Yield the file; raise at its end, before it counts as written, if it was not the one the manifest names."""
    try:
        size = backend.head(key).size
    except ObjectNotFoundError as error:
        raise DamagedFileError(where, "it does not exist") from error
    if size != artifact.size:
        raise DamagedFileError(where, f"it has {size} bytes, not {artifact.size}")
    check, signed = Check(artifact.digest), is_signed(artifact.digest)
    for begin in range(0, size, _CHUNK):
        chunk: Buffer = backend.read_ranges(key, [(begin, min(begin + _CHUNK, size))])[0]
        if signed:
            chunk = bytes(chunk)  # it may be mapped: what is checked must be what is written
        check.update(chunk)
        yield chunk
    if not check.holds():
        raise altered(where, artifact.digest)
