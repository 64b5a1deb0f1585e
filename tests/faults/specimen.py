"""Specimen: a small run that has everything a run can have, what must be read from it, and its bytes from behind."""

from __future__ import annotations

import time
import uuid
from pathlib import Path

import fsspec
import ml_dtypes
import numpy as np
from contracts.runs import record, staged

from keepbest.storage import statefile
from keepbest.storage.backend import open_backend
from keepbest.storage.commit import BytesDraft, LinkDraft, TensorDraft
from keepbest.storage.history import Row
from keepbest.storage.journal import Journal
from keepbest.storage.layout import BEST_HINT, STATE_FILE, checkpoint_name, data_key
from keepbest.storage.listing import read_listing, write_index
from keepbest.storage.manifest import Manifest, Score, seal
from keepbest.storage.run_writer import RunWriter
from keepbest.storage.typedjson import encode

MODEL = "model.safetensors"
OPTIMIZER = "optimizer.safetensors"


class MemoryPlace:
    """The objects below a `memory://` URL, without keepbest."""

    def __init__(self):
        self.url = f"memory://specimen-{uuid.uuid4().hex}"
        self._fs = fsspec.filesystem("memory")

    def files(self):
        return sorted(path.partition("/specimen-")[2].partition("/")[2] for path in self._fs.find(self.url))

    def read(self, key):
        return self._fs.cat_file(f"{self.url}/{key}")

    def write(self, key, data):
        self._fs.pipe_file(f"{self.url}/{key}", bytes(data))

    def delete(self, key):
        self._fs.rm_file(f"{self.url}/{key}")


class FolderPlace:
    """The files below a folder, without keepbest. They are written in place, so all links to a file change with it."""

    def __init__(self, folder):
        self.folder = Path(folder)
        self.url = str(folder)

    def files(self):
        return sorted(str(path.relative_to(self.folder)) for path in self.folder.rglob("*") if path.is_file())

    def read(self, key):
        return (self.folder / key).read_bytes()

    def write(self, key, data):
        (self.folder / key).write_bytes(data)

    def delete(self, key):
        (self.folder / key).unlink()

    def link(self, key, other):
        """Make `key` another name of a file."""
        (self.folder / key).hardlink_to(self.folder / other)


class Specimen:
    """Four checkpoints: complete, linked to the one before, weights only, complete; a journal; an index of three."""

    def __init__(self, place):
        self.place = place
        self.backend = open_backend(place.url)
        self.writer = RunWriter(self.backend)
        self.journal = Journal(self.backend)
        self.wrote = {}
        """Name of a checkpoint → object → state."""
        self.owners = {}
        """Key of a file → the checkpoints that it is a part of."""
        self._twins = {}
        """Key → another name of the same file."""
        first = self._save(_objects(1), complete=True)
        self._save(_objects(2) | {"model": _objects(1)["model"]}, complete=True, linked=first)
        self._save({"model": _objects(3)["model"]}, complete=False)
        write_index(self.backend, read_listing(self.backend))
        self._save(_objects(4), complete=True)
        self.journal.close()
        self.backend.settle()
        best = self.writer.checkpoints[1].name
        if self.backend.capabilities.links:
            self.backend.link(f"checkpoints/{best}", "best")
        else:
            self.backend.replace(BEST_HINT, seal(f'{{"name":"{best}","sequence":2}}'.encode()))
        self.names = list(self.wrote)
        self.files = {key: place.read(key) for key in place.files() if not key.startswith("best/")}

    def put_back(self, *keys):
        """Undo what was done to these files."""
        for key in keys:
            if key in self._twins and key not in self.place.files():
                self.place.link(key, self._twins[key])
            self.place.write(key, self.files[key])

    def hurt_by(self, key):
        """Return the checkpoints that need this file."""
        return self.owners.get(key, set())

    def _save(self, objects, *, complete, linked=None):
        number = self.writer.next_sequence
        write_id = uuid.uuid4().hex
        name = checkpoint_name(epoch=number - 1, step=10 * number, write_id=write_id)
        self.journal.append(
            Row(
                kind="epoch", epoch=number - 1, step=10 * number, time=time.time(), metrics={"val_loss": 2 - number / 4}
            )
        )
        drafts, records = [], {}
        for key, (entry, arrays) in ((key, _record(key, state)) for key, state in objects.items()):
            records[key] = entry
            if key == "model" and linked is not None:
                drafts.append(
                    LinkDraft(file=MODEL, source=data_key(linked.name, MODEL), artifact=linked.artifacts[MODEL])
                )
            elif arrays:
                plan, data = staged(arrays)
                drafts.append(TensorDraft(file=f"{key}.safetensors", plan=plan, data=data))
        mark = self.journal.mark
        training = {
            "position": {"next_epoch": number, "step": 10 * number, "steps_in_epoch": 0},
            "journal": {"branch": mark.branch, "rows": mark.rows},
            "monitors": [],
        }
        drafts.append(BytesDraft(file=STATE_FILE, data=statefile.dump(records, training)))
        manifest = Manifest(
            sequence=number,
            write_id=write_id,
            name=name,
            step=10 * number,
            epoch=number - 1,
            parent=number - 1 or None,
            time=1.7e9 + number,
            reasons=("epoch",),
            complete=complete,
            metrics={"val_loss": 2 - number / 4, "lr": 1e-3},
            scores=(Score(monitor="val_loss", mode="min", value=2 - number / 4),),
            artifacts=dict(self.writer.write(name, drafts)),
            host="specimen",
            versions={"keepbest": "test", "numpy": np.__version__},
        )
        self.writer.commit(manifest)
        self.wrote[name] = {key: encode(state, key, _plain) for key, state in objects.items()}
        commit = f"commits/{number:08d}.json"
        for key in (commit, *(data_key(name, file) for file in manifest.artifacts)):
            self.owners[key] = {name}
        if linked is not None and self.backend.capabilities.links:
            shared = {name, linked.name}
            ours, theirs = data_key(name, MODEL), data_key(linked.name, MODEL)
            self.owners[ours] = self.owners[theirs] = shared
            self._twins |= {ours: theirs, theirs: ours}
        return manifest


def plainly(state):
    """Return a loaded state so that equal means equal to the last bit."""
    return encode(state, "", _plain)


def _plain(_path, value):
    if not isinstance(value, np.ndarray):
        return None
    return "numpy", [value.dtype.name, list(value.shape), value.tobytes().hex()]


def _record(name, state):
    role = {"model": "weights", "optimizer": "optimizer"}.get(name, "state")
    return record(name, state, inline=role == "state", role=role)


def _objects(number):
    shared = np.arange(384, dtype=np.float32).reshape(16, 24) + number
    return {
        "model": {
            "embed.weight": shared,
            "head.weight": shared,  # tied
            "layer.bias": np.arange(3, dtype=np.float64) * number,
            "layer.half": np.array([number, -1], ml_dtypes.bfloat16),
            "steps": np.array(number, np.int64),
            "mask": np.array([True, False, True]),
            "empty": np.zeros((0, 4), np.float32),
        },
        "optimizer": {
            "state": {0: {"exp_avg": np.full((2, 3), number / 7, np.float32), "step": number}},
            "param_groups": [{"lr": 1e-3, "betas": (0.9, 0.999), "params": [0]}],
        },
        "scheduler": {
            "last": number,
            "nan": float("nan"),
            "seen": {1, 2, number},
            "words": np.arange(number, number + 4, dtype=np.uint32),
            "raw": b"\x00\xff" * number,
            "by number": {1: "one", (2, 3): None},
        },
    }
