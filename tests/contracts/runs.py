"""Small runs for tests: checkpoints of one NumPy "model", written as training would write them."""

from __future__ import annotations

import uuid

import numpy as np

from keepbest.storage import statefile, tensorfile, typedjson
from keepbest.storage.arrays import dtype_name
from keepbest.storage.commit import BytesDraft, TensorDraft
from keepbest.storage.layout import STATE_FILE, checkpoint_name
from keepbest.storage.manifest import Manifest, Score
from keepbest.storage.run_writer import RunWriter
from keepbest.storage.statefile import ObjectRecord
from keepbest.storage.tensorfile import TensorSpec


def spec(name, array):
    """Return what a NumPy array is, as a tensor file says it."""
    return TensorSpec(name=name, dtype=dtype_name(array.dtype.name), shape=array.shape)


def staged(arrays):
    """Return the plan of a tensor file and its data, as staging would hold it."""
    plan = tensorfile.plan([spec(name, array) for name, array in arrays.items()], {"format": "pt"})
    data = bytearray(plan.data_bytes)
    for name, (begin, end) in plan.offsets.items():
        data[begin:end] = np.ascontiguousarray(arrays[name]).tobytes()
    return plan, memoryview(data)


def weights(number):
    """Return the arrays of checkpoint `number`: different in every one."""
    return {"layer.weight": np.full((4, 3), number, np.float32), "layer.bias": np.arange(3, dtype=np.int64) + number}


def record(name, state, *, inline=False, role="weights"):
    """Return the record of an object and the arrays of its file; equal arrays of one identity are tied."""
    arrays, ties = {}, {}

    def tensor(path, value):
        if not isinstance(value, np.ndarray):
            return None
        if inline:
            return "numpy", statefile.inline(spec("", value), value.tobytes(), None)
        stored = ties.setdefault(id(value), path[len(name) + 1 :] or "value")
        arrays[stored] = value
        return "numpy", statefile.reference(stored, None)

    encoded = typedjson.encode(state, name, tensor)
    return ObjectRecord(role=role, file=f"{name}.safetensors" if arrays else None, state=encoded), arrays


class SmallRun:
    """Writes a run of small checkpoints, and knows what each must read as."""

    def __init__(self, backend):
        self.backend = backend
        self.writer = RunWriter(backend)
        self.wrote = {}
        """Name → arrays."""

    def save(  # noqa: PLR0913 - a checkpoint has these facts
        self,
        loss=1.0,
        *,
        epoch=None,
        monitor="val_loss",
        mode="min",
        complete=True,
        arrays=None,
        objects=None,
        ranked=True,
    ):
        """Commit a checkpoint and return its record."""
        number = self.writer.next_sequence
        epoch = number - 1 if epoch is None else epoch
        write_id = uuid.uuid4().hex
        name = checkpoint_name(epoch=epoch, step=10 * number, write_id=write_id)
        arrays = weights(number) if arrays is None else arrays
        held = {"model": record("model", arrays)} if objects is None else objects
        drafts = []
        for key, (_, tensors) in held.items():
            if tensors:
                plan, data = staged(tensors)
                drafts.append(TensorDraft(file=f"{key}.safetensors", plan=plan, data=data))
        state = statefile.dump({key: entry for key, (entry, _) in held.items()}, {"number": number})
        artifacts = self.writer.write(name, [*drafts, BytesDraft(file=STATE_FILE, data=state)])
        manifest = Manifest(
            sequence=number,
            write_id=write_id,
            name=name,
            step=10 * number,
            epoch=epoch,
            parent=number - 1 or None,
            time=1.7e9 + number,
            reasons=("epoch",),
            complete=complete,
            metrics={monitor: loss},
            scores=(Score(monitor=monitor, mode=mode, value=loss if ranked else None),),
            artifacts=dict(artifacts),
            host="test",
            versions={"keepbest": "test"},
        )
        committed = self.writer.commit(manifest)
        self.wrote[name] = arrays
        return committed


def same(found, expected):
    """Say whether two dicts of arrays are equal bit for bit."""
    return found.keys() == expected.keys() and all(
        found[name].dtype == expected[name].dtype
        and found[name].shape == expected[name].shape
        and found[name].tobytes() == expected[name].tobytes()
        for name in expected
    )
