"""Mutants: the protocol with one step broken on purpose, to see that the suite notices it.

Each is a small patch of our own source, applied while a check runs. A patch whose text is no longer in the source is an
error: the table keeps step with the code, or a test fails.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import inspect
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .workloads import WORKLOADS, said


@dataclass(frozen=True, slots=True)
class Patch:
    """A function of ours in which some text is replaced by another."""

    where: str
    """"storage.module:Class.function"."""
    old: str
    """Stands in it once."""
    new: str


@dataclass(frozen=True, slots=True)
class Mutant:
    """One step that is not done, or done wrong."""

    noticed_by: str
    """"power: <workload>", or the name of a check in `noticing.py`."""
    patches: tuple[Patch, ...]


def _one(noticed_by: str, where: str, old: str, new: str) -> Mutant:
    return Mutant(noticed_by, (Patch(where, old, new),))


_DELETE_COMMITS = (
    "    backend.delete([commit_key(checkpoint.sequence) for checkpoint in going])\n    backend.settle()\n"
)
_LAST_LINE = 'checkpoint.retired run=%s sequence=%d name=%s", backend.url, checkpoint.sequence, checkpoint.name)\n'
_LATE = "    from faults.noticing import Late"
_UNDER_ITS_OWN_NAME = """with open(path, 'xb') as file:
        file.write(data)
    self._changed(path)
    return self.settle()
    temporary = path"""
_NO_SECOND_LOOK = Patch("storage.gc:_collect", "_orphans_still(backend, old)", "old")

MUTANTS = {
    # ── what is durable, and when ─────────────────────────────────────────────────────────────────────────────────
    "files are not synced": _one("power: first save", "storage.unsynced:UnsyncedFiles.sync", "os.fsync(fd)", "pass"),
    "the folders of data are not synced": _one(
        "power: first save",
        "storage.local:LocalBackend.settle",
        "sync_folder(folder)",
        "'checkpoints' in folder or sync_folder(folder)",
    ),
    "the folder of commits is not synced": _one(
        "power: first save",
        "storage.local:LocalBackend.settle",
        "sync_folder(folder)",
        "folder.endswith('commits') or sync_folder(folder)",
    ),
    "the folders above a new one are not synced": _one(
        "power: first save", "storage.local:LocalBackend._make_folder", "self._unsettled |= parents", "pass"
    ),
    "the manifest is not synced before it has its name": _one(
        "power: first save", "storage.local:LocalBackend.put_if_absent", "os.fsync(fd)", "pass"
    ),
    "the manifest is written under its own name": _one(
        "power: first save",
        "storage.local:LocalBackend.put_if_absent",
        "temporary = temporary_beside(path)",
        _UNDER_ITS_OWN_NAME,
    ),
    "the commit does not wait for its data to be durable": _one(
        "power: first save", "storage.commit:commit", "(manifest)\n        backend.settle()\n", "(manifest)\n"
    ),
    "the journal is not synced with the commit": _one(
        "power: journal", "storage.local:LocalBackend.settle", "appender.sync()", "pass"
    ),
    "a torn line of the journal is gone on with": _one(
        "power: journal", "storage.journal:Journal.append", "_ends_torn(self._backend)", "False"
    ),
    "published by overwriting in place": _one(
        "power: published",
        "storage.local:LocalBackend._place",
        "rename(temporary, path)",
        "Path(path).write_bytes(Path(temporary).read_bytes()); os.unlink(temporary)",
    ),
    "the folders that a killed process made are not synced": _one(
        "power: killed before call 3 with 0",
        "storage.local:LocalBackend._make_folder",
        "parents.update(writable_above(missing))",
        "pass",
    ),
    "the mirror's folder of commits is not synced": _one(
        "power: mirror",
        "storage.local:LocalBackend.settle",
        "sync_folder(folder)",
        "folder.endswith('mirror/commits') or sync_folder(folder)",
    ),
    # ── what goes, and when ───────────────────────────────────────────────────────────────────────────────────────
    "older ones are retired before the new commit": _one(
        "power: files linked",
        "core.saver:Saver._commit",
        "self.run.commit(manifest)",
        "self.run.retire([found.sequence for found in self.run.checkpoints]); self.run.commit(manifest)",
    ),
    "files are recycled before the deletion of their commit is durable": _one(
        "power: files written over", "storage.commit:retire", "    backend.settle()\n", ""
    ),
    "a file with another name is recycled": Mutant(
        "power: published",
        (
            Patch("storage.spare_files:_size_if_alone", " or found.st_nlink != 1", ""),
            Patch("storage.spare_files:SpareFiles.hand_out", ".st_nlink != 1", ".st_nlink < 1"),
        ),
    ),
    "a file that somebody reads is recycled": Mutant(
        "a reader",
        (
            Patch("storage.spare_files:_size_if_alone", "fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_WRLCK)", "pass"),
            Patch("storage.spare_files:_size_if_alone", "fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_UNLCK)", "pass"),
        ),
    ),
    "what changed is taken for what is in place": Mutant(
        "power: files written over",
        (
            Patch("storage.tensorstream:TensorStream._place", "if there == mine", "if True"),
            Patch("storage.tensorfile:_stream", "if old[name].digest != new[name].digest", "if False"),
        ),
    ),
    "data is deleted before its commit": Mutant(
        "kill",
        (
            Patch("storage.commit:retire", _DELETE_COMMITS, ""),
            Patch("storage.commit:retire", _LAST_LINE, _LAST_LINE + _DELETE_COMMITS),
        ),
    ),
    "the commit comes before the data": Mutant(
        "kill",
        (
            Patch("storage.commit:write", "    outcomes: ", f"{_LATE}\n    backend = Late(backend)\n    outcomes: "),
            Patch("storage.commit:commit", "    _log.info", f"{_LATE}\n    Late.flush()\n    _log.info"),
        ),
    ),
    "gc deletes what a commit names": Mutant(
        "kill", (Patch("storage.gc:_collect", "name not in named", "name"), _NO_SECOND_LOOK)
    ),
    # ── who else is there ─────────────────────────────────────────────────────────────────────────────────────────
    "the commit overwrites": _one("two writers", "storage.commit:commit", ".put_if_absent(", ".replace("),
    "another's commit is taken for ours": _one(
        "two writers", "storage.commit:_accept_if_ours", "found.write_id != manifest.write_id", "False"
    ),
    "our commit is taken for another's": _one(
        "a lost reply", "storage.commit:_accept_if_ours", "found.write_id != manifest.write_id", "True"
    ),
    "data is deleted while nobody knows whether it is committed": _one(
        "no reply",
        "storage.commit:_accept_if_ours",
        "    except KeepbestError:\n",
        "    except KeepbestError:\n        discard(backend, manifest.name, manifest.artifacts)\n",
    ),
    "gc has no grace": _one("gc during a save", "storage.gc:_collect", "if orphan.age >= grace", "if True"),
    "gc lists the commits before the data": Mutant(
        "gc during a save",
        (
            Patch("storage.gc:_collect", "    listing = read_listing(backend)", "    listing = first"),
            Patch("storage.gc:_collect", "    entries = ", "    first = read_listing(backend)\n    entries = "),
            _NO_SECOND_LOOK,
        ),
    ),
    # ── what disks and networks do ────────────────────────────────────────────────────────────────────────────────
    "a short direct write is taken for a whole one": _one(
        "short writes", "storage.direct:_write_at", "data, offset = data[written:], offset + written", "return"
    ),
    "a short write is taken for a whole one": _one(
        "short writes", "storage.direct:write_all", "while rest:", "if rest:"
    ),
    "an upload is completed though a part failed": _one(
        "a part that fails",
        "storage.transfer:_Sending.tags",
        "for future in self._futures",
        "for future in self._futures if future.exception() is None and future.result()",
    ),
    "tensors are not compared with their digests": _one(
        "damage", "storage.tensorfile:_checked", "not matches(view, record.digest)", "False"
    ),
    "the state file is not compared with its digest": _one(
        "damage", "storage.checkpoint:Checkpoint.read_file", "not matches(data, artifact.digest)", "False"
    ),
    "manifests are not compared with their digests": _one(
        "damage", "storage.manifest:unseal", "if digest(body).encode() != ", "if None is "
    ),
    "verify does not compare sizes": _one("damage", "storage.verify:_faults", "if size != artifact.size:", "if False:"),
}


@contextlib.contextmanager
def applied(mutant: Mutant | None) -> Iterator[None]:
    """Have the code be the mutated one for the block."""
    undo: list[tuple[object, str, object]] = []
    try:
        for patch in mutant.patches if mutant is not None else ():
            owner, name = _find(patch.where)
            before = getattr(owner, name)
            after = _mutated(before, patch)
            for holder in _holders(owner, name, before):
                undo.append((holder, name, before))
                setattr(holder, name, after)
        yield
    finally:
        for holder, name, before in reversed(undo):
            setattr(holder, name, before)


def _find(where: str) -> tuple[object, str]:
    module, _, path = where.partition(":")
    *inside, name = path.split(".")
    return functools.reduce(getattr, inside, importlib.import_module(f"keepbest.{module}")), name


def _holders(owner: object, name: str, function: object) -> list[object]:
    """Return who has the function: its owner, and modules that imported it by name."""
    modules = [module for key, module in sys.modules.items() if key.startswith("keepbest.")]
    return [owner, *(one for one in modules if one is not owner and vars(one).get(name) is function)]


def _mutated(function: Any, patch: Patch) -> Any:
    source = getattr(function, "source", None) or textwrap.dedent(inspect.getsource(function))
    if source.count(patch.old) != 1:
        raise LookupError(f"{patch.where} has {source.count(patch.old)} times: {patch.old!r}")
    changed = source.replace(patch.old, patch.new)
    made: dict[str, Any] = {}
    code = compile("from __future__ import annotations\n" + changed, f"<{patch.where}, mutated>", "exec")
    exec(code, inspect.unwrap(function).__globals__, made)
    result = made[function.__name__]
    result.source = changed
    return result


def main(args: list[str]) -> None:
    """Do the workload of each of these mutants, or one that is not mutated, each in its folder."""
    root = Path(args[0])
    with said(root) as say:
        for name in args[1:]:
            mutant = MUTANTS.get(name)
            workload = WORKLOADS[name if mutant is None else mutant.noticed_by.removeprefix("power: ")]
            with applied(mutant):
                workload.perform(root / name, functools.partial(say, name))
